"""Sizes and heights in the picture at which real instances are seen, so that copies of large ones look plausible."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.generators.cutouts.outline import Box
from actors.records import LabeledImage

_RARE = 5  # per cent: rarer sizes and heights do not count
_SMALLER = 0.75  # of the least size that counts is small enough for a copy
_NUM_ALIKE = 20  # instances of the most similar sizes whose heights count
_SLACK = 0.05  # of the image's height

ANY_HEIGHT = (-np.inf, np.inf)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extents:
    """The boxes of one class, as shares of their images."""

    sizes: NDArray[np.float32]  # [n] of the longer side
    bottoms: NDArray[np.float32]  # [n] of the height, from the top
    least: float  # size from which on a copy is large enough
    upright: bool  # False for objects seen at any turn, whose heights mean nothing

    def allows(self, box: Box, shape: tuple[int, ...]) -> bool:
        """Whether boxes about as small as ``box`` are seen in pictures of a ``shape`` (height, width in px)."""
        return _share(box, shape) >= self.least

    def heights(self, box: Box, shape: tuple[int, ...]) -> tuple[float, float]:
        """The range in px in which the lower sides of boxes of the size of ``box`` lie."""
        if not self.upright:
            return ANY_HEIGHT
        alike = np.argsort(np.abs(np.log(self.sizes) - np.log(_share(box, shape))), kind="stable")[:_NUM_ALIKE]
        low, high = np.percentile(self.bottoms[alike], (_RARE, 100 - _RARE))
        return float(low - _SLACK) * shape[0], float(high + _SLACK) * shape[0]


def by_class(images: Sequence[LabeledImage], *, upright: bool) -> dict[int, Extents]:
    """The extents of the boxes that are not ignored, by class."""
    rows = [
        (label, max(box[2] - box[0], box[3] - box[1], 1.0) / max(image.width, image.height), box[3] / image.height)
        for image in images
        for box, label, ignored in zip(
            image.annotation.boxes, image.annotation.labels, image.annotation.ignore, strict=True
        )
        if not ignored
    ]
    table = np.array(rows, np.float32).reshape(-1, 3)
    return {
        int(label): Extents(sizes=own[:, 1], bottoms=own[:, 2], least=_least(own[:, 1]), upright=upright)
        for label in np.unique(table[:, 0])
        for own in [table[table[:, 0] == label]]
    }


def _least(sizes: NDArray[np.float32]) -> float:
    return _SMALLER * float(np.percentile(sizes, _RARE))


def _share(box: Box, shape: tuple[int, ...]) -> float:
    """The longer side of a box as a share of that of a picture."""
    return float((box[2:] - box[:2]).max()) / max(shape[:2])
