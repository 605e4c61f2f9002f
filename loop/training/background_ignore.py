"""Background ignore (Gen2Det, arXiv 2312.04566, Sec. 3.3): the background of a synthetic image gives no loss.

Judging removes labels, not pixels, so an object may stand unlabelled in a synthetic image. There only what is
assigned to a kept box gives classification loss; box losses have no background to begin with. The paper weights
two-stage heads (proposals and regions). Here the same rule holds for what other heads classify:

* dense heads (YOLO; both of them where the detector is end to end): locations that are assigned to no box;
* sets of queries (RT-DETR; encoder and every decoder layer): queries that the matching leaves over, and denoising
  queries that stand for no box, the negative ones and those that only fill up.

Assignment, matching and normalisers (numbers of boxes or sums of target scores over the batch) stay as they are, so
that the real images beside a synthetic one keep the very loss that they had. Locations and predicted centres inside
boxes that are flagged ignore are, on every image, neither object nor background.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = "background_weight"  # in a batch: [b], 0 where background gives no loss; left out where it is all 1
IGNORED = "ignored"  # in a batch: [k, 5] image index, then the box as centre, width, height in shares of the image
SILENT_LOGIT = -100.0  # "surely not this class": as background it costs exactly 0 and has no gradient

LossFunction = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]


class WeightedBackground:
    """An element-wise classification loss in which locations without a target count by a weight."""

    def __init__(self, bce: Callable[["Tensor", "Tensor"], "Tensor"]) -> None:
        self.bce = bce
        self.weights: Tensor | None = None  # [b, locations]

    def __call__(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """Losses ``[b, locations, classes]``; a location is background where its targets are all 0."""
        losses = self.bce(logits, targets)
        if self.weights is None:
            return losses
        positive = (targets > 0).any(dim=-1)
        return losses * self.weights.to(losses.dtype).masked_fill(positive, 1.0).unsqueeze(-1)


def mark_background(batch: dict[str, Any], num_classes: int, *, synthetic: bool) -> dict[str, Any]:
    """A batch with the marks that the losses go by, and without ignored boxes among its targets.

    Ignored boxes come as class ``num_classes``. With ``synthetic``, images flagged so give no background loss.
    A batch that needs no mark gets none.
    """
    import torch

    marked = dict(batch)
    if synthetic and any(batch["synthetic"]):
        marked[BACKGROUND] = 1.0 - torch.tensor(batch["synthetic"], dtype=torch.float32)
    ignored = batch["cls"].view(-1) == num_classes
    if ignored.any():
        marked[IGNORED] = torch.cat([batch["batch_idx"].view(-1, 1), batch["bboxes"]], dim=1)[ignored]
        marked |= {key: batch[key][~ignored] for key in ("batch_idx", "cls", "bboxes")}
    return marked


def location_weights(feats: Sequence["Tensor"], batch: Mapping[str, Any]) -> "Tensor | None":
    """Weights ``[b, locations]`` of background, for feature maps ``[b, c, h, w]``; None where all are 1."""
    return background_weights(location_centres(feats).expand(len(feats[0]), -1, -1), batch)


def background_weights(centres: "Tensor", batch: Mapping[str, Any]) -> "Tensor | None":
    """Weights ``[b, a]`` of background at centres ``[b, a, 2]`` (x, y, shares of the image); None where all are 1."""
    background, ignored = batch.get(BACKGROUND), batch.get(IGNORED)
    if background is None and ignored is None:
        return None
    weights = centres.new_ones(centres.shape[:2])
    if background is not None:
        weights *= background.to(weights)[:, None]
    if ignored is not None:
        weights *= (coverage(centres, ignored) == 0).to(weights)
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
    """How many ignored boxes ``[k, 5]`` of its own image hold each of the centres ``[b, a, 2]``: ``[b, a]``."""
    ignored = ignored.to(centres)
    image, middle, half = ignored[:, 0].long(), ignored[:, None, 1:3], ignored[:, None, 3:5] / 2
    inside = ((centres[image] - middle).abs() < half).all(dim=-1)
    return centres.new_zeros(centres.shape[:2]).index_add_(0, image, inside.to(centres))
