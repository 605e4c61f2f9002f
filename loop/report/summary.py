"""The results of a run: one record per round, as a table for people and as ``summary.json`` for programs.

AP and gains are fractions in [0, 1] wherever they are stored, and points (x100) wherever they are shown.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.counted import counted
from actors.plain import to_plain
from actors.records import Sample
from actors.refiners.applied import MIN_SEEN_SCORE
from actors.refiners.base import RefinerBase
from loop.arms import Arm
from loop.context import RoundResult
from loop.evaluation.counts import count_clean, count_drawn, count_dropped, count_refined
from loop.evaluation.measure import Measured
from loop.guard.choice import CONTROL, name_of
from loop.report.budget import Spent, budget_metrics, spent
from loop.report.guard import GuardSummary, guard_summary

NO_ROUNDS = "no rounds: the control alone"
KEPT = "the guard kept the control, so there is neither gain nor loss."
VERDICTS = {
    1: "a gain: the interval lies above zero.",
    0: "undecided: the interval includes zero.",
    -1: "a loss: the interval lies below zero.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSummary:
    """The results of one round. The fields are the keys of ``summary.json``."""

    round: int  # from 1
    ap: float  # of the loop's detector on the real validation images, mean over the training seeds
    control_ap: float  # of the control: real images alone, the same number of optimiser steps
    gain: float  # ap - control_ap
    gain_ci95: tuple[float, float]  # 95 % interval: choice of validation images, and of training seeds
    seeds: int  # trainings of each arm
    training_sd: float  # estimated standard deviation of AP from training seed to training seed
    ap_by_seed: tuple[float, ...]
    control_ap_by_seed: tuple[float, ...]
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
    not_trained: str = ""  # why no detector was trained, so that ``ap`` is the control's; empty if one was
    refined: dict[str, float] | None = field(default=None, metadata={"omit_default": True})  # see ``count_refined``
    clean: dict[str, int] | None = field(default=None, metadata={"omit_default": True})  # see ``count_clean``
    guard: GuardSummary | None = field(default=None, metadata={"omit_default": True})  # if there is one
    budget: tuple[Spent, ...] = field(default=(), metadata={"omit_default": True})  # if it was spread by utility

    @property
    def verdict(self) -> int:
        """1: a gain, -1: a loss, 0: undecided, by the side of zero on which the interval lies."""
        low, high = self.gain_ci95
        return int(low > 0) - int(high < 0)

    @property
    def keeps_control(self) -> bool:
        """Whether the guard chose the control."""
        return self.guard is not None and self.guard.chosen == name_of(CONTROL)

    def metrics(self) -> dict[str, float]:
        """The results by their names in MLflow."""
        low, high = self.gain_ci95
        gain = {"gain": self.gain, "gain_low": low, "gain_high": high, "verdict": self.verdict}
        return {
            **({} if self.not_trained else gain),
            "trained": float(not self.not_trained),
            "control_AP": self.control_ap,
            "seeds": self.seeds,
            "training_sd": self.training_sd,
            "mined": self.mined,
            "candidates": self.candidates,
            "kept": self.kept,
            "asked": self.asked,
            "drawn": self.drawn,
            **{f"dropped/{reason.replace(': ', '/')}": count for reason, count in self.dropped.items()},
            **{f"dropped_boxes/{reason.replace(': ', '/')}": count for reason, count in self.dropped_boxes.items()},
            "restored_boxes": self.restored_boxes,
            **budget_metrics(self.budget),
            **(self.guard.metrics() if self.guard else {}),
            **{f"refined/{key}": value for key, value in (self.refined or {}).items()},
            **{f"clean/{key}": value for key, value in (self.clean or {}).items()},
            **{f"seconds/{stage}": seconds for stage, seconds in self.seconds.items()},
            "seconds/engine": self.engine_s,
            "seconds/wall": self.wall_s,
        }


def summarise(
    result: RoundResult,
    measured: Measured,
    samples: Sequence[Sample],
    refiner: RefinerBase,
    clean: Collection[str] = (),
) -> RoundSummary:
    """The results of a round; ``samples`` are all that it judged, ``refiner`` is the config of the run's refiner.

    ``clean`` are the ids of the run's images without objects.
    """
    requested, drawn = count_drawn(samples)
    dropped, dropped_boxes = count_dropped(samples)
    mined, pooled = result.mined.cost, result.pooled.cost
    arms = (*result.own, *result.arms) if result.guard else result.arms  # what the guard chose was trained in no time
    guarding = [result.guard.decision.cost] if result.guard else []
    costs = [mined, pooled, *(arm.evaluated for arm in arms), *guarding]
    launch_s = sum(arm.trained.launch_s for arm in arms)
    return RoundSummary(
        round=result.state.round,
        ap=measured.loop.metrics["AP"],
        control_ap=measured.control.metrics["AP"],
        gain=measured.gain.value,
        gain_ci95=(measured.gain.low, measured.gain.high),
        seeds=len(result.arms),
        training_sd=measured.gain.training_sd,
        ap_by_seed=tuple(one.metrics["AP"] for one in measured.loop.each),
        control_ap_by_seed=tuple(one.metrics["AP"] for one in measured.control.each),
        mined=len(result.mined.instances),
        candidates=len(result.pooled.kept) + len(result.pooled.dropped),
        kept=len(result.pooled.kept),
        dropped=dropped,
        dropped_boxes=dropped_boxes,
        restored_boxes=sum(int(sample.restored.sum()) for sample in samples),
        seconds={
            "mine": mined.seconds["inspect"],
            **pooled.seconds,
            **arm_seconds(arms),
            **{stage: seconds for cost in guarding for stage, seconds in cost.seconds.items()},
        },
        wall_s=sum(cost.wall_s for cost in costs) + launch_s + sum(arm.trained.training_s for arm in arms),
        engine_s=sum(cost.engine_s for cost in costs) + launch_s,
        asked=requested,
        drawn=drawn,
        not_trained=result.not_trained,
        refined=count_refined(samples, refiner.min_confidence),
        budget=spent(result.mined, samples),
        clean=count_clean(samples, clean, result.own[0].trained, result.controls[0].trained),
        guard=guard_summary(result, measured),
    )


def clean_told(clean: Mapping[str, int] | None) -> str:
    """The numbers of ``RoundSummary.clean`` in words."""
    if not clean:
        return "none"
    candidates = counted(f"{clean['candidates']:,}", "candidate")
    shown, control = (counted(f"{clean[key]:,}", "time") for key in ("shown", "control_shown"))
    return f"{candidates} drawn into them, {clean['kept']:,} kept; shown {shown} to the loop, {control} to the control"


def arm_seconds(arms: Sequence[Arm]) -> dict[str, float]:
    """The seconds of the stages of an arm, over all its trainings."""
    return {
        "train": sum(arm.trained.training_s for arm in arms),
        "evaluate": sum(arm.evaluated.seconds["inspect"] for arm in arms),
    }


def round_metrics(result: RoundResult, measured: Measured, row: RoundSummary) -> dict[str, float]:
    """A round's metrics by their names in MLflow."""
    shares, mined, generator = result.mined.shares, result.mined.cost, result.state.generator
    figures = {**measured.loop.metrics, **{f"control_{key}": value for key, value in measured.control.metrics.items()}}
    for share in shares:
        figures |= {f"mined/{share.name}/easy": share.num_easy, f"mined/{share.name}/hard": share.num_hard}
    figures |= row.metrics()
    figures["realised_p"] = result.own[0].trained.realised_p
    figures["images_per_s/train"] = result.own[0].trained.images_per_s
    figures["easy_share"] = sum(share.num_easy for share in shares) / max(len(result.mined.found), 1)
    if mined.num_items:  # zero with cross-fitting, where the folds' detections exist already
        figures["images_per_s/mine"] = mined.num_items / max(mined.seconds["inspect"], 1e-9)
    if generator:
        figures["fit/boxes_cut"] = generator.boxes_cut
    return figures | dict(measured.drawn)


def summary(rounds: Sequence[RoundSummary], *, name: str, fingerprint: str, seed: int, steps: int) -> dict[str, Any]:
    """The content of ``summary.json``; ``steps`` are the optimiser steps of each arm in a round.

    A round that was not trained has no gain: its ``gain`` and ``gain_ci95`` are None.
    """
    verdict = conclusion(rounds) if rounds else NO_ROUNDS
    no_gain = {"gain": None, "gain_ci95": None}
    plain = [to_plain(one) | (no_gain if one.not_trained else {}) for one in rounds]
    return {
        "name": name,
        "fingerprint": fingerprint,
        "seed": seed,
        "steps": steps,
        "conclusion": verdict,
        "rounds": plain,
    }


def points(fraction: float, *, sign: bool = False) -> str:
    """An AP or a gain in points, with one decimal."""
    text = f"{100 * fraction:+.1f}" if sign else f"{100 * fraction:.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "\N{MINUS SIGN}")


def interval(ci95: tuple[float, float]) -> str:
    """An interval in points."""
    low, high = ci95
    return f"[{points(low, sign=True)}, {points(high, sign=True)}]"


def duration(seconds: float) -> str:
    """Seconds with a thousands separator."""
    return f"{seconds:,.0f}"


def fates_told(refined: Mapping[str, float] | None) -> str:
    """The numbers of ``RoundSummary.refined`` in words."""
    if not refined:
        return "none"
    fates = ", ".join(f"{refined[fate]:.0f} {fate}" for fate in ("moved", "kept", "ignored"))
    by_key = {"min_confidence": refined["unsure"], "min_agreement": refined["ignored"] - refined["unsure"]}
    reasons = [f"{number:.0f} by refiner.{key}" for key, number in by_key.items() if number]
    return f"{fates} ({', '.join(reasons)})" if reasons else fates


def agreement_told(refined: Mapping[str, float] | None) -> str:
    """How far the drawn and the refined boxes of ``RoundSummary.refined`` agree with the detections, in words."""
    if not refined:
        return ""
    before, after = refined["seen_before"], refined["seen_after"]
    if not before and not after:
        return f"no detection of their class with a score of {MIN_SEEN_SCORE} or more overlaps them"
    return f"mean IoU with the detections {before:.2f} as drawn, {after:.2f} as refined"


def conclusion(rounds: Sequence[RoundSummary]) -> str:
    """The verdict on the last trained round's gain, what its interval covers, and the rounds that were not trained."""
    sentences = []
    if trained := [one for one in rounds if not one.not_trained]:
        last = trained[-1]
        gain = f"{points(last.gain, sign=True)} points AP against the control, 95 % interval {interval(last.gain_ci95)}"
        told = f"{gain}; {VERDICTS[last.verdict]} {_covered(last)}"
        sentences.append(f"After round {last.round}: {KEPT if last.keeps_control else told}")
    return " ".join([*sentences, *_untrained(rounds)])


def _untrained(rounds: Sequence[RoundSummary]) -> Iterator[str]:
    """A sentence for each reason why rounds were not trained."""
    for reason in dict.fromkeys(one.not_trained for one in rounds if one.not_trained):
        *first, last = (str(one.round) for one in rounds if one.not_trained == reason)
        named = f"Rounds {', '.join(first)} and {last}" if first else f"Round {last}"
        yield f"{named} trained no detector: {reason}."


def _covered(one: RoundSummary) -> str:
    """What the interval covers, and where the spread between training seeds comes from."""
    spread = f"standard deviation {points(one.training_sd)}"
    if one.seeds == 1:
        return (
            "One training seed: the interval covers the validation images, and the luck of training as measured on "
            f"other data ({spread}). evaluation.seeds: 3 would measure it on these."
        )
    return (
        f"{one.seeds} training seeds: the interval covers the validation images and the luck of training ({spread}, "
        "from these trainings and other data)."
    )
