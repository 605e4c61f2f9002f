"""Background ignore on one small detector of each family: dense, dense and end to end, queries (RT-DETR)."""

import copy
from typing import Any

import pytest
import torch

from actors.detectors.background_ignore import (
    NO_MARKS,
    Marks,
    WeightedBackground,
    coverage,
    location_centres,
    location_weights,
)
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.detectors.ultralytics.losses import MARKS, dense_losses, hook_losses, mark_background

SIZE_PX, NUM_CLASSES = 64, 3
LARGE, WHOLE = [0.5, 0.5, 0.6, 0.6], [0.5, 0.5, 1.01, 1.01]


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
    centres = torch.tensor([[[0.25, 0.5], [0.75, 0.5]], [[0.25, 0.5], [0.75, 0.5]], [[0.6, 0.1], [0.4, 0.9]]])
    left_half_of_the_others = torch.tensor([[1.0, 0.25, 0.5, 0.5, 1.0], [2.0, 0.25, 0.5, 0.5, 1.0]])
    assert coverage(centres, left_half_of_the_others).tolist() == [[0, 0], [1, 0], [0, 1]]


def test_weights_multiply_image_and_area_and_are_absent_where_all_are_one():
    maps = [torch.zeros(3, 8, 1, 2)]
    marks = Marks(background=torch.tensor([1.0, 0.0, 1.0]), ignored=torch.tensor([[2.0, 0.25, 0.5, 0.5, 1.0]]))
    weights = location_weights(maps, marks)
    assert weights is not None
    assert weights.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert location_weights(maps, NO_MARKS) is None


def test_marks_split_ignored_boxes_from_targets():
    batch = batch_of([LARGE, [0.1, 0.1, 0.2, 0.2]], synthetic=(False, True), classes=[1, NUM_CLASSES], images=[0, 1])
    marked = mark_background(batch, NUM_CLASSES, synthetic=True)
    assert marked["cls"].tolist() == [[1.0]]
    assert marked["batch_idx"].tolist() == [0.0]
    assert marked[MARKS].ignored[0].tolist() == pytest.approx([1.0, 0.1, 0.1, 0.2, 0.2])
    assert marked[MARKS].background.tolist() == [1.0, 0.0]


def test_real_images_without_ignored_boxes_get_no_marks():
    batch = batch_of([LARGE], synthetic=(False,), classes=[1], images=[0])
    assert mark_background(batch, NUM_CLASSES, synthetic=True).keys() == batch.keys()
    flagged = batch_of([LARGE], synthetic=(True,), classes=[1], images=[0])
    assert MARKS not in mark_background(flagged, NUM_CLASSES, synthetic=False)


@pytest.fixture(scope="module", params=["yolo11n", "yolo26n", "small_detr"])
def hooked(request) -> Any:
    """A detector with one dense head, one with two (end to end), and one with queries."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    name = str(request.getfixturevalue("small_detr")) if request.param == "small_detr" else f"{request.param}.yaml"
    model: Any = UltralyticsConfig(model=name, image_size_px=SIZE_PX).architecture(NUM_CLASSES)
    model.criterion = model.init_criterion()
    model.plain = copy.deepcopy(model.criterion)
    hook_losses(model)
    return model


@pytest.fixture(scope="module")
def detr(small_detr) -> Any:
    torch.manual_seed(0)
    model: Any = UltralyticsConfig(model=str(small_detr), image_size_px=SIZE_PX).architecture(NUM_CLASSES)
    model.criterion = model.init_criterion()
    hook_losses(model)
    return model


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


def gradients(model: Any, batch: dict[str, Any], loss: Any = None) -> dict[str, torch.Tensor]:
    """Of all parameters. The noise of denoising queries is the same every time."""
    torch.manual_seed(2)
    model.zero_grad()
    total, _ = (loss or model.loss)(mark_background(batch, NUM_CLASSES, synthetic=True))
    total.sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def logit_gradients(model: Any, batch: dict[str, Any]) -> tuple[list[torch.Tensor], dict[str, Any], Any]:
    """Of all class logits, each with images as its first axis; then the loss items and the predictions."""
    torch.manual_seed(2)
    marked = mark_background(batch, NUM_CLASSES, synthetic=True)
    counts = [int((marked["batch_idx"] == image).sum()) for image in range(len(batch["img"]))]
    targets = {key: marked[key] for key in ("cls", "bboxes", "batch_idx")} | {"gt_groups": counts}
    targets |= {key: targets[key].view(-1).long() for key in ("cls", "batch_idx")}
    is_detr = not dense_losses(model.criterion)
    predictions = model.predict(batch["img"], batch=targets) if is_detr else model(batch["img"])
    if is_detr:
        logits = [predictions[1], predictions[3]]
    elif "scores" in predictions:
        logits = [predictions["scores"]]
    else:
        logits = [predictions[head]["scores"] for head in ("one2many", "one2one")]
    for one in logits:
        one.retain_grad()
    total, items = model.loss(marked, predictions)
    total.sum().backward()
    found = [one.grad for one in logits]
    return [found[0].movedim(1, 0), *found[1:]] if is_detr else found, items, predictions


def test_a_synthetic_image_without_kept_boxes_has_no_gradient_at_all_gen2det_section_3_3(hooked):
    bare = batch_of([], synthetic=(True, True), classes=[], images=[])
    assert all(bool((gradient == 0).all()) for gradient in gradients(hooked, bare).values())
    assert float(logit_gradients(hooked, bare)[1]["cls_loss"]) == 0.0
    real = gradients(hooked, batch_of([], synthetic=(False, False), classes=[], images=[]))
    assert any(bool((gradient != 0).any()) for gradient in real.values())


def test_a_kept_box_of_a_synthetic_image_still_teaches_gen2det_section_3_3(hooked):
    kept = gradients(hooked, batch_of([LARGE], synthetic=(True,), classes=[1], images=[0]))
    assert any(bool((gradient != 0).any()) for gradient in kept.values())


def test_background_of_the_real_image_beside_it_still_counts(hooked):
    mixed = gradients(hooked, batch_of([], synthetic=(True, False), classes=[], images=[]))
    assert any(bool((gradient != 0).any()) for gradient in mixed.values())


def test_a_real_image_learns_the_same_whatever_lies_beside_it_gen2det_section_3_3(hooked):
    """Normalisers count boxes (or sum their target scores) over the batch, and those stay: equal up to rounding."""
    boxes = {"boxes": [LARGE, LARGE, [0.3, 0.3, 0.3, 0.4]], "classes": [1, 2, 0], "images": [0, 1, 1]}
    flagged, flagged_items, _ = logit_gradients(hooked, batch_of(synthetic=(True, False), **boxes))
    unflagged, items, _ = logit_gradients(hooked, batch_of(synthetic=(False, False), **boxes))
    for ours, theirs in zip(flagged, unflagged, strict=True):
        assert torch.allclose(ours[1], theirs[1], rtol=1e-5, atol=1e-8)
        assert bool((ours[1] != 0).any())
        assert int((ours[0] != 0).sum()) < int((theirs[0] != 0).sum())
    unlike = [name for name in items if not torch.equal(flagged_items[name], items[name])]
    assert unlike == ["cls_loss"]
    assert flagged_items["cls_loss"] < items["cls_loss"]


def test_the_area_of_an_ignored_box_is_no_background(hooked):
    covered = gradients(hooked, batch_of([WHOLE], synthetic=(False,), classes=[NUM_CLASSES], images=[0]))
    assert all(bool((gradient == 0).all()) for gradient in covered.values())


def test_without_marks_the_loss_is_ultralytics_own_to_the_last_bit(hooked):
    batch = batch_of([LARGE], synthetic=(False,), classes=[1], images=[0])
    ours, hooked_criterion = gradients(hooked, batch), hooked.criterion
    hooked.criterion = hooked.plain
    theirs = gradients(hooked, batch, lambda marked: type(hooked).loss(hooked, marked))
    hooked.criterion = hooked_criterion
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_queries_of_a_synthetic_image_learn_where_they_stand_for_a_box_and_nowhere_else(detr):
    """One box in the synthetic image, three in the real one: its denoising queries are mostly filled up."""
    boxes = [LARGE, LARGE, [0.3, 0.3, 0.3, 0.4], [0.7, 0.2, 0.2, 0.2]]
    batch = batch_of(boxes, synthetic=(True, False), classes=[1, 2, 0, 1], images=[0, 1, 1, 1])
    (decoder, encoder), _, (*_, denoising) = logit_gradients(detr, batch)
    learns = (decoder[0] != 0).any(dim=-1)  # [layers, denoising queries, then the others]
    num_denoising = denoising["dn_num_split"][0]
    positive = torch.zeros(num_denoising, dtype=torch.bool)
    positive[denoising["dn_pos_idx"][0]] = True
    assert 0 < int(positive.sum()) < num_denoising
    assert torch.equal(learns[:, :num_denoising], positive.expand(len(learns), -1))
    assert learns[:, num_denoising:].sum(dim=1).tolist() == [1] * len(learns)  # the matched one
    assert int((encoder[0] != 0).any(dim=-1).sum()) == 1
    assert bool((decoder[1] != 0).any(dim=-1).all())


def test_queries_that_look_into_an_ignored_box_are_no_background(detr):
    left_half = [0.25, 0.5, 0.5, 1.01]
    batch = batch_of([left_half], synthetic=(False,), classes=[NUM_CLASSES], images=[0])
    gradients_, _, (decoder, _, encoder, *_) = logit_gradients(detr, batch)
    for boxes, gradient in ((decoder[:, 0], gradients_[0][0]), (encoder[0], gradients_[1][0])):
        outside = boxes[..., 0] >= 0.5
        assert 0 < int(outside.sum()) < outside.numel()
        assert torch.equal((gradient != 0).any(dim=-1), outside)
