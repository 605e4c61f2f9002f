"""The training loss of torchvision's detectors as a function of parameters and images, and their feature maps."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from held_constants import hold_proposals
from tiny_torchvision import MODELS, SIZE_PX, annotation, tiny, write

from actors.detector_loss import DetectorLoss

pytestmark = pytest.mark.slow

ETA = 0.01
BOXES = [annotation([8, 8, 40, 60], [30, 4, 60, 30]), annotation([4, 20, 50, 44])]
REAL_BOXES = [annotation([20, 12, 62, 40]), annotation([2, 2, 30, 34], [36, 30, 60, 62])]
STRIDES = {"fasterrcnn": (4, 8, 16, 32), "retinanet": (8, 16, 32), "fcos": (8, 16, 32)}

every_model = pytest.mark.parametrize("model", MODELS)


@pytest.fixture(autouse=True)
def _in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def open_loss(tmp_path_factory) -> Callable[..., DetectorLoss]:
    folder = tmp_path_factory.mktemp("weights")
    configs = {model: tiny(model, backbone="resnet18") for model in MODELS}
    checkpoints = {model: write(config, folder) for model, config in configs.items()}

    def made(model: str, **options) -> DetectorLoss:
        return configs[model].open_loss(checkpoints[model], device="cpu", **options)

    return made


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(seed))


def assert_gradient_is_finite_difference(
    compute: Callable[[list[torch.Tensor]], torch.Tensor], point: list[torch.Tensor]
) -> None:
    """Along a random direction and along the gradient."""

    def value(moved: list[torch.Tensor]) -> torch.Tensor:
        hold_proposals.call = 0
        return compute(moved)

    gradients = torch.autograd.grad(value(point), point, materialize_grads=True, allow_unused=True)
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    assert norm > 1e-4
    generator, h = torch.Generator().manual_seed(3), 1e-8
    random = [torch.randn(one.shape, generator=generator) for one in point]
    for direction in (random, list(gradients)):
        length = math.sqrt(sum(float(part.square().sum()) for part in direction))
        sides = [
            value([(v + step * d / length).detach().requires_grad_() for v, d in zip(point, direction, strict=True)])
            for step in (h, -h)
        ]
        slope = sum(float((p * g).sum()) for p, g in zip(direction, gradients, strict=True)) / length
        assert float((sides[0] - sides[1]).detach()) / (2 * h) == pytest.approx(slope, rel=1e-4, abs=1e-6 * norm)


@every_model
def test_the_gradient_by_parameters_is_that_of_finite_differences(model, open_loss, monkeypatch):
    loss, images = open_loss(model, prefixes=[""]), pictures(1)
    hold_proposals(loss, monkeypatch)
    names, values = zip(*loss.parameters.items(), strict=True)
    assert_gradient_is_finite_difference(
        lambda moved: loss(dict(zip(names, moved, strict=True)), images, BOXES), list(values)
    )


@every_model
def test_the_gradient_of_an_unrolled_step_by_images_is_that_of_finite_differences(model, open_loss, monkeypatch):
    loss = open_loss(model)
    hold_proposals(loss, monkeypatch)
    names, values = zip(*loss.parameters.items(), strict=True)

    def unrolled(images: list[torch.Tensor]) -> torch.Tensor:
        """The loss on real images after one step on ``images`` (DetectorGAN)."""
        inner = loss(loss.parameters, images[0], BOXES)
        slopes = torch.autograd.grad(inner, values, create_graph=True, materialize_grads=True)
        stepped = {name: value - ETA * slope for name, value, slope in zip(names, values, slopes, strict=True)}
        return loss(stepped, pictures(2), REAL_BOXES)

    assert_gradient_is_finite_difference(unrolled, [pictures(1).requires_grad_()])


@every_model
def test_the_maps_are_the_pyramids_and_differentiable_in_its_parameters(model, open_loss):
    loss, images = open_loss(model, prefixes=["backbone.fpn."]), pictures(1)
    frozen, maps = loss.maps({}, images), loss.maps(loss.parameters, images)
    assert loss.strides == STRIDES[model]
    assert [one.shape for one in maps] == [(2, 64, SIZE_PX // s, SIZE_PX // s) for s in loss.strides]
    assert not any(one.requires_grad for one in frozen)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(maps, frozen, strict=True))
    gradients = torch.autograd.grad(maps[0].square().sum(), list(loss.parameters.values()), allow_unused=True)
    assert any(one is not None and bool((one != 0).any()) for one in gradients)


@every_model
def test_it_is_repeatable_and_changes_neither_weights_nor_statistics_nor_random_numbers(model, open_loss):
    loss, images = open_loss(model, prefixes=[""]), pictures(1)
    state = {name: value.clone() for name, value in loss.network.state_dict().items()}
    before = torch.get_rng_state()
    assert loss({}, images, BOXES) == loss({}, images, BOXES)
    assert float(loss(loss.parameters, images, BOXES).detach()) == pytest.approx(float(loss({}, images, BOXES)))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in loss.network.state_dict().items())


@every_model
def test_it_works_under_torch_func(model, open_loss):
    loss, images = open_loss(model), pictures(1)
    expected = torch.autograd.grad(loss(loss.parameters, images, BOXES), list(loss.parameters.values()))
    for one, two in zip(torch.func.grad(loss)(loss.parameters, images, BOXES).values(), expected, strict=True):
        assert torch.allclose(one, two)


def test_what_does_not_fit_is_refused(open_loss):
    loss, images = open_loss("fcos"), pictures(1)
    with pytest.raises(ValueError, match="multiples of 32"):
        loss({}, images[..., :48], BOXES)
    with pytest.raises(ValueError, match="multiples of 32"):
        loss.maps({}, images[..., :48])
    with pytest.raises(ValueError, match=r"begins with one of \['neck'\].*backbone\.fpn"):
        open_loss("fcos", prefixes=["neck"])
