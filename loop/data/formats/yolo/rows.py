"""Rows of YOLO label files: which of their numbers are the box.

A row is a class and numbers. Four numbers are ``cx cy width height``. Longer rows are a box with a confidence or a
track id, a box with keypoints (pose), or the points of a polygon (segmentation, or four corners of an oriented box).
The numbers of one row do not tell which, so all rows of the data set decide: ``kpt_shape`` of the data file, whether
rows differ in length, and whether the numbers make sense as keypoints in a box or as an outline. Where these disagree,
the answer is asked for.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Literal

from loop.data.config import DataConfig
from loop.data.formats.base import Corners, number

Meaning = Literal["box", "polygon", "scored polygon"]

NOWHERE: Corners = (float("nan"),) * 4

_BOX = 4  # numbers of a box
_MARGIN = 0.02  # of the image's side: by this much, points may be outside their box or the image
_MOST = 0.9  # share of the examined rows that an interpretation must fit
_EXAMINED = 500  # rows of each length that are examined
_LONGEST_OUTLINE = 40  # points; longer outlines are not searched for crossings
_SHORT_KEYPOINTS, _LONG_KEYPOINTS = 2, 3  # numbers of a keypoint: x and y, or also its visibility
_VISIBILITIES = frozenset({0.0, 1.0, 2.0})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a label file."""

    label: float  # NaN if it is no number
    length: int  # count of the numbers after the class
    box: Corners  # xyxy fractions, if the first four numbers are the box; else NaN
    outline: Corners  # bounds of the points, if the numbers are a polygon; else NaN
    scored_outline: Corners  # the same without the last number
    index: int  # of the line in its file, from 0, empty lines not counted
    text: str

    def corners(self, meaning: Meaning) -> Corners:
        """The box ``[4]`` in fractions of the image's sides, NaN if the row has none."""
        if self.length == _BOX or meaning == "box":
            return self.box
        return self.outline if meaning == "polygon" else self.scored_outline


@dataclass(slots=True)
class Evidence:
    """What the rows of a data set say about their meaning, collected row by row."""

    lengths: Counter[int] = field(default_factory=Counter)
    boxes: Counter[int] = field(default_factory=Counter)  # examined rows that make sense as a box with keypoints
    outlines: Counter[int] = field(default_factory=Counter)  # examined rows that make sense as a polygon
    first_out: int = 0  # rows of a box and one more number whose first four numbers are no box in the image
    last_out: int = 0  # the same for the last four

    def rows(self, text: str) -> Iterator[Row]:
        """The rows of a label file."""
        for index, line in enumerate(filter(str.strip, text.splitlines())):
            first, *others = line.split()
            numbers = [number(value) for value in others]
            self._count(numbers)
            yield Row(
                label=number(first),
                length=len(numbers),
                box=_box(numbers),
                outline=_outline(numbers),
                scored_outline=_outline(numbers[:-1]),
                index=index,
                text=line.strip()[:100],
            )

    def _count(self, numbers: Sequence[float]) -> None:
        length = len(numbers)
        self.lengths[length] += 1
        if length == _BOX + 1:
            self.first_out += _sticks_out(numbers)
            self.last_out += _sticks_out(numbers[1:])
        if length > _BOX + 1 and self.lengths[length] <= _EXAMINED:
            self.boxes[length] += _is_pose(numbers)
            self.outlines[length] += _is_outline(numbers)


def meanings(seen: Evidence, num_keypoint_values: int | None, config: DataConfig, origin: str) -> dict[int, Meaning]:
    """The meaning of rows by their length. Lengths without an entry are faults.

    ``num_keypoint_values`` is the product of ``kpt_shape``. ``origin`` names the data set in errors. Raises ValueError,
    with a question, if many rows have several possible meanings.
    """
    _ask_for_order(seen, config, origin)
    found: dict[int, Meaning] = {_BOX: "box", _BOX + 1: "box"}
    if num_keypoint_values is not None:
        return found | {_BOX + num_keypoint_values + extra: "box" for extra in range(3)}
    longer = Counter({length: rows for length, rows in seen.lengths.items() if length > _BOX + 1})
    if not longer:
        return found
    usual, num_usual = longer.most_common(1)[0]
    constant = num_usual > _MOST * longer.total()  # keypoints have a fixed number, outlines rarely
    alike = (usual,) if constant else tuple(longer)
    given = _fitting(seen, alike) if config.yolo_rows == "auto" else config.yolo_rows
    if given == "unclear":
        if config.accepts_faults(longer.total(), seen.lengths.total()):
            return found
        raise ValueError(_question(seen, alike, origin))
    if given == "box":
        return found | dict.fromkeys(alike, "box")
    odd = sum(rows for length, rows in longer.items() if length % 2) > longer.total() / 2
    return found | {length: "scored polygon" if odd else "polygon" for length in longer if length % 2 == odd}


def _ask_for_order(seen: Evidence, config: DataConfig, origin: str) -> None:
    """Raise ValueError if many rows of five numbers are boxes in the image only without the first number."""
    num_rows = seen.lengths[_BOX + 1]
    if config.yolo_rows == "box" or config.accepts_faults(seen.first_out, num_rows):
        return
    if 4 * seen.last_out < seen.first_out:
        raise ValueError(
            f"{origin}: {num_rows} label rows have 6 columns. Is the confidence before the box? The last four numbers "
            f"are boxes in their images, the first four are not in {seen.first_out} rows. Move the confidence to the "
            "end of the rows; or set data.yolo_rows: box (the first four numbers are the box)"
        )


def remarks(seen: Evidence, found: dict[int, Meaning]) -> Iterable[str]:
    """Sentences on how rows were read that are longer than a box."""
    for meaning, text in (
        ("box", "have numbers after the box (confidence, track id or keypoints), which are not used"),
        ("polygon", "are polygons: their bounding boxes are used"),
        ("scored polygon", "are polygons with a confidence: their bounding boxes are used"),
    ):
        num_rows = sum(seen.lengths[length] for length, given in found.items() if given == meaning and length != _BOX)
        if num_rows:
            yield f"{num_rows} of {seen.lengths.total()} label rows {text}"


def _fitting(seen: Evidence, lengths: Collection[int]) -> Literal["box", "polygon", "unclear"]:
    """The meaning of rows of these lengths, by the share of the examined ones that make sense as each."""
    least = _MOST * sum(min(seen.lengths[length], _EXAMINED) for length in lengths)
    is_box = sum(seen.boxes[length] for length in lengths) >= least
    is_outline = len(lengths) > 1 or sum(seen.outlines[length] for length in lengths) >= least
    if is_box == is_outline:
        return "unclear"
    return "box" if is_box else "polygon"


def _question(seen: Evidence, lengths: Collection[int], origin: str) -> str:
    num_rows = sum(seen.lengths[length] for length in lengths)
    columns = " or ".join(str(length + 1) for length in sorted(lengths)[:5])
    return (
        f"{origin}: {num_rows} label rows have {columns} columns. Are they boxes "
        "with further numbers (keypoints, confidence, track id) or polygons? The numbers do not tell. Set "
        "data.yolo_rows: box (the first four numbers are the box) or polygon; for pose labels, give kpt_shape in the "
        "data file"
    )


def _box(numbers: Sequence[float]) -> Corners:
    if len(numbers) < _BOX:
        return NOWHERE
    cx, cy, width, height = numbers[:_BOX]
    return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2


def _outline(numbers: Sequence[float]) -> Corners:
    if len(numbers) < 6 or len(numbers) % 2:
        return NOWHERE
    if any(map(math.isnan, numbers)):  # NaN, which min and max would skip
        return NOWHERE
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def _sticks_out(numbers: Sequence[float]) -> bool:
    return not _contains((0, 0, 1, 1), [_box(numbers)[:2], _box(numbers)[2:]])


def _is_pose(numbers: Sequence[float]) -> bool:
    """True for a box inside the image, followed by points in it, or by a confidence and a track id."""
    if _sticks_out(numbers) or min(numbers[2:_BOX]) <= 0 or _is_parallelogram(numbers):
        return False
    values = numbers[_BOX:]
    if len(values) == 2 and 0 <= values[0] <= 1 and values[1].is_integer():  # confidence, track id
        return True
    return any(_are_keypoints(values, size, _box(numbers)) for size in (_SHORT_KEYPOINTS, _LONG_KEYPOINTS))


def _are_keypoints(values: Sequence[float], size: int, box: Corners) -> bool:
    if len(values) % size or len(values) < size:
        return False
    points = list(zip(values[::size], values[1::size], strict=True))
    if size == _LONG_KEYPOINTS and not set(values[2::size]) <= _VISIBILITIES:
        return False
    return _contains(box, [point for point in points if point != (0, 0)])  # 0 0: not in the picture


def _is_outline(numbers: Sequence[float]) -> bool:
    """True for a polygon inside the image whose sides do not cross; a last odd number is taken as a confidence."""
    points = list(zip(numbers[::2], numbers[1::2], strict=False))
    x0, y0, x1, y1 = _outline(numbers[: 2 * len(points)])
    if not (_contains((0, 0, 1, 1), points) and x1 > x0 and y1 > y0):
        return False
    if len(points) > _LONGEST_OUTLINE:
        return True
    sides = list(pairwise([*points, points[0]]))
    return not any(_cross(first, second) for first, second in combinations(sides, 2))


def _is_parallelogram(numbers: Sequence[float]) -> bool:
    """True for the four corners of an oriented box, with or without a confidence."""
    if len(numbers) not in {8, 9}:
        return False
    return all(abs(numbers[i] - numbers[i + 2] + numbers[i + 4] - numbers[i + 6]) < _MARGIN for i in (0, 1))


Point = tuple[float, float]


def _cross(first: tuple[Point, Point], second: tuple[Point, Point]) -> bool:
    """True if the two segments cross between their ends."""
    (a, b), (c, d) = first, second
    return _turn(a, b, c) * _turn(a, b, d) < 0 and _turn(c, d, a) * _turn(c, d, b) < 0


def _turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _contains(box: Corners, points: Iterable[Sequence[float]]) -> bool:
    x0, y0, x1, y1 = box
    return all(
        x0 - _MARGIN <= x <= x1 + _MARGIN and y0 - _MARGIN <= y <= y1 + _MARGIN  # False for NaN
        for x, y in points
    )
