"""The gradient of the unrolled step by the generator against finite differences, on a small detector of each family."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from held_constants import Constants, hold_proposals, write_lively_yolo
from tiny_torchvision import CLASSES, SIZE_PX, tiny, write

from actors.detector_loss import DetectorLoss
from actors.detectors.ultralytics.weights import import_ultralytics
from actors.generators.insertion_gan.batches import Windows, drawn_views, real_views
from actors.generators.insertion_gan.component import InsertionGANConfig
from actors.generators.insertion_gan.networks import Painter, composed
from actors.generators.insertion_gan.scene import Scene, window_frame
from actors.generators.insertion_gan.unroll import slopes, unrolled_loss
from actors.records import Annotation

pytestmark = pytest.mark.slow

ETA = 1e-4
DETECTORS = ("yolo11n", "retinanet", "fasterrcnn")
SETTINGS = InsertionGANConfig(size_px=32, channels=(8, 16), judge_channels=(8, 16), context=2.0)

every_detector = pytest.mark.parametrize("name", DETECTORS)


@pytest.fixture(autouse=True)
def _in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def open_loss(tmp_path_factory) -> Callable[[str], DetectorLoss]:
    folder = tmp_path_factory.mktemp("weights")
    made = {"yolo11n": write_lively_yolo(folder, "yolo11n.yaml", CLASSES, SIZE_PX)}
    for model in DETECTORS[1:]:
        config = tiny(model, backbone="resnet18")
        made[model] = config, write(config, folder)
    return lambda name: made[name][0].open_loss(made[name][1], device="cpu")


def scene(seed: int, box: tuple[float, ...]) -> Scene:
    """A random picture with one object to insert and another one."""
    rng = np.random.default_rng(seed)
    other = Annotation(boxes=np.array([[2, 2, 20, 18]], np.float32), labels=np.array([1]), ignore=np.zeros(1, bool))
    place = window_frame(SETTINGS, np.array(box, np.float32))
    pixels = rng.integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8)
    return Scene(pixels=pixels, others=other, box=np.array(box, np.float32), label=2, frame=place)


EMPTY = [scene(1, (24, 30, 38, 44)), scene(2, (40, 8, 60, 30))]
REAL, OTHERS = [scene(3, (30, 10, 62, 40))], [scene(4, (8, 26, 44, 60))]


class Step:
    """L_syn and L_unroll as functions of a generator's weights."""

    def __init__(self, detector: DetectorLoss) -> None:
        torch.manual_seed(0)
        self.detector, self.painter = detector, Painter(SETTINGS, len(CLASSES)).double()
        self.names, self.point = zip(*self.painter.named_parameters(), strict=True)
        single = Windows.of(SETTINGS, EMPTY, "cpu")
        self.windows = replace(single, images=single.images.double(), masks=single.masks.double())
        self.noise = torch.randn(2, 1, 32, 32)
        self.inner, self.outer = (real_views(scenes, SIZE_PX, SIZE_PX, "cpu") for scenes in (REAL, OTHERS))

    def synthetic(self, weights) -> torch.Tensor:
        """L_syn of the windows that the generator draws with ``weights``."""
        images, masks = self.windows.images, self.windows.masks
        inputs = (images, masks, self.windows.labels, self.noise)
        raw = torch.func.functional_call(self.painter, dict(zip(self.names, weights, strict=True)), inputs)
        drawn = replace(self.windows, images=composed(raw, images, masks))
        return drawn_views(EMPTY, drawn, SIZE_PX, SIZE_PX).loss(self.detector)

    def unrolled(self, weights, *, eta: float = ETA, by_drawn=None) -> torch.Tensor:
        """L_unroll; ``by_drawn`` may replace the gradient of L_syn."""
        by_real = slopes(self.detector, self.inner.loss(self.detector), differentiable=False)
        if by_drawn is None:
            by_drawn = slopes(self.detector, self.synthetic(weights), differentiable=True)
        return unrolled_loss(self.detector, by_drawn, by_real, self.outer, eta)


@every_detector
def test_the_gradient_by_the_generators_weights_is_that_of_finite_differences(name, open_loss, monkeypatch):
    step = Step(open_loss(name))
    if name == "yolo11n":
        import_ultralytics()
        constants = Constants(monkeypatch)
    else:
        hold_proposals(step.detector, monkeypatch)
        hold_proposals.call = 0
    gradients = torch.autograd.grad(step.unrolled(step.point), step.point, materialize_grads=True)
    norm = math.sqrt(sum(float(one.square().sum()) for one in gradients))
    assert norm > 1e-6
    h = 1e-8

    def beside(distance: float) -> float:
        hold_proposals.call = 0
        moved = [(w + distance * g / norm).requires_grad_() for w, g in zip(step.point, gradients, strict=True)]
        return constants.again(lambda: step.unrolled(moved)) if name == "yolo11n" else step.unrolled(moved).item()

    found = (beside(h) - beside(-h)) / (2 * h)
    assert found == pytest.approx(norm, rel=1e-3)


@every_detector
def test_without_a_way_from_the_generator_to_the_stepped_detector_there_is_no_gradient(name, open_loss):
    step = Step(open_loss(name))
    by_drawn = slopes(step.detector, step.synthetic(step.point), differentiable=False)
    held = step.unrolled(step.point, by_drawn=by_drawn)  # theta' is a constant
    without = step.unrolled(step.point, by_drawn=[torch.zeros_like(one) for one in by_drawn])  # L_real alone
    assert not held.requires_grad
    assert not without.requires_grad
    still = torch.autograd.grad(step.unrolled(step.point, eta=0.0), step.point, materialize_grads=True)
    assert not any(one.any() for one in still)
    moving = torch.autograd.grad(step.unrolled(step.point), step.point, materialize_grads=True)
    assert any(one.any() for one in moving)


@every_detector
def test_its_value_is_the_loss_of_the_stepped_detector(name, open_loss):
    step = Step(open_loss(name))
    detector, total = step.detector, step.synthetic(step.point) + step.inner.loss(step.detector)
    gradients = torch.autograd.grad(total, list(detector.parameters.values()), materialize_grads=True)
    stepped = {key: v - ETA * g for (key, v), g in zip(detector.parameters.items(), gradients, strict=True)}
    expected = detector(stepped, step.outer.images, step.outer.annotations)
    assert step.unrolled(step.point).item() == pytest.approx(expected.item(), rel=1e-9)
    assert expected.item() != pytest.approx(step.outer.loss(detector).item(), rel=1e-6)
