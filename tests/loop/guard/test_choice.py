"""The rule of the guard on made-up detections, and the average of two detectors' weights."""

import numpy as np
import pytest
import torch

from actors.checkpoint import Checkpoint, Header, read_checkpoint, write_checkpoint
from actors.records import Annotation, Detections, LabeledImage
from loop.guard.blend import blend
from loop.guard.choice import Tried, choose, compare

BOXES = np.float32([[0, 0, 40, 40], [50, 50, 90, 90]])
TRUTH = [
    LabeledImage(
        id=str(number),
        uri="",
        width=99,
        height=99,
        annotation=Annotation(boxes=BOXES, labels=np.array([0, 1]), ignore=np.zeros(2, np.bool_)),
    )
    for number in range(12)
]


def finds(num_images):
    """Detections of both boxes in the first images, and of none in the others."""
    both = Detections(boxes=BOXES, labels=np.array([0, 1]), scores=np.float32([0.9, 0.8]))
    return {image.id: both if int(image.id) < num_images else Detections.empty() for image in TRUTH}


@pytest.mark.parametrize(
    ("control", "blended", "loop", "chosen"),
    [
        (4, 4, 10, "loop"),
        (10, 8, 4, "control"),
        (6, 6, 6, "control"),
        (4, 11, 8, "blend 0.5"),
        (4, 11, 2, "blend 0.5"),
        (6, 11, 0, "control"),  # the pool does harm
        (0, 0, 0, "control"),
    ],
)
def test_the_best_detector_is_taken_if_it_is_better_than_the_control(control, blended, loop, chosen):
    seen = {0.0: finds(control), 0.5: finds(blended), 1.0: finds(loop)}
    tried = compare(TRUTH, seen, ("a", "b"), draws=200, seed=0)
    assert [one.name for one in tried] == ["control", "blend 0.5", "loop"]
    assert choose(tried).name == chosen


def test_differences_are_paired_and_have_their_bootstrap_error():
    """AP is the share of images in which both boxes are found, on a grid of 101 recalls."""
    _, loop = compare(TRUTH, {0.0: finds(3), 1.0: finds(6)}, ("a", "b"), draws=4000, seed=0)
    assert loop.difference == pytest.approx(3 / 12, abs=0.02)
    assert loop.standard_error == pytest.approx((0.25 * 0.75 / 12) ** 0.5, abs=0.01)
    low, high = loop.difference_ci95
    assert 0 <= low < loop.difference < high


@pytest.mark.parametrize(("difference", "chosen"), [(0.021, "loop"), (0.02, "control"), (-0.3, "control")])
def test_a_detector_has_to_be_better_by_more_than_one_standard_error(difference, chosen):
    control, loop = (
        Tried(name=name, share=share, ap=0.5 + d, difference=d, difference_ci95=(d, d), standard_error=error)
        for name, share, d, error in (("control", 0.0, 0.0, 0.0), ("loop", 1.0, difference, 0.02))
    )
    assert choose([control, loop]).name == chosen


def checkpoint(tmp_path, name, value, width=2):
    header = Header(family="f", model="m", classes=("a",), image_size_px=64)
    tensors = {"weight": torch.full((width,), value), "bn.running_var": torch.tensor([value + 1.0])}
    file = Checkpoint(str(tmp_path / name))
    write_checkpoint(file, header, {**tensors, "bn.num_batches_tracked": torch.tensor(int(value))})
    return file


def test_weights_and_statistics_are_averaged_by_the_share_of_the_loop(tmp_path):
    control, loop = checkpoint(tmp_path, "control", 1.0), checkpoint(tmp_path, "loop", 5.0)
    blend(control, loop, 0.25, Checkpoint(str(tmp_path / "blend")))
    header, tensors = read_checkpoint(str(tmp_path / "blend"))
    assert header == read_checkpoint(loop)[0]
    assert {name: one.tolist() for name, one in tensors.items()} == {
        "weight": [2.0, 2.0],
        "bn.running_var": [3.0],
        "bn.num_batches_tracked": 5,
    }


def test_detectors_of_other_shapes_have_no_average(tmp_path):
    control, loop = checkpoint(tmp_path, "control", 1.0, width=3), checkpoint(tmp_path, "loop", 5.0)
    with pytest.raises(ValueError, match=r"loop and .*control are not of the same architecture"):
        blend(control, loop, 0.5, Checkpoint(str(tmp_path / "blend")))
