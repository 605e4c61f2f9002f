"""The two arms that are compared: the loop's detector, and its control - real images alone, all else equal.

The control trains with p = 0, the same number of optimiser steps and the same seed. It depends on nothing that a
round generates, so it is trained once per schedule and kept by fingerprint beside the runs, for all of them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from upath import UPath

from actors.checkpoint import Checkpoint
from actors.fitting import DetectorCheckpoint, FitData, Fitted, Learner
from actors.plain import dumps
from actors.records import Detections, Difficulty, Sample
from actors.seeds import derive_seed
from actors.storage import exclusive, read_detections, write_detections
from loop import stages
from loop.config import LoopConfig, MixingConfig, digest
from loop.data.importing import Dataset
from loop.hosting.records import Progress
from loop.progress import Reporter
from loop.state import Cost, once
from loop.training.fit import DrawSheet, FitJob, FitResult, fit, fit_fingerprint
from loop.training.job import TrainJob, TrainResult
from loop.training.train import train

REAL_ONLY = MixingConfig(p=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A trained detector and what it sees in the validation images."""

    checkpoint: Checkpoint
    trained: TrainResult
    seen: Mapping[str, Detections]  # by image id
    evaluated: Cost  # of seeing them


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainings:
    """Trains detectors on one data set, and applies them to its validation images."""

    config: LoopConfig
    data: Dataset
    reporter: Reporter
    draw_sheet: DrawSheet | None = None  # draws the sample sheets of fits, if any

    def for_mining(self) -> "Trainings":
        """Those of the detector that decides what is easy: of mining.detector, if there is one, else these."""
        other = self.config.mining.detector
        return replace(self, config=self.config.model_copy(update={"detector": other})) if other else self

    def control(self, number: int) -> Arm:
        """The control of round ``number``; of round 0, it is also the detector that the loop starts from."""
        goes_on = self.config.training.start == "previous" and number > 0
        start = self.control(number - 1).checkpoint if goes_on else None
        place = UPath(self.config.root) / "controls" / self.fingerprint(number)
        with exclusive(place):
            return self.arm(place, number, label=f"control {number}", start=start)

    def arm(
        self,
        place: UPath,
        number: int,
        *,
        label: str,
        mixing: MixingConfig = REAL_ONLY,
        pool: tuple[Sample, ...] = (),
        start: Checkpoint | None = None,
    ) -> Arm:
        """The detector trained into the folder ``place``; what is there already is not done again."""
        job = self.mix(place, number, mixing=mixing, pool=pool, start=start)
        return self.evaluate(job, self.train(job, label), label)

    def mix(
        self,
        place: UPath,
        number: int,
        *,
        mixing: MixingConfig = REAL_ONLY,
        pool: tuple[Sample, ...] = (),
        start: Checkpoint | None = None,
    ) -> TrainJob:
        """The training of round ``number`` on real images and ``pool`` that ends in the folder ``place``."""
        return TrainJob(
            name=f"{place.parent.name}-{place.name}",
            detector=self.config.detector,
            training=self.config.training,
            mixing=mixing,
            classes=self.data.classes,
            real=self.data.splits["train"],
            pool=pool,
            seed=self._seed(number),
            start=start,
            checkpoint=Checkpoint(str(place / "detector.safetensors")),
            storage=str(place / "train"),
        )

    def fit(
        self,
        learner: Learner,
        difficulties: tuple[tuple[Difficulty, ...], ...],
        *,
        number: int,
        detector: Checkpoint,
        start: Fitted | None = None,
    ) -> Fitted:
        """A component fitted on the real training images, whose boxes have these ``difficulties``.

        A fit in round ``number`` goes on from ``start``, if there is one, with other examples. ``detector`` is the
        current detector, for a learner that uses it. The result is kept by fingerprint beside the runs, for all of them
        that have the same images.
        """
        config = self.config
        current = DetectorCheckpoint(config=config.detector, uri=detector, overrides=config.training.overrides)
        data = FitData(
            classes=self.data.classes,
            images=self.data.splits["train"],
            difficulties=difficulties,
            seed=derive_seed(config.seed, "fit", *([number] if start else [])),
            detector=current if learner.uses_detector else None,
        )
        fingerprint = fit_fingerprint(learner, data, start)
        place = UPath(config.root) / "fits" / fingerprint
        job = FitJob(
            learner=learner,
            data=data,
            start=start,
            checkpoint=Checkpoint(str(place / "generator.safetensors")),
            name=f"fits-{place.name}",
            storage=str(place / "fit"),
        )
        with exclusive(place):
            result = once(place / "fit.json", FitResult, lambda: self._fit(job))
        if result.boxes_cut:
            num_boxes = sum(int((~image.annotation.ignore).sum()) for image in data.images)
            self.reporter.warn(
                f"{result.boxes_cut} of {num_boxes} boxes have no room in their prompts, and the fit leaves them out "
                "(more have with a higher generator.prompt.max_tokens, or a shorter prefix)"
            )
        return Fitted(checkpoint=job.checkpoint, fingerprint=fingerprint, boxes_cut=result.boxes_cut)

    def _fit(self, job: FitJob) -> FitResult:
        with self.reporter.stage("fit", job.size().steps) as progress:

            def follow(now: Progress) -> None:
                progress.reach(now.step, f"loss {now.loss:.3f}")

            result = fit(job, self.config.hosting, follow, self.draw_sheet)
            progress.reach(
                result.steps, f"steps, {result.images_per_s:.0f} images/s, {result.launch_s:.0f} s to launch"
            )
            return result

    def train(self, job: TrainJob, label: str) -> TrainResult:
        """Train the detector of ``job``, unless it is there."""
        return once(UPath(job.checkpoint).parent / "train.json", TrainResult, lambda: self._train(job, label))

    def evaluate(self, job: TrainJob, trained: TrainResult, label: str) -> Arm:
        """The trained detector with what it sees in the validation images, which it is shown once."""
        place = UPath(job.checkpoint).parent
        cost = once(place / "evaluate.json", Cost, lambda: self._evaluate(place, job.checkpoint, label))
        return Arm(checkpoint=job.checkpoint, trained=trained, seen=read_detections(place / "val.npz"), evaluated=cost)

    def _train(self, job: TrainJob, label: str) -> TrainResult:
        for warning in job.mixture().warnings():
            self.reporter.warn(warning)
        with self.reporter.stage(f"train {label}", self.config.training.steps) as progress:
            result = train(job, self.config.hosting, lambda now: progress.reach(now.step, f"loss {now.loss:.2f}"))
            progress.reach(
                result.steps, f"steps, {result.images_per_s:.0f} images/s, {result.launch_s:.0f} s to launch"
            )
            return result

    def _evaluate(self, place: UPath, checkpoint: Checkpoint, label: str) -> Cost:
        images = self.data.splits["val"]
        with self.reporter.stage(f"evaluate {label}", len(images)) as progress:
            seen, cost = stages.detect(images, self.config.detector, checkpoint, self.config.hosting, progress.advance)
        write_detections(place / "val.npz", seen)
        return cost

    def _rounds_apart(self, number: int) -> int:
        """Trainings that start afresh are the same in every round; those that go on are not."""
        return number if self.config.training.start == "previous" else 0

    def _seed(self, number: int) -> int:
        return derive_seed(self.config.seed, "train", self._rounds_apart(number))

    @property
    def _num_workers(self) -> int:
        """They decide, too: each normalises by its own part of a batch."""
        hosting = self.config.hosting
        return 1 if hosting.engine == "inline" else hosting.train.num_workers

    def fingerprint(self, number: int) -> str:
        """16 hex digits over all that decides a real-only training and what it is tried on."""
        training = self.config.training.model_dump(mode="json", exclude={"background_ignore"}, exclude_defaults=True)
        detector = self.config.detector.model_dump(mode="json", exclude_defaults=True)
        schedule = [self._seed(number), self._rounds_apart(number), self._num_workers]
        return digest([training, detector, *schedule, list(self.data.classes), _digest(self.data)])


def _digest(data: Dataset) -> str:
    """Over names, places, sizes and labels; pixels are known by their places."""
    return hashlib.sha256(dumps([data.splits["train"], data.splits["val"]])).hexdigest()
