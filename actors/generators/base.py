"""What the loop asks of a generator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from actors.boxes import Boxes
from actors.checkpoint import Header, read_checkpoint
from actors.images import Pixels
from actors.records import Annotation, Candidate, Difficulty, LabeledImage, Lineage

if TYPE_CHECKING:
    from torch import Tensor


class Generator(Protocol):
    """Draws variants of mined instances. Built from its config, the real training images and what was fitted on them.

    All randomness of a candidate comes from its lineage's seed (``numpy.random.default_rng(lineage.seed)``; noise
    for a GPU is drawn on the CPU), so that its picture does not depend on batch size or on who draws it.
    """

    def generate(self, lineages: Sequence[Lineage]) -> list[Candidate]:
        """One candidate per lineage, in order.

        Raises ValueError where a lineage names an image or box that is not there.
        """
        ...


def one_box(box: Boxes, label: np.int64) -> Annotation:
    """The annotation of one box ``[4]``, not ignored."""
    return Annotation(boxes=box[None], labels=np.array([label], np.int64), ignore=np.zeros(1, np.bool_))


def source_of(images: Mapping[str, LabeledImage], lineage: Lineage) -> LabeledImage:
    """The real image that holds a lineage's instances. Raises ValueError where it, or one of them, is not there."""
    image = images.get(lineage.image_id)
    if image is None:
        raise ValueError(f"{lineage.generator}: {lineage.image_id!r} is no training image (there are {len(images)})")
    absent = [index for index in lineage.box_indices if not 0 <= index < len(image.annotation)]
    if absent:
        raise ValueError(f"{lineage.generator}: {image.id!r} has {len(image.annotation)} boxes, not {absent}")
    return image


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitData:
    """What a generator that learns is fitted on: real training images, and nothing that was held out."""

    classes: tuple[str, ...]
    images: tuple[LabeledImage, ...]
    difficulties: tuple[tuple[Difficulty, ...], ...]  # one for each box of each image, as mined
    seed: int

    @property
    def attributes(self) -> dict[str, tuple[Difficulty, ...]]:
        """The difficulties by image id, for a generator to remember."""
        return {image.id: found for image, found in zip(self.images, self.difficulties, strict=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One of the processes that fit a generator together."""

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
        raise ValueError(f"generator {family}: it draws with what was fitted on the run's images, and nothing was")
    header, tensors = read_checkpoint(uri)
    wanted = (family, model, classes)
    if (header.family, header.model, header.classes) != wanted:
        raise ValueError(f"{uri}: holds {header.family} {header.model} for {header.classes}, but {wanted} is asked for")
    return header, tensors


NUM_PREVIEWS = 4  # at a time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preview:
    """A real picture, and what a generator in its fit draws for it as it is now."""

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

        Raises ValueError or FileNotFoundError where they are not this generator's.
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
        """Put the checkpoint that the generator is built with at ``uri``, whole or not at all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A generator as a fit has left it."""

    checkpoint: str  # URI
    fingerprint: str  # of that fit: over all that decides the weights
    boxes_cut: int = 0  # of the real images, that it left out, as prompts have no room for them
