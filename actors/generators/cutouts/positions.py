"""Search for a place of a cutout: clear of its neighbours, where the image matches the cutout's surroundings."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.generators.cutouts.cutout import Cutout, Footprint, scaled
from actors.generators.cutouts.extents import ANY_HEIGHT, Extents
from actors.generators.cutouts.outline import Box, Mask
from actors.images import Pixels

Floats = NDArray[np.float32]
Positions = NDArray[np.int_]

_COARSE_PX = 12  # cutouts are matched at about this size first, then at full size around the place found
_SMALLER = (0.85, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25)  # scales of a large object where it has no room at its own
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Room:
    """Where a cutout may stand."""

    cutout: Cutout  # at the scale at which it has room
    heights: tuple[float, float]  # px, for the lower side of its box
    xs: Positions  # of the coarse grid
    ys: Positions
    good: Positions  # [n] allowed positions in the raveled grid [len(ys), len(xs)] that are as good as the best


class Search:
    """Finds places in one target image, which must not change meanwhile: what was computed for a cutout is kept.

    ``occupied`` ``[n, 4]`` are the boxes in the target. An object that fills much of its image hardly fits anywhere
    beside another one, so a large object is made smaller if it has no room else. It becomes no smaller than its class
    is seen in real images, and stands no higher or lower in the picture than real ones of its size (``extents``).
    """

    def __init__(
        self, target: Pixels, occupied: geometry.Boxes, overlap: Overlap, extents: Extents | None = None
    ) -> None:
        self.target, self.occupied, self.overlap, self.extents = target, occupied, overlap, extents
        self._rooms: dict[Cutout, _Room | None] = {}
        self._small_targets: dict[int, Floats] = {}

    def find(self, cutout: Cutout, rng: np.random.Generator) -> tuple[Place, Cutout] | None:
        """One of the allowed places with the best seam, and the cutout at its scale; None if no place is allowed.

        A cutout that is cut off by a border of its own image is placed at the same border of the target.
        """
        if cutout not in self._rooms:
            self._rooms[cutout] = self._room(cutout)
        room = self._rooms[cutout]
        return (self._place(room, rng), room.cutout) if room else None

    def _room(self, cutout: Cutout) -> _Room | None:
        """The room at the largest scale that has any. Pixels are resized for this scale only."""
        height, width = self.target.shape[:2]
        extents = self.extents if cutout.large else None
        for factor in (1.0, *_SMALLER) if cutout.large else (1.0,):
            footprint = cutout.footprint(factor)
            if extents and not extents.allows(footprint.box, self.target.shape):
                return None
            heights = extents.heights(footprint.box, self.target.shape) if extents else ANY_HEIGHT
            step = _step(footprint)
            xs, ys = _grid(width, footprint.width, step), _grid(height, footprint.height, step)
            allowed = self._allowed(xs, ys, footprint, heights)
            if allowed.any():
                at_scale = cutout if factor == 1.0 else scaled(cutout, factor)
                costs = np.where(allowed, self._coarse_seams(at_scale, step), np.inf)
                good = np.flatnonzero(costs <= costs.min() + _SLACK)
                return _Room(cutout=at_scale, heights=heights, xs=xs, ys=ys, good=good)
        return None

    def _place(self, room: _Room, rng: np.random.Generator) -> Place:
        """The best place around a random good one of the coarse grid."""
        cutout, footprint = room.cutout, room.cutout.footprint()
        row, column = divmod(int(room.good[rng.integers(len(room.good))]), len(room.xs))
        step = _step(footprint)
        xs, ys = _window(room.xs, column, step), _window(room.ys, row, step)
        region = self.target[ys[0] : ys[-1] + cutout.height, xs[0] : xs[-1] + cutout.width]
        seams = _seams(_floats(region), _floats(cutout.pixels), _surroundings(cutout))
        seams = np.where(self._allowed(xs, ys, footprint, room.heights), seams, np.inf)
        row, column = divmod(int(seams.argmin()), len(xs))
        return Place(x=int(xs[column]), y=int(ys[row]), seam=float(seams[row, column]))

    def _coarse_seams(self, cutout: Cutout, step: int) -> Floats:
        """Seams on the coarse grid, of grey values: sufficient there, at a third of the time."""
        if step not in self._small_targets:
            self._small_targets[step] = _shrunk(_gray(self.target), step)
        template, weights = _shrunk(_gray(cutout.pixels), step), _shrunk(_surroundings(cutout), step)
        return _seams(self._small_targets[step], template, weights)

    def _allowed(
        self, xs: Positions, ys: Positions, footprint: Footprint, heights: tuple[float, float]
    ) -> NDArray[np.bool_]:
        """Mask ``[len(ys), len(xs)]`` of the allowed positions.

        Cut-off sides of the object are at their border, the lower side of its box is within ``heights``, and its
        overlap with the existing boxes is allowed.
        """
        at, bottoms = footprint.at_border, ys + footprint.box[3]
        last_x, last_y = self.target.shape[1] - footprint.width, self.target.shape[0] - footprint.height
        across = ((xs == 0) | ~at[1, 0]) & ((xs == last_x) | ~at[1, 2])
        down = ((ys == 0) | ~at[0, 1]) & ((ys == last_y) | ~at[2, 1])
        down &= (bottoms >= heights[0]) & (bottoms <= heights[1])
        allowed = np.zeros((len(ys), len(xs)), np.bool_)
        allowed[np.ix_(down, across)] = _clear(xs[across], ys[down], footprint.box, self.occupied, self.overlap)
        return allowed


def _floats(pixels: Pixels | Mask) -> Floats:
    return pixels.astype(np.float32)


def _gray(pixels: Pixels) -> Floats:
    """Grey values ``[H, W, 1]``."""
    import cv2

    return _floats(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)[..., None])


def _surroundings(cutout: Cutout) -> Floats:
    return _floats(~cutout.core)


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


def _step(footprint: Footprint) -> int:
    """Distance in px of the positions of the coarse grid."""
    return max(1, min(footprint.width, footprint.height) // _COARSE_PX)


def _grid(length: int, size: int, step: int) -> Positions:
    """Coarse start positions of a cutout of ``size`` px along a side of ``length`` px; the last ends at the border."""
    if size > length:
        return np.zeros(0, np.int_)
    positions = np.minimum(np.arange(length // step - size // step + 1) * step, length - size)
    positions[-1] = length - size
    return positions


def _window(grid: Positions, index: int, step: int) -> Positions:
    """All positions within ``step`` of one of the coarse grid."""
    return np.arange(max(grid[index] - step, 0), min(grid[index] + step, grid[-1]) + 1)


def _clear(xs: Positions, ys: Positions, box: Box, occupied: geometry.Boxes, overlap: Overlap) -> NDArray[np.bool_]:
    """Mask ``[len(ys), len(xs)]`` of the positions where the overlap with the existing boxes is allowed."""
    left, top, right, bottom = box
    own = (right - left) * (bottom - top)
    areas = np.full(len(occupied), own) if overlap.hidden else np.minimum(geometry.areas(occupied), own)
    shared_x = np.minimum(xs + right, occupied[:, 2:3]) - np.maximum(xs + left, occupied[:, 0:1])
    shared_y = np.minimum(ys + bottom, occupied[:, 3:4]) - np.maximum(ys + top, occupied[:, 1:2])
    near = (shared_x > 0).any(axis=1) & (shared_y > 0).any(axis=1)
    shares_y = np.maximum(shared_y, 0) / np.maximum(areas, 1e-6)[:, None]
    most = np.zeros((len(ys), len(xs)))
    for x, y in zip(np.maximum(shared_x, 0)[near], shares_y[near], strict=True):  # faster than [ys, xs, n] at once
        np.maximum(most, y[:, None] * x, out=most)
    return np.asarray((most >= overlap.least) & (most <= overlap.most))
