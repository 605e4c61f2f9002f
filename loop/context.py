"""The context of a round and its result."""

from dataclasses import dataclass

from loop.arms import Arm, Trainings
from loop.config import LoopConfig
from loop.data.importing import Dataset
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
    arms: tuple[Arm, ...]  # the loop's detectors, one for each training seed; the controls, if none was trained
    controls: tuple[Arm, ...]  # likewise
    not_trained: str = ""  # why no detector was trained; empty if they were
