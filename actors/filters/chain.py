"""Runs the filters in order: fits them, builds them, and applies their verdicts to candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from actors.filters.base import DetectorAccess, Filter, FilterBase, RealImages, State
from actors.filters.rejected import RejectedBoxes, drops_image
from actors.records import WHOLE_IMAGE, Annotation, Inspected, Judged, Verdict

NO_DRAWN_BOX_LEFT = "chain: no_drawn_box_left"
"""Reason for dropping an image that has lost all its generated boxes: it adds nothing to the real image."""


def fit_filters(configs: Sequence[FilterBase], real: RealImages) -> dict[str, State]:
    """The fitted state of each filter, by its kind."""
    return {config.kind: config.fit(real) for config in configs}


def build_filters(
    configs: Sequence[FilterBase], states: Mapping[str, State], detectors: DetectorAccess | None = None
) -> list[Filter]:
    """The filters in the configured order, with the states from ``fit_filters``; ``detectors`` as in ``build``."""
    return [config.build(states[config.kind], detectors) for config in configs]


def judge(
    filters: Sequence[Filter], batch: Sequence[Inspected], rejected_boxes: RejectedBoxes = "ignore"
) -> list[Judged]:
    """Judge each candidate with every filter, in the order of ``filters``, and apply the verdicts.

    A candidate that its generator refused is dropped for that reason. Once an image is dropped, the later filters do
    not judge it. A dropped box is removed from the annotation, but its pixels stay (see ``rejected.restore``). Every
    filter gets the candidate with all its boxes, so ``Verdict.box`` always indexes the candidate's own annotation;
    boxes that an earlier filter rejected are flagged ignore. An image that had generated boxes and has none left is
    dropped as ``NO_DRAWN_BOX_LEFT``.
    """
    judged = [_conclude(inspected, (), rejected_boxes) for inspected in batch]
    for a_filter in filters:
        alive = [position for position, entry in enumerate(judged) if not entry.dropped]
        verdicts = a_filter.judge([_left(batch[position], judged[position]) for position in alive])
        for position, found in zip(alive, verdicts, strict=True):
            judged[position] = _conclude(batch[position], judged[position].verdicts + found, rejected_boxes)
    return judged


def _left(inspected: Inspected, judged: Judged) -> Inspected:
    """The candidate for the next filter: boxes that are rejected already are flagged ignore."""
    candidate = inspected.candidate
    if not (rejected := judged.rejected).any():
        return inspected
    annotation = replace(candidate.annotation, ignore=candidate.annotation.ignore | rejected)
    return replace(inspected, candidate=replace(candidate, annotation=annotation))


def _conclude(inspected: Inspected, verdicts: tuple[Verdict, ...], rejected_boxes: RejectedBoxes) -> Judged:
    """The candidate after the verdicts so far."""
    candidate = inspected.candidate
    left = np.ones(len(candidate.annotation), np.bool_)
    left[[verdict.box for verdict in verdicts if not verdict.keep and verdict.box != WHOLE_IMAGE]] = False
    fatal = (f"{v.filter}: {v.reason}" for v in verdicts if drops_image(v, candidate.drawn, rejected_boxes))
    dropped = candidate.refused or next(fatal, "")
    if not dropped and candidate.drawn.any() and not (candidate.drawn & left).any():
        dropped = NO_DRAWN_BOX_LEFT
    return Judged(
        pixels=candidate.pixels,
        as_drawn=candidate.pixels,
        annotation=Annotation.empty() if dropped else candidate.annotation.take(left),
        proposed=candidate.annotation,
        drawn=candidate.drawn,
        restored=np.zeros(len(left), np.bool_),
        seen=inspected.seen,
        verdicts=verdicts,
        dropped=dropped,
        lineage=candidate.lineage,
        canvas=candidate.canvas,
        examples=candidate.examples,
    )
