"""The fit of a component that learns from the run's real images: its config, its data, and a fit in progress."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from upath import UPath

from actors.checkpoint import Checkpoint, Header, read_checkpoint
from actors.config import Component, Config
from actors.images import Pixels
from actors.records import Annotation, Difficulty, LabeledImage

if TYPE_CHECKING:
    from torch import Tensor

NUM_PREVIEWS = 4  # at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSize:
    """The size of a fit."""

    steps: int  # of the optimiser
    batch_size: int  # examples a step, over all workers
    accumulate: int = 1  # parts in which each worker takes its share of a batch


class Learner(Component):
    """The config of a component that may have to be fitted on the real training images before it is used.

    One that learns overrides ``fit_size`` and ``open_fit``.
    """

    uses_detector: ClassVar[bool] = False
    """Whether the fit learns from the current detector, and so depends on its weights."""

    def fit_size(self) -> FitSize | None:
        """The size of the fit; None for a component that does not learn."""
        return None

    @property
    def learns(self) -> bool:
        """Whether the component is fitted."""
        return self.fit_size() is not None

    def open_fit(self, data: "FitData", worker: "Worker") -> "Fit":
        """A fit of the component in one worker, not yet begun. Raises ValueError where there is nothing to fit on."""
        raise NotImplementedError(f"{self.kind} does not learn")

    def fit_options(self) -> dict[str, Any]:
        """The part of the config on which a fit depends, as plain values: how it is used needs no new fit."""
        return self.model_dump(mode="json", exclude=_not_in_fit(self), exclude_defaults=True)


def _not_in_fit(config: Config) -> dict[str, Any]:
    """The keys of ``not_in_fit``, including those of nested sections, as pydantic excludes them."""
    below = {name: _not_in_fit(value) for name, value in config if isinstance(value, Config)}
    return dict.fromkeys(config.not_in_fit, True) | {name: keys for name, keys in below.items() if keys}


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorCheckpoint:
    """A trained detector that a fit learns from."""

    config: Component  # of the detector; it loads the checkpoint
    uri: Checkpoint

    def digest(self) -> str:
        """SHA-256 over the config and the checkpoint's bytes, wherever they lie."""
        digest = hashlib.sha256(self.config.model_dump_json().encode())
        digest.update(UPath(self.uri).read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitData:
    """The data of a fit: real training images, and nothing that was held out."""

    classes: tuple[str, ...]
    images: tuple[LabeledImage, ...]
    difficulties: tuple[tuple[Difficulty, ...], ...]  # one for each box of each image, as mined
    seed: int
    detector: DetectorCheckpoint | None = field(default=None, metadata={"omit_default": True})  # if the learner uses it

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


def read_fitted(
    uri: str | None, family: str, model: str, classes: tuple[str, ...]
) -> tuple[Header, dict[str, "Tensor"]]:
    """Header and tensors of what was fitted: a checkpoint of this ``family`` and ``model`` for these classes.

    Raises ValueError where there is none or it is another's, FileNotFoundError where it is not there.
    """
    if uri is None:
        raise ValueError(f"{family}: it needs a fit on the run's images, and there is none")
    header, tensors = read_checkpoint(uri)
    wanted = (family, model, classes)
    if (header.family, header.model, header.classes) != wanted:
        raise ValueError(f"{uri}: holds {header.family} {header.model} for {header.classes}, but {wanted} is asked for")
    return header, tensors


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preview:
    """A real picture, and what the component draws for it in the present state of its fit."""

    real: Pixels  # [H, W, 3]
    annotation: Annotation  # of all these pictures; boxes that are not asked for are flagged ignore
    difficulties: tuple[Difficulty, ...]  # [n], as the fit is told
    drawn: Mapping[str, Pixels]  # [H, W, 3] each, by the difficulty that is asked for


class Fit(Protocol):
    """A fit in progress, in one worker. Steps are functions of the seed and the step's number, and of nothing else."""

    num_steps: int
    batch_size: int  # examples a step, over all workers
    boxes_cut: int  # of all images' boxes, shown once: those that it leaves out, as prompts have no room for them

    def warm_start(self, uri: str) -> None:
        """Begin with the weights that an earlier fit has saved at ``uri``, instead of random or pretrained ones.

        Raises ValueError or FileNotFoundError where they are not this component's.
        """
        ...

    def step(self, number: int) -> float:
        """One optimiser step, the ``number``-th from 0; its loss over all workers' examples."""
        ...

    def state(self) -> dict[str, Any]:
        """All that the steps to come depend on: plain values and tensors."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take up where ``state`` was taken."""
        ...

    def preview(self) -> list[Preview]:
        """A few real pictures and what the averaged weights draw for them, always the same ones; changes nothing."""
        ...

    def save(self, uri: str) -> None:
        """Put the checkpoint that the component is built with at ``uri``, whole or not at all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The result of a fit, for the component to be built with."""

    checkpoint: Checkpoint
    fingerprint: str  # of that fit: over all that decides the weights
    boxes_cut: int = 0  # of the real images, that it left out, as prompts have no room for them
