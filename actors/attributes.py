"""Perception-aware attribute: easy or hard for the current detector (DetDiffusion, arXiv 2403.13304, Sec. 3, Eq. 2)."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from actors import boxes as geometry
from actors.records import Detections, Difficulty, Instance, LabeledImage


class AttributeRule(TypedDict):
    """Thresholds above which a box is easy; see ``attributes``."""

    score_threshold: float
    iou_threshold: float
    match_class: bool


def attributes(
    image: LabeledImage, seen: Detections, *, score_threshold: float, iou_threshold: float, match_class: bool
) -> tuple[Instance, ...]:
    """One Instance per ground-truth box that is not flagged ignore, in the order of the annotation.

    A box is easy if a detection has score > ``score_threshold`` (gamma) and IoU > ``iou_threshold`` (beta) with it.
    With ``match_class``, only detections of the box's own class count. The numbers agree with the difficulty:

    * ``best_score`` is the highest score among detections with IoU > beta (0 without any): easy iff > gamma;
    * ``best_iou`` is the highest IoU among detections with score > gamma (0 without any): easy iff > beta.
    """
    index = np.flatnonzero(~image.annotation.ignore)
    truth = image.annotation.take(index)
    iou = geometry.pairwise_iou(truth.boxes, seen.boxes).astype(np.float64)
    scores = seen.scores.astype(np.float64)[None, :]
    counts = truth.labels[:, None] == seen.labels[None, :] if match_class else np.ones(iou.shape, np.bool_)
    best_score = np.where(counts & (iou > iou_threshold), scores, 0.0).max(axis=1, initial=0.0)
    best_iou = np.where(counts & (scores > score_threshold), iou, 0.0).max(axis=1, initial=0.0)
    return tuple(
        Instance(
            image_id=image.id,
            index=int(position),
            label=int(label),
            difficulty=Difficulty.EASY if score > score_threshold else Difficulty.HARD,
            best_score=float(score),
            best_iou=float(overlap),
        )
        for position, label, score, overlap in zip(index, truth.labels, best_score, best_iou, strict=True)
    )


def difficulties(images: Sequence[LabeledImage], found: Sequence[Instance]) -> tuple[tuple[Difficulty, ...], ...]:
    """The difficulty of each box of each image, in order; ignored boxes have none and count as easy."""
    known = {(instance.image_id, instance.index): instance.difficulty for instance in found}
    return tuple(
        tuple(known.get((image.id, index), Difficulty.EASY) for index in range(len(image.annotation)))
        for image in images
    )
