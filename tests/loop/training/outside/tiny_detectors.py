"""A family of detectors as a user's own package has it: one cell of 8 px finds one box of a fixed size."""

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as torch's own documentation names it

from actors.detector_loss import DetectorLoss
from actors.detectors.base import DetectorBase
from actors.records import Detections

STRIDE_PX, SIDE_PX = 8, 22


class TinyConfig(DetectorBase):
    """Cells classified by two convolutions."""

    trainer: ClassVar[str] = "tiny_training"
    version: ClassVar[str] = "1"

    kind: Literal["tiny"] = "tiny"
    model: str = "two_convolutions"
    channels: int = 16

    def architecture(self, num_classes):
        body = nn.Sequential(
            nn.Conv2d(3, self.channels, STRIDE_PX, STRIDE_PX), nn.BatchNorm2d(self.channels), nn.SiLU()
        )
        return nn.ModuleDict({"body": body, "head": nn.Conv2d(self.channels, num_classes, 3, padding=1)})

    def head(self, _network):
        return "head."

    def load(self, checkpoint, device=None):
        return Tiny(self, checkpoint, device or "cpu")

    def open_loss(self, checkpoint, *, prefixes=None, overrides=None, device=None):  # noqa: ARG002 - no weights of terms
        network, _ = self.load_checkpoint(checkpoint)
        network = nn.Sequential(network["body"], network["head"]).eval().to(device or "cpu")

        def compute(forward, images, annotations):
            return cell_loss(forward(images), annotations)

        def maps(forward, images):
            found = []
            with network[0].register_forward_hook(lambda _module, _inputs, output: found.append(output)):
                forward(images)
            return found

        return DetectorLoss(network, compute, prefixes or ["1."], maps=maps, strides=(STRIDE_PX,))


class Tiny:
    def __init__(self, config, checkpoint, device):
        self.config, self.device = config, device
        self.network, self.classes = config.load_checkpoint(checkpoint)
        self.network.eval().to(device)

    @torch.no_grad()
    def detect(self, images):
        return [self._detect(image) for image in images]

    def _detect(self, image):
        scores = self.network["head"](self._features(image)).sigmoid()[0].cpu()
        found = [
            (float(score), label, x, y)
            for label, grid in enumerate(scores)
            for y, row in enumerate(grid)
            for x, score in enumerate(row)
            if score >= self.config.min_score
        ]
        found = sorted(found, reverse=True)[: self.config.max_detections]
        centres = np.array([[x + 0.5, y + 0.5] * 2 for *_, x, y in found], np.float32).reshape(-1, 4) * STRIDE_PX
        return Detections(
            boxes=centres + np.array([-SIDE_PX, -SIDE_PX, SIDE_PX, SIDE_PX], np.float32) / 2,
            labels=np.array([label for _, label, *_ in found], np.int64),
            scores=np.array([score for score, *_ in found], np.float32),
        )

    def _features(self, image):
        pixels = torch.from_numpy(image.copy())[None].to(self.device)
        return self.network["body"](pixels.permute(0, 3, 1, 2).float() / 255)

    @torch.no_grad()
    def features(self, images):
        return torch.stack([self._features(image).mean(dim=(2, 3))[0] for image in images]).cpu()


def cell_loss(logits, annotations):
    """Cross entropy over cells ``[n, classes, h, w]``; an object is the cell of its centre."""
    targets = torch.zeros_like(logits)
    for target, annotation in zip(targets, annotations, strict=True):
        kept = ~annotation.ignore
        for (left, top, right, bottom), label in zip(annotation.boxes[kept], annotation.labels[kept], strict=True):
            target[label, int((top + bottom) / 2 / STRIDE_PX), int((left + right) / 2 / STRIDE_PX)] = 1.0
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(annotations)
