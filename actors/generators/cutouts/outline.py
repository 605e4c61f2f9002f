"""Outlines of objects in their boxes, found by GrabCut (Rother et al., SIGGRAPH 2004) and checked on the picture."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from actors.images import Pixels

Mask = NDArray[np.bool_]  # [h, w]
Box = NDArray[np.float32]  # [4] xyxy px
Corners = NDArray[np.int_]  # [4] xyxy, whole px
Floats = NDArray[np.float32]

_LEAST_SHARE = 0.6  # of the annotated box that an outline's box must fill; below, a part of the object is missing
_LEAST_FIT = 0.65  # see ``fit_to_edges``; ovals around raccoons have 0.2 to 0.5, their outlines 0.65 to 0.95
_SURE = 0.4  # of the ellipse in the box: the core that surely belongs to the object
_NUM_ITERATIONS = 3
_LEAST_PX = 8  # fewer pixels than colour clusters cannot be clustered


def outline(crop: Pixels, inner: Corners, size_px: int) -> Mask | None:
    """Mask ``[h, w]`` of the object in the box ``inner`` of a crop ``[h, w, 3]``; None if no outline is found.

    GrabCut runs on the crop reduced to ``size_px``, first from the ellipse in the box, then from the whole box. The
    first result is taken that fills most of the box and whose outline follows edges of the picture. If none does, and
    the ellipse itself follows edges, the object is an ellipse.
    """
    import cv2

    factor = min(1.0, size_px / max(crop.shape[:2]))
    small = cv2.resize(crop, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    for found in _candidates(small, inner * factor):
        core = cv2.resize(found, crop.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 127
        if core.any() and _fills(bounds(core), inner) and fit_to_edges(small, found > 0) >= _LEAST_FIT:
            return np.asarray(core, np.bool_)
    return None


def _candidates(small: Pixels, inner: NDArray[np.float64]) -> Iterator[NDArray[np.uint8]]:
    """Masks ``[h, w]``, 0 or 255, in the order of preference."""
    import cv2

    shape = small.shape[:2]
    distance, box = ellipse_distance(shape, inner), rectangle(shape, np.rint(inner).astype(int))
    for start in (distance < 1.0, box):
        marks = np.full(shape, cv2.GC_BGD, np.uint8)
        marks[box] = cv2.GC_PR_BGD
        marks[start] = cv2.GC_PR_FGD
        marks[distance < _SURE] = cv2.GC_FGD
        if min((marks == cv2.GC_BGD).sum(), (marks == cv2.GC_FGD).sum()) < _LEAST_PX:
            return
        cv2.setRNGSeed(0)  # GrabCut clusters colours from a random start
        cv2.grabCut(small, marks, None, np.zeros((1, 65)), np.zeros((1, 65)), _NUM_ITERATIONS, cv2.GC_INIT_WITH_MASK)
        yield _largest_part((marks & 1).astype(np.uint8))
    yield (distance < 1.0).astype(np.uint8) * np.uint8(255)


def fit_to_edges(pixels: Pixels, mask: Mask) -> float:
    """How well the outline of a mask ``[h, w]`` follows the edges of a picture ``[h, w, 3]``, from 0 to 1.

    It is the mean rank, among the gradients of the other pixels, of the gradient across the outline: about 0.5 and less
    for a line drawn anywhere, near 1 along edges stronger than all others. Gradients are of colours in CIELAB; that
    across the outline is the strongest within a pixel. Where the picture's border cuts the object off, there is no
    outline to judge. 0 if nothing is left to judge.
    """
    import cv2

    colours = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB).astype(np.float32), (0, 0), 1.0)
    right, down = _gradients(colours)
    towards = cv2.GaussianBlur(_signed_distance(mask), (0, 0), 1.5)
    across, along = _gradients(towards)
    length = np.maximum(np.hypot(across, along), 1e-6)[..., None]
    crossing = np.linalg.norm(right * across[..., None] / length + down * along[..., None] / length, axis=2)
    strength = np.sqrt((right**2 + down**2).sum(axis=2))
    near = np.ones((3, 3), np.uint8)
    edge = cv2.dilate(mask.astype(np.uint8), near) != cv2.erode(mask.astype(np.uint8), near)
    judged = edge.copy()
    judged[[0, 1, -2, -1]] = judged[:, [0, 1, -2, -1]] = False
    if not judged.any() or edge.all():
        return 0.0
    others = np.sort(cv2.dilate(strength, near)[~edge])
    return float(np.searchsorted(others, cv2.dilate(crossing, near)[judged]).mean() / len(others))


def bounds(mask: Mask) -> Box:
    """The smallest box ``[4]`` around the true pixels of a mask; there must be at least one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def rectangle(shape: tuple[int, ...], inner: Corners) -> Mask:
    """Mask ``[h, w]`` of a box."""
    mask = np.zeros(shape, np.bool_)
    mask[inner[1] : inner[3], inner[0] : inner[2]] = True
    return mask


def ellipse_distance(shape: tuple[int, ...], inner: NDArray[np.floating | np.int_]) -> NDArray[np.float64]:
    """Distances ``[h, w]``: 0 at the centre of the box, 1 on the ellipse that touches its sides."""
    left, top, right, bottom = inner
    x = (np.arange(shape[1]) + 0.5 - (left + right) / 2) / max((right - left) / 2, 0.5)
    y = (np.arange(shape[0]) + 0.5 - (top + bottom) / 2) / max((bottom - top) / 2, 0.5)
    return np.asarray(np.hypot(x[None, :], y[:, None]), dtype=np.float64)


def _fills(found: Box, inner: Corners) -> bool:
    return bool(np.prod(found[2:] - found[:2]) >= _LEAST_SHARE * np.prod(inner[2:] - inner[:2]))


def _gradients(values: Floats) -> tuple[Floats, Floats]:
    """Sobel gradients of ``[h, w]`` or ``[h, w, c]`` to the right and downwards."""
    import cv2

    right, down = (cv2.Sobel(values, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    return np.asarray(right, np.float32), np.asarray(down, np.float32)


def _signed_distance(mask: Mask) -> Floats:
    """Distances ``[h, w]`` from the outline in px, positive inside."""
    import cv2

    inside, outside = (cv2.distanceTransform(one.astype(np.uint8), cv2.DIST_L2, 5) for one in (mask, ~mask))
    return np.asarray(inside - outside, np.float32)


def _largest_part(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest connected component of a 0/1 mask, with its holes filled, as 0/255."""
    import cv2

    filled = np.zeros_like(mask)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if contours:
        cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 255, cv2.FILLED)
    return filled
