"""Bags of proposals around a box (SSD-Det, arXiv 2307.12101, Eq. 6), and background proposals."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

VALID_SHARE = 0.7  # of a proposal's area that lies in the picture (released code)
NEGATIVE_IOU = 0.3  # a background proposal overlaps each proposal of each bag less than this (Sec. 3.2)


def neighbourhood(boxes: Tensor, sides: Sequence[float], shift: float) -> Tensor:
    """Bags ``[n, 5 k^2, 4]`` of boxes ``[n, 4]``: every pair of the k factors for width and height, each also shifted.

    The shifts are left, right, up and down by ``shift`` of the proposal's own size.
    """
    factors = torch.tensor(sides, dtype=boxes.dtype, device=boxes.device)
    moves = boxes.new_tensor([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]]) * shift
    sizes = (boxes[:, None, 2:] - boxes[:, None, :2]) * torch.cartesian_prod(factors, factors)  # [n, k^2, 2]
    middles = (boxes[:, None, None, :2] + boxes[:, None, None, 2:]) / 2 + sizes[:, :, None] * moves
    halves = sizes[:, :, None].expand_as(middles) / 2
    return torch.cat([middles - halves, middles + halves], dim=-1).flatten(1, 2)


def valid(bags: Tensor, bounds: Tensor) -> Tensor:
    """Flags ``[n, p]`` of the proposals of bags ``[n, p, 4]`` that lie in the picture, within ``bounds`` ``[n, 4]``.

    In a bag without any, all are valid.
    """
    inside = torch.cat(
        [torch.maximum(bags[..., :2], bounds[:, None, :2]), torch.minimum(bags[..., 2:], bounds[:, None, 2:])], dim=-1
    )
    found = _areas(inside) > VALID_SHARE * _areas(bags)
    return found | ~found.any(dim=1, keepdim=True)


def clip(boxes: Tensor, bounds: Tensor) -> Tensor:
    """Boxes ``[n, 4]`` cut at ``bounds`` ``[n, 4]``."""
    low, high = bounds[:, :2].repeat(1, 2), bounds[:, 2:].repeat(1, 2)
    return torch.minimum(torch.maximum(boxes, low), high)


def paired_iou(bags: Tensor, boxes: Tensor) -> Tensor:
    """IoU ``[n, p]`` of each proposal of bags ``[n, p, 4]`` with its own box of ``[n, 4]``."""
    boxes = boxes[:, None].expand_as(bags)
    shared = _areas(
        torch.cat([torch.maximum(bags[..., :2], boxes[..., :2]), torch.minimum(bags[..., 2:], boxes[..., 2:])], dim=-1)
    )
    return shared / (_areas(bags) + _areas(boxes) - shared).clamp(min=1e-6)


def negatives(bags: Tensor, bounds: Tensor, draws: Tensor) -> Tensor:
    """Background proposals ``[m, 4]``, m <= k, of one picture.

    Args:
        bags: Proposals ``[n, p, 4]`` of all its objects.
        bounds: The picture ``[4]``.
        draws: Corners ``[k, 4]`` as shares of the picture in [0, 1], in any order.
    """
    corners = bounds[:2].repeat(2) + draws * (bounds[2:] - bounds[:2]).repeat(2)
    boxes = torch.cat([torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])], 1)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= 1).all(dim=1)]
    return boxes[(box_iou(boxes, bags.flatten(0, 1)) < NEGATIVE_IOU).all(dim=1)]


def _areas(boxes: Tensor) -> Tensor:
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]
