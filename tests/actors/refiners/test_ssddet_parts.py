"""Bags, stages and self-distillation of SSD-Det: numbers worked out by hand, and what has no gradient."""

import pytest
import torch

from actors.refiners.ssddet import bag
from actors.refiners.ssddet.mil import (
    Scores,
    Stage,
    focal,
    merge,
    negatives_loss,
    stage_one_loss,
    stage_two_loss,
)
from actors.refiners.ssddet.self_distillation import (
    Identity,
    decoded,
    identity_loss,
    moved,
    normalised,
    position_loss,
)

BOX = torch.tensor([[40.0, 40, 60, 80]])
PICTURE = torch.tensor([[0.0, 0, 100, 100]])


# Bags


def test_a_bag_has_every_pair_of_sides_five_times():
    found = bag.neighbourhood(BOX, (1.0, 1.3, 0.7), 0.2)[0]
    assert len(found) == 45
    sides = {tuple(side) for side in (found[:, 2:] - found[:, :2]).round().int().tolist()}
    assert sides == {(w, h) for w in (20, 26, 14) for h in (40, 52, 28)}


def test_proposals_are_shifted_by_their_own_size():
    found = bag.neighbourhood(BOX, (1.0,), 0.1)[0]
    assert found.tolist() == [[40, 40, 60, 80], [38, 40, 58, 80], [42, 40, 62, 80], [40, 36, 60, 76], [40, 44, 60, 84]]


def test_a_proposal_is_valid_with_more_than_seven_tenths_in_the_picture():
    bags = torch.tensor([[[0.0, 0, 10, 10], [-2, 0, 8, 10], [-3, 0, 7, 10], [95, 0, 105, 10]]])
    assert bag.valid(bags, PICTURE).tolist() == [[True, True, False, False]]


def test_in_a_bag_outside_the_picture_all_are_valid():
    assert bag.valid(torch.tensor([[[-9.0, 0, 1, 10], [-8, 0, 2, 10]]]), PICTURE).all()


def test_negatives_overlap_no_proposal():
    draws = torch.rand(400, 4, generator=torch.Generator().manual_seed(0))
    bags = bag.neighbourhood(BOX, (1.0, 1.3), 0.2)
    found = bag.negatives(bags, PICTURE[0], draws)
    assert 0 < len(found) < 400
    worst = torch.stack([bag.paired_iou(found[None], one[None]) for one in bags[0]]).max()
    assert worst < 0.3
    assert bag.negatives(torch.tensor([[[0.0, 0, 100, 100]]]), PICTURE[0], torch.tensor([[0.0, 0, 1, 1]])).shape == (
        0,
        4,
    )


def test_the_iou_of_a_bag_is_with_its_own_box():
    bags = torch.tensor([[[0.0, 0, 10, 10], [5, 0, 15, 10]], [[0, 0, 10, 10], [20, 0, 30, 10]]])
    found = bag.paired_iou(bags, torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]]))
    assert found.flatten().tolist() == pytest.approx([1, 1 / 3, 0, 1])


# Multiple-instance learning


def test_scores_of_proposals_sum_to_one_over_the_valid_ones():
    torch.manual_seed(0)
    stage, valid = Stage(4, 2, softmax=True), torch.tensor([[True, True, False]])
    scores = stage(torch.randn(1, 3, 4), valid)
    assert scores.proposals[0, 2].tolist() == [0, 0, 0]
    assert scores.proposals.sum(dim=1).flatten().tolist() == pytest.approx([1, 1, 1])
    assert scores.classes.sum(dim=2).flatten().tolist() == pytest.approx([1, 1, 1])
    assert Stage(4, 2, softmax=False)(torch.randn(1, 3, 4), valid).classes.shape == (1, 3, 2)


def test_a_bag_scores_the_sum_of_its_proposals_products():
    scores = Scores(torch.tensor([[[0.9, 0.1], [0.5, 0.5]]]), torch.tensor([[[0.75, 0.5], [0.25, 0.5]]]))
    assert scores.bags.flatten().tolist() == pytest.approx([0.8, 0.3])
    own = scores.of(torch.tensor([1]))
    assert own.classes.tolist() == [pytest.approx([0.1, 0.5])]
    assert own.proposals.tolist() == [[0.5, 0.5]]


def test_losses_of_bags_are_those_of_the_paper():
    bags, log = torch.tensor([[0.8, 0.3]]), torch.log
    wrong = -log(torch.tensor(0.8)) - log(torch.tensor(0.7))
    assert float(stage_one_loss(bags, torch.tensor([0]))) == pytest.approx(float(wrong))
    hard = 0.2**2 * -log(torch.tensor(0.8)) + 0.3**2 * -log(torch.tensor(0.7))
    assert float(stage_two_loss(bags, torch.tensor([0]))) == pytest.approx(0.25 * float(hard))
    assert float(focal(torch.tensor([[0.5]]), torch.tensor([[1.0]]))) == pytest.approx(0.25 * 0.693147, abs=1e-5)
    assert float(negatives_loss(torch.tensor([[0.5]]))) == pytest.approx(0.75 * 0.25 * 0.693147, abs=1e-5)


def test_the_best_proposals_are_merged_by_their_scores():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [10, 0, 20, 10], [50, 50, 60, 60]]])
    found = merge(boxes, torch.tensor([[0.6, 0.2, 0.1]]), top_k=2)
    assert found.tolist() == [pytest.approx([2.5, 0, 12.5, 10])]


def test_proposals_that_are_not_valid_do_not_count_among_the_best():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [10, 0, 20, 10]]])
    assert merge(boxes, torch.tensor([[0.4, 0.0]]), top_k=7).tolist() == [[0, 0, 10, 10]]


# Self-distillation


def test_deltas_that_meet_the_target_cost_nothing_and_move_the_bag_there():
    bags, valid = bag.neighbourhood(BOX, (1.0, 0.8), 0.2), torch.ones(1, 20, dtype=torch.bool)
    target = torch.tensor([[42.0, 38, 66, 70]])
    deltas = torch.zeros_like(bags, requires_grad=True)
    (slope,) = torch.autograd.grad(position_loss(deltas, bags, target, valid).sum(), deltas)
    assert slope.abs().sum() > 0
    sides, wanted = bags[..., 2:] - bags[..., :2], target[:, 2:] - target[:, :2]
    centres = (bags[..., :2] + bags[..., 2:]) / 2
    exact = torch.cat(
        [((target[:, :2] + target[:, 2:]) / 2 - centres) / sides * 10, (wanted / sides).log() * 5], dim=-1
    )
    assert position_loss(exact, bags, target, valid).tolist() == pytest.approx([0], abs=1e-5)
    assert torch.allclose(moved(bags, exact), target[:, None].expand_as(bags), atol=1e-3)


def test_boxes_and_targets_are_constants():
    bags = bag.neighbourhood(BOX, (1.0, 0.8), 0.2).requires_grad_()
    boxes, valid = BOX.clone().requires_grad_(), torch.ones(1, 20, dtype=torch.bool)
    deltas, encoded = (torch.zeros(1, 20, *more, requires_grad=True) for more in ((4,), ()))
    assert not moved(bags, deltas).requires_grad
    for loss, learns in (
        (position_loss(deltas, bags, boxes, valid), deltas),
        (identity_loss(encoded, bags, boxes, valid), encoded),
    ):
        slopes = torch.autograd.grad(loss.sum(), (bags, boxes, learns), allow_unused=True)
        assert slopes[:2] == (None, None)
        assert slopes[2] is not None


def test_the_target_of_identity_is_the_encoded_iou():
    bags = torch.tensor([[[0.0, 0, 10, 10], [5, 0, 15, 10]]])
    valid = torch.tensor([[True, True]])
    encoded = torch.tensor([[1.0, (1 / 3 - 0.5) / 0.5]])
    assert identity_loss(encoded, bags, bags[:, 0], valid).tolist() == pytest.approx([0], abs=1e-5)
    assert decoded(encoded).flatten().tolist() == pytest.approx([1, 1 / 3])


def test_iou_is_stretched_over_the_valid_proposals_and_equal_ones_count_alike():
    iou, valid = torch.tensor([[0.2, 0.6, 0.4, 9.0]]), torch.tensor([[True, True, True, False]])
    assert normalised(iou, valid)[0, :3].tolist() == pytest.approx([0, 1, 0.5], abs=1e-4)
    assert normalised(torch.full((1, 3), 0.3), valid[:, :3]).tolist() == [[1, 1, 1]]


def test_identity_has_layers_of_its_own_and_knows_the_bag():
    torch.manual_seed(0)
    identity, pooled = Identity(6, 8), torch.randn(1, 3, 6)
    some, all_three = (identity(pooled, torch.tensor([flags])) for flags in ([True, True, False], [True] * 3))
    assert some.shape == (1, 3)
    assert not torch.allclose(some[:, :2], all_three[:, :2])
