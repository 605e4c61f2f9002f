"""The results of a run: one record per round, as a table for people and as ``summary.json`` for programs.

AP and gains are fractions in [0, 1] wherever they are stored, and points (x100) wherever they are shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any

from actors.records import Sample
from loop.arms import Arm
from loop.context import RoundResult
from loop.evaluation.counts import count_drawn, count_dropped
from loop.evaluation.measure import Measured

TABLE_WIDTH = 104  # characters, so that logs do not wrap the table


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSummary:
    """The results of one round. The fields are the keys of ``summary.json``."""

    round: int  # from 1
    ap: float  # of the loop's detector on the real validation images
    control_ap: float  # of the control: real images alone, the same number of optimiser steps
    gain: float  # ap - control_ap
    gain_ci95: tuple[float, float]  # 95 % bootstrap interval over the validation images
    mined: int  # instances on which the budget was spent
    candidates: int
    kept: int  # candidates in the pool
    dropped: Mapping[str, int]  # the other candidates, by "filter: reason"
    dropped_boxes: Mapping[str, int]  # boxes rejected in candidates, kept or not, by "filter: reason"
    restored_boxes: int  # rejected boxes that were replaced by real pixels in kept candidates
    seconds: Mapping[str, float]  # by stage; generate, inspect, judge and keep run at the same time
    wall_s: float  # from the start of mining to the end of evaluation
    engine_s: float  # of the wall time: starting actors and workers, moving rows
    asked: int  # mined instances requested, over all candidates
    drawn: int  # requested instances that were drawn, see ``count_drawn``

    def metrics(self) -> dict[str, float]:
        """The results by their names in MLflow."""
        return {
            "gain": self.gain,
            "gain_low": self.gain_ci95[0],
            "gain_high": self.gain_ci95[1],
            "control_AP": self.control_ap,
            "mined": self.mined,
            "candidates": self.candidates,
            "kept": self.kept,
            "asked": self.asked,
            "drawn": self.drawn,
            **{f"dropped/{reason.replace(': ', '/')}": count for reason, count in self.dropped.items()},
            **{f"dropped_boxes/{reason.replace(': ', '/')}": count for reason, count in self.dropped_boxes.items()},
            "restored_boxes": self.restored_boxes,
            **{f"seconds/{stage}": seconds for stage, seconds in self.seconds.items()},
            "seconds/engine": self.engine_s,
            "seconds/wall": self.wall_s,
        }


def summarise(result: RoundResult, measured: Measured, samples: Sequence[Sample]) -> RoundSummary:
    """The results of a round; ``samples`` are all that it judged."""
    requested, drawn = count_drawn(samples)
    dropped, dropped_boxes = count_dropped(samples)
    mined, pooled, arm = result.mined.cost, result.pooled.cost, result.arm
    return RoundSummary(
        round=result.state.round,
        ap=measured.loop.metrics["AP"],
        control_ap=measured.control.metrics["AP"],
        gain=measured.gain.value,
        gain_ci95=(measured.gain.low, measured.gain.high),
        mined=len(result.mined.instances),
        candidates=len(result.pooled.kept) + len(result.pooled.dropped),
        kept=len(result.pooled.kept),
        dropped=dropped,
        dropped_boxes=dropped_boxes,
        restored_boxes=sum(int(sample.restored.sum()) for sample in samples),
        seconds={"mine": mined.seconds["inspect"], **pooled.seconds, **arm_seconds(arm)},
        wall_s=mined.wall_s + pooled.wall_s + arm.trained.launch_s + arm.trained.training_s + arm.evaluated.wall_s,
        engine_s=mined.engine_s + pooled.engine_s + arm.trained.launch_s + arm.evaluated.engine_s,
        asked=requested,
        drawn=drawn,
    )


def arm_seconds(arm: Arm) -> dict[str, float]:
    """The seconds of an arm's stages."""
    return {"train": arm.trained.training_s, "evaluate": arm.evaluated.seconds["inspect"]}


def round_metrics(result: RoundResult, measured: Measured, row: RoundSummary) -> dict[str, float]:
    """A round's metrics by their names in MLflow."""
    shares, mined, generator = result.mined.shares, result.mined.cost, result.state.generator
    figures = {**measured.loop.metrics, **{f"control_{key}": value for key, value in measured.control.metrics.items()}}
    for share in shares:
        figures |= {f"mined/{share.name}/easy": share.num_easy, f"mined/{share.name}/hard": share.num_hard}
    figures |= row.metrics()
    figures["realised_p"] = result.arm.trained.realised_p
    figures["images_per_s/train"] = result.arm.trained.images_per_s
    figures["easy_share"] = sum(share.num_easy for share in shares) / max(len(result.mined.found), 1)
    if mined.num_items:  # zero with cross-fitting, where the folds' detections exist already
        figures["images_per_s/mine"] = mined.num_items / max(mined.seconds["inspect"], 1e-9)
    if generator:
        figures["fit/boxes_cut"] = generator.boxes_cut
    return figures | dict(measured.drawn)


def summary(rounds: Sequence[RoundSummary], *, name: str, fingerprint: str, seed: int, steps: int) -> dict[str, Any]:
    """The content of ``summary.json``; ``steps`` are the optimiser steps of each arm in a round."""
    plain = [{**asdict(one), "gain_ci95": list(one.gain_ci95)} for one in rounds]
    return {"name": name, "fingerprint": fingerprint, "seed": seed, "steps": steps, "rounds": plain}


def points(fraction: float, *, sign: bool = False) -> str:
    """An AP or a gain in points, with one decimal."""
    text = f"{100 * fraction:+.1f}" if sign else f"{100 * fraction:.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "\N{MINUS SIGN}")


def interval(one: RoundSummary) -> str:
    """The gain's 95 % interval in points."""
    low, high = one.gain_ci95
    return f"[{points(low, sign=True)}, {points(high, sign=True)}]"


def duration(seconds: float) -> str:
    """Seconds with a thousands separator."""
    return f"{seconds:,.0f}"


def conclusion(rounds: Sequence[RoundSummary]) -> str:
    """The verdict on the last round's gain, in one sentence."""
    last = rounds[-1]
    low, high = last.gain_ci95
    if low > 0:
        verdict = "a gain: the interval lies above zero."
    elif high < 0:
        verdict = "a loss: the interval lies below zero."
    else:
        verdict = "not a clear difference: the interval includes zero."
    gain = f"{points(last.gain, sign=True)} points AP against the control, 95 % interval {interval(last)}"
    return f"After round {last.round}: {gain}; {verdict}"


def rounds_table(rounds: Sequence[RoundSummary]) -> str:
    """The table for the terminal, a row per round, with the conclusion below it. AP in points (x100)."""
    if not rounds:
        return "no rounds: the control alone"
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("round", "AP", "control AP", "gain [95 %]", "mined", "kept/candidates", "seconds", "of it engine"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in rounds:
        table.add_row(*cells(one))
    console = Console(file=StringIO(), width=TABLE_WIDTH, no_color=True, highlight=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(table)
    note = "AP in points (x100) on the real validation images; control: real images alone, same steps."
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join([*filter(None, lines), "", note, conclusion(rounds)])


def cells(one: RoundSummary) -> tuple[str, ...]:
    """The cells of a round's row in the table."""
    return (
        str(one.round),
        points(one.ap),
        points(one.control_ap),
        f"{points(one.gain, sign=True)} {interval(one)}",
        str(one.mined),
        f"{one.kept}/{one.candidates}",
        duration(one.wall_s),
        duration(one.engine_s),
    )
