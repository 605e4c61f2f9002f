"""Instance masks on a grid, for images that have them (see ``actors.records.LabeledImage.masks``)."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.generators.diffusion.box_masks import box_masks

Mask = NDArray[np.bool_]

_NUM_KEPT = 2**15  # masks on a grid; 128 MiB at 64 x 64 cells


def instance_masks(
    masks: Sequence[str], boxes: geometry.Boxes, width: int, height: int, size: tuple[int, int], *, mirrored: bool
) -> NDArray[np.float32]:
    """Masks ``[K, h, w]``, 1 on an object and 0 off it, of boxes ``[K, 4]`` px in an image of ``width`` x ``height``.

    ``masks`` has one for each box, as in ``LabeledImage``, or is empty; a box without one is its own mask
    (``box_masks``). ``size`` is (h, w). A mask covers the cells whose centres are inside; if there are none, it covers
    the cell of its middle pixel. If ``mirrored``, ``boxes`` are those of the image mirrored left to right; ``masks``
    are those of the original image, and are mirrored here.
    """
    drawn = box_masks(boxes, width, height, size)
    for cells, mask in zip(drawn, masks, strict=False):
        if mask:
            own = _on_grid(mask, width, height, size)
            cells[:] = own[:, ::-1] if mirrored else own
    return drawn


def decode(mask: str, width: int, height: int) -> Mask:
    """The pixels ``[height, width]`` of a mask given as ``counts`` of COCO's compressed run-length encoding."""
    from pycocotools import mask as coco

    return np.asarray(coco.decode({"size": [height, width], "counts": mask.encode()}), np.bool_)


@lru_cache(_NUM_KEPT)
def _on_grid(mask: str, width: int, height: int, size: tuple[int, int]) -> Mask:
    pixels = decode(mask, width, height)
    rows, columns = (_centres(cells, length) for cells, length in zip(size, pixels.shape, strict=True))
    cells = pixels[rows[:, None], columns]
    if not cells.any():
        row, column = (places[len(places) // 2] for places in pixels.nonzero())
        cells[row * size[0] // height, column * size[1] // width] = True
    return cells


def _centres(num_cells: int, length_px: int) -> NDArray[np.int64]:
    """The pixels at the centres of ``num_cells`` equal cells along ``length_px``."""
    return ((np.arange(num_cells) + 0.5) * length_px / num_cells).astype(np.int64)
