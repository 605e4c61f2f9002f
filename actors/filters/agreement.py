"""Detector filter: keep a generated box only if the detector finds it (Gen2Det, arXiv 2312.04566, Sec. 3.2)."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from actors import boxes as geometry
from actors.filters.base import DetectorAccess, FilterBase, State
from actors.records import Inspected, Verdict


class AgreementConfig(FilterBase):
    """Keeps a generated box only if the detector finds its class there."""

    judges_boxes: ClassVar = True

    kind: Literal["agreement"] = "agreement"
    iou_threshold: float = Field(0.3, ge=0.0, le=1.0)
    """Minimum IoU between the detection and the box."""
    score_threshold: float = Field(0.1, gt=0.0, le=1.0)
    """Minimum score of the detection. Low by design: a strict threshold keeps only what the detector already finds."""
    match_class: bool = True
    """Count only detections of the box's own class (the reading that explains the paper's Fig. 5)."""

    @override
    def build(self, state: State, detectors: DetectorAccess | None = None) -> "Agreement":
        return Agreement(self)


class Agreement:
    """One verdict per generated box that is not flagged ignore. Unchanged boxes are not judged.

    The verdict's score is the best score among the detections with IoU >= ``iou_threshold`` (with ``match_class``,
    those of the box's class), or 0 without any. The reason for a rejection is the first that applies:

    * wrong_class: a detection of another class passes both thresholds (only with ``match_class``);
    * low_iou: a detection that counts passes the score threshold and overlaps the box, but with too small an IoU;
    * not_detected: neither.
    """

    def __init__(self, config: AgreementConfig) -> None:
        self.config = config

    def judge(self, batch: Sequence[Inspected]) -> list[tuple[Verdict, ...]]:
        """Verdicts on the generated boxes of each candidate, in the annotation's order."""
        return [self._judge_one(inspected) for inspected in batch]

    def _judge_one(self, inspected: Inspected) -> tuple[Verdict, ...]:
        config, seen, annotation = self.config, inspected.seen, inspected.candidate.annotation
        judged = np.flatnonzero(inspected.candidate.drawn & ~annotation.ignore)
        boxes = annotation.take(judged)
        iou = geometry.pairwise_iou(boxes.boxes, seen.boxes)
        sure = seen.scores[None, :] >= config.score_threshold
        counts = np.ones(iou.shape, np.bool_)
        if config.match_class:
            counts = boxes.labels[:, None] == seen.labels[None, :]
        near = iou >= config.iou_threshold
        best = np.where(near & counts, seen.scores[None, :], 0.0).max(axis=1, initial=0.0)
        met = (near & counts & sure, near & ~counts & sure, (iou > 0) & counts & sure)
        reasons = np.select(
            [condition.any(axis=1) for condition in met], ["", "wrong_class", "low_iou"], default="not_detected"
        )
        return tuple(
            Verdict(
                filter=config.kind,
                box=int(box),
                keep=not reasons[row],
                score=float(best[row]),
                threshold=config.score_threshold,
                reason=str(reasons[row]),
            )
            for row, box in enumerate(judged)
        )
