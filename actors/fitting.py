"""The fit of a component that learns from the run's real images: its config, its data, and a fit in progress."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from upath import UPath

from actors.checkpoint import Checkpoint, Header, read_checkpoint
from actors.config import Component, Config
from actors.detector_loss import DetectorLoss
from actors.images import Pixels
from actors.plain import dumps
from actors.records import Annotation, Difficulty, LabeledImage

if TYPE_CHECKING:
    from torch import Tensor

NUM_PREVIEWS = 4  # pictures of one preview


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSize:
    """The size of a fit."""

    steps: int  # of the optimiser
    batch_size: int  # examples per step, over all workers
    accumulate: int = 1  # gradient accumulation: parts of each worker's share of a batch


class Learner(Component):
    """The config of a component that may have to be fitted on the real training images before it is used.

    A component that learns overrides ``fit_size`` and ``open_fit``.
    """

    @property
    def uses_detector(self) -> bool:
        """Whether the fit uses the current detector, and so depends on its weights."""
        return False

    uses_clean: ClassVar[bool] = False
    """Whether the fit uses the images without objects (``data.clean``), and so depends on them."""

    def fit_size(self) -> FitSize | None:
        """The size of the fit; None for a component that does not learn."""
        return None

    @property
    def learns(self) -> bool:
        """Whether the component has to be fitted."""
        return self.fit_size() is not None

    def open_fit(self, data: "FitData", worker: "Worker") -> "Fit":
        """A new fit of the component in one worker. Raises ValueError if there is nothing to fit on."""
        raise NotImplementedError(f"{self.kind} does not learn")

    def check_images(self, images: Sequence[LabeledImage], clean: Sequence[LabeledImage]) -> None:
        """Raise ValueError or OSError if the component cannot work with these training images, and ``clean`` ones.

        It is called once, before anything is trained.
        """

    def check_sections(self, detector: "LossSource", *, has_clean: bool) -> None:
        """Raise ValueError if the component cannot work with this section ``detector``, or without ``data.clean``."""

    def files_digest(self, clean: Sequence[LabeledImage]) -> str | None:  # noqa: ARG002 - for learners
        """SHA-256 of the contents of further files that the fit reads; None if it reads none.

        ``clean`` are as in ``FitData``. Raises FileNotFoundError if a file is missing.
        """
        return None

    def fit_options(self) -> dict[str, Any]:
        """The part of the config that a fit depends on, as plain values."""
        return _pruned(self.model_dump(mode="json", exclude=_not_in_fit(self), exclude_defaults=True))


def _pruned(plain: dict[str, Any]) -> dict[str, Any]:
    """Remove sections of which no key is left."""
    kept = {key: _pruned(value) if isinstance(value, dict) else value for key, value in plain.items()}
    return {key: value for key, value in kept.items() if value != {}}


def _not_in_fit(config: Config) -> dict[str, Any]:
    """The keys of ``not_in_fit``, including those of nested sections, in the form of pydantic's ``exclude``."""
    below = {name: _not_in_fit(value) for name, value in config if isinstance(value, Config)}
    return dict.fromkeys(config.not_in_fit, True) | {name: keys for name, keys in below.items() if keys}


class LossSource(Protocol):
    """The part of a detector's config that fits and filters use; see ``actors.detectors.base.DetectorBase``."""

    @property
    def model(self) -> str:
        """Name of the architecture."""
        ...

    @property
    def image_size_px(self) -> int:
        """Longer side that images are resized to."""
        ...

    @property
    def once_differentiable(self) -> tuple[str, ...]:
        """How the names of parameters begin by which the loss has no second derivative."""
        ...

    rate_setting: ClassVar[str]
    """Name of the learning rate in ``training.overrides``."""

    def open_loss(
        self,
        checkpoint: Checkpoint,
        *,
        prefixes: Sequence[str] | None = None,
        overrides: Mapping[str, bool | int | float | str] | None = None,
        device: str | None = None,
    ) -> DetectorLoss:
        """The detector's training loss as a function of its parameters and of the images."""
        ...

    def model_dump_json(self) -> str:
        """The config as JSON."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorCheckpoint:
    """A trained detector, for fits and filters that use its loss. The worker or actor opens it."""

    config: LossSource
    uri: Checkpoint
    overrides: Mapping[str, bool | int | float | str]  # of the detector's training; some of them weigh its loss

    def open_loss(self, prefixes: Sequence[str] | None = None, device: str | None = None) -> DetectorLoss:
        """The training loss as a function of the parameters that ``prefixes`` choose; default: those of the head."""
        return self.config.open_loss(self.uri, prefixes=prefixes, overrides=self.overrides, device=device)

    @property
    def learning_rate(self) -> float | None:
        """The learning rate of ``overrides``; None if they have none."""
        found = self.overrides.get(self.config.rate_setting)
        return None if found is None else float(found)

    def digest(self) -> str:
        """SHA-256 of the config, the overrides and the checkpoint's bytes, independent of ``uri``."""
        digest = hashlib.sha256(self.config.model_dump_json().encode())
        digest.update(dumps(dict(self.overrides)))
        digest.update(UPath(self.uri).read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitData:
    """The data of a fit: real training images only, none of the held-out ones."""

    classes: tuple[str, ...]
    images: tuple[LabeledImage, ...]
    difficulties: tuple[tuple[Difficulty, ...], ...]  # one for each box of each image, as mined
    seed: int
    detector: DetectorCheckpoint | None = field(default=None, metadata={"omit_default": True})  # if the learner uses it
    clean: tuple[LabeledImage, ...] = field(default=(), metadata={"omit_default": True})  # likewise; without boxes

    @property
    def attributes(self) -> dict[str, tuple[Difficulty, ...]]:
        """The difficulties by image id."""
        return {image.id: found for image, found in zip(self.images, self.difficulties, strict=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One of the processes that run a fit together."""

    device: str  # as torch names it
    rank: int = 0
    num_workers: int = 1

    def mean(self, value: "Tensor") -> "Tensor":
        """The mean over the workers; ``value`` itself may be overwritten."""
        import torch

        if self.num_workers == 1:
            return value
        value = value.to(self.device)
        torch.distributed.all_reduce(value)
        return value / self.num_workers

    def share(self, gradients: "Sequence[Tensor]") -> None:
        """Replace each gradient by its mean over the workers, in place."""
        import torch

        if self.num_workers == 1:
            return
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def read_fitted(
    uri: str | None, family: str, model: str, classes: tuple[str, ...]
) -> tuple[Header, dict[str, "Tensor"]]:
    """Header and tensors of a fitted checkpoint of this ``family`` and ``model`` for these classes.

    Raises ValueError if ``uri`` is None or the checkpoint is of another component, FileNotFoundError if it is missing.
    """
    if uri is None:
        raise ValueError(f"{family}: no checkpoint of a fit is given; fit it on the run's images first")
    header, tensors = read_checkpoint(uri)
    wanted = (family, model, classes)
    if (header.family, header.model, header.classes) != wanted:
        raise ValueError(f"{uri}: holds {header.family} {header.model} for {header.classes}, but {wanted} is asked for")
    return header, tensors


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preview:
    """A real picture and the component's pictures for it in the current state of its fit."""

    real: Pixels  # [H, W, 3]
    annotation: Annotation  # of these pictures; boxes that are not requested are flagged ignore
    difficulties: tuple[Difficulty, ...]  # [n], as given to the fit; empty if the fit does not use them
    drawn: Mapping[str, Pixels]  # [H, W, 3] each, by requested difficulty or by what they show
    others: Mapping[str, Annotation] = field(default_factory=dict)  # of pictures in ``drawn`` with other boxes
    heading: str = "real"  # of ``real``


class Fit(Protocol):
    """A fit in progress, in one worker. The examples of a step depend on the seed and the step's number alone."""

    num_steps: int
    batch_size: int  # examples per step, over all workers
    boxes_cut: int  # boxes of the training images that it leaves out because their prompts have no room

    def warm_start(self, uri: str) -> None:
        """Start from the weights that an earlier fit saved at ``uri`` instead of random or pretrained ones.

        Raises ValueError or FileNotFoundError if they do not belong to this component.
        """
        ...

    def step(self, number: int) -> float:
        """Run optimiser step ``number``, counted from 0, and return the loss over all workers' examples."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that later steps depend on, as plain values and tensors."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from an earlier ``state``."""
        ...

    def preview(self) -> list[Preview]:
        """A few real pictures, always the same, and the averaged weights' pictures for them; no side effects.

        Empty for a component that draws none.
        """
        ...

    def save(self, uri: str) -> None:
        """Write the checkpoint that the component is built from to ``uri``, atomically."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The result of a fit, from which the component is built."""

    checkpoint: Checkpoint
    fingerprint: str  # of the fit; it covers everything that determines the weights
    boxes_cut: int = 0  # boxes of the real images that it left out because their prompts had no room
