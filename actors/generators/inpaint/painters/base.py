"""Painters fill the hole in a window of a real image: the protocol, and the base class of their configs."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.config import Component
from actors.fitting import Fit, FitData, FitSize, Worker
from actors.images import Pixels
from actors.records import Attributes, Difficulty


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """A square part of a real image, at the painter's own size, and the object to paint into it."""

    pixels: Pixels  # [S, S, 3] RGB: the image; for a painter that varies, with the example in the hole
    mask: NDArray[np.bool_]  # [S, S]: where to paint
    box: geometry.Boxes  # [4] xyxy in px of the window: the object's box
    label: int  # class index
    difficulty: Difficulty  # requested (DetDiffusion, arXiv 2403.13304, Sec. 3.2)
    seed: int  # of all noise, which is drawn on the CPU


class Painter(Protocol):
    """Fills windows. Its network is frozen: painting changes no weight."""

    size_px: int  # S, the side of the windows that it takes
    max_zoom: float  # largest factor by which a small object is enlarged in its window
    varies: bool  # whether it starts from the window's pixels in the hole, rather than from noise alone
    attributes: Attributes  # of the real images that it was fitted on; empty if it was trained elsewhere

    def paint(self, windows: Sequence[Window]) -> Sequence[Pixels | None]:
        """The painted windows ``[S, S, 3]``, each None if the painter refuses it (a safety checker's black picture).

        Pixels outside of the mask are not used. A window's picture does not depend on the others in the batch,
        up to the last bits of the arithmetic.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CropRule:
    """Settings of the training crops of a painter that learns; as in ``InpaintConfig``."""

    context: float
    margin: float
    flip: bool
    rotate: bool


class PainterBase(Component):
    """The base of every painter's config. A painter that learns overrides ``fit_size`` and ``open_fit``."""

    takes_difficulty: ClassVar[bool] = False
    """Whether the painter is conditioned on the difficulty of an instance."""

    @property
    def varies(self) -> bool:
        """Whether the painter starts from the window's pixels in the hole, rather than from noise alone."""
        return False

    @property
    def varies_instances(self) -> bool:
        """Whether the painter is fitted on the real instances, knows their difficulties, and starts from them."""
        return False

    @abstractmethod
    def build(self, classes: tuple[str, ...], fitted: str | None = None) -> Painter:
        """The painter; ``fitted`` is the URI of its checkpoint if it learns.

        Raises ValueError or FileNotFoundError if weights are missing or do not fit.
        """

    def files_digest(self) -> str | None:
        """SHA-256 of the contents of local files that the fit reads; None if it reads none."""
        return None

    def fit_size(self) -> FitSize | None:
        """The size of the fit; None for a painter that does not learn."""
        return None

    def open_fit(self, data: FitData, worker: Worker, crops: CropRule) -> Fit:
        """A new fit of the painter in one worker. Raises ValueError if there is nothing to fit on."""
        raise NotImplementedError(f"{self.kind} does not learn")
