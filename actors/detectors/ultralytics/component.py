"""Ultralytics' detectors as a component: how they are built, loaded, and trained."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from typing_extensions import override

from actors.checkpoint import Checkpoint
from actors.detectors.base import Detector, Setting, Starter
from actors.detectors.ultralytics.config import UltralyticsSettings
from actors.detectors.ultralytics.releases import GFLOP_S, GFLOPS, IMAGE_S

if TYPE_CHECKING:
    from torch import Tensor, nn

    from actors.detector_loss import DetectorLoss


class UltralyticsConfig(UltralyticsSettings):
    """Any detection model of ultralytics, by its YAML or by a weight file."""

    trainer: ClassVar = "loop.training.ultralytics.train"
    rate_setting: ClassVar = "lr0"
    licence: ClassVar = "ultralytics is AGPL-3.0; with --detector torchvision no AGPL-licensed package is imported"
    libraries: ClassVar = ("ultralytics",)

    kind: Literal["ultralytics"] = "ultralytics"

    @override
    @classmethod
    def starter(cls, weights: str | None = None) -> Starter:
        from actors.detectors.ultralytics.starter import starter

        return starter(weights)

    @override
    def image_s(self) -> float | None:
        at_640_px = GFLOPS.get(self.model)
        return at_640_px and at_640_px * (self.image_size_px / 640) ** 2 / GFLOP_S + IMAGE_S

    @override
    def architecture(self, num_classes: int) -> "nn.Module":
        from actors.detectors.ultralytics.weights import build

        network: nn.Module = build(self, num_classes)
        return network

    @override
    def head(self, network: "nn.Module") -> str:
        from actors.detectors.ultralytics.weights import head_name

        return head_name(network)

    @override
    def read_weights(self) -> tuple[tuple[str, ...], "dict[str, Tensor]"]:
        from actors.detectors.ultralytics.weights import plain_names, unpack

        if not self.weights or self.weights.endswith(".safetensors"):
            classes, tensors = super().read_weights()
            return classes, plain_names(tensors)
        return unpack(self.weights, trust_pickle=self.trust_pickle)

    @override
    def load(self, checkpoint: Checkpoint, device: str | None = None) -> Detector:
        from actors.detectors.ultralytics.detector import UltralyticsDetector

        return UltralyticsDetector(self, checkpoint, device)

    @override
    def open_loss(
        self,
        checkpoint: Checkpoint,
        *,
        prefixes: Sequence[str] | None = None,
        overrides: Mapping[str, Setting] | None = None,
        device: str | None = None,
    ) -> "DetectorLoss":
        from actors.detectors.ultralytics.losses import open_loss

        return open_loss(self, checkpoint, prefixes, overrides or {}, device)

    @override
    def export(self, checkpoint: Checkpoint, fmt: str) -> bytes:
        from actors.detectors.ultralytics.export import export

        return export(self, checkpoint, fmt)
