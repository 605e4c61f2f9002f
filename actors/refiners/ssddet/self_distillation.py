"""Spatial position and spatial identity self-distillation (SSD-Det, arXiv 2307.12101, Sec. 3.3 and 3.4, Eqs. 7-8)."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection._utils import BoxCoder

from actors.refiners.ssddet.bag import paired_iou

CODER = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))  # standard deviations .1, .1, .2, .2
_EPS = 1e-6


# SPSD: where the object is


def moved(bags: Tensor, deltas: Tensor) -> Tensor:
    """Bags ``[n, p, 4]`` moved by encoded ``deltas`` of the same shape, as constants."""
    boxes: Tensor = CODER.decode_single(deltas.detach().flatten(0, 1), bags.detach().flatten(0, 1))
    return boxes.view_as(bags)


def position_loss(deltas: Tensor, bags: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Losses ``[n]``: L1 between the deltas of a bag's proposals and those to its target, a constant (Eq. 7).

    Args:
        deltas: Encoded deltas ``[n, p, 4]``.
        bags: Proposals ``[n, p, 4]``.
        targets: Boxes ``[n, 4]``.
        valid: Flags ``[n, p]`` of the proposals that count.
    """
    wanted = targets.detach()[:, None].expand_as(bags)
    encoded = CODER.encode_single(wanted.flatten(0, 1), bags.detach().flatten(0, 1)).view_as(bags)
    losses: Tensor = (deltas - encoded).abs().sum(dim=-1) * valid
    return losses.sum(dim=1) / valid.sum(dim=1)


# SISD: which proposal is the object


class Identity(nn.Module):
    """Predicts the IoU of each proposal with the object, by fully connected layers of its own."""

    def __init__(self, inputs: int, width: int) -> None:
        """``inputs`` is the number of values of a proposal's pooled features."""
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.iou = nn.Linear(width, 1)

    def forward(self, pooled: Tensor, valid: Tensor) -> Tensor:
        """Encoded IoU ``[n, p]`` of pooled features ``[n, p, inputs]``; those of the object are the bag's mean."""
        features, weights = self.layers(pooled), valid[..., None].to(pooled.dtype)
        mean = (features * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
        found: Tensor = self.iou(features + mean).squeeze(-1)
        return found


def identity_loss(encoded: Tensor, bags: Tensor, boxes: Tensor, valid: Tensor) -> Tensor:
    """Losses ``[n]``: smooth L1 between encoded IoU ``[n, p]`` and that of proposals and box, constants (Eq. 8)."""
    wanted = (paired_iou(bags.detach(), boxes.detach()) - 0.5) / 0.5
    losses = functional.smooth_l1_loss(encoded, wanted, reduction="none") * valid
    return losses.sum(dim=1) / valid.sum(dim=1)


def decoded(encoded: Tensor) -> Tensor:
    """IoU in [0, 1] of encoded ones."""
    return (encoded * 0.5 + 0.5).clamp(0, 1)


def normalised(iou: Tensor, valid: Tensor) -> Tensor:
    """IoU ``[n, p]`` stretched to [0, 1] over the valid proposals of each bag; 1 for all of a bag of equal ones."""
    low = iou.masked_fill(~valid, torch.inf).amin(dim=1, keepdim=True)
    high = iou.masked_fill(~valid, -torch.inf).amax(dim=1, keepdim=True)
    return (iou - low + _EPS) / (high - low + _EPS)
