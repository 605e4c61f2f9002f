"""Search for a place of a cutout: clear of its neighbours, where the image matches the cutout's surroundings."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.generators.cutouts.cutout import Cutout, scaled
from actors.generators.cutouts.extents import Extents
from actors.images import Pixels

Floats = NDArray[np.float32]
Positions = NDArray[np.int_]

_COARSE_PX = 12  # cutouts are matched at about this size first, then at full size around the place found
_SMALLER = (0.85, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25)  # scales of a large object where it has no room at its own
_ANY_HEIGHT = (-np.inf, np.inf)
_SLACK = 4.0  # grey levels: places whose seam is worse than the best by no more than this are as good


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The position of a cutout's top left corner in the target."""

    x: int  # px
    y: int  # px
    seam: float  # root mean square difference between the surroundings there and the cutout's own, grey levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Allowed overlap of a cutout with the existing box that it overlaps most."""

    least: float = 0.0
    most: float
    hidden: bool = False
    """Existing objects cover the cutout; the overlap is a share of its own area, else of the smaller of the two."""


def find_room(
    target: Pixels,
    cutout: Cutout,
    occupied: geometry.Boxes,
    overlap: Overlap,
    extents: Extents | None,
    rng: np.random.Generator,
) -> tuple[Place, Cutout] | None:
    """As ``find``, with the cutout at the scale of its place: a large object is made smaller if it has no room else.

    An object that fills much of its image hardly fits anywhere beside another one. It becomes no smaller than its class
    is seen in real images, and stands no higher or lower in the picture than real ones of its size (``extents``).
    """
    if not cutout.large:
        place = find(target, cutout, occupied, overlap, rng)
        return (place, cutout) if place else None
    for factor in (1.0, *_SMALLER):
        smaller = cutout if factor == 1.0 else scaled(cutout, factor)
        if extents and not extents.allows(smaller, target.shape):
            return None
        heights = extents.heights(smaller, target.shape) if extents else _ANY_HEIGHT
        if place := find(target, smaller, occupied, overlap, rng, heights):
            return place, smaller
    return None


def find(
    target: Pixels,
    cutout: Cutout,
    occupied: geometry.Boxes,
    overlap: Overlap,
    rng: np.random.Generator,
    heights: tuple[float, float] = _ANY_HEIGHT,
) -> Place | None:
    """One of the allowed places with the best seam, or None if no place is allowed.

    ``occupied`` ``[n, 4]`` are the boxes in the target. A cutout that is cut off by a border of its own image is placed
    at the same border of the target. ``heights`` is the range in px in which the lower side of its box may lie.
    """
    last_x, last_y = target.shape[1] - cutout.width, target.shape[0] - cutout.height
    if min(last_x, last_y) < 0:
        return None
    step = max(1, min(cutout.width, cutout.height) // _COARSE_PX)
    xs, ys = _grid(target.shape[1], cutout.width, step), _grid(target.shape[0], cutout.height, step)
    allowed = _allowed(xs, ys, cutout, occupied, overlap) & _meets_borders(xs, ys, cutout, target)
    allowed &= _at_heights(ys, cutout, heights)
    if not allowed.any():
        return None
    surroundings = (~cutout.core).astype(np.float32)
    seams = _seams(*(_shrunk(array, step) for array in (_gray(target), _gray(cutout.pixels), surroundings)))
    row, column = _pick(np.where(allowed, seams, np.inf), rng)
    xs, ys = _window(int(xs[column]), step, last_x), _window(int(ys[row]), step, last_y)
    region = target[ys[0] : ys[-1] + cutout.height, xs[0] : xs[-1] + cutout.width]
    allowed = _allowed(xs, ys, cutout, occupied, overlap) & _meets_borders(xs, ys, cutout, target)
    allowed &= _at_heights(ys, cutout, heights)
    seams = np.where(allowed, _seams(_floats(region), _floats(cutout.pixels), surroundings), np.inf)
    row, column = divmod(int(seams.argmin()), len(xs))
    return Place(x=int(xs[column]), y=int(ys[row]), seam=float(seams[row, column]))


def _floats(pixels: Pixels) -> Floats:
    return pixels.astype(np.float32)


def _gray(pixels: Pixels) -> Floats:
    """Grey values ``[H, W, 1]``: sufficient for the coarse search, at a third of the time."""
    import cv2

    return _floats(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)[..., None])


def _shrunk(array: Floats, step: int) -> Floats:
    """The array ``[H, W]`` or ``[H, W, c]`` at 1 / ``step`` of its size."""
    import cv2

    size = (array.shape[1] // step, array.shape[0] // step)
    small: Floats = cv2.resize(array, size, interpolation=cv2.INTER_AREA)
    return small.reshape(*small.shape[:2], *array.shape[2:])


def _seams(image: Floats, template: Floats, weights: Floats) -> Floats:
    """Weighted RMS difference, in whole grey levels, of ``template`` and ``image`` at every position inside it.

    It is rounded so that the last bits of the underlying Fourier transforms do not decide between places.
    """
    import cv2

    channels = image.shape[2]
    image, template = image - 128, template - 128  # small numbers lose fewer digits
    weights = np.repeat(weights[..., None], channels, axis=2)
    cross = cv2.matchTemplate(image, template * weights, cv2.TM_CCORR)
    energy = cv2.matchTemplate(image * image, weights, cv2.TM_CCORR)
    total = energy - 2 * cross + float((weights * template * template).sum())
    mean = np.maximum(total, 0) / max(float(weights.sum()), 1.0)
    return np.asarray(np.round(np.sqrt(mean)), dtype=np.float32)


def _grid(length: int, size: int, step: int) -> Positions:
    """Coarse start positions of a cutout of ``size`` px along a side of ``length`` px; the last ends at the border."""
    positions = np.minimum(np.arange(length // step - size // step + 1) * step, length - size)
    positions[-1] = length - size
    return positions


def _window(position: int, step: int, last: int) -> Positions:
    """All positions within ``step`` of a coarse position."""
    return np.arange(max(position - step, 0), min(position + step, last) + 1)


def _pick(costs: Floats, rng: np.random.Generator) -> tuple[int, int]:
    """Row and column of a random one of the places that are as good as the best."""
    rows, columns = np.nonzero(costs <= costs.min() + _SLACK)
    chosen = int(rng.integers(len(rows)))
    return int(rows[chosen]), int(columns[chosen])


def _allowed(
    xs: Positions, ys: Positions, cutout: Cutout, occupied: geometry.Boxes, overlap: Overlap
) -> NDArray[np.bool_]:
    """Mask ``[len(ys), len(xs)]`` of the positions where the overlap with the existing boxes is allowed."""
    left, top, right, bottom = cutout.box
    own = (right - left) * (bottom - top)
    areas = np.full(len(occupied), own) if overlap.hidden else np.minimum(geometry.areas(occupied), own)
    shared_x = np.minimum(xs + right, occupied[:, 2:3]) - np.maximum(xs + left, occupied[:, 0:1])
    shared_y = np.minimum(ys + bottom, occupied[:, 3:4]) - np.maximum(ys + top, occupied[:, 1:2])
    shares_y = np.maximum(shared_y, 0) / np.maximum(areas, 1e-6)[:, None]
    most = np.zeros((len(ys), len(xs)))
    for x, y in zip(np.maximum(shared_x, 0), shares_y, strict=True):  # one box at a time is faster than [ys, xs, n]
        if x.any() and y.any():
            np.maximum(most, y[:, None] * x, out=most)
    return np.asarray((most >= overlap.least) & (most <= overlap.most))


def _meets_borders(xs: Positions, ys: Positions, cutout: Cutout, target: Pixels) -> NDArray[np.bool_]:
    """Mask ``[len(ys), len(xs)]`` of the positions where cut-off sides of the object are at their border."""
    left, right = xs == 0, xs == target.shape[1] - cutout.width
    top, bottom = ys == 0, ys == target.shape[0] - cutout.height
    at = cutout.at_border
    across = (left | ~at[1, 0]) & (right | ~at[1, 2])
    down = (top | ~at[0, 1]) & (bottom | ~at[2, 1])
    return np.asarray(down[:, None] & across[None, :])


def _at_heights(ys: Positions, cutout: Cutout, heights: tuple[float, float]) -> NDArray[np.bool_]:
    """Mask ``[len(ys), 1]`` of the positions at which the lower side of the cutout's box lies within a range in px."""
    bottoms = ys[:, None] + cutout.box[3]
    return np.asarray((bottoms >= heights[0]) & (bottoms <= heights[1]))
