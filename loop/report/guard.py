"""The choice of the guard in a round, for the report, and what the validation images say of what was not chosen."""

from dataclasses import dataclass

from loop.context import RoundResult
from loop.evaluation.measure import Measured
from loop.guard.choice import Tried


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSummary:
    """The choice of the guard in a round. The fields are keys of ``summary.json``."""

    chosen: str  # control, loop, or blend and the loop's share in its weights
    tried: tuple[Tried, ...]  # on the held-back training images; the control first
    pools: tuple[int, ...]  # of each fold: the synthetic images that derive from none of its images
    steps: int  # optimiser steps of the folds' detectors with the pool, besides those of the round
    shared_steps: int  # of the folds' detectors without it: once for all rounds, shared with cross-fitting
    loop_ap: float  # of the loop's own detector on the validation images
    loop_gain: float  # likewise, over the control
    loop_gain_ci95: tuple[float, float]

    def metrics(self) -> dict[str, float]:
        """The choice by its names in MLflow; control, loop and blends are 0, 1 and the loop's share between."""
        chosen = next((one for one in self.tried if one.name == self.chosen), None)
        low, high = self.loop_gain_ci95
        return {
            **({"guard/chosen_share": chosen.share, "guard/difference": chosen.difference} if chosen else {}),
            "guard/steps": self.steps,
            **{f"guard/AP/{one.name}": one.ap for one in self.tried},
            "own_AP": self.loop_ap,
            "own_gain": self.loop_gain,
            "own_gain_low": low,
            "own_gain_high": high,
        }


def guard_summary(result: RoundResult, measured: Measured) -> GuardSummary | None:
    """The choice of the guard in a round; None without one."""
    if result.guard is None:
        return None
    decision, own = result.guard.decision, measured.own_gain
    return GuardSummary(
        chosen=decision.chosen,
        tried=decision.tried,
        pools=decision.pools,
        steps=decision.steps,
        shared_steps=decision.shared_steps,
        loop_ap=measured.own.metrics["AP"],
        loop_gain=own.value,
        loop_gain_ci95=(own.low, own.high),
    )
