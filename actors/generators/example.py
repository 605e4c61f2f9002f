"""Examples: what a hole holds before it is painted - a real instance of the class, cut out and set into it.

A painter that starts from less than pure noise (``strength`` below 1; SDEdit, arXiv 2108.01073) varies it and makes it
fit in.
"""

from collections.abc import Sequence

import numpy as np

from actors import boxes as geometry
from actors.generators.cutout import Cutout
from actors.generators.window import Mask
from actors.images import Pixels

_LIKE = 1.5  # an example's sides and shape may differ from the box's by this factor


def alike(box: geometry.Boxes, others: geometry.Boxes, *, turn: bool) -> Sequence[int]:
    """Which of the boxes ``[n, 4]`` are of about the size and shape of ``box`` ``[4]``, where allowed after a turn."""
    size = np.log(np.maximum(box[2:] - box[:2], 1.0))
    sizes = np.log(np.maximum(others[:, 2:] - others[:, :2], 1.0))
    fits = (np.abs(sizes - size) <= np.log(_LIKE)).all(axis=1)
    if turn:
        fits |= (np.abs(sizes[:, ::-1] - size) <= np.log(_LIKE)).all(axis=1)
    return [int(index) for index in np.flatnonzero(fits)]


def quarter_turns(box: geometry.Boxes, example: geometry.Boxes, rng: np.random.Generator) -> int:
    """Quarter turns after which a box ``example`` ``[4]`` lies the way ``box`` does; one of the two, by chance."""
    wide, example_wide = (sides[2] - sides[0] > sides[3] - sides[1] for sides in (box, example))
    return int(rng.integers(2)) * 2 + int(wide != example_wide)


def clear(canvas: Pixels, mask: Mask) -> None:
    """Take away what is in the hole ``[H, W]``: the surroundings are drawn on into it (Telea, 2004), in place."""
    import cv2

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    part = (slice(max(rows[0] - 8, 0), rows[-1] + 9), slice(max(columns[0] - 8, 0), columns[-1] + 9))
    region = np.ascontiguousarray(canvas[part])
    canvas[part] = cv2.inpaint(region, mask[part].astype(np.uint8), 3, cv2.INPAINT_TELEA)


def compose(canvas: Pixels, cutout: Cutout, box: geometry.Boxes, mask: Mask) -> None:
    """Set a cutout into the hole ``mask`` ``[H, W]`` so that its object fills ``box`` ``[4]``, in place.

    Its colours are moved by the median difference of the surroundings.
    """
    import cv2

    size = (canvas.shape[1], canvas.shape[0])
    factors = (box[2:] - box[:2]) / np.maximum(cutout.box[2:] - cutout.box[:2], 1.0)
    shift = box[:2] - factors * cutout.box[:2]
    matrix = np.array([[factors[0], 0, shift[0]], [0, factors[1], shift[1]]], np.float64)
    pixels = cv2.warpAffine(np.ascontiguousarray(cutout.pixels), matrix, size).astype(np.float32)
    alpha = cv2.warpAffine(cutout.alpha(), matrix, size) * mask
    shown = cv2.warpAffine(np.ones(cutout.core.shape, np.float32), matrix, size) > 0.99
    core = cv2.warpAffine(cutout.core.astype(np.float32), matrix, size) > 0
    around = shown & ~core
    if around.any():
        pixels += np.median(canvas[around].astype(np.float32) - pixels[around], axis=0)
    weight = alpha[..., None]
    canvas[:] = np.clip(np.rint(canvas * (1 - weight) + pixels * weight), 0, 255).astype(np.uint8)
