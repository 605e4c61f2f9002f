"""From the candidates of a detector to its detections."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.records import Detections

if TYPE_CHECKING:
    from torch import Tensor


def suppress(boxes: "Tensor", scores: "Tensor", labels: "Tensor", max_iou: float) -> "Tensor":
    """Greedy non-maximum suppression of ``[n]`` candidates within each class: the indices kept, by falling score.

    Of two candidates with the same score the earlier one wins. Boxes are ``[n, 4]`` xyxy.
    """
    from torchvision.ops import batched_nms

    if not len(boxes):
        return labels
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes.double()  # batched_nms may move classes apart, which would cost float32 its precision
    positive = boxes - boxes.min()  # and it moves them by the largest coordinate, which is enough for positive ones
    kept: Tensor = batched_nms(positive[order], scores.double()[order], labels[order], max_iou)
    return order[kept.sort().values]  # its own order of equal scores is not stable


def strongest(boxes: geometry.Boxes, scores: NDArray[np.float32], labels: NDArray[np.int64], limit: int) -> Detections:
    """The ``limit`` best candidates by falling score; equal scores in the order of label and box."""
    order = np.lexsort((*boxes.T, labels, -scores))[:limit]
    return Detections(boxes=boxes[order], labels=labels[order], scores=scores[order])
