"""Checks of the boxes of an image: which are used, which are dropped, and whether the image can be used without those.

A box that cannot be read (a malformed row, an unknown class, a negative size) leaves an object in the picture whose
place or class is unknown. It would be trained as background, so the whole image is dropped. A box without area, or
outside the image, marks nothing that could be trained: only the box is dropped, unless no other is left: the image
would then count as empty. Boxes are clipped at the border of the image. Of equal boxes, one is used.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from loop.data.formats.base import RawBox
from loop.data.ledger import Ledger
from loop.data.locating import Located

Sound = tuple[RawBox, NDArray[np.float32]]  # a valid box and its corners [4] in px of the image

UNREADABLE = frozenset({"not a number", "unknown class", "negative size"})
"""Faults of a box after which its image is dropped."""

_ROUNDING_PX = 0.01  # boxes that exceed the image by less are rounding errors


def usable_boxes(one: Located, index: Mapping[str, int], ledger: Ledger) -> list[Sound] | None:
    """The valid boxes of an image, each with its corners ``[4]`` in px, clipped at its border.

    ``index`` gives the index of each class. None if the image is dropped for its faulty boxes.
    """
    faults = [fault(box, corners_px(one, box), one.size, index) for box in one.raw.boxes]
    for box, reason in zip(one.raw.boxes, faults, strict=True):
        if reason:
            ledger.drop(one.raw.source, "box", reason, box.where)
    if not UNREADABLE.isdisjoint(faults):
        reasons = Counter(reason for reason in faults if reason in UNREADABLE)
        ledger.drop(one.place, "image", "faulty boxes", ", ".join(f"{n} x {reason}" for reason, n in reasons.items()))
        return None
    if faults and all(faults):
        ledger.drop(one.place, "image", "no box left", f"all {len(faults)} are {' or '.join(sorted(set(faults)))}")
        return None
    return _without_copies(one, [box for box, reason in zip(one.raw.boxes, faults, strict=True) if not reason], ledger)


def corners_px(one: Located, box: RawBox) -> list[float]:
    """The corners xyxy of a box in px of its image, as annotated."""
    scale = one.size * 2 if one.raw.relative else (1, 1, 1, 1)
    return [value * side for value, side in zip(box.corners, scale, strict=True)]


def fault(box: RawBox, corners: Sequence[float], size: tuple[int, int], index: Mapping[str, int]) -> str:
    """The reason why a box of ``corners`` in px cannot be used in an image of ``size``; empty if it can."""
    x0, y0, x1, y1 = corners
    if not all(map(math.isfinite, corners)):
        return "not a number"
    if box.label not in index:
        return "unknown class"
    if x1 < x0 or y1 < y0:
        return "negative size"
    if x1 == x0 or y1 == y0:
        return "zero area"
    return "" if geometry.areas(_clipped(corners, size)[None])[0] > 0 else "outside the image"


def _clipped(corners: Sequence[float], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.clip(corners, 0, size * 2).astype(np.float32)


def _without_copies(one: Located, boxes: Sequence[RawBox], ledger: Ledger) -> list[Sound]:
    """The boxes, clipped. Of equal ones the first remains, or the first with a segmentation."""
    first: dict[object, RawBox] = {}
    for box in boxes:
        key = (box.corners, box.label, box.ignore)
        if key in first:
            ledger.drop(one.raw.source, "box", "exact duplicate", box.where)
        if key not in first or (box.segmentation and not first[key].segmentation):
            first[key] = box
    sound = [(box, corners_px(one, box)) for box in first.values()]
    for box, corners in sound:
        if np.abs(_clipped(corners, one.size) - corners).max() > _ROUNDING_PX:
            detail = f"{box.where}, in an image of {one.size[0]}x{one.size[1]} px"
            ledger.note(one.raw.source, "box", "clipped at the image border", detail)
    return [(box, _clipped(corners, one.size)) for box, corners in sound]
