"""The network of SSD-Det (arXiv 2307.12101, Sec. 3): from a detector's pyramid and boxes to refined boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign

from actors.refiners.ssddet import bag
from actors.refiners.ssddet.config import SSDDetSettings
from actors.refiners.ssddet.mil import Scores, Stage, merge
from actors.refiners.ssddet.self_distillation import Identity, decoded, moved, normalised

_GROUPS = 32  # of normalisation, at most
_SAMPLES = 1  # along each side of a cell of RoIAlign, whose gradient is most of the cost on CPUs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Levels:
    """The pyramid of a batch of pictures, with one number of channels."""

    maps: dict[str, Tensor]  # [b, width, h, w] each, finest first
    canvas: tuple[int, int]  # height and width of the pictures in px


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Objects:
    """The objects of a batch of pictures, picture after picture."""

    boxes: Tensor  # [n, 4] px of the canvas
    labels: Tensor  # [n]
    bounds: Tensor  # [n, 4] the part of the canvas that the object's picture fills
    counts: tuple[int, ...]  # objects of each picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bag:
    """Bags of proposals and their features."""

    proposals: Tensor  # [n, p, 4], constants
    valid: Tensor  # [n, p]
    pooled: Tensor  # [n, p, width * roi_size ** 2]
    features: Tensor  # [n, p, hidden]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What one stage makes of its bags."""

    before: Bag | None  # the bags that SPSD moved
    deltas: Tensor | None  # [n, p, 4] that SPSD predicts for them, encoded
    bag: Bag  # the bags that the stage scores
    scores: Scores
    iou: Tensor | None  # [n, p] that SISD predicts, encoded
    boxes: Tensor  # [n, 4] refined, within the picture, constants
    confidence: Tensor  # [n] in [0, 1], constants


class SSDDetNetwork(nn.Module):
    """Laterals, shared layers and branches."""

    def __init__(self, settings: SSDDetSettings, channels: Sequence[int], num_classes: int) -> None:
        """``channels`` are those of the pyramid's maps, finest first."""
        super().__init__()
        self.settings, width, hidden = settings, settings.width, settings.hidden
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(count, width, 1), nn.GroupNorm(gcd(_GROUPS, width), width)) for count in channels
        )
        self.align = MultiScaleRoIAlign([str(level) for level in range(len(channels))], settings.roi_size, _SAMPLES)
        inputs = width * settings.roi_size**2
        self.shared = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.stages = nn.ModuleList(Stage(hidden, num_classes, softmax=not number) for number in range(settings.stages))
        positions = [nn.Linear(hidden, 4) for _ in range(settings.stages if settings.spsd else 0)]
        self.identity = Identity(inputs, hidden) if settings.sisd else None
        for position in positions:
            nn.init.normal_(position.weight, std=0.001)
            nn.init.zeros_(position.bias)
        self.positions = nn.ModuleList(positions)

    def levels(self, maps: Sequence[Tensor], canvas: tuple[int, int]) -> Levels:
        """The maps of the detector's pyramid with one number of channels."""
        pairs = enumerate(zip(self.laterals, maps, strict=True))
        return Levels(maps={str(number): lateral(one) for number, (lateral, one) in pairs}, canvas=canvas)

    def forward(self, levels: Levels, objects: Objects) -> list[Outcome]:
        """The outcome of each stage. The last one's boxes are the refined ones."""
        first = self._stage(0, levels, objects, self._bag(levels, objects, self._around(objects.boxes)))
        if self.settings.stages == 1:
            return [first]
        start = first.bag if self.settings.spsd else self._bag(levels, objects, self._around(first.boxes))
        return [first, self._stage(1, levels, objects, start)]

    def background(self, levels: Levels, boxes: Sequence[Tensor]) -> Tensor:
        """Class scores ``[m, c]`` of stage II of background proposals ``[m, 4]``, given for each picture."""
        pooled = self.align(levels.maps, list(boxes), [levels.canvas] * len(boxes)).flatten(1)
        return cast("Stage", self.stages[1]).class_scores(self.shared(pooled))

    def _around(self, boxes: Tensor) -> Tensor:
        return bag.neighbourhood(boxes, self.settings.sides, self.settings.shift)

    def _bag(self, levels: Levels, objects: Objects, proposals: Tensor) -> Bag:
        parts = [one.flatten(0, 1) for one in proposals.split(list(objects.counts))]
        pooled = self.align(levels.maps, parts, [levels.canvas] * len(parts)).view(*proposals.shape[:2], -1)
        valid = bag.valid(proposals, objects.bounds)
        return Bag(proposals=proposals, valid=valid, pooled=pooled, features=self.shared(pooled))

    def _stage(self, number: int, levels: Levels, objects: Objects, start: Bag) -> Outcome:
        scored, deltas = start, None
        if self.settings.spsd:
            deltas = self.positions[number](start.features)
            scored = self._bag(levels, objects, moved(start.proposals, deltas))
        scores: Scores = self.stages[number](scored.features, scored.valid)
        iou = self.identity(scored.pooled, scored.valid) if self.identity and number == 1 else None
        boxes, confidence = self._merged(scored, scores.of(objects.labels), iou)
        return Outcome(
            before=start if self.settings.spsd else None,
            deltas=deltas,
            bag=scored,
            scores=scores,
            iou=iou,
            boxes=bag.clip(boxes, objects.bounds),
            confidence=confidence.clamp(0, 1),
        )

    def _merged(self, scored: Bag, scores: Scores, iou: Tensor | None) -> tuple[Tensor, Tensor]:
        """Boxes ``[n, 4]`` and confidences ``[n]`` by the scores ``[n, p]`` for each object's class, as constants."""
        quality, weights = scores.classes, scores.classes * scores.proposals
        if iou is not None:
            quality, weights = quality * decoded(iou), scores.classes * normalised(iou, scored.valid) * scored.valid
        values = torch.cat([scored.proposals, quality[..., None]], dim=-1).detach()
        found = merge(values, weights.detach(), self.settings.top_k)
        return found[:, :4], found[:, 4]
