"""Which of a run's detectors is used: that of a named round, or of the round with the best validation AP."""

from dataclasses import dataclass

from upath import UPath

from actors.checkpoint import Checkpoint, read_checkpoint
from actors.counted import counted
from actors.storage import read_record
from loop.config import LoopConfig
from loop.report.summary import RoundSummary, points
from loop.state import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The detectors of a round of a run."""

    run: RunFolder
    config: LoopConfig
    round: int  # 0 before the first round has finished; then there is a control alone
    why: str  # the round, in words
    loop: tuple[Checkpoint, ...]  # one for each training seed
    control: tuple[Checkpoint, ...]  # likewise
    is_control: bool  # the loop's detectors are copies of the controls: a guard kept these, or the pool was too small

    def classes(self) -> tuple[str, ...]:
        """The classes that the detectors detect."""
        return read_checkpoint(self.control[0])[0].classes

    def one(self, *, control: bool) -> tuple[Checkpoint, str]:
        """The detector of the run's own seed, and its name in messages.

        Raises ValueError if the loop has none yet.
        """
        if control:
            return self.control[0], f"control of {self.why}"
        if not self.loop:
            raise ValueError(f"{self.run.path}: no round has finished; only the control can be used (--control)")
        kept = "control, kept by " if self.is_control else "detector of "
        return self.loop[0], kept + self.why


def choose(folder: UPath, number: int | None = None) -> Chosen:
    """The detectors of round ``number`` of the run in ``folder``; by default, of that with the best validation AP.

    Raises ValueError if there is no such run or round, FileNotFoundError if the detectors are gone.
    """
    run = RunFolder(folder)
    config, finished = run.config(), run.num_finished()
    if number is not None and not 1 <= number <= finished:
        raise ValueError(f"{folder} has no finished round {number}; {counted(finished, 'is', 'are')} finished")
    rounds = {one: read_record(run.round(one) / "round.json", RoundSummary) for one in range(1, finished + 1)}
    aps = {one: row.ap for one, row in rounds.items()}
    used = number or max(aps, key=lambda one: aps[one], default=0)
    loop, control = run.detectors(used)
    row = rounds.get(used)
    kept = row is not None and (bool(row.not_trained) or row.keeps_control)
    return Chosen(run=run, config=config, round=used, why=_why(used, aps), loop=loop, control=control, is_control=kept)


def _why(used: int, aps: dict[int, float]) -> str:
    if not used:
        return "round 0"
    best = f", the best of {len(aps)}" if len(aps) > 1 and aps[used] == max(aps.values()) else ""
    return f"round {used} (AP {points(aps[used])} on the validation images{best})"
