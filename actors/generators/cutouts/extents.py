"""Sizes and heights in the picture at which real instances are seen, so that copies of large ones look plausible."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.generators.cutouts.cutout import Cutout
from actors.records import LabeledImage

_RARE = 5  # per cent: rarer sizes and heights do not count
_SMALLER = 0.75  # of the least size that counts is small enough for a copy
_NUM_ALIKE = 20  # instances of the most similar sizes whose heights count
_SLACK = 0.05  # of the image's height


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Extents:
    """The boxes of one class, as shares of their images."""

    sizes: NDArray[np.float32]  # [n] of the longer side
    bottoms: NDArray[np.float32]  # [n] of the height, from the top
    upright: bool  # False for objects seen at any turn, whose heights mean nothing

    def allows(self, cutout: Cutout, shape: tuple[int, ...]) -> bool:
        """Whether instances about as small as the cutout are seen in pictures of a ``shape`` (height, width in px)."""
        return not len(self.sizes) or _share(cutout, shape) >= _SMALLER * float(np.percentile(self.sizes, _RARE))

    def heights(self, cutout: Cutout, shape: tuple[int, ...]) -> tuple[float, float]:
        """The range in px in which the lower sides of boxes of the cutout's size lie."""
        if not self.upright or not len(self.sizes):
            return -np.inf, np.inf
        alike = np.argsort(np.abs(np.log(self.sizes) - np.log(_share(cutout, shape))), kind="stable")[:_NUM_ALIKE]
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
        int(label): Extents(sizes=own[:, 1], bottoms=own[:, 2], upright=upright)
        for label in np.unique(table[:, 0])
        for own in [table[table[:, 0] == label]]
    }


def _share(cutout: Cutout, shape: tuple[int, ...]) -> float:
    """The longer side of the cutout's box as a share of that of a picture."""
    return float((cutout.box[2:] - cutout.box[:2]).max()) / max(shape[:2])
