"""Torchvision's detectors as a component: how they are built, loaded, and trained."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from typing_extensions import override

from actors.checkpoint import Checkpoint, LoadedWeights
from actors.config import Need
from actors.detectors.base import Detector, Setting, Starter
from actors.detectors.torchvision.config import TorchvisionSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from actors.detector_loss import DetectorLoss


class TorchvisionConfig(TorchvisionSettings):
    """Faster R-CNN, RetinaNet or FCOS on a feature pyramid over any backbone."""

    trainer: ClassVar = "loop.training.torchvision.train"
    licence: ClassVar = "torchvision is BSD-3-Clause and timm Apache-2.0; no AGPL-licensed package is imported"
    libraries: ClassVar = ("torchvision", "timm")

    kind: Literal["torchvision"] = "torchvision"

    @override
    @classmethod
    def starter(cls, weights: str | None = None) -> Starter:
        from actors.detectors.torchvision.starter import starter

        return starter(weights)

    @override
    def needs(self) -> tuple[Need, ...]:
        from actors.detectors.torchvision.weights import needs

        return needs(self)

    @override
    def architecture(self, num_classes: int) -> "nn.Module":
        from actors.detectors.torchvision.network import build

        return build(self, num_classes)

    @override
    def image_s(self) -> float | None:
        from actors.detectors.torchvision.network import GFLOP_S, gflops

        return gflops(self) / GFLOP_S

    @override
    def head(self, network: "nn.Module") -> str:
        return "roi_heads." if self.model == "fasterrcnn" else "head."

    @override
    def read_weights(self) -> tuple[tuple[str, ...], "dict[str, Tensor]"]:
        from actors.detectors.torchvision.weights import read

        return read(self)

    @override
    def load_weights(self, network: "nn.Module", classes: Sequence[str]) -> LoadedWeights:
        from actors.detectors.torchvision.weights import load_backbone

        return load_backbone(network, self) if self.backbone_weights else super().load_weights(network, classes)

    @override
    def load(self, checkpoint: Checkpoint, device: str | None = None) -> Detector:
        from actors.detectors.torchvision.detector import TorchvisionDetector

        return TorchvisionDetector(self, checkpoint, device)

    @override
    def open_loss(
        self,
        checkpoint: Checkpoint,
        *,
        prefixes: Sequence[str] | None = None,
        overrides: Mapping[str, Setting] | None = None,
        device: str | None = None,
    ) -> "DetectorLoss":
        from actors.detectors.torchvision.open_loss import open_loss

        return open_loss(self, checkpoint, prefixes, device)

    @override
    def export(self, checkpoint: Checkpoint, fmt: str) -> bytes:
        from actors.detectors.torchvision.export import export

        return export(self, checkpoint, fmt)
