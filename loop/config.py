"""The whole config tree, and what identifies a run.

Component sections (detector, generator, filters) are described where the component is; how a config is read from
files, in ``loop.config_files``.
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
from loop.data.config import DataConfig

SCHEMA = 1
"""The form of all that a run writes. Raise it when that form, or the default of a key, changes: fingerprints leave out
what stands at its default, and folders of another schema are refused."""


def digest(value: Any) -> str:  # noqa: ANN401 - any plain value
    """16 hex digits over a plain value and the schema."""
    return hashlib.sha256(json.dumps([SCHEMA, value], sort_keys=True).encode()).hexdigest()[:16]


class MiningConfig(Config):
    """Which instances the detector gets wrong (DetDiffusion, arXiv 2403.13304, Eq. 2), and how many are taken."""

    score_threshold: Share = 0.3
    """gamma: detections must score above this to count."""
    iou_threshold: Share = 0.5
    """beta: a box is easy if such a detection has an IoU above this with it."""
    match_class: bool = True
    """Only detections of the box's own class count (the paper leaves it open)."""
    policy: Literal["hardest", "balanced", "ranked", "random"] = "hardest"
    """How the budget is spent: on hard instances, lowest score first; the same in turns over the classes; likewise, and
    when no hard ones are left on the least sure of the easy ones (a detector finds most of what it was trained on);
    or blindly, as the ablation's zero."""
    budget: int = Field(40, ge=1)
    """Instances taken a round."""
    cross_fit: int = Field(0, ge=0)
    """So many detectors, each trained on the real images without one fold of them, say what is easy in that fold: the
    current one finds most of what it was trained on. 0 asks the current one. With detector.weights that have seen the
    images, it does not help."""
    detector: DetectorConfig | None = None
    """Another detector, trained as the control is, that says what is easy; default: the current one."""

    @field_validator("cross_fit")
    @classmethod
    def _something_to_train_on(cls, num_folds: int) -> int:
        if num_folds == 1:
            raise ValueError("without the one fold there is nothing to train on; 0 is off, else 2 or more")
        return num_folds

    def attribute(self) -> AttributeRule:
        """The rule alone, as keyword arguments of ``actors.attributes``."""
        return {
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "match_class": self.match_class,
        }


class FitConfig(Config):
    """When a generator that learns is fitted; how, its own section says."""

    every: int = Field(0, ge=0)
    """It is fitted in the first round, and then again in every so-many-th one: with the difficulties mined there, from
    the weights that it has, the learning rate's schedule anew. 0 is once."""

    def is_due(self, number: int) -> bool:
        """Whether there is a fit in round ``number``, from 1."""
        return number == 1 or (self.every > 0 and (number - 1) % self.every == 0)


class GenerationConfig(Config):
    """How many variants are drawn."""

    copies: int = Field(2, ge=1)
    """Candidates for each image that holds mined instances (Gen2Det, arXiv 2312.04566, Table 6c)."""
    max_failed_share: Share = 0.1
    """The round stops when more than this share of the candidates could not be drawn or judged."""


class MixingConfig(Config):
    """How real and synthetic images share the batches (Gen2Det, Sec. 3.3)."""

    p: Share = 0.2
    """Share of synthetic images; 0 is training on the real ones alone."""
    mode: Literal["batch", "share"] = "batch"
    """batch: a whole batch is synthetic with probability p; share: p of every batch, counted exactly."""


class TrainingConfig(Config):
    """How the detector is retrained. The control arm trains the same way, with p = 0."""

    steps: int = Field(600, ge=1)
    """Optimiser steps of one round."""
    epoch_steps: int = Field(50, ge=1)
    """Steps that the detector's own schedule (learning rate, mosaic) calls an epoch; divides steps."""
    batch_size: int = Field(16, ge=1)
    """Images a step, over all workers."""
    start: Literal["scratch", "previous", "weights"] = "scratch"
    """Where a round's training starts: random weights, the last round's detector, or detector.weights."""
    background_ignore: bool = True
    """On synthetic images only positive locations give classification loss (Gen2Det, Sec. 3.3)."""
    overrides: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """The detector family's own training settings, by the names that it gives them."""

    @model_validator(mode="after")
    def _whole_epochs(self) -> Self:
        if self.steps % self.epoch_steps:
            raise ValueError(f"steps ({self.steps}) is no multiple of epoch_steps ({self.epoch_steps})")
        return self


class EvaluationConfig(Config):
    """How detectors are compared on the real validation images."""

    bootstrap_draws: int = Field(1000, ge=100)
    """Resamplings of the validation images behind the 95 % interval of the gain."""
    fidelity: Literal["images", "crops"] | None = None
    """Hold what was drawn against the real images, by features: whole images, for generators that draw these; crops of
    boxes, for those that draw into real images. A round that is reported already stays as it is."""
    inception: str | None = None
    """With images: file of InceptionV3's weights, for FID; needs the extra detloop[fid]."""

    @model_validator(mode="after")
    def _fid_of_images(self) -> Self:
        if self.inception is not None and self.fidelity != "images":
            raise ValueError(f"inception needs fidelity: images, not {self.fidelity}: FID is of whole images")
        return self


class RoleConfig(Config):
    """What one kind of actor is given."""

    num_actors: int = Field(1, ge=1)
    """Copies of the actor, which share the rows."""
    num_cpus: float = Field(0.5, ge=0.0)
    """Logical CPUs of each actor."""
    num_gpus: float = Field(0.0, ge=0.0)
    """GPUs of each actor; fractions share one."""
    batch_size: int = Field(16, ge=1)
    """Rows handed over at a time; no effect on results."""


class TrainRoleConfig(Config):
    """What the workers are given that train the detector, or fit the generator."""

    num_workers: int = Field(1, ge=1)
    """Ray Train workers: data-parallel copies of the network. In a detector each normalises by its own part
    of a batch, so compare arms at the same number."""
    num_cpus: float = Field(1.0, gt=0.0)
    """Logical CPUs of each worker; also its number of torch threads."""
    num_gpus: float = Field(0.0, ge=0.0)
    """GPUs of each worker."""
    max_failures: int = Field(2, ge=0)
    """Lost workers that a training survives."""
    keep_every_s: float = Field(60.0, ge=0.0)
    """Seconds of training after which its state is kept, at the next epoch's end: what a lost worker may cost."""


class HostingConfig(Config):
    """Where things run, and nothing else: of its keys only the trainers' num_workers change a result."""

    engine: Literal["ray", "inline"] = "ray"
    """inline runs every stage in this process, for a debugger."""
    share_candidates: bool = False
    """Mined instances and candidates are kept below root by what they depend on, and taken from there by every run
    that would make the same: arms of an ablation, say."""
    num_cpus: int | None = Field(None, ge=1)
    """Logical CPUs of a local Ray (a running cluster knows its own); default: this machine's, at least 4."""
    scale_up_timeout_s: float = Field(0.0, ge=0.0)
    """How long to wait for an autoscaling cluster to grow until every role has a place."""
    generate: RoleConfig = RoleConfig()
    inspect: RoleConfig = RoleConfig()
    judge: RoleConfig = RoleConfig()
    keep: RoleConfig = RoleConfig(num_cpus=0.25)
    fit: TrainRoleConfig = TrainRoleConfig(num_workers=2)
    train: TrainRoleConfig = TrainRoleConfig()


class TrackingConfig(Config):
    """MLflow."""

    uri: str | None = None
    """Tracking server; default: a sqlite file in the run root."""
    experiment: str | None = None
    """Experiment name; default: the run's name."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Tags of the loop's run."""


class LoopConfig(Config):
    """A run, whole."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder of the run below root."""
    root: str = "runs"
    """Storage root of all that a run writes: a folder or any fsspec URI (s3://, gs://)."""
    seed: int = 0
    """All randomness of the run comes from here."""
    rounds: int = Field(2, ge=0)
    """Rounds of mine, generate, judge and train; 0 trains and measures the control alone. With more than before, a
    run goes on from the rounds that it has."""
    data: DataConfig
    detector: DetectorConfig = UltralyticsConfig()
    mining: MiningConfig = MiningConfig()
    generator: GeneratorConfig = InpaintConfig()
    fit: FitConfig = FitConfig()
    generation: GenerationConfig = GenerationConfig()
    filters: tuple[FilterConfig, ...] = ()
    """Judges, in this order; a dropped image is not shown to the later ones."""
    rejected_boxes: RejectedBoxes = "ignore"
    """A drawn box that a filter rejects: ignore (its label goes, its pixels stay: training.background_ignore is for
    that); restore (the real image's pixels come back there, with the label if it was a box of its own; there is then
    nothing that background_ignore has to hide); drop_image (the whole image goes)."""
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
            raise ValueError(f"a filter may be named once: {kinds}")
        return filters

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        detectors = (self.detector, self.mining.detector or self.detector)
        if self.training.start == "weights" and None in [detector.weights for detector in detectors]:
            raise ValueError("training.start: weights needs detector.weights, and those of a mining.detector")
        if self.rejected_boxes == "restore" and not self.generator.has_canvas:
            raise ValueError(
                f"rejected_boxes: restore needs real pixels, {self.generator.kind} has none: use ignore or drop_image"
            )
        return self

    def science(self, *, defaults: bool = True) -> dict[str, Any]:
        """All that decides the results, as plain JSON values; without ``defaults``, keys at their default are left out.

        Where a run is hosted and written decides nothing, and neither do measurements of what was drawn.
        """
        return self.model_dump(mode="json", exclude=_BESIDES, exclude_defaults=not defaults)

    def fingerprint(self, *sections: str) -> str:
        """16 hex digits over the named sections of ``science()``, or over all of it."""
        science = self.science(defaults=False)
        return digest({key: science.get(key) for key in sections} if sections else science)


_BESIDES: dict[str, Any] = {
    **dict.fromkeys(("name", "root", "hosting", "tracking"), True),
    "evaluation": {"fidelity", "inception"},
}


class ConfigError(ValueError):
    """A config that cannot be used; the message names file, key, value and choices."""
