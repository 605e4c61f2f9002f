"""Boxes that sit badly: how far a label is from where its object is seen, against how far labels usually are. Ours.

Detectors are not exact either, and weak ones draw boxes that are too large or off in one direction. The median offset
of the labels of a class from their detections is that bias, and proposals are freed of it. How far labels of the class
are from their proposals and from the closest detection, at the median, is what a label may be off without being wrong.
A label whose detection is not sure counts as if it were nearer to this median, since little is known of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from loop.labels.unseen import Looked
from loop.labels.votes import vote

Offsets = NDArray[np.float64]

MIN_SCORE = 0.01  # of the closest detection


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
    """What is said of the labels' boxes of an image."""

    boxes: geometry.Boxes  # [n, 4] proposed, px; the label's own where its object is not seen
    scores: NDArray[np.float32]  # [n] in [0, 1): 0.5 at the usual distance, 0.8 at twice, 0.9 at three times as much


def badly_placed(looked: Sequence[Looked], rates: Sequence[NDArray[np.float32]]) -> list[Placed]:
    """The proposals for the labels of each image; ``rates`` are those of its detections (``votes.hit_rates``)."""
    votes = [vote(one.image.annotation, one.seen, rate) for one, rate in zip(looked, rates, strict=True)]
    labels, classes, ignore = (
        np.concatenate([getattr(one.image.annotation, name) for one in looked])
        for name in ("boxes", "labels", "ignore")
    )
    seen, sure = np.concatenate([one.boxes for one in votes]), np.concatenate([one.rates for one in votes])
    pairs = [(one.seen, one.image.annotation) for one in looked]
    closest = np.concatenate([seen.best_iou(own.boxes, own.labels, MIN_SCORE) for seen, own in pairs])
    proposals, scores = labels.copy(), np.zeros(len(labels), np.float32)
    for label in np.unique(classes):
        of_class = (classes == label) & ~ignore
        known = of_class & (sure > 0)
        proposals[known] = _unbiased(labels[known], seen[known])
    proposals = _merged(proposals, sure, looked)
    for label in np.unique(classes):
        of_class = (classes == label) & ~ignore
        distances = 1 - (geometry.paired_iou(labels[of_class], proposals[of_class]) + closest[of_class]) / 2
        scores[of_class] = _scores(distances, sure[of_class])
    ends = np.cumsum([len(one.image.annotation) for one in looked])[:-1]
    return [
        Placed(boxes=geometry.clip(boxes, one.image.width, one.image.height), scores=part)
        for one, boxes, part in zip(looked, np.split(proposals, ends), np.split(scores, ends), strict=True)
    ]


def _merged(proposals: geometry.Boxes, sure: NDArray[np.float32], looked: Sequence[Looked]) -> geometry.Boxes:
    """The means ``[n, 4]`` of the proposals and of a refiner's boxes, if there are any, by how sure they are."""
    found = [one.refinement for one in looked if one.refinement is not None]
    if len(found) < len(looked):
        return proposals
    refined, confidence = (
        np.concatenate([one.boxes for one in found]),
        np.concatenate([one.confidence for one in found]),
    )
    total = sure + confidence
    share = np.divide(confidence, total, out=np.zeros_like(total), where=total > 0)[:, None]
    return np.asarray((1 - share) * proposals + share * refined, np.float32)


def _unbiased(labels: geometry.Boxes, seen: geometry.Boxes) -> geometry.Boxes:
    """The boxes seen ``[n, 4]`` without their median offset from their labels ``[n, 4]``."""
    return moved(seen, np.median(offsets(labels, seen), axis=0)) if len(seen) else seen


def _scores(distances: NDArray[np.float32], sure: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores ``[n]`` of distances ``[n]``, of which one is less far from the median the less ``sure`` it is."""
    usual = max(float(np.median(distances)), 1e-6) if len(distances) else 1.0
    times = sure * distances / usual + 1 - sure
    return (times**2 / (times**2 + 1)).astype(np.float32)


def offsets(boxes: geometry.Boxes, seen: geometry.Boxes) -> Offsets:
    """How far boxes ``[n, 4]`` are from those seen: ``[n, 4]``, centres in shares of sides, and logarithms of sides."""
    sides, seen_sides = (np.maximum(one[:, 2:] - one[:, :2], 1e-3).astype(np.float64) for one in (boxes, seen))
    centres = (boxes[:, :2] + boxes[:, 2:] - seen[:, :2] - seen[:, 2:]) / 2
    return np.concatenate([centres / seen_sides, np.log(sides / seen_sides)], axis=1)


def moved(boxes: geometry.Boxes, by: Offsets) -> geometry.Boxes:
    """Boxes ``[n, 4]`` moved and resized by offsets ``[4]``; the inverse of ``offsets``."""
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + sides * by[:2]
    halves = sides * np.exp(by[2:]) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1).astype(np.float32)
