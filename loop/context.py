"""The context of a round and its result."""

from dataclasses import dataclass

from loop.arms import Arm, Trainings
from loop.config import LoopConfig
from loop.data.importing import Dataset
from loop.guard.apply import Guarded
from loop.progress import Reporter
from loop.state import Mined, Pooled, RunFolder, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """The parts of a run that are the same in every round."""

    config: LoopConfig
    data: Dataset
    folder: RunFolder
    trainings: Trainings
    reporter: Reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """A finished round: the state for the next one, and the records that its report needs."""

    state: State
    mined: Mined
    pooled: Pooled
    # The round's detectors, one for each training seed: the loop's own ones, or those that the guard chose; the
    # controls, if none was trained.
    arms: tuple[Arm, ...]
    controls: tuple[Arm, ...]  # likewise
    not_trained: str = ""  # why no detector was trained; empty if they were
    guard: Guarded | None = None  # its choice, if there is a guard and detectors were trained

    @property
    def own(self) -> tuple[Arm, ...]:
        """The detectors that the round trained, whether or not a guard chose them."""
        return self.guard.own if self.guard else self.arms
