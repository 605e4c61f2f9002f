"""What inpainting asks of a painter: the network that fills the hole in a window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.images import Pixels
from actors.records import Attributes, Difficulty


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """A square part of a real image, at the painter's own size, and the one object that is to be painted into it."""

    pixels: Pixels  # [S, S, 3] RGB: the image; for a painter that varies, in the hole what it is to vary
    mask: NDArray[np.bool_]  # [S, S]: where to paint
    box: geometry.Boxes  # [4] xyxy in px of the window: the object's box
    label: int  # class index
    difficulty: Difficulty  # the variant asked for (DetDiffusion, arXiv 2403.13304, Sec. 3.2)
    seed: int  # all noise comes from here, drawn on the CPU


class Painter(Protocol):
    """Fills windows. Its network is frozen: painting changes no weight."""

    size_px: int  # S, the side of the windows that it takes
    max_zoom: float  # the most that a small object may be enlarged into its window
    varies: bool  # whether what it paints is a variant of what the window held, rather than painted from noise alone
    attributes: Attributes  # of the real images that it was fitted on; empty for one that was fitted elsewhere

    def paint(self, windows: Sequence[Window]) -> Sequence[Pixels | None]:
        """Each window painted, ``[S, S, 3]``, or None where the painter refuses (a safety checker's black picture).

        What it returns outside the mask is not used. A window's picture does not depend on the others in the batch,
        up to the last bits of the arithmetic.
        """
        ...
