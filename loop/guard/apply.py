"""What follows from the guard's decision: the round's detectors, which are copies of an arm's or blends of both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from upath import UPath

from actors.checkpoint import Checkpoint
from actors.records import Sample
from actors.storage import write_bytes
from loop.arms import Arm, Trainings, seed_place
from loop.guard.blend import blend
from loop.guard.choice import CONTROL, LOOP
from loop.guard.decide import Decision, decide
from loop.state import Cost, once
from loop.training.job import TrainResult

FREE = Cost(seconds={"inspect": 0.0}, wall_s=0.0, engine_s=0.0, num_items=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A round with a guard."""

    decision: Decision
    own: tuple[Arm, ...]  # the loop's own detectors, whatever was chosen; one for each training seed
    arms: tuple[Arm, ...]  # the chosen ones, likewise


def guarded(
    trainings: Trainings, place: UPath, pool: Sequence[Sample], own: Sequence[Arm], controls: Sequence[Arm]
) -> Guarded:
    """Choose among the loop's ``own`` detectors, ``controls`` and blends; the chosen ones are stored in ``place``."""
    decision = decide(trainings, place, pool)
    of_seed = [f", seed {seed + 1} of {len(own)}" if len(own) > 1 else "" for seed in range(len(own))]
    arms = tuple(
        _taken(trainings, seed_place(place, seed), decision.share, *pair, label=decision.chosen + of_seed[seed])
        for seed, pair in enumerate(zip(own, controls, strict=True))
    )
    return Guarded(decision=decision, own=tuple(own), arms=arms)


def _taken(trainings: Trainings, place: UPath, share: float, own: Arm, control: Arm, label: str) -> Arm:
    if share in (CONTROL, LOOP):
        return copied(own if share == LOOP else control, place)
    job = trainings.mix(place, 0)

    def write() -> TrainResult:
        blend(control.checkpoint, own.checkpoint, share, job.checkpoint)
        return _free(own.trained, job.checkpoint)

    trained = once(place / "train.json", TrainResult, write)
    return trainings.evaluate(job, trained, label)


def copied(arm: Arm, place: UPath) -> Arm:
    """The detector of ``arm`` in the folder ``place``, as if trained there in no time."""
    copy = Checkpoint(str(place / "detector.safetensors"))

    def write() -> TrainResult:
        write_bytes(UPath(copy), UPath(arm.checkpoint).read_bytes())
        return _free(arm.trained, copy)

    trained = once(place / "train.json", TrainResult, write)
    return replace(arm, checkpoint=copy, trained=trained, evaluated=FREE)


def _free(trained: TrainResult, checkpoint: Checkpoint) -> TrainResult:
    return replace(trained, checkpoint=checkpoint, launch_s=0.0, training_s=0.0)
