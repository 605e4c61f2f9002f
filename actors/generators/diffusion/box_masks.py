"""Boxes as masks on a grid: the foreground of a picture, and a substitute for missing instance masks."""

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry


def box_masks(boxes: geometry.Boxes, width: int, height: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Masks ``[K, h, w]``, 1 inside and 0 outside, of boxes ``[K, 4]`` px in an image of ``width`` x ``height`` px.

    ``size`` is (h, w). A box is clipped to the image and covers the cells whose centres are inside; if there are none,
    it covers the cell that holds its own centre.
    """
    rows, columns = size
    scale = np.array([columns / width, rows / height] * 2)
    scaled = geometry.clip(boxes, width, height).astype(np.float64) * scale
    across = _inside(scaled[:, 0], scaled[:, 2], columns)
    down = _inside(scaled[:, 1], scaled[:, 3], rows)
    return np.asarray(down[:, :, None] & across[:, None, :], np.float32)


def _inside(low: NDArray[np.float64], high: NDArray[np.float64], num_cells: int) -> NDArray[np.bool_]:
    """Mask ``[K, num_cells]`` of the cells with their centre in [low, high), at least one in each row."""
    centres = np.arange(num_cells) + 0.5
    inside = (centres >= low[:, None]) & (centres < high[:, None])
    middle = np.floor((low + high) / 2).clip(0, num_cells - 1)
    return np.asarray(inside | (~inside.any(axis=1, keepdims=True) & (np.arange(num_cells) == middle[:, None])))
