"""The losses of the refiner (SSD-Det, arXiv 2307.12101, Eqs. 1, 3, 4, 7, 8).

Each is a mean over the objects of a picture, then over the pictures, so that the workers of a fit can share a batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from actors.refiners.ssddet.bag import negatives
from actors.refiners.ssddet.config import SSDDetFitConfig
from actors.refiners.ssddet.mil import negatives_loss, stage_one_loss, stage_two_loss
from actors.refiners.ssddet.network import Levels, Objects, Outcome, SSDDetNetwork
from actors.refiners.ssddet.self_distillation import identity_loss, position_loss


def refiner_loss(
    network: SSDDetNetwork,
    levels: Levels,
    objects: Objects,
    outcomes: Sequence[Outcome],
    draws: Sequence[Tensor],
    weights: SSDDetFitConfig,
) -> Tensor:
    """L_Basic, L_SPSD and L_SISD (Eq. 1), weighted.

    Args:
        network: The network that gave the outcomes.
        levels: The pyramid.
        objects: The objects, with the boxes that the bags were sampled around.
        outcomes: The network's outcome of each stage.
        draws: Random boxes ``[k, 4]`` of each picture, for the background proposals of stage II.
        weights: The weights of the terms.
    """
    counts = torch.tensor(objects.counts, device=objects.boxes.device)
    shares = 1.0 / (counts * len(counts)).repeat_interleave(counts)  # [n]
    sure = outcomes[0].scores.bags.gather(1, objects.labels[:, None]).squeeze(1).detach()  # [n] w_obj
    basic = (shares * stage_one_loss(outcomes[0].scores.bags, objects.labels)).sum()
    total = weights.spsd_weight * _positions(outcomes, objects, shares, sure)
    if len(outcomes) > 1:
        basic = basic + (shares * sure * stage_two_loss(outcomes[1].scores.bags, objects.labels)).sum()
        basic = basic + _background(network, levels, objects, outcomes[1], sure, draws)
        total = total + weights.sisd_weight * _identity(outcomes, shares)
    return total + weights.mil_weight * basic


def _positions(outcomes: Sequence[Outcome], objects: Objects, shares: Tensor, sure: Tensor) -> Tensor:
    """L_SPSD: towards the given box in stage I, towards the box of stage I in stage II, weighted by its bag score."""
    total = shares.new_zeros(())
    targets = zip(outcomes, (objects.boxes, outcomes[0].boxes), (shares, shares * sure), strict=False)
    for outcome, boxes, weights in targets:
        if outcome.before is not None and outcome.deltas is not None:
            before = outcome.before
            total = total + (weights * position_loss(outcome.deltas, before.proposals, boxes, before.valid)).sum()
    return total


def _identity(outcomes: Sequence[Outcome], shares: Tensor) -> Tensor:
    """L_SISD: the IoU of stage II's proposals with the box of stage I."""
    first, second = outcomes
    if second.iou is None:
        return shares.new_zeros(())
    return (shares * identity_loss(second.iou, second.bag.proposals, first.boxes, second.bag.valid)).sum()


def _background(
    network: SSDDetNetwork, levels: Levels, objects: Objects, second: Outcome, sure: Tensor, draws: Sequence[Tensor]
) -> Tensor:
    """The second term of Eq. 4: in each picture a mean over its background proposals, weighted by its objects' mean."""
    counts = list(objects.counts)
    parts = zip(second.bag.proposals.split(counts), objects.bounds.split(counts), draws, strict=True)
    found = [negatives(bags, bounds[0], draw) for bags, bounds, draw in parts]
    losses = negatives_loss(network.background(levels, found)).split([len(one) for one in found])
    means = [one.mean() * beta.mean() for one, beta in zip(losses, sure.split(counts), strict=True) if len(one)]
    return torch.stack(means).sum() / len(counts) if means else sure.new_zeros(())
