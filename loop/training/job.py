"""The job of a training and its result: plain records that travel to the workers and back."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from actors.checkpoint import Checkpoint
from actors.detectors.base import DetectorBase
from actors.plain import dumps
from actors.records import LabeledImage, Sample
from loop.config import MixingConfig, TrainingConfig
from loop.hosting.records import Platform
from loop.mixing import Mixture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainJob:
    """One training, whole: equal jobs give equal checkpoints on one kind of hardware."""

    detector: DetectorBase
    training: TrainingConfig
    mixing: MixingConfig
    classes: tuple[str, ...]
    real: tuple[LabeledImage, ...]
    pool: tuple[Sample, ...]
    clean: tuple[LabeledImage, ...] = ()  # real images without objects, of which a share ``mixing.clean`` is shown
    seed: int
    start: Checkpoint | None  # where it starts; None: random weights, or detector.weights (see training)
    checkpoint: Checkpoint  # to write
    name: str  # unique: a training of this name in ``storage`` is gone on with
    storage: str  # folder or URI of what Ray Train keeps while it runs

    def mixture(self) -> Mixture:
        """The batches of this training."""
        return Mixture(
            num_real=len(self.real),
            num_synthetic=len(self.pool),
            num_steps=self.training.steps,
            batch_size=self.training.batch_size,
            mixing=self.mixing,
            seed=self.seed,
            num_clean=len(self.clean),
        )

    def located(self, place: Callable[[str], str]) -> "TrainJob":
        """The same job with ``place`` applied to the URIs of what it writes and starts from."""
        start = Checkpoint(place(self.start)) if self.start else None
        checkpoint = Checkpoint(place(self.checkpoint))
        return replace(self, checkpoint=checkpoint, storage=place(self.storage), start=start)

    def records(self) -> tuple[LabeledImage | Sample, ...]:
        """All images, the real ones first."""
        return (*self.real, *self.clean, *self.pool)

    def fingerprint(self) -> str:
        """16 hex digits over all that decides the result; where it is written and under which name does not."""
        digest = hashlib.sha256()
        for config in (self.detector, self.training):
            digest.update(config.model_dump_json().encode())
        digest.update(self.mixing.model_dump_json(exclude=None if self.clean else {"clean"}).encode())
        digest.update(dumps([self.classes, self.seed, self.start]))
        for record in self.records():
            digest.update(dumps([record.id, record.annotation]))
        return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A finished training."""

    checkpoint: Checkpoint
    steps: int
    realised_p: float  # share of synthetic images among those shown; 0 with an empty pool, whatever p asked for
    num_real_shown: int  # repetitions counted, images without objects included
    num_synthetic_shown: int
    losses: tuple[dict[str, float], ...]
    precision: str
    platform: Platform
    weights: dict[str, int]
    launch_s: float  # until the training loop began, and after it ended: processes, imports, model, checkpoint
    training_s: float  # in the training loop
    images_per_s: float
    num_clean_shown: int = field(default=0, metadata={"omit_default": True})  # images without objects, likewise
