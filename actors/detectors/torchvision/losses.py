"""The losses of torchvision's detectors, with background ignore and ignored regions.

The losses are torchvision's own functions. They are given logits that are silent where background gives no loss, so
that their matching, their sampling and their normalisers stay as they are.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from actors import boxes as geometry
from actors.detectors.background_ignore import SILENT_LOGIT, Marks, background_weights
from actors.detectors.torchvision.weights import Network
from actors.records import Annotation

if TYPE_CHECKING:
    from torch import Tensor

Target = dict[str, Any]
Images = Any  # torchvision's ImageList


def losses(
    network: Network, images: "Tensor", annotations: Sequence[Annotation], synthetic: Sequence[bool]
) -> dict[str, "Tensor"]:
    """The terms of the training loss by torchvision's names; their sum is what training minimises.

    Faster R-CNN samples anchors and regions by torch's global generator, as torchvision does. The mode of the network
    (training or evaluation) matters for its normalisation, and for the number of proposals (2000 or 1000).

    Args:
        network: As ``TorchvisionConfig.architecture`` gives it.
        images: ``[n, 3, H, W]`` in [0, 1], RGB; H and W are multiples of 32.
        annotations: One for each image, boxes in px of ``images``. Boxes without area are left out. What looks into a
            box that is flagged ignore is neither object nor background.
        synthetic: One for each image: whether its background gives no loss.
    """
    from torchvision.models.detection.image_list import ImageList

    pixels = network.transform.normalize(images)
    levels = network.backbone(pixels)
    listed = ImageList(pixels, [tuple(pixels.shape[-2:])] * len(pixels))
    targets = [target(*one, pixels, is_dense(network)) for one in zip(annotations, synthetic, strict=True)]
    compute = _dense_losses if is_dense(network) else _two_stage_losses
    return compute(network, listed, levels, targets)


def is_dense(network: Network) -> bool:
    """Whether the network classifies locations (RetinaNet, FCOS), and not regions (Faster R-CNN)."""
    return not hasattr(network, "roi_heads")


def target(annotation: Annotation, synthetic: bool, pixels: "Tensor", dense: bool) -> Target:
    """What torchvision's losses take for an image, on the device of ``pixels``, and its marks."""
    objects = ~annotation.ignore & (geometry.areas(annotation.boxes) > 0)
    return {
        "boxes": pixels.new_tensor(annotation.boxes[objects]).reshape(-1, 4),
        "labels": pixels.new_tensor(annotation.labels[objects] + (0 if dense else 1)).long(),
        "marks": _marks(annotation.boxes[annotation.ignore], synthetic, pixels),
    }


def _marks(ignored: geometry.Boxes, synthetic: bool, pixels: "Tensor") -> Marks:
    """The marks of one image."""
    height, width = pixels.shape[-2:]
    shares = ignored / np.array([width, height] * 2, np.float32)
    middle, size = (shares[:, :2] + shares[:, 2:]) / 2, shares[:, 2:] - shares[:, :2]
    rows = np.concatenate([np.zeros((len(ignored), 1), np.float32), middle, size], axis=1)
    return Marks(
        background=pixels.new_zeros(1) if synthetic else None,
        ignored=pixels.new_tensor(rows) if len(ignored) else None,
    )


def silent(boxes: "Tensor", marks: Marks, size: tuple[int, int]) -> "Tensor":
    """Whether anchors or regions ``[a, 4]`` px in an image of ``size`` (height, width) px are silent background."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / boxes.new_tensor(size[::-1])
    weights = background_weights(centres[None], marks)
    return boxes.new_zeros(len(boxes)).bool() if weights is None else weights[0] == 0


def _two_stage_losses(
    network: Network, images: Images, levels: dict[str, "Tensor"], targets: list[Target]
) -> dict[str, "Tensor"]:
    from torchvision.models.detection.rpn import concat_box_prediction_layers

    rpn, sizes = network.rpn, images.image_sizes
    maps = list(levels.values())
    objectness, deltas = rpn.head(maps)
    counts = [one[0].numel() for one in objectness]
    objectness, deltas = concat_box_prediction_layers(objectness, deltas)
    anchors = rpn.anchor_generator(images, maps)
    proposals = rpn.box_coder.decode(deltas.detach(), anchors).view(len(sizes), -1, 4)
    proposals, _ = rpn.filter_proposals(proposals, objectness, sizes, counts)
    return _proposal_losses(rpn, objectness, deltas, anchors, targets, sizes[0]) | _region_losses(
        network.roi_heads, levels, proposals, targets, sizes
    )


def _proposal_losses(
    rpn: Network,
    objectness: "Tensor",
    deltas: "Tensor",
    anchors: list["Tensor"],
    targets: list[Target],
    size: tuple[int, int],
) -> dict[str, "Tensor"]:
    """Losses of the first stage; anchors that are matched with no box are its background."""
    import torch

    labels, boxes = rpn.assign_targets_to_anchors(anchors, targets)
    labels = [one.to(objectness.dtype) for one in labels]  # float32 ones would make the loss float32
    quiet = [silent(*one, size) for one in zip(anchors, (each["marks"] for each in targets), strict=True)]
    background = torch.cat(quiet) & (torch.cat(labels) == 0)
    objectness = objectness.masked_fill(background.unsqueeze(-1), SILENT_LOGIT)
    object_loss, box_loss = rpn.compute_loss(objectness, deltas, labels, rpn.box_coder.encode(boxes, anchors))
    return {"loss_objectness": object_loss, "loss_rpn_box_reg": box_loss}


def _region_losses(
    heads: Network,
    levels: dict[str, "Tensor"],
    proposals: list["Tensor"],
    targets: list[Target],
    sizes: list[tuple[int, int]],
) -> dict[str, "Tensor"]:
    """Losses of the second stage; regions of label 0 are its background."""
    import torch
    from torchvision.models.detection.roi_heads import fastrcnn_loss

    regions, _, labels, offsets = heads.select_training_samples(proposals, targets)
    logits, deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(levels, regions, sizes)))
    quiet = [silent(*one) for one in zip(regions, (each["marks"] for each in targets), sizes, strict=True)]
    background = torch.cat(quiet) & (torch.cat(labels) == 0)
    certain = torch.full_like(logits[0], SILENT_LOGIT).index_fill(0, labels[0].new_zeros(1), 0.0)
    logits = torch.where(background.unsqueeze(-1), certain, logits)
    class_loss, box_loss = fastrcnn_loss(logits, deltas, labels, offsets)
    return {"loss_classifier": class_loss, "loss_box_reg": box_loss}


def _dense_losses(
    network: Network, images: Images, levels: dict[str, "Tensor"], targets: list[Target]
) -> dict[str, "Tensor"]:
    maps = list(levels.values())
    anchors = network.anchor_generator(images, maps)
    marked = [
        {**each, "silent": silent(boxes, each["marks"], size)}
        for each, boxes, size in zip(targets, anchors, images.image_sizes, strict=True)
    ]
    counts = [] if hasattr(network, "proposal_matcher") else [[one.shape[-2] * one.shape[-1] for one in maps]]
    found: dict[str, Tensor] = network.compute_loss(marked, network.head(maps), anchors, *counts)
    return found
