"""Filters judge candidates: their protocol, and the base of their configs."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from actors.config import Component
from actors.fitting import DetectorCheckpoint
from actors.images import Pixels
from actors.records import Inspected, LabeledImage, Verdict
from actors.seeds import derive_seed

State = Mapping[str, Any]
"""Measurements of the real images that a filter works with: plain JSON values, stored in the run's folder.

The run prints the sentences of the list ``remarks``, if there is one.
"""

Embed = Callable[[Sequence[Pixels]], NDArray[np.float32]]
"""One feature vector per image: ``[n, d]``. The vector of an image does not depend on the others."""

OpenEmbed = Callable[[int], Embed]
"""Opens the current detector as an ``Embed``; the argument is the longer side in px that images are resized to."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldBack:
    """A detector and the real training images that it was not trained on: one fold of a cross-fitting."""

    detector: DetectorCheckpoint
    images: tuple[LabeledImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetectorAccess:
    """The run's detectors, for filters that use them. None is opened before it is used."""

    open_embed: OpenEmbed
    held_back: tuple[HeldBack, ...] = ()  # as many folds as ``FilterBase.num_folds`` asks for


class Filter(Protocol):
    """Judges candidates. It is built from its config and its fitted state, the same on every actor."""

    def judge(self, batch: Sequence[Inspected]) -> list[tuple[Verdict, ...]]:
        """The verdicts on each candidate, in order: one on the whole image, or one per box that the filter judges.

        A candidate's verdicts do not depend on the others in the batch.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RealImages:
    """The real images that filters may measure, sorted by id."""

    classes: tuple[str, ...] = ()
    train: tuple[LabeledImage, ...]
    held_out: tuple[LabeledImage, ...] = ()  # validation and test images, used only to reject copies of them
    clean: tuple[LabeledImage, ...] = ()  # images without objects, used only to reject copies of them

    def __post_init__(self) -> None:
        for split in ("train", "held_out", "clean"):
            images = sorted(getattr(self, split), key=lambda image: image.id)
            object.__setattr__(self, split, tuple(images))

    def some(self, number: int) -> tuple[LabeledImage, ...]:
        """At most ``number`` training images by id, chosen at random, but the same ones each time."""
        chosen = sorted(self.train, key=lambda image: derive_seed("some", image.id))[:number]
        return tuple(sorted(chosen, key=lambda image: image.id))


class FilterBase(Component):
    """The base of every filter's config."""

    judges_boxes: ClassVar[bool] = False
    """Whether the filter rejects single boxes rather than whole images."""

    @property
    def num_folds(self) -> int:
        """Number of folds of cross-fitted detectors that the filter uses; 0 if it uses none."""
        return 0

    @property
    def parameter_prefixes(self) -> tuple[str, ...]:
        """Beginnings of names of the detector's parameters that the config chooses; () if it names none."""
        return ()

    def fit(self, real: RealImages) -> State:
        """Measure the real images, once for a run. The state depends on the images alone, not on their order.

        Raises ValueError or FileNotFoundError where images or weights are missing.
        """
        del real
        return {}

    @abstractmethod
    def build(self, state: State, detectors: DetectorAccess | None = None) -> Filter:
        """The filter with the ``state`` that ``fit`` returned.

        Filters that use detectors open them when they first need them. Raises ValueError where one is needed and none
        is given.
        """
