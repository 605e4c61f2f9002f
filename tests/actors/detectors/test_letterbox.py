"""Pictures on canvases and back, micro-batches, and suppression: geometry worked out by hand."""

import numpy as np
import pytest
import torch

from actors.detectors.suppression import strongest, suppress
from actors.letterbox import Letterbox, MicroBatch


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


# Suppression


def test_suppression_is_within_a_class_and_strict():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10.0]])
    scores, labels = torch.tensor([0.5, 0.9, 0.8, 0.1]), torch.tensor([0, 0, 0, 0])
    assert suppress(boxes, scores, labels, 0.5).tolist() == [1, 2, 3]  # an IoU of 0.5 is not more than 0.5
    assert suppress(boxes, scores, labels, 0.49).tolist() == [1, 3]
    assert suppress(boxes, scores, torch.tensor([1, 0, 2, 0]), 0.49).tolist() == [1, 2, 0, 3]
    assert suppress(boxes[:2], torch.tensor([0.5, 0.5]), labels[:2], 0.5).tolist() == [0]
    assert suppress(boxes[:0], scores[:0], labels[:0], 0.5).tolist() == []


def test_classes_do_not_suppress_each_other_left_of_the_picture():
    """The boxes span more than the largest coordinate, which is as far as batched_nms moves one class from the next."""
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [-11.0, -11.0, -1.0, -1.0]])
    assert suppress(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]), 0.5).tolist() == [0, 1]


@pytest.mark.parametrize("num_boxes", [900, 1100])  # batched_nms takes another way above 1000
def test_many_candidates_are_suppressed_class_by_class_in_a_stable_order(num_boxes):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (num_boxes, 2))
    boxes = torch.tensor(np.concatenate([corners, corners + rng.uniform(5, 40, (num_boxes, 2))], axis=1)).float()
    scores, labels = (
        torch.tensor(rng.integers(1, 9, num_boxes) / 10).float(),
        torch.tensor(rng.integers(0, 3, num_boxes)),
    )
    kept = suppress(boxes, scores, labels, 0.5)
    places = [torch.where(labels == label)[0] for label in range(3)]
    alone = [place[suppress(boxes[place], scores[place], labels[place], 0.5)] for place in places]
    expected = sorted(torch.cat(alone).tolist(), key=lambda index: (-scores[index], index))
    assert kept.tolist() == expected


def test_of_equal_scores_the_lower_label_comes_first_then_the_box_to_the_left():
    boxes = np.array([[5, 0, 9, 9], [1, 0, 9, 9], [0, 0, 9, 9], [7, 0, 9, 9]], np.float32)
    found = strongest(boxes, np.array([0.5, 0.5, 0.5, 0.9], np.float32), np.array([0, 0, 1, 2]), 3)
    assert found.boxes[:, 0].tolist() == [7, 1, 5]
    assert found.labels.tolist() == [2, 0, 0]


# Letterbox


def test_letterbox_pads_to_the_next_multiple_of_the_stride_evenly():
    place = Letterbox.fit((300, 640), 320, 32)  # halved: 150 x 320; 10 px are missing to 160
    assert (place.canvas, place.inner, place.offset) == ((160, 320), (150, 320), (5, 0))
    assert Letterbox.fit((100, 100), 320, 32).canvas == (320, 320)  # enlarged
    assert Letterbox.fit((1, 1000), 320, 32).inner == (1, 320)
    canvas = np.full((160, 320, 3), 114, np.uint8)
    place.draw(np.zeros((300, 640, 3), np.uint8), canvas)
    assert (canvas[5:155] == 0).all()
    assert (canvas[:5] == 114).all()
    assert (canvas[155:] == 114).all()


def test_boxes_come_back_into_the_pixels_of_the_picture():
    place = Letterbox.fit((300, 640), 320, 32)
    boxes = np.array([[10, 5, 110, 80], [300, 100, 330, 160]], np.float32)
    assert place.to_source(boxes).tolist() == [[20, 0, 220, 150], [600, 190, 640, 300]]  # the second is cut


def test_boxes_go_to_the_canvas_and_back():
    place = Letterbox.fit((300, 640), 320, 320)
    boxes = np.array([[20, 0, 220, 150]], np.float32)
    assert place.bounds.tolist() == [0, 85, 320, 235]
    assert place.to_canvas(boxes).tolist() == [[10, 85, 110, 160]]
    assert np.array_equal(place.to_source(place.to_canvas(boxes)), boxes)


def test_stretching_gives_each_axis_its_own_scale():
    place = Letterbox.stretch((100, 400), 320)
    assert place.to_source(np.array([[80, 80, 160, 160]], np.float32)).tolist() == [[100, 25, 200, 50]]


def test_micro_batches_are_full_whatever_is_asked_for():
    policy = MicroBatch(max_images=8, max_px=5 * 64 * 64)
    assert policy.size((64, 64)) == 4  # 5 fit
    assert policy.size((640, 640)) == 1
    images = pictures((64, 64), (32, 64), (64, 64))
    places = [Letterbox.fit(image.shape[:2], 64, 32) for image in images]
    parts = list(policy.batches(images, places))
    assert [(part, batch.shape) for part, batch in parts] == [([0, 2], (4, 64, 64, 3)), ([1], (8, 32, 64, 3))]
    assert (parts[0][1][1] == images[2]).all()
    assert (parts[0][1][2:] == 114).all()
