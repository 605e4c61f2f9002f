"""Small detectors whose losses are compared with finite differences: what a gradient holds constant is held."""

import math
from collections.abc import Callable

import pytest
import torch

from actors.detector_loss import DetectorLoss
from actors.detectors.ultralytics.component import UltralyticsConfig


class Constants:
    """Holds what a computation detaches, so that finite differences see the function whose gradient autograd takes.

    The computation at the point itself is recorded; when it is done again beside that point, every ``detach`` gives
    what it gave there.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tape: list[torch.Tensor] = []
        self.position: int | None = None  # None: recording
        detach = torch.Tensor.detach

        def held(tensor: torch.Tensor) -> torch.Tensor:
            if self.position is None:
                self.tape.append(detach(tensor).clone())
                return detach(tensor)
            self.position += 1
            return self.tape[self.position - 1].clone()

        monkeypatch.setattr(torch.Tensor, "detach", held)
        monkeypatch.setattr("ultralytics.utils.loss.bbox_iou", self.bbox_iou)

    @staticmethod
    def bbox_iou(one: torch.Tensor, other: torch.Tensor, **options) -> torch.Tensor:
        """CIoU's factor alpha is constant by no_grad, not by detach: here by detach."""
        from ultralytics.utils.metrics import bbox_iou

        if not options.pop("CIoU", False):
            return bbox_iou(one, other, **options)
        shapes = [(x2 - x1) / (y2 - y1 + 1e-7) for x1, y1, x2, y2 in (one.unbind(-1), other.unbind(-1))]
        v = ((4 / math.pi**2) * (shapes[1].atan() - shapes[0].atan()).pow(2)).unsqueeze(-1)
        distant = bbox_iou(one, other, DIoU=True, **options)
        alpha = ((distant - bbox_iou(one, other, CIoU=True, **options)) / v).detach()
        return distant - v * alpha

    def again(self, compute: Callable[[], torch.Tensor]) -> float:
        self.position = 0
        value = compute().item()
        assert self.position == len(self.tape) > 0
        return value


def hold_proposals(loss: DetectorLoss, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faster R-CNN's proposals are constant in a gradient: give each call those of the first with its place."""
    if hasattr(loss.network, "rpn"):
        found, inner = {}, loss.network.rpn.filter_proposals

        def held(proposals: torch.Tensor, *rest: object) -> object:
            key = hold_proposals.call  # the inner step and the outer one have proposals of their own
            found.setdefault(key, inner(proposals, *rest))
            hold_proposals.call = key + 1
            return found[key]

        monkeypatch.setattr(loss.network.rpn, "filter_proposals", held)


def write_lively_yolo(folder, model: str, classes: tuple[str, ...], size_px: int) -> tuple[UltralyticsConfig, str]:
    """A detector of ultralytics with random weights, with normalisation as after training, and its checkpoint."""
    config, uri = UltralyticsConfig(model=model, image_size_px=size_px), str(folder / "m.safetensors")
    torch.manual_seed(0)
    network = config.architecture(len(classes))
    for name, value in network.named_parameters():  # fresh biases give every location the same box and no class
        if value.ndim == 1 or "bbox_head" in name or "score_head" in name:  # and queries nearly the same scores
            torch.nn.init.normal_(value, std=0.3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 1.0, 2.0)
            module.momentum = 1.0
    with torch.no_grad():
        network(torch.rand(8, 3, size_px, size_px))
    config.save_checkpoint(network, classes, uri)
    return config, uri
