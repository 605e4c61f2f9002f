"""The training loss as a function of parameters and images, on one small detector of each kind of head."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from conftest import DETR_LAYERS, LAYERS
from held_constants import Constants, write_lively_yolo

from actors.detector_loss import DetectorLoss
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.detectors.ultralytics.weights import import_ultralytics
from actors.records import Annotation

pytestmark = pytest.mark.slow

MODELS = {"one_head": LAYERS, "two_heads": f"end2end: True\nreg_max: 1\n{LAYERS}", "detr": DETR_LAYERS}
CLASSES, SIZE_PX, ETA = ("bolt", "crack", "dent"), 64, 0.01
WHOLE = [-1, -1, SIZE_PX + 1, SIZE_PX + 1]

every_head = pytest.mark.parametrize("kind", MODELS)


@pytest.fixture(autouse=True)
def _in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ultralytics' losses follow the default dtype, but for RT-DETR's varifocal loss, which asks for float32."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, tuple[UltralyticsConfig, str]]:
    return {kind: write_checkpoint(tmp_path_factory.mktemp(kind), layers) for kind, layers in MODELS.items()}


def write_checkpoint(folder, layers: str) -> tuple[UltralyticsConfig, str]:
    (folder / "model.yaml").write_text(layers)
    return write_lively_yolo(folder, str(folder / "model.yaml"), CLASSES, SIZE_PX)


@pytest.fixture
def open_loss(checkpoints) -> Callable[..., DetectorLoss]:
    def made(kind: str, **options) -> DetectorLoss:
        config, uri = checkpoints[kind]
        return config.open_loss(uri, device="cpu", **options)

    return made


def annotation(*boxes, ignore=()) -> Annotation:
    flags = np.array([index in ignore for index in range(len(boxes))], bool)
    return Annotation(boxes=np.array(boxes, np.float32).reshape(-1, 4), labels=np.arange(len(boxes)) % 3, ignore=flags)


BOXES = [annotation([8, 8, 40, 60], [30, 4, 60, 30]), annotation([4, 20, 50, 44])]
REAL_BOXES = [annotation([20, 12, 62, 40]), annotation([2, 2, 30, 34], [36, 30, 60, 62])]


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(seed))


# Gradients


def assert_gradient_is_finite_difference(
    compute: Callable[[list[torch.Tensor]], torch.Tensor], point: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Along random directions and along the gradient."""
    import_ultralytics()
    constants = Constants(monkeypatch)
    gradients = torch.autograd.grad(compute(point), point)
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    assert norm > 1e-4
    generator, h = torch.Generator().manual_seed(3), 1e-7
    directions = [[torch.randn(value.shape, generator=generator) for value in point] for _ in range(3)]
    for direction in [*directions, [gradient / norm for gradient in gradients]]:
        length = math.sqrt(sum(float(part.square().sum()) for part in direction))
        slope = (
            sum(float((part * gradient).sum()) for part, gradient in zip(direction, gradients, strict=True)) / length
        )

        def beside(step: float, direction=direction, length=length) -> float:
            moved = [(v + step * d / length).requires_grad_() for v, d in zip(point, direction, strict=True)]
            return constants.again(lambda: compute(moved))

        found = (beside(h) - beside(-h)) / (2 * h)
        assert found == pytest.approx(slope, rel=1e-4, abs=1e-6 * norm)


@every_head
@pytest.mark.parametrize("prefixes", [None, [""]], ids=["head", "all"])
def test_the_gradient_by_parameters_is_that_of_finite_differences(kind, prefixes, open_loss, monkeypatch):
    loss, images = open_loss(kind, prefixes=prefixes), pictures(1)
    names, values = zip(*loss.parameters.items(), strict=True)
    used = torch.autograd.grad(loss(loss.parameters, images, BOXES), values, allow_unused=True)
    names = [name for name, gradient in zip(names, used, strict=True) if gradient is not None]

    def compute(moved: list[torch.Tensor]) -> torch.Tensor:
        return loss(dict(zip(names, moved, strict=True)), images, BOXES)

    point = [loss.parameters[name] for name in names]
    assert_gradient_is_finite_difference(compute, point, monkeypatch)


@every_head
def test_the_gradient_by_images_is_that_of_finite_differences(kind, open_loss, monkeypatch):
    loss = open_loss(kind)

    def compute(images: list[torch.Tensor]) -> torch.Tensor:
        return loss({}, images[0], BOXES)

    assert_gradient_is_finite_difference(compute, [pictures(1).requires_grad_()], monkeypatch)


def unrolled(loss: DetectorLoss, images: torch.Tensor) -> torch.Tensor:
    """The loss on real images after one step on ``images`` (DetectorGAN)."""
    names, values = zip(*loss.parameters.items(), strict=True)
    inner = loss(loss.parameters, images, BOXES)
    slopes = torch.autograd.grad(inner, values, create_graph=True, materialize_grads=True)
    stepped = {name: value - ETA * slope for name, value, slope in zip(names, values, slopes, strict=True)}
    return loss(stepped, pictures(2), REAL_BOXES)


@every_head
@pytest.mark.parametrize("prefixes", [None, [""]], ids=["head", "all"])
def test_the_gradient_of_an_unrolled_step_by_images_is_that_of_finite_differences(
    kind, prefixes, open_loss, monkeypatch
):
    loss = open_loss(kind, prefixes=prefixes)

    def compute(images: list[torch.Tensor]) -> torch.Tensor:
        return unrolled(loss, images[0])

    assert_gradient_is_finite_difference(compute, [pictures(1).requires_grad_()], monkeypatch)


@every_head
def test_an_unrolled_step_lowers_the_loss_on_the_same_images(kind, open_loss):
    loss, images = open_loss(kind), pictures(1)
    before = loss(loss.parameters, images, BOXES)
    slopes = torch.autograd.grad(before, list(loss.parameters.values()), materialize_grads=True)
    stepped = {name: value - 1e-7 * s for (name, value), s in zip(loss.parameters.items(), slopes, strict=True)}
    assert loss(stepped, images, BOXES) < before


@pytest.mark.parametrize("kind", ["one_head", "two_heads"])  # RT-DETR's matching leaves torch
def test_a_yolo_works_under_torch_func(kind, open_loss):
    loss, images = open_loss(kind), pictures(1)
    gradients = torch.func.grad(loss)(loss.parameters, images, BOXES)
    expected = torch.autograd.grad(
        loss(loss.parameters, images, BOXES), list(loss.parameters.values()), materialize_grads=True
    )
    assert all(torch.allclose(one, two) for one, two in zip(gradients.values(), expected, strict=True))


# Value


@every_head
def test_it_is_the_loss_that_ultralytics_trains_with_but_for_frozen_statistics_and_noise(kind, open_loss, checkpoints):
    config, uri = checkpoints[kind]
    model = config.load_checkpoint(uri)[0].double()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    model.model[-1].num_denoising = 0
    images = pictures(1)
    boxes = torch.tensor(np.concatenate([one.boxes for one in BOXES]) / SIZE_PX, dtype=torch.float64)
    batch = {
        "img": images,
        "batch_idx": torch.tensor([0.0, 0.0, 1.0]),
        "cls": torch.tensor([0.0, 1.0, 0.0]),
        "bboxes": torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1),
    }
    theirs = model.loss(batch)[0].sum() / (1 if kind == "detr" else len(images))
    assert open_loss(kind)({}, images, BOXES).item() == pytest.approx(theirs.item(), rel=1e-9)


@every_head
def test_it_is_repeatable_and_changes_neither_weights_nor_statistics(kind, open_loss):
    loss, images = open_loss(kind, prefixes=[""]), pictures(1)
    state = {name: value.clone() for name, value in loss.network.state_dict().items()}
    assert loss({}, images, BOXES) == loss({}, images, BOXES)
    assert float(loss(loss.parameters, images, BOXES)) == pytest.approx(float(loss({}, images, BOXES)), rel=1e-12)
    assert all(torch.equal(value, state[name]) for name, value in loss.network.state_dict().items())


@every_head
def test_only_the_chosen_parameters_are_differentiable(kind, open_loss):
    head, chosen, everything = (
        open_loss(kind),
        open_loss(kind, prefixes=["model.5.", "model.4."]),
        open_loss(kind, prefixes=[""]),
    )
    assert {name.split(".")[1] for name in head.parameters} == {"5"}
    assert {name.split(".")[1] for name in chosen.parameters} == {"4", "5"}
    assert len(everything.parameters) > len(chosen.parameters)
    assert not any(value.requires_grad for value in everything.network.parameters())


@every_head
def test_predictions_in_an_ignored_box_give_no_loss(kind, open_loss):
    loss, images = open_loss(kind), pictures(1).requires_grad_()
    bare = [annotation(), annotation()]
    (counted,) = torch.autograd.grad(loss({}, images, bare), images)
    hidden = [annotation(WHOLE, ignore={0}), annotation()]
    (ignored,) = torch.autograd.grad(loss({}, images, hidden), images)
    assert (counted.abs().amax(dim=(1, 2, 3)) > 0).all()
    assert (ignored.abs().amax(dim=(1, 2, 3)) > 0).tolist() == [False, True]


def test_training_overrides_weigh_the_terms(open_loss):
    images = pictures(1)
    whole = float(open_loss("one_head")({}, images, BOXES))
    terms = [{"box": 0.0, "cls": 0.0}, {"box": 0.0, "dfl": 0.0}, {"cls": 0.0, "dfl": 0.0}]
    parts = [float(open_loss("one_head", overrides={**term, "lr0": 0.1})({}, images, BOXES)) for term in terms]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(whole)


# Errors


def test_what_does_not_fit_is_refused(open_loss):
    loss, images = open_loss("one_head"), pictures(1)
    with pytest.raises(ValueError, match="multiples of 32"):
        loss({}, images[..., :48], BOXES)
    with pytest.raises(ValueError, match="1 annotations for 2 images"):
        loss({}, images, BOXES[:1])
    with pytest.raises(ValueError, match=r"not among the chosen parameters: model\.0\.conv\.weight"):
        loss({"model.0.conv.weight": torch.zeros(1)}, images, BOXES)
    with pytest.raises(ValueError, match=r"begins with one of \['neck'\].*model\.0\.conv"):
        open_loss("one_head", prefixes=["neck"])


@pytest.mark.parametrize("kind", ["one_head", "two_heads"])
def test_the_maps_are_the_inputs_of_the_head(kind, open_loss):
    loss, images = open_loss(kind, prefixes=[""]), pictures(0)
    maps = loss.maps({}, images)
    assert loss.strides == (8, 16, 32)
    sides = [tuple(one.shape[1:]) for one in maps]
    assert sides == [
        (channels, SIZE_PX // s, SIZE_PX // s) for channels, s in zip((32, 48, 64), loss.strides, strict=True)
    ]
    assert not any(one.requires_grad for one in maps)
    seen = []
    with loss.network.model[-1].register_forward_pre_hook(lambda _head, inputs: seen.extend(inputs[0])):
        loss(loss.parameters, images, [annotation()] * len(images))
    assert all(torch.equal(one, other) for one, other in zip(maps, seen, strict=True))


def test_maps_are_differentiable_in_the_parameters_below_the_head(open_loss):
    loss = open_loss("one_head", prefixes=[""])
    names, values = zip(*loss.parameters.items(), strict=True)
    total = sum(one.square().mean() for one in loss.maps(loss.parameters, pictures(0)))
    slopes = dict(zip(names, torch.autograd.grad(total, values, allow_unused=True), strict=True))
    assert slopes["model.0.conv.weight"].abs().sum() > 0
    assert all(slope is None for name, slope in slopes.items() if name.startswith("model.5."))


def test_maps_that_cannot_be_had_are_refused(open_loss):
    assert open_loss("detr").strides == ()
    with pytest.raises(ValueError, match="RT-DETR"):
        open_loss("detr").maps({}, pictures(0))
    with pytest.raises(ValueError, match="multiples of 32"):
        open_loss("one_head").maps({}, torch.rand(1, 3, 40, 64))
    with pytest.raises(ValueError, match="not among the chosen parameters: no"):
        open_loss("one_head").maps({"no": torch.zeros(1)}, pictures(0))
