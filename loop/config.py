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
from actors.counted import counted
from actors.detectors import DetectorConfig
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.filters import FilterConfig
from actors.filters.rejected import RejectedBoxes
from actors.generators import GeneratorConfig
from actors.generators.inpaint.component import InpaintConfig
from actors.refiners import RefinerConfig
from actors.refiners.identity import IdentityConfig
from loop.data.config import DataConfig
from loop.guard.config import GuardConfig, NumFolds
from loop.hosting.config import HostingConfig
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
    policy: Literal["hardest", "balanced", "ranked", "random", "utility"] = "hardest"
    """Order in which instances are selected. hardest: hard ones, lowest score first. balanced: the same, in turns over
    the classes. ranked: as balanced, then easy ones, lowest score first. random: any, as an ablation's baseline.
    utility: classes and difficulties whose candidates had the highest utility in earlier rounds get more of the budget,
    the hardest instances first; hard modes of the generator are chosen likewise. Needs the filter utility."""
    budget: int = Field(40, ge=1)
    """Maximum number of instances selected in a round."""
    cross_fit: NumFolds = 0
    """Number of folds, or 0 for none. For each fold, a detector is trained on the other folds, for as many passes over
    its images as the control, and decides which boxes of this fold are easy. Without folds the current detector
    decides, which finds most of what it was trained on. Folds do not help if detector.weights were trained on the same
    images."""
    detector: DetectorConfig | None = None
    """Detector that decides which boxes are easy, trained as the control is; default: the current detector."""

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
    """Number of candidates, and selection among those that the filters keep."""

    copies: int = Field(2, ge=1)
    """Candidates for each image with mined instances (Gen2Det, arXiv 2312.04566, Table 6c)."""
    keep: int | None = Field(None, ge=1)
    """Pictures that a round adds to the pool, at most; default: all that the filters keep."""
    select: str = "random"
    """Which pictures a round adds, if there are more than keep: random ones, or those with the highest score by one of
    the filters, such as utility. Classes keep their shares, and canvases and sources are used evenly."""
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
    until: float = Field(1.0, gt=0.0, le=1.0)
    """Share of the steps after which only real images are shown: with 0.7, the last 30 % of a training is on real
    images."""
    clean: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of images without objects (``data.clean``) among the real images, in loop and control alike."""


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
    the gain becomes narrower. The first training is that of the run without this key; its detector is the next round's
    current one. An ablation takes its own seeds instead."""
    bootstrap_draws: int = Field(1000, ge=100)
    """Bootstrap resamplings of the validation images for the 95 % interval of the gain."""
    fidelity: Literal["images", "crops"] | None = None
    """Compare generated images with real ones by the detector's features. images: whole images, for generators that
    draw them. crops: of boxes, for generators that draw into real images. Reported rounds are not measured again."""
    inception: str | None = None
    """File with the weights of InceptionV3, for FID; needs fidelity: images and the extra detloop[fid]."""

    @model_validator(mode="after")
    def _fid_of_images(self) -> Self:
        if self.inception is not None and self.fidelity != "images":
            raise ValueError(f"inception needs fidelity: images, not {self.fidelity}: FID compares whole images")
        return self


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
    guard: GuardConfig = GuardConfig()
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
        if self.guard.folds and self.training.start == "previous":
            raise ValueError(
                "guard.folds: the folds' detectors of a round do not continue from those of the round before; set "
                "training.start to scratch or weights, or guard.folds to 0"
            )
        if self.generation.select not in (known := ("random", *(one.kind for one in self.filters))):
            raise ValueError(
                f"generation.select: {self.generation.select} is none of: {', '.join(known)} (random, or a filter of "
                "this config)"
            )
        if self.generation.select != "random" and self.generation.keep is None:
            raise ValueError(f"generation.select: {self.generation.select} needs generation.keep, a number of pictures")
        if self.mining.policy == "utility" and "utility" not in known:
            raise ValueError(
                "mining.policy: utility learns from the scores of the filter utility, which this config does not have; "
                "add {kind: utility} to filters, or choose another policy"
            )
        keep, least = self.generation.keep, self.mixing.min_pool
        if keep is not None and 0 < self.rounds * keep < least:
            raise ValueError(
                f"generation.keep: {keep} in {counted(self.rounds, 'round')} is a pool of "
                f"{counted(self.rounds * keep, 'picture')} at most, and mixing.min_pool ({least}) asks "
                "for more: no detector would be trained"
            )
        if self.rejected_boxes == "restore" and not self.generator.has_canvas:
            raise ValueError(
                f"rejected_boxes: restore needs real pixels, and generator {self.generator.kind} keeps none; "
                "use ignore or drop_image"
            )
        self.generator.check_sections(self.detector, has_clean=self.data.clean_folder is not None)
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
