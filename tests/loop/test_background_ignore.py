import copy
from typing import Any

import pytest
import torch

from actors.detectors import DetectorConfig
from actors.detectors.ultralytics import architecture
from loop.training.background_ignore import (
    BACKGROUND,
    IGNORED,
    WeightedBackground,
    coverage,
    ignore_background,
    location_centres,
    location_weights,
    mark_background,
)

SIZE_PX, NUM_CLASSES = 64, 3
LARGE = [0.5, 0.5, 0.6, 0.6]


def element_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def test_only_background_is_weighted():
    targets = torch.tensor([[[0.0, 0.0], [0.0, 0.7]]])  # one image, two locations: background, and class 1
    logits = torch.zeros(1, 2, 2)  # each entry then costs ln 2, whatever its target
    weighted = WeightedBackground(element_loss)
    weighted.weights = torch.tensor([[0.0, 0.0]])
    ln2 = float(torch.log(torch.tensor(2.0)))
    assert weighted(logits, targets).flatten().tolist() == pytest.approx([0.0, 0.0, ln2, ln2])
    weighted.weights = None
    assert weighted(logits, targets).flatten().tolist() == pytest.approx([ln2] * 4)


def test_centres_are_those_of_the_cells_row_by_row_and_map_by_map():
    maps = [torch.zeros(1, 8, 1, 2), torch.zeros(1, 8, 1, 1)]  # one row of two cells, then a single cell
    assert location_centres(maps).tolist() == [[0.25, 0.5], [0.75, 0.5], [0.5, 0.5]]


def test_an_ignored_box_covers_the_centres_inside_it_in_its_own_image():
    centres = torch.tensor([[0.25, 0.5], [0.75, 0.5]])
    left_half_of_second_image = torch.tensor([[1.0, 0.25, 0.5, 0.5, 1.0]])
    assert coverage(centres, left_half_of_second_image, 2).tolist() == [[0, 0], [1, 0]]


def test_weights_multiply_image_and_area_and_are_absent_where_all_are_one():
    maps = [torch.zeros(3, 8, 1, 2)]
    batch = {BACKGROUND: torch.tensor([1.0, 0.0, 1.0]), IGNORED: torch.tensor([[2.0, 0.25, 0.5, 0.5, 1.0]])}
    weights = location_weights(maps, batch)
    assert weights is not None
    assert weights.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert location_weights(maps, {}) is None


def test_marks_split_ignored_boxes_from_targets():
    batch = batch_of([LARGE, [0.1, 0.1, 0.2, 0.2]], synthetic=(False, True), classes=[1, NUM_CLASSES], images=[0, 1])
    marked = mark_background(batch, NUM_CLASSES, synthetic=True)
    assert marked["cls"].tolist() == [[1.0]]
    assert marked["batch_idx"].tolist() == [0.0]
    assert marked[IGNORED][0].tolist() == pytest.approx([1.0, 0.1, 0.1, 0.2, 0.2])
    assert marked[BACKGROUND].tolist() == [1.0, 0.0]


def test_real_images_without_ignored_boxes_get_no_marks():
    batch = batch_of([LARGE], synthetic=(False,), classes=[1], images=[0])
    assert mark_background(batch, NUM_CLASSES, synthetic=True).keys() == batch.keys()
    flagged = batch_of([LARGE], synthetic=(True,), classes=[1], images=[0])
    assert BACKGROUND not in mark_background(flagged, NUM_CLASSES, synthetic=False)


@pytest.fixture(scope="module", params=["yolo11n.yaml", "yolo26n.yaml"])
def hooked(request) -> Any:
    """A detector with one dense head, and one with two (end to end)."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model: Any = architecture(DetectorConfig(model=request.param, image_size_px=SIZE_PX), NUM_CLASSES)
    model.criterion = model.init_criterion()
    model.plain = copy.deepcopy(model.criterion)
    for head in heads(model.criterion):
        ignore_background(head)
    return model


def heads(criterion: Any) -> list[Any]:
    return [criterion.one2many, criterion.one2one] if hasattr(criterion, "one2many") else [criterion]


def batch_of(
    boxes: list[list[float]], *, synthetic: tuple[bool, ...], classes: list[int], images: list[int]
) -> dict[str, Any]:
    pixels = torch.rand(len(synthetic), 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1))
    return {
        "img": pixels,
        "cls": torch.tensor(classes, dtype=torch.float32).view(-1, 1),
        "bboxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "batch_idx": torch.tensor(images, dtype=torch.float32),
        "synthetic": synthetic,
    }


def gradients(model: Any, batch: dict[str, Any], criterion: Any = None) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss, _ = (criterion or model.criterion)(model(batch["img"]), mark_background(batch, NUM_CLASSES, synthetic=True))
    loss.sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_a_synthetic_image_without_kept_boxes_has_no_gradient_at_all_gen2det_section_3_3(hooked):
    synthetic = gradients(hooked, batch_of([], synthetic=(True, True), classes=[], images=[]))
    assert all(bool((gradient == 0).all()) for gradient in synthetic.values())
    real = gradients(hooked, batch_of([], synthetic=(False, False), classes=[], images=[]))
    assert any(bool((gradient != 0).any()) for gradient in real.values())


def test_a_kept_box_of_a_synthetic_image_still_teaches_gen2det_section_3_3(hooked):
    kept = gradients(hooked, batch_of([LARGE], synthetic=(True,), classes=[1], images=[0]))
    assert any(bool((gradient != 0).any()) for gradient in kept.values())


def test_background_of_the_real_image_beside_it_still_counts(hooked):
    mixed = gradients(hooked, batch_of([], synthetic=(True, False), classes=[], images=[]))
    assert any(bool((gradient != 0).any()) for gradient in mixed.values())


def test_the_area_of_an_ignored_box_is_no_background(hooked):
    whole = [0.5, 0.5, 1.01, 1.01]
    covered = gradients(hooked, batch_of([whole], synthetic=(False,), classes=[NUM_CLASSES], images=[0]))
    assert all(bool((gradient == 0).all()) for gradient in covered.values())


def test_without_marks_the_loss_is_ultralytics_own_to_the_last_bit(hooked):
    batch = batch_of([LARGE], synthetic=(False,), classes=[1], images=[0])
    ours, theirs = gradients(hooked, batch), gradients(hooked, batch, hooked.plain)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
