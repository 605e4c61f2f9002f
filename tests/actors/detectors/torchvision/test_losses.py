"""Background ignore and ignored regions on Faster R-CNN (both stages), RetinaNet and FCOS."""

from typing import Any

import pytest
import torch
from tiny_torchvision import MODELS, SIZE_PX, annotation, lively, tiny
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead

from actors.detectors.torchvision.losses import losses

BOXES = [annotation([8, 8, 40, 60], [30, 4, 60, 30]), annotation([4, 20, 50, 44])]
BARE = [annotation(), annotation()]
LEFT, WHOLE = [-1, -1, SIZE_PX / 2, SIZE_PX + 1], [-1, -1, SIZE_PX + 1, SIZE_PX + 1]
LOGITS = {"fasterrcnn": ["rpn.head.cls_logits", "roi_heads.box_predictor"]}


@pytest.fixture(scope="module", params=MODELS)
def network(request) -> Any:
    torch.manual_seed(0)
    return lively(tiny(request.param).architecture(3)).train()


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1))


def compute(network: Any, annotations, *synthetic: bool) -> dict[str, torch.Tensor]:
    """The losses, always with the same random samples."""
    torch.manual_seed(2)
    return losses(network, pictures(), annotations, synthetic)


def logit_gradients(network: Any, annotations, *synthetic: bool) -> list[torch.Tensor]:
    """Of each classifier, by image: ``[n, places, classes]``."""
    is_dense = not hasattr(network, "rpn")
    names = ["head.classification_head"] if is_dense else ["rpn.head.cls_logits", "roi_heads.box_predictor"]
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}

    def keep(name: str):
        def hook(_module: object, _inputs: object, output: Any) -> None:
            seen[name].append(output[0] if isinstance(output, tuple) else output)
            seen[name][-1].retain_grad()

        return hook

    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    sum(compute(network, annotations, *synthetic).values()).backward()
    for hook in hooks:
        hook.remove()
    if is_dense:
        return [seen[names[0]][0].grad]
    anchors = torch.cat([one.grad.flatten(2) for one in seen[names[0]]], dim=2)  # [n, ratios, places]
    regions = seen[names[1]][0].grad
    assert len(regions) == 2 * network.roi_heads.fg_bg_sampler.batch_size_per_image
    return [anchors.flatten(1).unsqueeze(-1), regions.unflatten(0, (2, -1))]


def stands_for_a_box(gradient: torch.Tensor) -> torch.Tensor:
    """Where the loss pulls towards an object: ``[n, places]``, of unweighted gradients."""
    softmax = gradient.shape[-1] == 4  # of three classes and background, which comes first
    return gradient[..., 0] > 0 if softmax else (gradient < 0).any(dim=-1)


def test_without_marks_the_losses_are_torchvisions_own_to_the_last_bit(network):
    targets = [
        {"boxes": torch.from_numpy(one.boxes.copy()), "labels": torch.from_numpy(one.labels + hasattr(network, "rpn"))}
        for one in BOXES
    ]
    ours = compute(network, BOXES, False, False)
    network.transform._skip_resize = True  # else it draws a random size
    kinds = {"QuietRetinaNetHead": RetinaNetHead, "QuietFCOSHead": FCOSHead}
    own = type(getattr(network, "head", None))
    if own.__name__ in kinds:
        network.head.__class__ = kinds[own.__name__]
    torch.manual_seed(2)
    theirs = network(list(pictures()), targets)
    if own.__name__ in kinds:
        network.head.__class__ = own
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_synthetic_image_learns_where_it_stands_for_a_kept_box_and_nowhere_else_gen2det_section_3_3(network):
    """There, and on the real image beside it, it learns what it would learn of a real one, to the last bit."""
    flagged = logit_gradients(network, BOXES, True, False)
    unflagged = logit_gradients(network, BOXES, False, False)
    for ours, plain in zip(flagged, unflagged, strict=True):
        positive = stands_for_a_box(plain)
        assert bool(positive[0].any())
        assert int((plain[0] != 0).any(dim=-1).sum()) > int(positive[0].sum())
        assert torch.equal(ours[0], torch.where(positive[0].unsqueeze(-1), plain[0], 0.0))
        assert torch.equal(ours[1], plain[1])


def test_a_synthetic_image_without_kept_boxes_has_no_loss_and_no_gradient_gen2det_section_3_3(network):
    network.zero_grad()
    found = compute(network, BARE, True, True)
    sum(found.values()).backward()
    assert all(float(one.detach()) == 0.0 for one in found.values())
    assert all(bool((p.grad == 0).all()) for p in network.parameters() if p.grad is not None)
    assert any(float(one.detach()) > 0 for one in compute(network, BARE, False, False).values())


def test_what_looks_into_an_ignored_box_is_neither_object_nor_background(network):
    hidden = [annotation(*BARE[0].boxes, WHOLE, ignore={0}), BARE[1]]
    plain = logit_gradients(network, BARE, False, False)
    for ours, theirs in zip(logit_gradients(network, hidden, False, False), plain, strict=True):
        assert bool((theirs[0] != 0).any())
        assert bool((ours[0] == 0).all())
        assert torch.equal(ours[1], theirs[1])


def test_only_centres_inside_the_ignored_box_are_hidden(network):
    ours = logit_gradients(network, [annotation(LEFT, ignore={0}), BARE[1]], False, False)[0]
    theirs = logit_gradients(network, BARE, False, False)[0]
    hidden = (ours == 0).all(dim=-1) & (theirs != 0).any(dim=-1)
    assert 0.3 < hidden[0].sum() / (theirs[0] != 0).any(dim=-1).sum() < 0.7
    assert torch.equal(torch.where(hidden.unsqueeze(-1), theirs, ours), theirs)


def test_an_object_in_an_ignored_box_still_counts(network):
    both = [annotation([8, 8, 40, 60], WHOLE, ignore={1}), BARE[1]]
    for ours in logit_gradients(network, both, False, False):
        assert bool((ours[0] != 0).any())


def test_boxes_without_area_are_left_out(network):
    flat = [annotation([8, 8, 8, 60]), annotation()]
    assert compute(network, flat, False, False) == compute(network, BARE, False, False)


def test_samples_follow_torchs_global_generator(network):
    once, again = compute(network, BOXES, False, False), compute(network, BOXES, False, False)
    assert once == again
