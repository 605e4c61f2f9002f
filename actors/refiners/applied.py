"""What a refiner's boxes change in a candidate. SSD-Det (arXiv 2307.12101) refines labels; drawn boxes are our use.

A generator is asked for an object in a box and draws it in another place or size, so a drawn box is an inaccurate box.
It moves only where the detections bear that out: the refined box overlaps a detection of its class more than the drawn
one does. Without this, boxes that are right already get worse. A box is ignored in training if the refiner is not sure
of it, or if the detector sees no object of its class at either place.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.records import Annotation, Judged, Refined, Refinement
from actors.refiners.base import RefinerBase

MIN_SEEN_SCORE = 0.1  # of a detection that counts, as in the detector filter (Gen2Det, arXiv 2312.04566, Sec. 3.2)
SAME_IOU = 0.95  # a box that would move by less stays where it is
NO_DRAWN_BOX_LEFT = "refiner: no_drawn_box_left"
"""Reason for dropping an image in which all drawn boxes became ignore: it adds nothing to the real image."""


def to_refine(judged: Judged) -> NDArray[np.int64]:
    """Positions in the proposed labels of the boxes to refine: drawn, kept by the filters, and not flagged ignore."""
    return np.flatnonzero(_left(judged) & judged.drawn & ~judged.restored & ~judged.proposed.ignore)


def apply(judged: Judged, which: NDArray[np.int64], refinement: Refinement, config: RefinerBase) -> Judged:
    """The candidate with the ``refinement`` of its boxes ``which``; see ``to_refine``. The other labels stay.

    An image without a drawn box that counts is dropped as ``NO_DRAWN_BOX_LEFT``.
    """
    found = _refined(judged, which, refinement, config)
    boxes, ignore = judged.proposed.boxes.copy(), judged.proposed.ignore.copy()
    for one in found:
        ignore[one.box] = one.fate == "ignored"
        if one.fate == "moved":
            boxes[one.box] = one.corners
    if ignore[which].all():
        return replace(judged, refined=found, annotation=Annotation.empty(), dropped=NO_DRAWN_BOX_LEFT)
    labels = replace(judged.proposed, boxes=boxes, ignore=ignore)
    return replace(judged, refined=found, annotation=labels.take(_left(judged)))


def _left(judged: Judged) -> NDArray[np.bool_]:
    """Flags ``[proposed]`` of the labels in ``judged.annotation``.

    Among them are those of the canvas's own boxes that were restored; they come before boxes that were added.
    """
    if judged.dropped:
        return np.zeros(len(judged.proposed), np.bool_)
    left = ~judged.rejected
    num_own = len(judged.annotation) - int(left.sum())
    left[np.flatnonzero(judged.rejected)[:num_own]] = True
    return left


def _refined(
    judged: Judged, which: NDArray[np.int64], refinement: Refinement, config: RefinerBase
) -> tuple[Refined, ...]:
    asked = judged.proposed.take(which)
    before, after = (
        judged.seen.best_iou(boxes, asked.labels, MIN_SEEN_SCORE) for boxes in (asked.boxes, refinement.boxes)
    )
    prompt_iou = geometry.paired_iou(refinement.boxes, asked.boxes)
    trusted = (refinement.confidence >= config.min_confidence) & (np.maximum(before, after) >= config.min_agreement)
    better = (after > before) & (prompt_iou < SAME_IOU)
    fates = np.select([~trusted, better], ["ignored", "moved"], default="kept")
    columns = (which, refinement.boxes, prompt_iou, before, after, refinement.confidence, fates)
    return tuple(
        Refined(
            box=box,
            corners=tuple(corners),
            prompt_iou=moved_iou,
            seen_before=seen_before,
            seen_after=seen_after,
            confidence=confidence,
            fate=fate,
        )
        for box, corners, moved_iou, seen_before, seen_after, confidence, fate in zip(
            *(column.tolist() for column in columns), strict=True
        )
    )
