"""The decision of the guard: detectors are trained without a fold of the training images, and measured on the fold.

For each fold there is a detector like the control, which cross-fitting shares, and one like the loop's. The latter
sees neither the fold's images nor the synthetic images that derive from them. So each training image is judged by
detectors that saw neither it nor a variant of it. Validation and test images are not opened.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from upath import UPath

from actors.checkpoint import Checkpoint
from actors.records import Detections, Sample
from actors.seeds import derive_seed
from actors.storage import read_detections, write_detections
from loop import stages
from loop.arms import Trainings
from loop.cross_fit import Fold, folds, train_folds, trained_folds
from loop.guard.blend import blend
from loop.guard.choice import CONTROL, LOOP, Tried, choose, compare, name_of
from loop.progress import StageProgress
from loop.state import Cost, once


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the guard chose, and why."""

    chosen: str  # the name of one of ``tried``
    tried: tuple[Tried, ...]  # the control first, the loop's own detector last; empty if no fold has enough samples
    pools: tuple[int, ...]  # of each fold: the synthetic images that derive from none of its images
    steps: int  # optimiser steps of the folds' detectors with the pool, in this round
    shared_steps: int  # of those without it: trained once, and shared with all rounds and with cross-fitting
    cost: Cost  # without that of the shared ones

    @property
    def share(self) -> float:
        """The share of the loop's detector in the weights of the chosen one."""
        return next((one.share for one in self.tried if one.name == self.chosen), CONTROL)


def decide(trainings: Trainings, place: UPath, pool: Sequence[Sample]) -> Decision:
    """The choice for the round in the folder ``place``, whose detectors are trained on ``pool``.

    What is done already is not repeated. Trains with the first of ``evaluation.seeds``.
    """
    return once(place / "guard.json", Decision, lambda: _decide(trainings, place / "guard", pool))


def _decide(trainings: Trainings, place: UPath, pool: Sequence[Sample]) -> Decision:
    config, images = trainings.config, trainings.data.splits["train"]
    pools = _pools(trainings, pool)
    if max(map(len, pools)) < config.mixing.min_pool:
        return _undecided(trainings, pools)
    controls = trained_folds(trainings, config.guard.folds)
    by_control = [fold.arm(f"fold {number}").seen for number, fold in enumerate(controls, start=1)]
    start = time.perf_counter()
    loops = [
        fold.with_pool(place / f"fold_{number}", config.mixing, own)
        for number, (fold, own) in enumerate(zip(controls, pools, strict=True), start=1)
    ]
    helped = [number for number, fold in enumerate(loops) if len(fold.pool) >= config.mixing.min_pool]
    if len(helped) < len(loops):
        trainings.reporter.warn(
            f"{len(loops) - len(helped)} of {len(loops)} folds of the guard have fewer than mixing.min_pool "
            f"({config.mixing.min_pool}) synthetic images that derive from other folds alone; there the loop counts as "
            "the control"
        )
    train_folds(trainings, [loops[number] for number in helped if not loops[number].is_trained], "train folds, pool")
    shares = (*config.guard.blends, LOOP)
    seen = {share: list(by_control) for share in (CONTROL, *shares)}
    with trainings.reporter.stage("evaluate folds", len(shares) * sum(len(loops[n].ids) for n in helped)) as progress:
        for number, share in product(helped, shares):
            seen[share][number] = _detections(controls[number], loops[number], share, progress)
    tried = compare(
        images,
        {share: _joined(of_folds) for share, of_folds in seen.items()},
        trainings.data.classes,
        config.evaluation.bootstrap_draws,
        derive_seed(config.seed, "guard"),
    )
    return Decision(
        chosen=choose(tried).name,
        tried=tried,
        pools=tuple(map(len, pools)),
        steps=sum(loops[number].steps for number in helped),
        shared_steps=sum(fold.steps for fold in controls),
        cost=_cost(time.perf_counter() - start, [loops[number] for number in helped]),
    )


def _pools(trainings: Trainings, pool: Sequence[Sample]) -> tuple[tuple[Sample, ...], ...]:
    """For each fold, the samples that derive from none of its images."""
    parts = folds(trainings.data.splits["train"], trainings.config.guard.folds, trainings.config.seed)
    return tuple(apart(pool, [image.id for image in held_out]) for held_out in parts)


def _undecided(trainings: Trainings, pools: Sequence[Sequence[Sample]]) -> Decision:
    """The control, kept without a comparison: nothing is trained."""
    trainings.reporter.warn(
        f"no fold of the guard has mixing.min_pool ({trainings.config.mixing.min_pool}) synthetic images that derive "
        "from other folds alone: control and loop are not compared, and the control is kept (raise generation.copies)"
    )
    free = Cost(seconds={"guard": 0.0}, wall_s=0.0, engine_s=0.0, num_items=0)
    kept = name_of(CONTROL)
    return Decision(chosen=kept, tried=(), pools=tuple(map(len, pools)), steps=0, shared_steps=0, cost=free)


def apart(pool: Iterable[Sample], image_ids: Collection[str]) -> tuple[Sample, ...]:
    """The samples that derive from none of these images: not drawn for it, into it, or with an object cut from it."""
    ids = set(image_ids)
    return tuple(one for one in pool if ids.isdisjoint((one.lineage.image_id, one.canvas, *one.examples)))


def _joined(of_folds: Iterable[Mapping[str, Detections]]) -> dict[str, Detections]:
    return {image_id: found for seen in of_folds for image_id, found in seen.items()}


def _detections(control: Fold, loop: Fold, share: float, progress: StageProgress) -> Mapping[str, Detections]:
    """What the loop's detector or a blend finds in the images of its fold; computed once."""
    place = loop.place if share == LOOP else loop.place / name_of(share).replace(" ", "_")
    file, checkpoint = place / "seen.npz", Checkpoint(str(place / "detector.safetensors"))
    if file.exists():
        progress.reach(progress.done + len(loop.ids))
        return read_detections(file)
    if share != LOOP:
        blend(control.checkpoint, loop.checkpoint, share, checkpoint)
    config = loop.trainings.config
    images = loop.trainings.data.splits["val"]  # of a fold: its own images
    seen, _ = stages.detect(images, config.detector, checkpoint, config.hosting, progress.advance)
    write_detections(file, seen)
    return seen


def _cost(wall_s: float, trained: Sequence[Fold]) -> Cost:
    """The cost of a decision that took this long; less than all of it after an interruption."""
    busy_s = sum(fold.training_s for fold in trained)
    num_images = sum(len(fold.ids) for fold in trained)
    return Cost(seconds={"guard": busy_s}, wall_s=wall_s, engine_s=max(wall_s - busy_s, 0.0), num_items=num_images)
