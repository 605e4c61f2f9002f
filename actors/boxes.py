"""Box geometry on NumPy arrays: ``[n, 4]`` float32, xyxy, in pixels, x to the right and y down."""

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]


def empty() -> Boxes:
    """No boxes: ``[0, 4]`` float32."""
    return np.zeros((0, 4), dtype=np.float32)


def areas(boxes: Boxes) -> NDArray[np.float32]:
    """Areas ``[n]`` in px^2 of boxes ``[n, 4]``; an inverted box has area 0."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    return np.asarray(sides[:, 0] * sides[:, 1], dtype=np.float32)


def intersections(first: Boxes, second: Boxes) -> NDArray[np.float32]:
    """Shared areas ``[n, m]`` in px^2 of boxes ``[n, 4]`` and ``[m, 4]``."""
    return _shared(first[:, None], second[None])


def pairwise_iou(first: Boxes, second: Boxes) -> NDArray[np.float32]:
    """Intersection over union ``[n, m]`` of boxes ``[n, 4]`` and ``[m, 4]``; 0 where both areas are 0."""
    return _share(intersections(first, second), areas(first)[:, None] + areas(second)[None, :])


def paired_iou(first: Boxes, second: Boxes) -> NDArray[np.float32]:
    """Intersection over union ``[n]`` of each of the boxes ``[n, 4]`` with that at its place; 0 for areas of 0."""
    return _share(_shared(first, second), areas(first) + areas(second))


def _shared(first: Boxes, second: Boxes) -> NDArray[np.float32]:
    """Shared areas of boxes ``[..., 4]`` whose other dimensions are broadcast."""
    sides = np.maximum(np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2]), 0.0)
    return np.asarray(sides[..., 0] * sides[..., 1], dtype=np.float32)


def _share(shared: NDArray[np.float32], total: NDArray[np.float32]) -> NDArray[np.float32]:
    """``shared`` areas as shares of the unions of boxes with ``total`` areas."""
    union = total - shared
    iou: NDArray[np.float32] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def clip(boxes: Boxes, width: int, height: int) -> Boxes:
    """Boxes ``[n, 4]`` clipped to an image of ``width`` x ``height`` px."""
    limits = np.array([width, height, width, height], dtype=np.float32)
    return np.clip(boxes, 0.0, limits)
