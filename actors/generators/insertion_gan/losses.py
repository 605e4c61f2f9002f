"""Losses of DetectorGAN's generators and discriminators (Liu et al., ICCV 2019; CycleGAN, arXiv 1703.10593, Sec. 3)."""

import torch
from torch import Tensor


def looks_real(values: Tensor) -> Tensor:
    """A generator's adversarial loss (least squares): the mean of ``(D - 1)^2``."""
    return (values - 1).square().mean()


def tells_apart(real: Tensor, drawn: Tensor) -> Tensor:
    """A discriminator's loss (least squares), halved as in CycleGAN (Sec. 4)."""
    return ((real - 1).square().mean() + drawn.square().mean()) / 2


def cycle_loss(again: Tensor, images: Tensor, masks: Tensor) -> Tensor:
    """Mean absolute difference in the mask between windows ``[b, 3, S, S]`` and what both generators made of them.

    Outside the mask ``[b, 1, S, S]`` they are equal, and do not count.
    """
    return _mean((again - images).abs(), masks)


def outside_loss(raw: Tensor, images: Tensor, masks: Tensor) -> Tensor:
    """Mean absolute change outside the mask by a generator, before its output is confined to the mask."""
    return _mean((raw - images).abs(), 1 - masks)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of ``values`` ``[b, 3, S, S]`` by ``weights`` ``[b, 1, S, S]``; 0 without any weight."""
    total = (values * weights).sum()
    return total / torch.clamp(values.shape[1] * weights.sum(), min=1.0)
