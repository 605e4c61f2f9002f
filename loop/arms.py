"""The two arms of a comparison: the loop's detector and its control, which is trained on the real images alone.

The control trains with p = 0, the same number of optimiser steps and the same seed. It does not depend on generated
images, so it is trained once per schedule and stored by fingerprint below the root, for all runs. With
``evaluation.seeds`` each arm consists of several trainings, which differ in their seed alone.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from upath import UPath

from actors.checkpoint import Checkpoint
from actors.fitting import DetectorCheckpoint, FitData, Fitted, Learner
from actors.plain import Plain, dumps
from actors.records import Detections, Difficulty, LabeledImage, Sample
from actors.seeds import derive_seed
from actors.storage import exclusive, read_detections, write_detections
from loop import stages
from loop.config import LoopConfig, MixingConfig, digest
from loop.data.importing import Dataset
from loop.hosting.platform import training_platform
from loop.hosting.records import Progress
from loop.progress import Reporter
from loop.state import Cost, once
from loop.training.fit import DrawSheet, FitJob, FitResult, fit, fit_fingerprint
from loop.training.job import TrainJob, TrainResult
from loop.training.train import train

REAL_ONLY = MixingConfig(p=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A trained detector and its detections in the validation images."""

    checkpoint: Checkpoint
    trained: TrainResult
    seen: Mapping[str, Detections]  # by image id
    evaluated: Cost  # of these detections


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainings:
    """Trains detectors on one data set and runs them on its validation images."""

    config: LoopConfig
    data: Dataset
    reporter: Reporter
    draw_sheet: DrawSheet | None = None  # draws the sample sheets of fits, if any

    def for_mining(self) -> "Trainings":
        """The trainings of the detector that decides which boxes are easy: of mining.detector if set, else these."""
        other = self.config.mining.detector
        return replace(self, config=self.config.model_copy(update={"detector": other})) if other else self

    def arms(
        self,
        place: UPath,
        number: int,
        *,
        mixing: MixingConfig,
        pool: tuple[Sample, ...],
        starts: tuple[Checkpoint, ...],
    ) -> tuple[Arm, ...]:
        """The detectors of round ``number``, one for each training seed: the first in ``place``, the others below it.

        With ``training.start: previous`` each continues from the one of ``starts`` with its own seed.
        """
        continues = self.config.training.start == "previous"
        if not (place / "train.json").exists():
            for warning in self.mix(place, number, mixing=mixing, pool=pool).mixture().warnings():
                self.reporter.warn(warning)
        return tuple(
            self.arm(
                seed_place(place, seed),
                number,
                seed=seed,
                label=self._label("round", number, seed),
                mixing=mixing,
                pool=pool,
                start=start if continues else None,
            )
            for seed, start in enumerate(starts)
        )

    def controls(self, number: int) -> tuple[Arm, ...]:
        """The controls of round ``number``, one for each training seed."""
        return tuple(self.control(number, seed) for seed in range(self.config.evaluation.seeds))

    def control(self, number: int, seed: int = 0) -> Arm:
        """The control of round ``number`` with a training seed, counted from 0, of the run.

        The first one of round 0 is also the detector that the loop starts from.
        """
        continues = self.config.training.start == "previous" and number > 0
        start = self.control(number - 1, seed).checkpoint if continues else None
        place = UPath(self.config.root) / "controls" / self.fingerprint(number, seed)
        with exclusive(place):
            return self.arm(place, number, seed=seed, label=self._label("control", number, seed), start=start)

    def arm(
        self,
        place: UPath,
        number: int,
        *,
        label: str,
        seed: int = 0,
        mixing: MixingConfig = REAL_ONLY,
        pool: tuple[Sample, ...] = (),
        start: Checkpoint | None = None,
    ) -> Arm:
        """The detector trained into the folder ``place``. Finished steps are not repeated."""
        job = self.mix(place, number, seed=seed, mixing=mixing, pool=pool, start=start)
        return self.evaluate(job, self.train(job, label), label)

    def mix(
        self,
        place: UPath,
        number: int,
        *,
        seed: int = 0,
        mixing: MixingConfig = REAL_ONLY,
        pool: tuple[Sample, ...] = (),
        start: Checkpoint | None = None,
    ) -> TrainJob:
        """The training of round ``number`` on real images and ``pool`` that ends in the folder ``place``."""
        return TrainJob(
            name=f"{place.parent.name}-{place.name}",
            detector=self.config.detector,
            training=self.config.training,
            mixing=mixing.model_copy(update={"clean": self.config.mixing.clean}),  # the same in both arms
            classes=self.data.classes,
            real=self.data.splits["train"],
            clean=self.data.clean,
            pool=pool,
            seed=self._seed(number, seed),
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
        what: Literal["generator", "refiner"] = "generator",
    ) -> Fitted:
        """Fit a component on the real training images, whose boxes have these ``difficulties`` (see ``unmined``).

        A fit in round ``number`` continues from ``start``, if given, with other examples. ``detector`` is the current
        detector, for a learner that uses it. The result is stored by fingerprint below the root, for all runs with the
        same images.
        """
        config, current = self.config, self.detector(detector)
        data = FitData(
            classes=self.data.classes,
            images=self.data.splits["train"],
            difficulties=difficulties,
            seed=derive_seed(config.seed, "fit", *([number] if start else [])),
            detector=current if learner.uses_detector else None,
            clean=self.data.clean if learner.uses_clean else (),
        )
        fingerprint = fit_fingerprint(learner, data, start)
        place = UPath(config.root) / "fits" / fingerprint
        job = FitJob(
            learner=learner,
            data=data,
            start=start,
            checkpoint=Checkpoint(str(place / f"{what}.safetensors")),
            name=f"fits-{place.name}",
            storage=str(place / "fit"),
        )
        with exclusive(place):
            result = once(place / "fit.json", FitResult, lambda: self._fit(job, what))
        if result.boxes_cut:
            num_boxes = sum(int((~image.annotation.ignore).sum()) for image in data.images)
            self.reporter.warn(
                f"{result.boxes_cut} of {num_boxes} boxes do not fit into their prompts, and the fit leaves them out "
                "(raise generator.prompt.max_tokens, or shorten the prefix)"
            )
        return Fitted(checkpoint=job.checkpoint, fingerprint=fingerprint, boxes_cut=result.boxes_cut)

    def _fit(self, job: FitJob, what: str) -> FitResult:
        with self.reporter.stage("fit" if what == "generator" else f"fit {what}", job.size().steps) as progress:

            def follow(now: Progress) -> None:
                progress.reach(now.step, f"loss {now.loss:.3f}")

            result = fit(job, self.config.hosting, follow, self.draw_sheet)
            progress.reach(
                result.steps, f"steps, {result.images_per_s:.0f} images/s, {result.launch_s:.0f} s to launch"
            )
            return result

    def detector(self, checkpoint: Checkpoint) -> DetectorCheckpoint:
        """A trained detector, for components that use its training loss."""
        return DetectorCheckpoint(config=self.config.detector, uri=checkpoint, overrides=self.config.training.overrides)

    def train(self, job: TrainJob, label: str) -> TrainResult:
        """Train the detector of ``job``, unless it is trained already."""
        return once(UPath(job.checkpoint).parent / "train.json", TrainResult, lambda: self._train(job, label))

    def evaluate(self, job: TrainJob, trained: TrainResult, label: str) -> Arm:
        """The trained detector with its detections in the validation images, which are computed once."""
        place = UPath(job.checkpoint).parent
        cost = once(place / "evaluate.json", Cost, lambda: self._evaluate(place, job.checkpoint, label))
        return Arm(checkpoint=job.checkpoint, trained=trained, seen=read_detections(place / "val.npz"), evaluated=cost)

    def _train(self, job: TrainJob, label: str) -> TrainResult:
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
        """``number`` if trainings continue from round to round; 0 if they are the same in every round."""
        return number if self.config.training.start == "previous" else 0

    def _seed(self, number: int, seed: int) -> int:
        """The seed of a training. The first of a run does not depend on the number of training seeds."""
        return derive_seed(self.config.seed, "train", self._rounds_apart(number), *([seed] if seed else []))

    def _label(self, what: str, number: int, seed: int) -> str:
        num_seeds = self.config.evaluation.seeds
        return f"{what} {number}" + (f", seed {seed + 1} of {num_seeds}" if num_seeds > 1 else "")

    @property
    def _num_workers(self) -> int:
        """Number of workers. It affects the result: each normalises over its own part of a batch."""
        hosting = self.config.hosting
        return 1 if hosting.engine == "inline" else hosting.train.num_workers

    def fingerprint(self, number: int, seed: int = 0) -> str:
        """The hash of everything that affects a training on real images and its evaluation, 16 hex digits.

        It includes the number format and the libraries of the workers, but not the model of their processor or GPU.
        """
        libraries = self.config.detector.libraries
        platform = training_platform(self.config.hosting, libraries).key()
        training = self.config.training.model_dump(mode="json", exclude={"background_ignore"}, exclude_defaults=True)
        detector = with_contents(self.config.detector.model_dump(mode="json", exclude_defaults=True))
        schedule = [self._seed(number, seed), self._rounds_apart(number), self._num_workers]
        clean = [self.config.mixing.clean] if self.data.clean else []
        return digest([training, detector, platform, *schedule, list(self.data.classes), _digest(self.data), *clean])


def unmined(images: Sequence[LabeledImage]) -> tuple[tuple[Difficulty, ...], ...]:
    """No difficulties, for learners that do not use them: their fits do not depend on mining."""
    return tuple(() for _ in images)


def seed_place(place: UPath, seed: int) -> UPath:
    """The folder of a training with a seed, counted from 0, in the folder ``place`` of its round."""
    return place / f"seed_{seed + 1}" if seed else place


def with_contents(options: Plain) -> Plain:
    """Plain options in which every name of a local file is replaced by the hash of its content."""
    if isinstance(options, dict):
        return {key: with_contents(value) for key, value in options.items()}
    if isinstance(options, list):
        return [with_contents(value) for value in options]
    if isinstance(options, str) and (file := Path(options)).is_file():
        state = file.stat()
        return _content(file.absolute(), state.st_size, state.st_mtime_ns)
    return options


@cache
def _content(path: Path, _size: int, _mtime_ns: int) -> str:
    """SHA-256 of a file, which is read again if it has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(data: Dataset) -> str:
    """The hash of names, paths, sizes and labels. Pixels are identified by their paths."""
    images = [data.splits["train"], data.splits["val"], *([data.clean] if data.clean else [])]
    return hashlib.sha256(dumps(images)).hexdigest()
