"""What a refiner's boxes change in a judged candidate, worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from actors.records import Annotation, Detections, Judged, Lineage, Refinement, Verdict
from actors.refiners.applied import NO_DRAWN_BOX_LEFT, apply, to_refine
from actors.refiners.identity import IdentityConfig

OWN, DRAWN, ADDED = [0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]
SEEN = [20, 20, 30, 40]
"""Where the detector saw the object of ``DRAWN``: twice as high."""


def annotation(*boxes, ignore=()):
    flags = np.isin(np.arange(len(boxes)), ignore)
    return Annotation(boxes=np.array(boxes, np.float32), labels=np.zeros(len(boxes), np.int64), ignore=flags)


def detections(*boxes, label=0, score=0.5):
    labels, scores = np.full(len(boxes), label), np.full(len(boxes), score, np.float32)
    return Detections(boxes=np.array(boxes, np.float32).reshape(-1, 4), labels=labels, scores=scores)


def judged(*boxes, drawn, rejected=(), restored=(), own=(), **changes):
    """A candidate whose boxes ``rejected`` a filter rejects; those of them in ``own`` keep their labels."""
    proposed, pixels = annotation(*boxes), np.zeros((60, 60, 3), np.uint8)
    gone = [index for index in rejected if index not in own]
    flags = {name: np.isin(np.arange(len(boxes)), which) for name, which in (("drawn", drawn), ("restored", restored))}
    verdicts = [
        Verdict(filter="f", box=index, keep=False, score=0.0, threshold=1.0, reason="no_object") for index in rejected
    ]
    whole = Judged(
        pixels=pixels,
        as_drawn=pixels,
        annotation=proposed.take(~np.isin(np.arange(len(boxes)), gone)),
        proposed=proposed,
        **flags,
        seen=detections(SEEN, ADDED),
        verdicts=tuple(verdicts),
        dropped="",
        lineage=Lineage(round=1, image_id="a", box_indices=(1,), generator="g", seed=0),
        canvas="a",
        examples=(),
    )
    return replace(whole, **changes)


def refined(one, *boxes, confidence=1.0, **keys):
    which = to_refine(one)
    sure = np.full(len(which), confidence, np.float32)
    found = Refinement(boxes=np.array(boxes, np.float32).reshape(-1, 4), confidence=sure)
    return apply(one, which, found, IdentityConfig(**keys))


def test_drawn_boxes_alone_are_moved_and_every_iou_is_recorded():
    one = refined(judged(OWN, DRAWN, drawn=[1]), SEEN)
    assert one.annotation.boxes.tolist() == [OWN, SEEN]
    assert one.proposed.boxes.tolist() == [OWN, DRAWN]
    (record,) = one.refined
    assert (record.box, record.fate, record.corners) == (1, "moved", tuple(SEEN))
    assert (record.prompt_iou, record.seen_before, record.seen_after) == (0.5, 0.5, 1.0)
    assert record.confidence == 1.0


@pytest.mark.parametrize(
    ("found", "confidence", "fate"),
    [
        (SEEN, 0.59, "ignored"),  # not sure
        ([20, 0, 30, 26], 1.0, "kept"),  # the detector sees the object nearer to the drawn box
        ([20, 20, 30, 30.1], 1.0, "kept"),  # hardly another box
        (SEEN, 0.61, "moved"),
    ],
)
def test_a_box_is_moved_where_refiner_and_detector_agree(found, confidence, fate):
    one = refined(judged(DRAWN, ADDED, drawn=[0, 1]), found, ADDED, confidence=confidence, min_confidence=0.6)
    assert one.refined[0].fate == fate
    if confidence > 0.6:
        assert one.annotation.boxes[0].tolist() == (found if fate == "moved" else DRAWN)
        assert one.annotation.ignore.tolist() == [fate == "ignored", False]


@pytest.mark.parametrize("seen", [detections(SEEN, label=1), detections(SEEN, score=0.05), detections()])
def test_detections_of_another_class_or_of_next_to_no_score_do_not_count(seen):
    one = refined(judged(DRAWN, drawn=[0], seen=seen), SEEN)
    assert one.refined[0].seen_after == 0.0
    assert (one.dropped, len(one.annotation)) == (NO_DRAWN_BOX_LEFT, 0)


def test_an_image_without_a_drawn_box_that_counts_is_dropped_and_its_record_stays():
    one = refined(judged(OWN, DRAWN, drawn=[1]), DRAWN, confidence=0.0, min_confidence=0.1)
    assert (one.dropped, len(one.annotation)) == (NO_DRAWN_BOX_LEFT, 0)
    assert [record.fate for record in one.refined] == ["ignored"]


def test_rejected_and_ignored_boxes_are_not_refined():
    assert to_refine(judged(OWN, DRAWN, ADDED, drawn=[1, 2], rejected=[1])).tolist() == [2]
    assert to_refine(judged(DRAWN, ADDED, drawn=[0, 1], proposed=annotation(DRAWN, ADDED, ignore=[0]))).tolist() == [1]
    assert to_refine(judged(DRAWN, drawn=[0], dropped="f: no", annotation=Annotation.empty())).tolist() == []


def test_restored_boxes_of_the_canvas_keep_their_labels_and_are_not_refined():
    """Of two that were drawn and rejected, the canvas's own has its label back; the added one has none."""
    one = judged(OWN, DRAWN, ADDED, drawn=[0, 1, 2], rejected=[0, 2], restored=[0, 2], own=[0])
    assert to_refine(one).tolist() == [1]
    assert refined(one, SEEN).annotation.boxes.tolist() == [OWN, SEEN]
