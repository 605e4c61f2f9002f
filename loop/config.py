"""The config tree of a run, and the fingerprint that identifies it.

The sections of components (detector, generator, filters) are defined with the components. ``loop.config_files`` reads a
config from files.
"""

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from actors.attributes import AttributeRule
from actors.config import Config, Share
from actors.detectors import DetectorConfig
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.filters import FilterConfig
from actors.filters.rejected import RejectedBoxes
from actors.generators import GeneratorConfig
from actors.generators.inpaint.component import InpaintConfig
from actors.refiners import RefinerConfig
from actors.refiners.identity import IdentityConfig
from loop.data.config import DataConfig
from loop.run_names import RunName
from loop.tracking.config import TrackingConfig

SCHEMA = 1
"""Version of everything that a run writes. Raise it when a format or the default of a key changes: fingerprints leave
out keys at their default, and folders of another schema are refused."""


def digest(value: object) -> str:
    """The hash of a plain value and the schema, 16 hex digits."""
    return hashlib.sha256(json.dumps([SCHEMA, value], sort_keys=True).encode()).hexdigest()[:16]


class MiningConfig(Config):
    """Selection of the instances that the detector gets wrong (DetDiffusion, arXiv 2403.13304, Eq. 2)."""

    score_threshold: Share = 0.3
    """gamma: detections count if their score is above this."""
    iou_threshold: Share = 0.5
    """beta: a box is easy if its IoU with such a detection is above this."""
    match_class: bool = True
    """Count only detections of the box's own class. The paper leaves this open."""
    policy: Literal["hardest", "balanced", "ranked", "random"] = "hardest"
    """Order in which instances are selected. hardest: hard ones, lowest score first. balanced: the same, in turns over
    the classes. ranked: as balanced, then easy ones, lowest score first. random: any instances, as the baseline of an
    ablation."""
    budget: int = Field(40, ge=1)
    """Maximum number of instances selected in a round."""
    cross_fit: int = Field(0, ge=0)
    """Number of folds, or 0 for none. For each fold, a detector is trained on the other folds and decides which boxes
    of this fold are easy. Without folds the current detector decides, which finds most of what it was trained on. Folds
    do not help if detector.weights were trained on the same images."""
    detector: DetectorConfig | None = None
    """Detector that decides which boxes are easy, trained as the control is; default: the current detector."""

    @field_validator("cross_fit")
    @classmethod
    def _something_to_train_on(cls, num_folds: int) -> int:
        if num_folds == 1:
            raise ValueError("one fold leaves no images to train on; give 0 (off), or 2 or more")
        return num_folds

    def attribute(self) -> AttributeRule:
        """The rule of easy and hard, as keyword arguments of ``actors.attributes.attributes``."""
        return {
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "match_class": self.match_class,
        }


class FitConfig(Config):
    """Rounds in which a generator or a refiner that learns is fitted. Its own section has the settings of the fit."""

    every: int = Field(0, ge=0)
    """Number of rounds from one fit to the next; 0 fits in round 1 only. A later fit starts from the current weights,
    uses the difficulties mined in its round, and restarts the learning rate schedule."""

    def is_due(self, number: int) -> bool:
        """True if a fit is due in round ``number``, from 1."""
        return number == 1 or (self.every > 0 and (number - 1) % self.every == 0)


class GenerationConfig(Config):
    """Number of candidates."""

    copies: int = Field(2, ge=1)
    """Candidates for each image with mined instances (Gen2Det, arXiv 2312.04566, Table 6c)."""
    max_failed_share: Share = 0.1
    """The round stops if a larger share of the candidates cannot be drawn or judged."""


class MixingConfig(Config):
    """Ratio of real and synthetic images in the batches (Gen2Det, Sec. 3.3)."""

    p: Share = 0.2
    """Share of synthetic images, at most; 0 trains on the real images alone."""
    max_repeats: float | None = Field(1.0, gt=0.0)
    """How often each synthetic image is shown, at most, for each time that the control shows a real one. p is lowered
    where the pool is too small for it. null: no limit."""
    min_pool: int = Field(5, ge=1)
    """With fewer synthetic images no detector is trained: the round's detector is the control, and no gain is
    reported."""
    mode: Literal["batch", "share"] = "batch"
    """batch: a batch is synthetic as a whole with probability p. share: a share p of every batch is synthetic."""


class TrainingConfig(Config):
    """Training of the detector. The control trains in the same way, with p = 0."""

    steps: int = Field(600, ge=1)
    """Optimiser steps per round."""
    epoch_steps: int = Field(50, ge=1)
    """Steps per epoch of the detector's own schedule (learning rate, mosaic). Divides steps."""
    batch_size: int = Field(16, ge=1)
    """Images per step, over all workers."""
    start: Literal["scratch", "previous", "weights"] = "scratch"
    """Weights at the start of a round. scratch: random. previous: of the last round. weights: detector.weights."""
    background_ignore: bool = True
    """On synthetic images, compute the classification loss at positive locations only (Gen2Det, Sec. 3.3)."""
    overrides: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """The detector family's own training settings, by the names that it gives them."""

    @model_validator(mode="after")
    def _whole_epochs(self) -> Self:
        if self.steps % self.epoch_steps:
            raise ValueError(f"steps ({self.steps}) is not a multiple of epoch_steps ({self.epoch_steps})")
        return self


class EvaluationConfig(Config):
    """Comparison of detectors on the real validation images, and of generated images with real ones."""

    seeds: int = Field(1, ge=1, le=100)
    """Training seeds: both arms are trained this many times on the same pool, metrics are means, and the interval of
    the gain becomes narrower. The first training is that of the run without this key; its detector is the current one
    of the next round. An ablation takes its own seeds instead."""
    bootstrap_draws: int = Field(1000, ge=100)
    """Bootstrap resamplings of the validation images for the 95 % interval of the gain."""
    fidelity: Literal["images", "crops"] | None = None
    """Compare generated images with real ones by the detector's features. images: whole images, for generators that
    draw whole images. crops: crops of boxes, for generators that draw into real images. Reported rounds are not
    measured again."""
    inception: str | None = None
    """File with the weights of InceptionV3, for FID; needs fidelity: images and the extra detloop[fid]."""

    @model_validator(mode="after")
    def _fid_of_images(self) -> Self:
        if self.inception is not None and self.fidelity != "images":
            raise ValueError(f"inception needs fidelity: images, not {self.fidelity}: FID compares whole images")
        return self


class RoleConfig(Config):
    """Resources of one kind of actor."""

    num_actors: int = Field(1, ge=1)
    """Number of actors, which share the rows."""
    num_cpus: float = Field(0.5, ge=0.0)
    """Logical CPUs per actor."""
    num_gpus: float = Field(0.0, ge=0.0)
    """GPUs per actor; a fraction lets actors share one."""
    batch_size: int = Field(16, ge=1)
    """Rows per call; no effect on results. In a round, a stage takes no more than the stage before it: candidates are
    judged, written and counted as soon as they are drawn, and an interrupted run loses at most the batches in work."""
    timeout_s: float = Field(1800.0, ge=0.0)
    """Seconds that a row may take, or 0 for no limit. If a batch of n rows takes n times as long, a new component takes
    over, and each row is tried once more, alone, in a new actor. A row that is too slow again is dropped, and counts
    for generation.max_failed_share. With engine: inline the old component is left behind in its thread."""


class TrainRoleConfig(Config):
    """Resources of the workers that train the detector or fit the generator."""

    num_workers: int = Field(1, ge=1)
    """Number of Ray Train workers (data parallel). Each worker of a detector normalises over its own part of a batch,
    so compare arms with the same number."""
    num_cpus: float = Field(1.0, gt=0.0)
    """Logical CPUs per worker; also its number of torch threads."""
    num_gpus: float = Field(0.0, ge=0.0)
    """GPUs per worker."""
    max_failures: int = Field(2, ge=0)
    """Number of worker failures from which a training recovers."""
    keep_every_s: float = Field(60.0, ge=0.0)
    """Seconds between saves of the training state, at the ends of epochs: the time that a lost worker may cost."""


class HostingConfig(Config):
    """Where a run executes. Of its keys, only num_workers of fit and train change results."""

    engine: Literal["ray", "inline"] = "ray"
    """ray: in the actors and workers of Ray. inline: in this process, for a debugger."""
    share_candidates: bool = False
    """Store mined instances and candidates below root, and reuse them in every run that would compute the same, for
    example in the arms of an ablation."""
    num_cpus: int | None = Field(None, ge=1)
    """Logical CPUs of a local Ray; default: those of this machine, at least 4. Not used on a running cluster."""
    scale_up_timeout_s: float = Field(0.0, ge=0.0)
    """Maximum time to wait until an autoscaling cluster has room for every role."""
    generate: RoleConfig = RoleConfig(batch_size=4)
    """Actors that draw candidates."""
    inspect: RoleConfig = RoleConfig()
    """Actors that run the detector, on candidates and on real images."""
    judge: RoleConfig = RoleConfig()
    """Actors that run the filters."""
    refine: RoleConfig = RoleConfig()
    """Actors that move boxes, if there is a refiner."""
    keep: RoleConfig = RoleConfig(num_cpus=0.25)
    """Actors that write samples."""
    fit: TrainRoleConfig = TrainRoleConfig(num_workers=2)
    """Workers that fit the generator and the refiner."""
    train: TrainRoleConfig = TrainRoleConfig()
    """Workers that train the detector."""


class LoopConfig(Config):
    """The config of a run."""

    name: RunName
    """Folder of the run below root. Names of folders that runs share, such as controls and labels, are refused."""
    root: str = "runs"
    """Storage root of everything that a run writes: a folder or an fsspec URI (s3://, gs://)."""
    seed: int = 0
    """Seed of all randomness in the run."""
    rounds: int = Field(2, ge=0)
    """Number of rounds; 0 trains and evaluates the control alone. A finished run continues if the number is raised."""
    data: DataConfig
    detector: DetectorConfig = UltralyticsConfig()
    """Inspects real and generated images, and is trained again in every round."""
    mining: MiningConfig = MiningConfig()
    generator: GeneratorConfig = InpaintConfig()
    """Draws candidates from the mined instances."""
    fit: FitConfig = FitConfig()
    generation: GenerationConfig = GenerationConfig()
    filters: tuple[FilterConfig, ...] = ()
    """Filters that judge the candidates, in this order. A dropped image is not passed to the later ones."""
    rejected_boxes: RejectedBoxes = "ignore"
    """Treatment of a drawn box that a filter rejects. ignore: remove its label and leave its pixels; use it with
    training.background_ignore. restore: put the real pixels back, and the label of a box that was redrawn in place;
    background_ignore is then not needed. drop_image: drop the whole image."""
    refiner: RefinerConfig = IdentityConfig()
    """Moves the drawn boxes that the filters keep to their objects."""
    mixing: MixingConfig = MixingConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    hosting: HostingConfig = HostingConfig()
    tracking: TrackingConfig = TrackingConfig()

    @field_validator("filters")
    @classmethod
    def _filters_once(cls, filters: tuple[FilterConfig, ...]) -> tuple[FilterConfig, ...]:
        kinds = [config.kind for config in filters]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"each kind of filter may occur once: {kinds}")
        return filters

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        detectors = (self.detector, self.mining.detector or self.detector)
        if self.training.start == "weights" and not all(detector.has_weights for detector in detectors):
            raise ValueError(
                "training.start: weights needs detector.weights (or torchvision's backbone_weights), and those of "
                "mining.detector if mining.detector is set"
            )
        if self.rejected_boxes == "restore" and not self.generator.has_canvas:
            raise ValueError(
                f"rejected_boxes: restore needs real pixels, and generator {self.generator.kind} keeps none; "
                "use ignore or drop_image"
            )
        return self

    @property
    def refines(self) -> bool:
        """Whether a round has the stage ``refine``."""
        return not isinstance(self.refiner, IdentityConfig)

    def science(self, *, defaults: bool = True) -> dict[str, Any]:
        """All keys that affect the results, as plain JSON values; without ``defaults``, keys at a default are left out.

        Hosting, storage, tracking and fidelity metrics do not affect the results.
        """
        return self.model_dump(mode="json", exclude=_BESIDES, exclude_defaults=not defaults)

    def fingerprint(self, *sections: str) -> str:
        """The hash of the named sections of ``science()``, or of all of it, 16 hex digits."""
        science = self.science(defaults=False)
        return digest({key: science.get(key) for key in sections} if sections else science)


_BESIDES: dict[str, Any] = {
    **dict.fromkeys(("name", "root", "hosting", "tracking"), True),
    "evaluation": {"fidelity", "inception"},
}


class ConfigError(ValueError):
    """Raised for a config that cannot be used. The message names file, key, value and choices."""
