"""Background ignore (Gen2Det, arXiv 2312.04566, Sec. 3.3): the background of a synthetic image gives no loss.

Judging removes labels, not pixels, so an object may stand unlabelled in a synthetic image. There only what is
assigned to a kept box gives classification loss; box losses have no background to begin with. The paper weights
two-stage heads. Here the same rule holds for what other heads classify:

* two-stage heads (Faster R-CNN): sampled anchors and sampled regions that are matched with no box;
* dense heads (YOLO, both of them where the detector is end to end; RetinaNet, FCOS): locations or anchors that are
  assigned to no box;
* sets of queries (RT-DETR; encoder and every decoder layer): queries that the matching leaves over, and denoising
  queries that stand for no box, the negative ones and those that only fill up.

Assignment, matching and normalisers (numbers of boxes or sums of target scores over the batch) stay as they are, so
that the real images beside a synthetic one keep the very loss that they had. Locations, and centres of anchors,
regions and predicted boxes, inside boxes that are flagged ignore are, on every image, neither object nor background.

This file holds the rule; each family hooks its own losses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SILENT_LOGIT = -100.0  # "surely not this class": as background it costs exactly 0 and has no gradient

ElementLoss = Callable[["Tensor", "Tensor"], "Tensor"]
"""Logits and targets ``[b, locations, classes]`` to losses of the same shape."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marks:
    """Where in a batch background gives no loss."""

    background: "Tensor | None" = None  # [b], 0 for images whose background gives none, else 1; None: all are 1
    ignored: "Tensor | None" = None  # [k, 5] image index, then the box as centre, width, height in shares of the image


NO_MARKS = Marks()


class WeightedBackground:
    """An element-wise classification loss in which locations without a target count by a weight."""

    def __init__(self, element_loss: ElementLoss) -> None:
        self.element_loss = element_loss
        self.weights: Tensor | None = None  # [b, locations]

    def __call__(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """Losses ``[b, locations, classes]``; a location is background where its targets are all 0."""
        losses = self.element_loss(logits, targets)
        if self.weights is None:
            return losses
        positive = (targets > 0).any(dim=-1)
        return losses * self.weights.to(losses.dtype).masked_fill(positive, 1.0).unsqueeze(-1)


def location_weights(feats: Sequence["Tensor"], marks: Marks) -> "Tensor | None":
    """Weights ``[b, locations]`` of background, for feature maps ``[b, c, h, w]``; None where all are 1."""
    return background_weights(location_centres(feats).expand(len(feats[0]), -1, -1), marks)


def background_weights(centres: "Tensor", marks: Marks) -> "Tensor | None":
    """Weights ``[b, a]`` of background at centres ``[b, a, 2]`` (x, y, shares of the image); None where all are 1."""
    if marks.background is None and marks.ignored is None:
        return None
    weights = centres.new_ones(centres.shape[:2])
    if marks.background is not None:
        weights *= marks.background.to(weights)[:, None]
    if marks.ignored is not None:
        weights *= (coverage(centres, marks.ignored) == 0).to(weights)
    return weights


def location_centres(feats: Sequence["Tensor"]) -> "Tensor":
    """Centres ``[locations, 2]`` (x, y, shares of the image) of the cells of maps ``[b, c, h, w]``, row by row."""
    import torch

    grids = []
    for feat in feats:
        height, width = feat.shape[-2:]
        y, x = ((torch.arange(n, device=feat.device) + 0.5) / n for n in (height, width))
        grids.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2))
    return torch.cat(grids)


def coverage(centres: "Tensor", ignored: "Tensor") -> "Tensor":
    """Number ``[b, a]`` of ignored boxes ``[k, 5]`` of its own image that hold each of the centres ``[b, a, 2]``."""
    ignored = ignored.to(centres)
    image, middle, half = ignored[:, 0].long(), ignored[:, None, 1:3], ignored[:, None, 3:5] / 2
    inside = ((centres[image] - middle).abs() <= half).all(dim=-1)
    return centres.new_zeros(centres.shape[:2]).index_add_(0, image, inside.to(centres))
