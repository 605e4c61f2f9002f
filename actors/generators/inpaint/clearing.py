"""Clearing a place: what an image is to show where an object is taken away, and whether that would be seen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.generators.cutouts import positions
from actors.generators.cutouts.cutout import Cutout, bounds
from actors.generators.cutouts.window import Mask
from actors.images import Pixels

Floats = NDArray[np.float32]
Part = tuple[slice, slice]  # rows and columns of an image

CUT_SHARE = {"object": 0.3, "box": 0.1}
"""The share of a hole's edge at which what is around it may be cut off: along an outline that is hardly seen."""

_SEAM_PX = 6  # width of the surroundings that a like place must have
_MOST_OFF = 30.0  # grey levels: pixels that differ by more show different things
_GRAIN_PX = 1.5  # the standard deviation of the average that takes away a picture's grain


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ground:
    """What an image shows where an object is taken away."""

    part: Part  # of the image
    pixels: Pixels  # [h, w, 3]
    hole: Mask  # [h, w]

    def lay(self, canvas: Pixels, mask: Mask) -> None:
        """Put it into the image, in place, where ``mask`` ``[H, W]`` is."""
        canvas[self.part][self.hole & mask[self.part]] = self.pixels[self.hole & mask[self.part]]


def ground(image: Pixels, mask: Mask, occupied: geometry.Boxes, rng: np.random.Generator) -> Ground | None:
    """What is to be in a hole ``[H, W]`` in place of what is there: what a like place of the same image shows.

    Like is a place whose surroundings are those of the hole, clear of the ``occupied`` boxes ``[n, 4]``; its light is
    brought to that of the hole. None where there is no such place, or the hole would cut off what reaches into it.
    """
    if not mask.any():
        return None
    left, top, right, bottom = (int(side) for side in bounds(mask))
    x, y = max(left - _SEAM_PX, 0), max(top - _SEAM_PX, 0)
    part = (slice(y, bottom + _SEAM_PX), slice(x, right + _SEAM_PX))
    region, inside = np.ascontiguousarray(image[part]), np.ascontiguousarray(mask[part])
    box = np.array([left - x, top - y, right - x, bottom - y], np.float32)
    around = Cutout(pixels=region, core=inside, box=box, margin_px=_SEAM_PX, at_border=np.zeros((3, 3), np.bool_))
    place = positions.find(image, around, occupied, positions.Overlap(most=0.0), rng)
    if place is None:
        return None
    like = image[place.y : place.y + around.height, place.x : place.x + around.width].astype(np.float32)
    like += light(region - like, ~inside)
    if not meet(region, like, inside, ~inside, CUT_SHARE["object"]):
        return None
    return Ground(part=part, pixels=np.clip(np.rint(like), 0, 255).astype(np.uint8), hole=inside)


def light(difference: Floats, known: Mask) -> Floats:
    """``[h, w, 3]``: how the light of two pictures differs, everywhere, from their difference where it is ``known``.

    It changes slowly; where the pictures are of different things does not count.
    """
    return _average(difference, known & (np.abs(difference).max(axis=2) <= _MOST_OFF), max(known.shape) / 4)


def meet(region: Pixels, other: Floats, inside: Mask, known: Mask, most_cut: float) -> bool:
    """Whether ``other`` may stand ``inside`` a ``region``: at the edge, where ``known``, both show the same.

    But for a share ``most_cut`` of it.
    """
    import cv2

    outside = known & ~inside
    edge = (cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0) & outside
    off = np.abs(_average(region - other, outside, _GRAIN_PX)).max(axis=2) > _MOST_OFF
    return not edge.any() or bool(off[edge].mean() <= most_cut)


def _average(values: Floats, counts: Mask, sigma: float) -> Floats:
    """``[h, w, 3]``: Gaussian averages of those of the values that count ``[h, w]``."""
    import cv2

    weight = counts.astype(np.float32)[..., None]
    total, norm = (cv2.GaussianBlur(one, (0, 0), sigma) for one in (values * weight, weight))
    return np.asarray(total / np.maximum(norm, 1e-6)[..., None], np.float32)
