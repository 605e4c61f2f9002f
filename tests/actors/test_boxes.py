"""Box geometry, worked out by hand."""

import numpy as np
import pytest

from actors.boxes import areas, clip, empty, intersections, pairwise_iou


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_areas():
    turned_inside_out = (5, 5, 1, 9)
    assert areas(boxes((0, 0, 4, 3), (1, 1, 1, 9), turned_inside_out)).tolist() == [12, 0, 0]


def test_intersections_of_every_pair():
    first = boxes((0, 0, 4, 4), (10, 10, 12, 12))
    second = boxes((2, 1, 6, 3), (0, 0, 1, 1), (4, 0, 8, 4))  # the last one touches: nothing shared
    assert intersections(first, second).tolist() == [[4, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 4, 4), (0, 0, 4, 4), 1),
        ((0, 0, 4, 4), (2, 0, 6, 4), 8 / 24),
        ((0, 0, 4, 4), (1, 1, 3, 3), 4 / 16),
        ((0, 0, 4, 4), (4, 4, 8, 8), 0),
        ((1, 1, 1, 1), (1, 1, 1, 1), 0),  # no area, no overlap, no division by zero
    ],
)
def test_iou(first, second, expected):
    assert pairwise_iou(boxes(first), boxes(second)).item() == pytest.approx(expected)
    assert pairwise_iou(boxes(second), boxes(first)).item() == pytest.approx(expected)


def test_no_boxes_keep_their_shape_and_type():
    some = boxes((0, 0, 1, 1), (0, 0, 2, 2))
    assert empty().shape == (0, 4)
    assert empty().dtype == np.float32
    assert areas(empty()).shape == (0,)
    assert pairwise_iou(empty(), some).shape == (0, 2)
    assert pairwise_iou(some, empty()).shape == (2, 0)
    assert pairwise_iou(some, some).dtype == np.float32


def test_clip_cuts_at_the_borders():
    clipped = clip(boxes((-3, -2, 5, 4), (6, 1, 20, 30), (20, 20, 30, 30)), width=10, height=8)
    assert clipped.tolist() == [[0, 0, 5, 4], [6, 1, 10, 8], [10, 8, 10, 8]]
    assert clipped.dtype == np.float32
