"""The noise protocol: how inaccurate boxes become, and what a box depends on."""

import numpy as np
import pytest

from actors.boxes import pairwise_iou
from actors.records import Annotation, LabeledImage
from actors.refiners.ssddet.noise import noisy, perturbed


def image(*boxes, name="a", ignore=None, size=(1000, 1000)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    flags = np.zeros(len(boxes), np.bool_) if ignore is None else np.array(ignore)
    annotation = Annotation(boxes=boxes, labels=np.zeros(len(boxes), np.int64), ignore=flags)
    return LabeledImage(id=name, uri="", width=size[0], height=size[1], annotation=annotation)


@pytest.mark.parametrize(("noise", "expected"), [(0.1, 0.811), (0.2, 0.664), (0.3, 0.545), (0.4, 0.448)])
def test_the_mean_iou_with_the_clean_boxes_is_that_of_the_protocol(noise, expected):
    draws = list(np.random.default_rng(0).uniform(-1, 1, (20_000, 4)))
    box = np.array([[300, 400, 340, 460]], np.float32)
    moved = perturbed(box.repeat(len(draws), axis=0), noise, draws)
    assert pairwise_iou(box, moved).mean() == pytest.approx(expected, abs=0.01)


def test_a_box_moves_by_shares_of_its_own_sides():
    (moved,) = perturbed(np.array([[10, 20, 30, 60]], np.float32), 0.5, [np.array([1, -0.5, 0.2, -1.0])])
    assert moved.tolist() == pytest.approx([19, 20, 41, 40])  # centre (30, 30), 22 x 20


def test_the_boxes_of_an_image_follow_the_same_protocol():
    boxes = [(x, y, x + 40, y + 60) for x in range(100, 900, 80) for y in range(100, 900, 80)]
    found = noisy(image(*boxes), 0.2, seed=3).boxes
    assert np.diag(pairwise_iou(np.array(boxes, np.float32), found)).mean() == pytest.approx(0.664, abs=0.04)


def test_a_box_depends_on_seed_image_and_position_alone():
    first, second = (200, 200, 300, 300), (500, 500, 560, 590)
    both = noisy(image(first, second), 0.4, seed=1).boxes
    assert np.array_equal(both[:1], noisy(image(first), 0.4, seed=1).boxes)
    assert not np.array_equal(both[:1], noisy(image(first), 0.4, seed=2).boxes)
    assert not np.array_equal(both[:1], noisy(image(first, name="b"), 0.4, seed=1).boxes)
    assert not np.array_equal(both[1:], noisy(image(second), 0.4, seed=1).boxes)


def test_boxes_stay_inside_the_image_and_ignored_ones_where_they_are():
    found = noisy(image((0, 0, 90, 90), (10, 10, 60, 60), ignore=[False, True], size=(90, 90)), 0.4, seed=5)
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= 90
    assert found.boxes[1].tolist() == [10, 10, 60, 60]
    assert found.ignore.tolist() == [False, True]


def test_without_noise_boxes_stay_as_they_are_to_the_last_bit():
    boxes = np.random.default_rng(0).uniform(0, 500, (50, 2, 2)).astype(np.float32)
    boxes.sort(axis=1)
    assert np.array_equal(noisy(image(*boxes.reshape(-1, 4)), 0.0, seed=0).boxes, boxes.reshape(-1, 4))
