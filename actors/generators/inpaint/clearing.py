"""Removal of objects from an image: a background for the hole, and checks for visible seams."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.generators.cutouts import positions
from actors.generators.cutouts.cutout import Cutout
from actors.generators.cutouts.outline import bounds
from actors.generators.cutouts.window import Mask
from actors.images import Pixels

Floats = NDArray[np.float32]
Part = tuple[slice, slice]  # rows and columns of an image

CUT_SHARE = {"object": 0.3, "box": 0.1}
"""Largest share of a hole's edge at which its surroundings may be cut off; along an outline, that is hardly visible."""

_SEAM_PX = 6  # width of the surroundings that must match
_MOST_OFF = 30.0  # grey levels: pixels that differ by more show different things
_LEAST_SIGMA_PX = 40.0  # Gaussians of twice this and more run on a reduced copy
_GRAIN_PX = 1.5  # standard deviation of the Gaussian that removes a picture's grain


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ground:
    """The background in the place of a removed object."""

    part: Part  # of the image
    pixels: Pixels  # [h, w, 3]
    hole: Mask  # [h, w]

    def lay(self, canvas: Pixels, mask: Mask) -> None:
        """Write it into the image, in place, where ``mask`` ``[H, W]`` is true."""
        canvas[self.part][self.hole & mask[self.part]] = self.pixels[self.hole & mask[self.part]]


def ground(image: Pixels, mask: Mask, occupied: geometry.Boxes, rng: np.random.Generator) -> Ground | None:
    """The background for a hole ``[H, W]``, copied from a similar place of the same image.

    A similar place has the surroundings of the hole and is clear of the ``occupied`` boxes ``[n, 4]``; its light is
    adjusted to that of the hole. None if there is no such place, or if the hole would cut off its surroundings.
    """
    if not mask.any():
        return None
    left, top, right, bottom = (int(side) for side in bounds(mask))
    x, y = max(left - _SEAM_PX, 0), max(top - _SEAM_PX, 0)
    part = (slice(y, bottom + _SEAM_PX), slice(x, right + _SEAM_PX))
    region, inside = np.ascontiguousarray(image[part]), np.ascontiguousarray(mask[part])
    box = np.array([left - x, top - y, right - x, bottom - y], np.float32)
    around = Cutout(pixels=region, core=inside, box=box, margin_px=_SEAM_PX, at_border=np.zeros((3, 3), np.bool_))
    room = positions.Search(image, occupied, positions.Overlap(most=0.0)).find(around, rng)
    if room is None:
        return None
    place, _ = room
    like = image[place.y : place.y + around.height, place.x : place.x + around.width].astype(np.float32)
    like += light(region - like, ~inside)
    if not meet(region, like, inside, ~inside, CUT_SHARE["object"]):
        return None
    return Ground(part=part, pixels=np.clip(np.rint(like), 0, 255).astype(np.uint8), hole=inside)


def light(difference: Floats, known: Mask) -> Floats:
    """Difference in light ``[h, w, 3]`` of two pictures, from their ``difference`` where it is ``known`` ``[h, w]``.

    It is smooth; pixels at which the pictures show different things do not count.
    """
    return _average(difference, known & (np.abs(difference).max(axis=2) <= _MOST_OFF), max(known.shape) / 4)


def meet(region: Pixels, other: Floats, inside: Mask, known: Mask, most_cut: float) -> bool:
    """True if ``other`` fits ``inside`` a ``region``: both show the same along the edge, as far as it is ``known``.

    They may differ along a share ``most_cut`` of the edge.
    """
    import cv2

    outside = known & ~inside
    edge = (cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0) & outside
    off = np.abs(_average(region - other, outside, _GRAIN_PX)).max(axis=2) > _MOST_OFF
    return not edge.any() or bool(off[edge].mean() <= most_cut)


def _average(values: Floats, counts: Mask, sigma: float) -> Floats:
    """Gaussian averages ``[h, w, 3]`` of the values where ``counts`` ``[h, w]`` is true."""
    weight = counts.astype(np.float32)
    total, norm = (_blurred(one, sigma) for one in (values * weight[..., None], weight))
    return np.asarray(total / np.maximum(norm, 1e-6)[..., None], np.float32)


def _blurred(array: Floats, sigma: float) -> Floats:
    """The array ``[h, w]`` or ``[h, w, 3]`` blurred by a Gaussian.

    A wide one runs on a reduced copy: otherwise the time per pixel would grow with ``sigma``.
    """
    import cv2

    shrink = max(int(sigma // _LEAST_SIGMA_PX), 1)
    if shrink == 1:
        return np.asarray(cv2.GaussianBlur(array, (0, 0), sigma))
    height, width = array.shape[:2]
    size = (-(-width // shrink), -(-height // shrink))
    small = cv2.resize(array, size, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(small, (0, 0), sigma * size[0] / width, sigmaY=sigma * size[1] / height)
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR))
