"""Which unseen detections belong to which label, and what they say together. Ours."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.records import Annotation, Detections
from loop.labels.unseen import Looked

LIES_ON_IOU = 0.5  # a detection lies on a label from this IoU on
NEAR_IOU = 0.3  # a detection may be of the object of a label from this IoU on; with less, it is often of a neighbour
FUSED_IOU = 0.55  # detections of one object, as in weighted boxes fusion


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Votes:
    """Where the detections see the object of each label."""

    boxes: geometry.Boxes  # [n, 4] px; the label's own box where no detection is near
    rates: NDArray[np.float32]  # [n] of the surest of them; 0 where there is none


def hit_rates(looked: Sequence[Looked]) -> list[NDArray[np.float32]]:
    """For each image the hit rates ``[m]`` of its detections: how likely one of this score lies on a label.

    It is the isotonic regression of hits on scores over all images, class by class. Missing labels make it too low.
    """
    from scipy.optimize import isotonic_regression

    hits = [_hits(one.image.annotation, one.seen) for one in looked]
    scores, labels = (np.concatenate([getattr(one.seen, name) for one in looked]) for name in ("scores", "labels"))
    found = np.concatenate(hits).astype(np.float64)
    rates = np.zeros(len(scores), np.float32)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        order = of_class[np.argsort(scores[of_class], kind="stable")]
        fit = isotonic_regression([0.0, *found[order], 0.0])  # a miss at either end: no rate is 1
        rates[order] = fit.x[1:-1]
    ends = np.cumsum([len(one.seen) for one in looked])
    return np.split(rates, ends[:-1])


def _hits(labels: Annotation, seen: Detections) -> NDArray[np.bool_]:
    """Flags ``[m]`` of the detections that lie on a label of their class; of several on one label, the strongest."""
    pairs = _paired(labels, seen, seen.scores, LIES_ON_IOU)
    hits = np.zeros(len(seen), np.bool_)
    hits[pairs[pairs >= 0]] = True
    return hits


def on_labels(labels: Annotation, seen: Detections, rates: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rate ``[n]`` of the detection of each label, when no two labels share one; 0 where there is none."""
    pairs = _paired(labels, seen, rates, LIES_ON_IOU)
    return np.where(pairs >= 0, np.append(rates, 0.0)[pairs], 0.0).astype(np.float32)


def vote(labels: Annotation, seen: Detections, rates: NDArray[np.float32]) -> Votes:
    """The votes for each label of an image; ``rates`` ``[m]`` are those of the detections.

    A label's own detection is that with the highest product of rate and IoU that no other label has. All detections of
    its class that overlap it by ``FUSED_IOU`` are merged with it, weighted by rate and IoU (weighted boxes fusion,
    arXiv 1910.13302).
    """
    pairs = _paired(labels, seen, rates, NEAR_IOU)
    boxes, sure = labels.boxes.copy(), np.zeros(len(labels), np.float32)
    overlap = geometry.pairwise_iou(seen.boxes, seen.boxes)
    for index in np.flatnonzero(pairs >= 0):
        best = pairs[index]
        merged = (overlap[best] >= FUSED_IOU) & (seen.labels == seen.labels[best])
        weights = np.where(merged, rates * overlap[best], 0.0)
        weights[best] = max(weights[best], 1e-6)
        boxes[index] = weights @ seen.boxes / weights.sum()
        sure[index] = rates[best]
    return Votes(boxes=boxes, rates=sure)


def _paired(labels: Annotation, seen: Detections, strength: NDArray[np.float32], least_iou: float) -> NDArray[np.int64]:
    """The detection ``[n]`` of its class that each label has, -1 for none: one to one, of the most strength times IoU.

    ``strength`` is ``[m]``, in [0, 1].
    """
    from scipy.optimize import linear_sum_assignment

    overlap = geometry.pairwise_iou(labels.boxes, seen.boxes)
    worth = np.where((overlap >= least_iou) & (labels.labels[:, None] == seen.labels), overlap * (strength + 1e-6), 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    pairs = np.full(len(labels), -1, np.int64)
    pairs[rows] = np.where(worth[rows, columns] > 0, columns, -1)
    return pairs
