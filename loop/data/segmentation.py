"""Conversion of COCO's ``segmentation`` of a box, in any of its forms, to a string of compressed run lengths.

Values are checked before they reach the C code of pycocotools, which does not check them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loop.data.boxes import Sound
from loop.data.formats.base import RawBox
from loop.data.ledger import Ledger

_LONGEST = 6  # characters of a run length of 30 bits
_FARTHEST_PX = 1e6  # limit on the coordinates of a polygon's corner


def masks_of(boxes: Sequence[Sound], file: str, size: tuple[int, int], ledger: Ledger) -> tuple[str, ...]:
    """``LabeledImage.masks`` for the boxes of an image that ``file`` describes.

    ``size`` is (width, height) in px. A segmentation that cannot be used is noted, and its box gets no mask.
    """
    masks = tuple(_mask(box, corners, file, size, ledger) for box, corners in boxes)
    return masks if any(masks) else ()


def _mask(box: RawBox, corners: NDArray[np.float32], file: str, size: tuple[int, int], ledger: Ledger) -> str:
    if not box.segmentation:
        return ""
    try:
        return compressed(box.segmentation, corners, *size)
    except ValueError as error:
        ledger.note(file, "box", "segmentation not usable", f"{box.where}: {error}; the box is used instead")
        return ""


def compressed(segmentation: object, corners: NDArray[np.float32], width: int, height: int) -> str:
    """The ``counts`` of COCO's compressed run-length encoding of a mask of ``width`` x ``height`` px.

    ``segmentation`` is a list of polygons ``[x, y, x, y, ...]`` in px, whose union is the mask, or run lengths
    ``{"size": [height, width], "counts": ...}``, as numbers or compressed. Raises ValueError if it is neither, is for
    another image size, or does not overlap its box of ``corners`` ``[4]`` in px.
    """
    from pycocotools import mask as coco

    if isinstance(segmentation, list):
        polygons = [_polygon(points, width, height) for points in segmentation]
        encoded = coco.merge(coco.frPyObjects(polygons, height, width))
    elif isinstance(segmentation, dict):
        runs = {"size": [height, width], "counts": _runs(segmentation, width, height)}
        encoded = coco.frPyObjects(runs, height, width)
    else:
        raise ValueError(f"polygons or run lengths are needed, not {segmentation!r:.50}")
    left, top, *sides = coco.toBbox(encoded)
    low, high = np.maximum((left, top), corners[:2]), np.minimum((left + sides[0], top + sides[1]), corners[2:])
    if (low >= high).any():
        raise ValueError("it has nothing in its box")
    counts: bytes = encoded["counts"]
    return counts.decode()


def resized_mask(counts: str, size: tuple[int, int], new_size: tuple[int, int]) -> str:
    """Compressed run lengths of a mask resized from ``size`` to ``new_size`` (width, height); "" if nothing is left."""
    import cv2
    from pycocotools import mask as coco

    pixels = coco.decode({"size": list(size[::-1]), "counts": counts.encode()})
    resized = cv2.resize(pixels * 255, new_size, interpolation=cv2.INTER_AREA) > 127
    encoded: bytes = coco.encode(np.asfortranarray(resized.astype(np.uint8)))["counts"]
    return encoded.decode() if resized.any() else ""


def _polygon(points: object, width: int, height: int) -> NDArray[np.float64]:
    """Coordinates ``[2 n]`` in px. Rejects outlines so long that their rasterisation would exhaust the memory."""
    try:
        values = np.array(points if isinstance(points, list) else None, np.float64)
    except (ValueError, TypeError, OverflowError):
        values = np.zeros(0)
    if values.ndim != 1 or len(values) < 6 or len(values) % 2 or not (np.abs(values) < _FARTHEST_PX).all():
        raise ValueError(f"a polygon is a list of three or more points x, y in px, not {points!r:.50}")
    corners = values.reshape(-1, 2)
    if not np.abs(corners - np.roll(corners, 1, axis=0)).sum() <= 4 * width * height:
        raise ValueError(f"a polygon is longer than a picture of {width}x{height} px can hold: {points!r:.50}")
    return values


def _runs(fields: dict[str, object], width: int, height: int) -> list[int]:
    """Run lengths in column-major order, starting with background."""
    if fields.get("size") != [height, width]:
        raise ValueError(f"run lengths for size {fields.get('size')!r:.50}, but the picture's is [{height}, {width}]")
    counts = fields.get("counts")
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise ValueError(f"counts are lengths or a string of them, not {counts!r:.50}")
    if sum(runs) != width * height:
        raise ValueError(f"run lengths add up to {sum(runs)}, not to the {width * height} px of the picture")
    return runs


def _unpacked(text: str) -> list[int]:
    """Run lengths from COCO's string: five bits per character, lowest first, and a sixth bit for continuation.

    From the fourth on, each is stored as the difference to the last but one. Raises ValueError for a malformed string.
    """
    runs: list[int] = []
    value = place = 0
    for letter in text:
        bits = ord(letter) - ord("0")
        if not 0 <= bits < 64 or place == _LONGEST:
            raise ValueError(f"unexpected character {letter!r} in compressed counts")
        value |= (bits & 31) << (5 * place)
        place += 1
        if not bits & 32:
            value -= (bits & 16) << (5 * place - 4)  # the highest bit is the sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = place = 0
    if place:
        raise ValueError("compressed counts end within a number")
    return runs
