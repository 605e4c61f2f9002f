"""DetDiffusion's attribute (arXiv 2403.13304, Sec. 3) from detectors that were not trained on the image.

A detector finds most of what it was trained on, so nearly all boxes of its own training images are easy. The paper does
not say which images its detector was trained on. Cross-fitting is our addition: k detectors are each trained on the
real images without one of k folds and applied to that fold alone, as Chernozhukov et al. fit their nuisance functions
(Double/debiased machine learning, arXiv 1608.00060, Sec. 3).

The detectors are trained on real images only. They are the same in every round, and stored by fingerprint below the
root.
"""

import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from upath import UPath

from actors.checkpoint import Checkpoint
from actors.counted import counted
from actors.filters.base import HeldBack
from actors.records import Detections, LabeledImage, Sample
from actors.seeds import derive_seed
from actors.storage import exclusive, read_record
from loop.arms import REAL_ONLY, Arm, Trainings
from loop.config import LoopConfig, MixingConfig, TrainingConfig
from loop.hosting.launch import POLL_S, OnProgress, num_at_once
from loop.state import Cost, once
from loop.training.job import TrainResult
from loop.training.train import train

Images = tuple[LabeledImage, ...]


def folds(images: Sequence[LabeledImage], num_folds: int, seed: int) -> tuple[Images, ...]:
    """The images in ``num_folds`` parts, whose sizes differ by at most one.

    The split is stratified by the rarest class in each image and shuffled by ``seed``. Raises ValueError if there are
    fewer images than folds.
    """
    check_num_folds(num_folds, len(images))
    kinds = {image.id: set(image.annotation.labels.tolist()) for image in images}
    num_images = Counter(label for labels in kinds.values() for label in labels)

    def turn(image: LabeledImage) -> tuple[tuple[int, int], int]:
        rarest = min(((num_images[label], label) for label in kinds[image.id]), default=(0, 0))
        return rarest, derive_seed(seed, "cross_fit", image.id)

    fold = {image.id: place % num_folds for place, image in enumerate(sorted(images, key=turn))}
    return tuple(tuple(image for image in images if fold[image.id] == number) for number in range(num_folds))


def check_num_folds(num_folds: int, num_images: int) -> None:
    """Raise ValueError if there are fewer images than folds."""
    if num_folds > num_images:
        raise ValueError(
            f"{num_folds} folds of {counted(num_images, 'training image')}; take fewer (mining.cross_fit, "
            "utility, guard.folds)"
        )


def check_folds(config: LoopConfig, num_images: int) -> None:
    """Raise ValueError if a run of ``config`` has fewer training images than folds, of mining, filters or guard."""
    if config.rounds:
        for number in (config.mining.cross_fit, folds_of_filters(config), config.guard.folds):
            check_num_folds(number, num_images)


def check_parameters(config: LoopConfig, num_classes: int) -> None:
    """Raise ValueError if a filter chooses parameters that the detector does not have."""
    chosen = {one.kind: one.parameter_prefixes for one in config.filters if one.parameter_prefixes}
    if not (config.rounds and chosen):
        return
    names = [name for name, _ in config.detector.architecture(num_classes).named_parameters()]
    for kind, prefixes in chosen.items():
        if unknown := [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in names)]:
            raise ValueError(
                f"filters.{kind}.parameters: no parameter of {config.detector.model} begins with {unknown}; the first "
                f"is {names[0]}, the last {names[-1]}"
            )


def detect_unseen(trainings: Trainings) -> tuple[dict[str, Detections], Cost]:
    """The detections in each real training image, by image id, from the detector that was not trained on it.

    The cost is zero: that of the folds' detectors is reported once for the run, like the control's.
    """
    seen = {image_id: found for arm in fold_arms(trainings) for image_id, found in arm.seen.items()}
    return seen, Cost(seconds={"inspect": 0.0}, wall_s=0.0, engine_s=0.0, num_items=0)


def fold_arms(trainings: Trainings) -> tuple[Arm, ...]:
    """For each fold, the detector trained without it and its detections in it. Finished folds are not repeated."""
    each = trained_folds(trainings, trainings.config.mining.cross_fit)
    return tuple(fold.arm(f"fold {number}") for number, fold in enumerate(each, start=1))


def trained_folds(trainings: Trainings, num_folds: int) -> "tuple[Fold, ...]":
    """The folds, each with a detector that was trained without it. Finished ones are not trained again."""
    parts = folds(trainings.data.splits["train"], num_folds, trainings.config.seed)
    each = tuple(Fold.of(trainings, held_out) for held_out in parts)
    train_folds(trainings, [fold for fold in each if not fold.is_trained])
    return each


def held_back(trainings: Trainings) -> tuple[HeldBack, ...]:
    """The detectors that the filters of the config use on the images that these were not trained on."""
    num_folds = folds_of_filters(trainings.config)
    return tuple(fold.held_back for fold in trained_folds(trainings, num_folds)) if num_folds else ()


def folds_of_filters(config: LoopConfig) -> int:
    """The number of folds that the filters of ``config`` ask for; 0 for none."""
    return max((one.num_folds for one in config.filters), default=0)


def shortened(training: TrainingConfig, share: float) -> TrainingConfig:
    """A training on a share of the images, with as many passes over them, in whole epochs."""
    num_epochs = math.ceil(share * training.steps / training.epoch_steps - 1e-9)
    return training.model_copy(update={"steps": num_epochs * training.epoch_steps})


def fold_steps(training: TrainingConfig, num_folds: int) -> int:
    """Optimiser steps of the training without one of ``num_folds`` folds."""
    return shortened(training, (num_folds - 1) / num_folds).steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """A training like the control's, or the loop's with a pool, without the images of one fold.

    It has as many passes over its images as a training on all of them, and therefore fewer steps.
    """

    trainings: Trainings  # on data with the other folds as training images and this one as validation images
    place: UPath
    mixing: MixingConfig = REAL_ONLY
    pool: tuple[Sample, ...] = ()

    @classmethod
    def of(cls, trainings: Trainings, held_out: Images) -> "Fold":
        """The training without the images ``held_out``."""
        ids, images = {image.id for image in held_out}, trainings.data.splits["train"]
        rest = tuple(image for image in images if image.id not in ids)
        training = shortened(trainings.config.training, len(rest) / len(images))
        config = trainings.config.model_copy(update={"training": training})
        data = replace(trainings.data, splits={"train": rest, "val": held_out})
        apart = replace(trainings, config=config, data=data)
        return cls(trainings=apart, place=UPath(trainings.config.root) / "folds" / apart.fingerprint(0))

    def with_pool(self, place: UPath, mixing: MixingConfig, pool: tuple[Sample, ...]) -> "Fold":
        """The same training on the other folds and ``pool``, with its detector in the folder ``place``."""
        return replace(self, place=place, mixing=mixing, pool=pool)

    @property
    def ids(self) -> tuple[str, ...]:
        """Its images, without which the detector is trained."""
        return tuple(image.id for image in self.trainings.data.splits["val"])

    @property
    def steps(self) -> int:
        """Optimiser steps of its training."""
        return self.trainings.config.training.steps

    @property
    def checkpoint(self) -> Checkpoint:
        """Its detector."""
        return Checkpoint(str(self.place / "detector.safetensors"))

    @property
    def held_back(self) -> HeldBack:
        """Its detector and the images that this was not trained on."""
        images = tuple(self.trainings.data.splits["val"])
        return HeldBack(detector=self.trainings.detector(self.checkpoint), images=images)

    @property
    def training_s(self) -> float:
        """Seconds that its training took."""
        return read_record(self.place / "train.json", TrainResult).training_s

    @property
    def is_trained(self) -> bool:
        """Whether its detector is trained."""
        return (self.place / "train.json").exists()

    def train(self, on_progress: OnProgress) -> None:
        """Train its detector, unless another run has done so."""
        job = self.trainings.mix(self.place, 0, mixing=self.mixing, pool=self.pool)
        hosting = self.trainings.config.hosting
        with exclusive(self.place):
            once(self.place / "train.json", TrainResult, lambda: train(job, hosting, on_progress))

    def arm(self, label: str) -> Arm:
        """Its detector and the detections in the fold."""
        with exclusive(self.place):
            return self.trainings.arm(self.place, 0, label=label, mixing=self.mixing, pool=self.pool)


def train_folds(trainings: Trainings, missing: Sequence[Fold], label: str = "train folds") -> None:
    """Train folds in parallel as far as the cluster has room. Detection comes later: its actors would take room."""
    if not missing:
        return
    hosting, steps = trainings.config.hosting, missing[0].steps
    at_once = min(num_at_once(hosting.train, hosting), len(missing))
    with trainings.reporter.stage(label, len(missing)) as progress:

        def train_one(fold: Fold) -> None:
            fold.train(lambda now: progress.reach(progress.done, f"step {now.step} of {steps}"))
            progress.advance()

        _each(train_one, missing, at_once)
        progress.reach(len(missing), f"detectors of {steps} steps, {at_once} at a time")


def _each(work: Callable[[Fold], None], todo: Sequence[Fold], at_once: int) -> None:
    """Call ``work`` on each fold, in this thread if ``at_once`` is 1. Stops at the first error and raises it."""
    if at_once == 1:
        for fold in todo:
            work(fold)
        return
    places, errors = threading.Semaphore(at_once), list[BaseException]()

    def work_on(fold: Fold) -> None:
        with places:
            try:
                if not errors:
                    work(fold)
            except BaseException as error:  # noqa: BLE001 - raised below, in the calling thread
                errors.append(error)

    threads = [
        threading.Thread(target=work_on, args=(fold,), daemon=True) for fold in todo
    ]  # Ctrl-C does not wait for daemons
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not errors:
            thread.join(POLL_S)  # without a timeout, Ctrl-C is ignored: a library of MLflow's restarts the call
    if errors:
        raise errors[0]
