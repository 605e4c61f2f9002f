"""The filters one after the other: fitted, built, and their verdicts applied to candidates."""

from collections.abc import Mapping, Sequence

import numpy as np

from actors.filters.base import Filter, FilterBase, OpenEmbed, RealImages, State
from actors.filters.rejected import RejectedBoxes, drops_image
from actors.records import WHOLE_IMAGE, Annotation, Inspected, Judged, Verdict

NO_DRAWN_BOX_LEFT = "chain: no_drawn_box_left"
"""Why an image is dropped whose drawn boxes have all been dropped: what is left in it, the real image had already."""


def fit_filters(configs: Sequence[FilterBase], real: RealImages) -> dict[str, State]:
    """The state of each filter by its kind."""
    return {config.kind: config.fit(real) for config in configs}


def build_filters(
    configs: Sequence[FilterBase], states: Mapping[str, State], open_embed: OpenEmbed | None = None
) -> list[Filter]:
    """The filters in the configured order, from what ``fit_filters`` returned; ``open_embed`` as in ``build``."""
    return [config.build(states[config.kind], open_embed) for config in configs]


def judge(
    filters: Sequence[Filter], batch: Sequence[Inspected], rejected_boxes: RejectedBoxes = "ignore"
) -> list[Judged]:
    """Every filter's verdicts on each candidate, in the order of ``filters``, and what they leave.

    What its generator refused is dropped for that reason, and an image that a filter drops is not shown to the later
    ones. A dropped box leaves the annotation, its pixels stay (see ``rejected.restore``); every filter sees the
    candidate with all its boxes, so that ``Verdict.box`` always counts in the candidate's own annotation. An image
    that had drawn boxes and has none left is dropped as ``NO_DRAWN_BOX_LEFT``.
    """
    judged = [_conclude(inspected, (), rejected_boxes) for inspected in batch]
    for a_filter in filters:
        alive = [position for position, entry in enumerate(judged) if not entry.dropped]
        verdicts = a_filter.judge([batch[position] for position in alive])
        for position, found in zip(alive, verdicts, strict=True):
            judged[position] = _conclude(batch[position], judged[position].verdicts + found, rejected_boxes)
    return judged


def _conclude(inspected: Inspected, verdicts: tuple[Verdict, ...], rejected_boxes: RejectedBoxes) -> Judged:
    """What the verdicts so far leave of a candidate."""
    candidate = inspected.candidate
    left = np.ones(len(candidate.annotation), np.bool_)
    left[[verdict.box for verdict in verdicts if not verdict.keep and verdict.box != WHOLE_IMAGE]] = False
    fatal = (f"{v.filter}: {v.reason}" for v in verdicts if drops_image(v, candidate.drawn, rejected_boxes))
    dropped = candidate.refused or next(fatal, "")
    if not dropped and candidate.drawn.any() and not (candidate.drawn & left).any():
        dropped = NO_DRAWN_BOX_LEFT
    return Judged(
        pixels=candidate.pixels,
        annotation=Annotation.empty() if dropped else candidate.annotation.take(left),
        proposed=candidate.annotation,
        drawn=candidate.drawn,
        restored=np.zeros(len(left), np.bool_),
        seen=inspected.seen,
        verdicts=verdicts,
        dropped=dropped,
        lineage=candidate.lineage,
    )
