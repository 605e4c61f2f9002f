"""Generators draw variants of mined instances: the protocol, and the base class of their configs."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, TypeVar

import numpy as np

from actors.boxes import Boxes
from actors.fitting import Learner
from actors.records import Annotation, Candidate, LabeledImage, Lineage, Strategy
from actors.seeds import derive_seed

Mode = TypeVar("Mode", bound=str)


class Generator(Protocol):
    """Draws variants of mined instances; built from its config, the real training images and its fitted checkpoint.

    All randomness of a candidate comes from its lineage's seed (``numpy.random.default_rng(lineage.seed)``; noise
    for a GPU is drawn on the CPU), so that its picture depends neither on the batch size nor on the process.
    """

    def generate(self, lineages: Sequence[Lineage]) -> list[Candidate]:
        """One candidate per lineage, in order.

        Raises ValueError if a lineage names an image or box that does not exist.
        """
        ...


class GeneratorBase(Learner):
    """The base of every generator's config."""

    has_canvas: ClassVar[bool] = True
    """Whether candidates are drawn into real images, whose pixels can be restored."""

    boxes_are_exact: ClassVar[bool] = False
    """Whether objects lie in their boxes as those of real images do, so that a refiner cannot improve them."""

    @abstractmethod
    def build(
        self,
        real: Sequence[LabeledImage],
        classes: tuple[str, ...],
        fitted: str | None = None,
        clean: Sequence[LabeledImage] = (),
    ) -> Generator:
        """The generator over the real training images; ``fitted`` is the URI of its checkpoint if it learns.

        ``clean`` are images without objects to draw into (``data.clean``).

        Raises ValueError or FileNotFoundError if the checkpoint is missing or belongs to another generator.
        """

    def requested(self) -> Strategy:
        """The difficulty requested for all drawn instances; "origin" (as mined) if it cannot be chosen."""
        return "origin"

    @property
    def clean_share(self) -> float:
        """Share of the candidates for which images without objects come first; 0 for a generator that has no choice."""
        return 0.0

    @property
    def hard_modes(self) -> tuple[str, ...]:
        """The modes of hardening that a lineage can request (``Lineage.mode``), each once; () if there are none."""
        return ()


def requested_modes(modes: tuple[Mode, ...], lineage: Lineage) -> tuple[Mode, ...]:
    """Those of a generator's ``modes`` that a lineage allows: the requested one, or all if it requests none.

    Raises ValueError if the requested mode is none of them.
    """
    if not lineage.mode:
        return modes
    if lineage.mode not in modes:
        raise ValueError(f"{lineage.generator}: mode {lineage.mode!r} is none of its modes: {', '.join(modes)}")
    return tuple(mode for mode in modes if mode == lineage.mode)[:1]  # modes may be repeated


def one_box(box: Boxes, label: np.int64) -> Annotation:
    """The annotation of one box ``[4]``, not ignored."""
    return Annotation(boxes=box[None], labels=np.array([label], np.int64), ignore=np.zeros(1, np.bool_))


def drawn_clean(clean: Sequence[LabeledImage], share: float, number: int, seed: int) -> list[LabeledImage]:
    """For a ``share`` of the lineages, at most ``number`` images without objects to draw into, in the order to try.

    The choice depends on the lineage's ``seed`` alone.
    """
    rng = np.random.default_rng(derive_seed(seed, "clean"))
    if not clean or rng.random() >= share:
        return []
    return [clean[index] for index in rng.permutation(len(clean))[:number]]


def source_of(images: Mapping[str, LabeledImage], lineage: Lineage) -> LabeledImage:
    """The real image that holds a lineage's instances. Raises ValueError if it or one of them does not exist."""
    image = images.get(lineage.image_id)
    if image is None:
        raise ValueError(f"{lineage.generator}: {lineage.image_id!r} is no training image (there are {len(images)})")
    absent = [index for index in lineage.box_indices if not 0 <= index < len(image.annotation)]
    if absent:
        raise ValueError(f"{lineage.generator}: {image.id!r} has {len(image.annotation)} boxes, and none at {absent}")
    return image
