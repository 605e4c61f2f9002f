"""The records that a round works with: what is fixed over the rounds of a run, and the result of one round."""

from dataclasses import dataclass

from loop.arms import Arm, Trainings
from loop.config import LoopConfig
from loop.data.importing import Dataset
from loop.progress import Reporter
from loop.state import Mined, Pooled, RunFolder, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What stays the same over the rounds of a run."""

    config: LoopConfig
    data: Dataset
    folder: RunFolder
    trainings: Trainings
    reporter: Reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """A finished round: what it left for the next, and what it is reported by."""

    state: State
    mined: Mined
    pooled: Pooled
    arm: Arm
    control: Arm
