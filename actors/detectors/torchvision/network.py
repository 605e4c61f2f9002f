"""Torchvision's detectors on a feature pyramid: Faster R-CNN, RetinaNet and FCOS.

They are torchvision's own classes with torchvision's own names of tensors. Opened in workers alone: it subclasses
torch's modules.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from actors.detectors.background_ignore import SILENT_LOGIT
from actors.detectors.torchvision.backbones import STRIDES_PX, Body, body, freeze
from actors.detectors.torchvision.config import TorchvisionSettings
from actors.detectors.torchvision.weights import Network

Outputs = Mapping[str, Tensor]
Targets = Sequence[Mapping[str, Any]]

RATIOS = (0.5, 1.0, 2.0)  # height to width of anchors
NUM_LEVELS = 5
REGION = (7, 7)  # cells of a region's features
GFLOP_S = 15.0  # billions of operations of the forward pass that one thread trains in a second, within a factor of 2


class Pyramid(nn.Module):
    """A backbone under a feature pyramid.

    With ``frozen_norm``, batch normalisation of the backbone stays in evaluation and is not trained: batches of
    detectors are small. (Torchvision replaces the layers by FrozenBatchNorm2d; ours keep their names, so that the same
    tensors fit either way.)
    """

    def __init__(
        self, backbone: Body, num_maps: int, channels: int, extra: ExtraFPNBlock, *, num_frozen: int, frozen_norm: bool
    ) -> None:
        super().__init__()
        self.body, self.out_channels, self.strides_px = backbone.network, channels, STRIDES_PX[-num_maps:]
        self.fpn = FeaturePyramidNetwork(list(backbone.channels[-num_maps:]), channels, extra_blocks=extra)
        self.norms = [module for module in self.body.modules() if isinstance(module, nn.BatchNorm2d) and frozen_norm]
        for module in self.norms:
            module.requires_grad_(False)
        if frozen := [end for stride, end in backbone.ends.items() if stride <= 2**num_frozen]:
            freeze(self.body, frozen[-1])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps ``[n, channels, H, W]`` by name, the finest first."""
        maps = list(self.body(images).values())[-len(self.strides_px) :]
        levels: dict[str, Tensor] = self.fpn(OrderedDict((str(index), one) for index, one in enumerate(maps)))
        return levels

    def train(self, mode: bool = True) -> "Pyramid":
        """Torch's own, but for frozen normalisation."""
        super().train(mode)
        for module in self.norms:
            module.eval()
        return self


def quieted(outputs: Outputs, targets: Targets, matched: Sequence[Tensor]) -> dict[str, Tensor]:
    """The outputs of a dense head with silent logits at locations that are ``silent`` and matched with no box."""
    silent = torch.stack([one["silent"] & (index < 0) for one, index in zip(targets, matched, strict=True)])
    return {**outputs, "cls_logits": outputs["cls_logits"].masked_fill(silent.unsqueeze(-1), SILENT_LOGIT)}


class Quiet:
    """A dense head whose silent background gives no loss; targets have ``silent`` ``[locations]``, too."""

    def compute_loss(
        self, targets: Targets, head_outputs: Outputs, anchors: Sequence[Tensor], matched_idxs: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Torchvision's own losses, of quieted outputs."""
        head: Any = super()
        quiet = quieted(head_outputs, targets, matched_idxs)
        found: dict[str, Tensor] = head.compute_loss(targets, quiet, anchors, matched_idxs)
        return found


class QuietRetinaNetHead(Quiet, RetinaNetHead):  # type: ignore[misc]  # torchvision is not typed
    """RetinaNet's head."""


class QuietFCOSHead(Quiet, FCOSHead):  # type: ignore[misc]  # torchvision is not typed
    """FCOS's head."""


class OneImage(nn.Module):
    """A detector as exported files have it: for one picture, with tensors as outputs, and labels from 0."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network, self.first_label = network, int(isinstance(network, FasterRCNN))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes ``[n, 4]`` px, scores ``[n]`` and labels ``[n]`` of ``images`` ``[1, 3, H, W]`` in [0, 1]."""
        seen = self.network([images[0]])[0]
        return seen["boxes"], seen["scores"], seen["labels"] - self.first_label


def build(config: TorchvisionSettings, num_classes: int) -> nn.Module:
    """A detector with fresh weights, drawn from torch's global generator, on the CPU, in training mode.

    Labels of Faster R-CNN begin at 1 (0 is background), those of the others at 0. Raises ValueError where the backbone
    gives no fitting maps.
    """
    backbone, channels = body(config.backbone), config.fpn_channels
    is_dense = config.model != "fasterrcnn"
    extra = LastLevelP6P7(channels, channels) if is_dense else LastLevelMaxPool()
    pyramid = Pyramid(
        *(backbone, 3 if is_dense else 4, channels, extra),
        num_frozen=config.num_frozen,
        frozen_norm=config.has_weights,
    )
    side = config.image_size_px
    options = {"min_size": side, "max_size": side, "image_mean": backbone.mean, "image_std": backbone.std}
    network: nn.Module = _BUILDERS[config.model](config, pyramid, num_classes, options)
    return network


def gflops(config: TorchvisionSettings) -> float:
    """Billions of floating-point operations of a forward pass of one square image, as in training.

    Counted on tensors without values, so nothing is computed. Raises like ``build``.
    """
    with torch.random.fork_rng(devices=[]):
        network: Network = build(config, 1).to("meta")
    side = config.image_size_px
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        maps = list(network.backbone(torch.zeros(1, 3, side, side)).values())
        if config.model == "fasterrcnn":
            network.rpn.head(maps)
            network.roi_heads.box_head(torch.zeros(config.roi_samples, config.fpn_channels, *REGION))
        else:
            network.head(maps)
    total: int = counter.get_total_flops()
    return total / 1e9


def _faster_rcnn(
    config: TorchvisionSettings, pyramid: Pyramid, num_classes: int, options: Mapping[str, Any]
) -> Network:
    width = 4 * config.fpn_channels  # 1024 of 256, as torchvision has it
    sizes = tuple((config.anchor_px * 2**level,) for level in range(NUM_LEVELS))
    return FasterRCNN(
        pyramid,
        rpn_anchor_generator=AnchorGenerator(sizes, (RATIOS,) * NUM_LEVELS),
        box_head=TwoMLPHead(pyramid.out_channels * REGION[0] * REGION[1], width),
        box_predictor=FastRCNNPredictor(width, num_classes + 1),
        box_batch_size_per_image=config.roi_samples,
        box_score_thresh=config.min_score,
        box_nms_thresh=config.nms_iou,
        box_detections_per_img=config.max_detections,
        **options,
    )


def _retinanet(config: TorchvisionSettings, pyramid: Pyramid, num_classes: int, options: Mapping[str, Any]) -> Network:
    firsts = [config.anchor_px * 2**level for level in range(NUM_LEVELS)]
    sizes = tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in firsts)
    anchors = AnchorGenerator(sizes, (RATIOS,) * NUM_LEVELS)
    head = QuietRetinaNetHead(pyramid.out_channels, anchors.num_anchors_per_location()[0], num_classes)
    return RetinaNet(pyramid, num_classes, anchor_generator=anchors, head=head, **_dense(config), **options)


def _fcos(config: TorchvisionSettings, pyramid: Pyramid, num_classes: int, options: Mapping[str, Any]) -> Network:
    head = QuietFCOSHead(pyramid.out_channels, 1, num_classes)
    return FCOS(pyramid, num_classes, head=head, **_dense(config), **options)


def _dense(config: TorchvisionSettings) -> dict[str, float]:
    return {
        "score_thresh": config.min_score,
        "nms_thresh": config.nms_iou,
        "detections_per_img": config.max_detections,
    }


_BUILDERS = {"fasterrcnn": _faster_rcnn, "retinanet": _retinanet, "fcos": _fcos}
