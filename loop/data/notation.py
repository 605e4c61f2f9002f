"""Boxes in a notation that is not that of their format: the import stops with a question instead of guessing.

Many faulty boxes, or many that reach far out of their image, are seldom slips of an annotator. The numbers are read
again in the other notations in use. One in which all boxes lie in their images is named as the likely cause.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loop.data.boxes import corners_px, fault
from loop.data.config import FEW_FAULTS, DataConfig
from loop.data.formats.base import Notation
from loop.data.locating import Located

Boxes = NDArray[np.float64]  # [n, 4]

FIT_FRAC = 0.9
"""Another notation fits if this fraction of the boxes lies in the images, and four times fewer do not than as read."""
OUT_FRAC = 0.5
"""Boxes that reach far out of their images stop an import if they are more than this fraction, whatever the cause."""

_FAR_OUT = "reaches far out of the image"
_OUT_PX = 2.0  # a box reaches far out of its image by more than this
_OUT_SIDE_FRAC = 0.1  # and by more than this fraction of its side
_MIN_CORNER_BOXES = 20  # so many boxes that all lie in the upper left corner of their images are no chance,
_SPREAD_FRAC = 0.7  # if they fill that corner

_DECODE: Mapping[Notation, Callable[[Boxes], Boxes]] = {
    "x, y, width, height": lambda q: np.concatenate([q[:, :2], q[:, :2] + q[:, 2:]], axis=1),
    "x1, y1, x2, y2": lambda q: q,
    "centre x, centre y, width, height": lambda q: np.concatenate(
        [q[:, :2] - q[:, 2:] / 2, q[:, :2] + q[:, 2:] / 2], axis=1
    ),
}
_ENCODE: Mapping[Notation, Callable[[Boxes], Boxes]] = {
    "x, y, width, height": lambda c: np.concatenate([c[:, :2], c[:, 2:] - c[:, :2]], axis=1),
    "x1, y1, x2, y2": lambda c: c,
    "centre x, centre y, width, height": lambda c: np.concatenate(
        [(c[:, :2] + c[:, 2:]) / 2, c[:, 2:] - c[:, :2]], axis=1
    ),
}
_UNITS: Mapping[str, float] = {"shares from 0 to 1": 1, "per cent of the image": 100, "thousandths of the image": 1000}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbers:
    """The numbers of a split's boxes, as the file has them."""

    values: Boxes  # in the notation of the format
    sizes: Boxes  # [n, 2] width and height of the image in px
    relative: bool  # the values are shares of these


def check_boxes(
    split: str, images: Sequence[Located], classes: Sequence[str], notation: Notation, config: DataConfig
) -> None:
    """Raise ValueError if more than ``data.max_faulty_frac`` of a split's boxes are faulty, or all seem misread.

    ``notation`` is that of the format. The error names the likely cause.
    """
    boxes = [(one, box, corners_px(one, box)) for one in images for box in one.raw.boxes]
    if config.max_faulty_frac == 1 or not boxes:
        return
    index = {name: position for position, name in enumerate(classes)}
    corners, sizes = np.array([c for _, _, c in boxes], np.float64), np.array([one.size for one, _, _ in boxes])
    reasons = [
        fault(box, c, one.size, index) or ("" if fits else _FAR_OUT)
        for (one, box, c), fits in zip(boxes, _fits(corners, sizes), strict=True)
    ]
    numbers = _Numbers(
        values=_ENCODE[notation](np.array([box.corners for _, box, _ in boxes], np.float64)),
        sizes=sizes,
        relative=images[0].raw.relative,
    )
    question = _question(reasons, numbers, notation, config)
    if question is not None:
        one, box, _ = boxes[next((i for i, reason in enumerate(reasons) if reason), 0)]
        counts = ", ".join(f"{number} x {reason}" for reason, number in Counter(filter(None, reasons)).most_common())
        raise ValueError(
            f"{config.root}: {split} has {len(boxes)} boxes; {counts or 'all are tiny'}. {question} For example "
            f"{one.raw.source}, {box.where}, in an image of {one.size[0]}x{one.size[1]} px. Correct the annotations; "
            f"or, to import what is left of them, raise data.max_faulty_frac (now {config.max_faulty_frac:g}; 1 is all)"
        )


def _question(reasons: Sequence[str], numbers: _Numbers, notation: Notation, config: DataConfig) -> str | None:
    """The question that the boxes raise, by the fault of each (empty for none); None if they raise none."""
    num_suspect, num_boxes = sum(map(bool, reasons)), len(reasons)
    other = _tiny_reading(numbers, notation)
    if other is None and not config.accepts_faults(num_suspect, num_boxes):
        other = _other_reading(numbers, notation)
    written = f"They should be {notation} in {'shares from 0 to 1' if numbers.relative else 'px'}"
    if other is not None:
        return f"{written}. Are they {other} instead? Read so, they lie in their images."
    num_faulty = num_suspect - reasons.count(_FAR_OUT)
    if config.accepts_faults(num_faulty, num_boxes) and num_suspect <= max(FEW_FAULTS, OUT_FRAC * num_boxes):
        return None
    if 2 * reasons.count("unknown class") > num_faulty:
        return "Is the list of classes complete, and of this data set?"
    if 2 * reasons.count("not a number") > num_faulty:
        return f"{written}. Are there boxes at all, or outlines or masks alone? Boxes are not derived from these."
    return f"{written}. Are they, and are they of these images, in this size?"


def _tiny_reading(numbers: _Numbers, notation: Notation) -> str | None:
    """The unit of boxes that are all in the upper left corner of large images if they were px; None if they are not."""
    values, sizes = numbers.values, numbers.sizes
    if numbers.relative or not np.isfinite(values).any():
        return None
    for unit, whole in _UNITS.items():
        is_tiny = (values <= whole).all(axis=1) & (sizes > 2 * whole).all(axis=1)
        enough = _MIN_CORNER_BOXES if whole > 1 else FEW_FAULTS
        spread = _DECODE[notation](values)[is_tiny].max(initial=0) > _SPREAD_FRAC * whole
        if spread and is_tiny.sum() > enough and is_tiny.mean() >= FIT_FRAC:
            fitting = [other for other in _DECODE if _fit_frac(_DECODE[other](values) / whole, numbers) >= FIT_FRAC]
            return f"{(fitting or [notation])[0]} in {unit}"
    return None


def _other_reading(numbers: _Numbers, notation: Notation) -> str | None:
    """Another notation in which nearly all boxes lie in their images."""
    units: dict[str, Boxes] = {"px": 1 / np.tile(numbers.sizes, 2)}
    units |= {unit: np.full((1, 4), 1 / whole) for unit, whole in _UNITS.items()}
    own = "shares from 0 to 1" if numbers.relative else "px"
    fit = _fit_frac(_DECODE[notation](numbers.values) * units[own], numbers)
    for unit, factor in sorted(units.items(), key=lambda item: item[0] != own):  # other notations in its unit first
        for other, decode in _DECODE.items():
            other_fit = _fit_frac(decode(numbers.values) * factor, numbers)
            if other_fit > fit and other_fit >= max(FIT_FRAC, 1 - (1 - fit) / 4):
                return f"{other} in {unit}"
    return None


def _fit_frac(shares: Boxes, numbers: _Numbers) -> float:
    """The fraction of the boxes that lie in their images, from corners in shares of their sides."""
    corners = shares * np.tile(numbers.sizes, 2)
    return float((_fits(corners, numbers.sizes) & (corners[:, 2:] - corners[:, :2] >= 1).all(axis=1)).mean())


def _fits(corners: Boxes, sizes: Boxes) -> NDArray[np.bool_]:
    """``[n]``: whether boxes xyxy in px lie in their images, but for a slack."""
    sides = corners[:, 2:] - corners[:, :2]
    slack = np.maximum(_OUT_PX, _OUT_SIDE_FRAC * sides)
    lies: NDArray[np.bool_] = (sides > 0) & (corners[:, :2] >= -slack) & (corners[:, 2:] <= sizes + slack)
    return np.logical_and(lies[:, 0], lies[:, 1])
