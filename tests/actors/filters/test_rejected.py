"""What becomes of rejected boxes, on a candidate of 12 x 12 px whose every pixel says who painted it.

The canvas has two boxes of its own (0 and 1), box 1 repainted; boxes 2 and 3 were added. Box 3 lies half over box 2.
"""

import itertools

import numpy as np
import pytest

from actors.filters.chain import NO_DRAWN_BOX_LEFT, judge
from actors.filters.rejected import restore
from actors.records import WHOLE_IMAGE, Annotation, Candidate, Detections, Inspected, LabeledImage, Lineage, Verdict

BOXES = np.array([[0, 0, 3, 3], [0, 6, 4, 10], [6, 0, 10, 4], [8, 0, 12, 4]], np.float32)
DRAWN = np.array([False, True, True, True])
SOURCE = np.random.default_rng(0).integers(0, 200, (12, 12, 3), np.uint8)


def annotation(count):
    return Annotation(boxes=BOXES[:count], labels=np.arange(count), ignore=np.zeros(count, np.bool_))


CANVAS = LabeledImage(id="canvas.png", uri="there", width=12, height=12, annotation=annotation(2))


def candidate(refused=""):
    pixels, painted = SOURCE.copy(), np.full((12, 12), -1, np.int16)
    for index in np.flatnonzero(DRAWN):
        left, top, right, bottom = BOXES[index].astype(int)
        pixels[top:bottom, left:right] = 200 + index  # brighter than anything in the canvas
        painted[top:bottom, left:right] = index
    lineage = Lineage(round=1, image_id="source.png", box_indices=(0, 1), generator="g", seed=1)
    return Candidate(
        pixels=pixels,
        annotation=annotation(4),
        drawn=DRAWN,
        painted=painted,
        canvas=CANVAS.id,
        lineage=lineage,
        refused=refused,
    )


NOTHING = Detections(boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), scores=np.zeros(0, np.float32))


class Rejects:
    """Rejects some boxes, or the whole image; counts what it is shown."""

    def __init__(self, *boxes, kind="says"):
        self.boxes, self.kind, self.num_seen = boxes, kind, 0

    def judge(self, batch):
        self.num_seen += len(batch)
        verdict = {"filter": self.kind, "keep": False, "score": 0.0, "threshold": 1.0, "reason": "no"}
        return [tuple(Verdict(box=box, **verdict) for box in self.boxes) for _ in batch]


def judged(*boxes, policy="restore", filters=None, refused=""):
    drawn = candidate(refused)
    (one,) = judge(filters or [Rejects(*boxes)], [Inspected(candidate=drawn, seen=NOTHING)], policy)
    return restore(one, drawn, CANVAS, SOURCE) if policy == "restore" else one


def test_gen2det_sec_3_2_ignored_the_label_goes_and_the_pixels_stay():
    one = judged(1, policy="ignore")
    assert one.annotation.labels.tolist() == [0, 2, 3]
    assert np.array_equal(one.pixels, candidate().pixels)
    assert not one.restored.any()


def test_restored_a_repainted_box_is_the_sources_again_pixels_and_label():
    one = judged(1)
    assert one.annotation.labels.tolist() == [0, 1, 2, 3]
    assert one.restored.tolist() == [False, True, False, False]
    assert np.array_equal(one.pixels[6:10, 0:4], SOURCE[6:10, 0:4])
    elsewhere = candidate().painted != 1
    assert np.array_equal(one.pixels[elsewhere], candidate().pixels[elsewhere])


def test_restored_an_added_box_leaves_nothing():
    one = judged(3)
    assert one.annotation.labels.tolist() == [0, 1, 2]
    assert np.array_equal(one.pixels[0:4, 8:12], SOURCE[0:4, 8:12])
    assert (one.pixels[0:4, 6:8] == 202).all()  # box 2 keeps what box 3 did not cover


def test_restored_pixels_that_a_kept_box_painted_later_stay_its_own():
    one = judged(2)
    assert (one.pixels[0:4, 8:12] == 203).all()
    assert np.array_equal(one.pixels[0:4, 6:8], SOURCE[0:4, 6:8])


@pytest.mark.parametrize("rejected", [r for n in range(4) for r in itertools.combinations(range(4), n)])
def test_restored_every_pixel_is_the_canvas_or_of_a_kept_box_and_no_label_of_the_canvas_is_lost(rejected):
    one = judged(*rejected)
    if one.dropped:
        assert (one.dropped, {1, 2, 3} <= set(rejected)) == (NO_DRAWN_BOX_LEFT, True)
        return
    kept = [index for index in (1, 2, 3) if index not in rejected]
    stays = np.isin(candidate().painted, kept)
    assert np.array_equal(one.pixels[stays], candidate().pixels[stays])
    assert np.array_equal(one.pixels[~stays], SOURCE[~stays])
    assert set(one.annotation.labels.tolist()) == {0, 1, *kept}
    assert one.restored.tolist() == [index in rejected and index > 0 for index in range(4)]


@pytest.mark.parametrize("policy", ["ignore", "restore", "drop_image"])
@pytest.mark.parametrize("rejected", [r for n in range(5) for r in itertools.combinations(range(4), n)])
def test_labels_are_never_added_by_judging(policy, rejected):
    one = judged(*rejected, policy=policy)
    proposed = [(*box, label) for box, label in zip(BOXES.tolist(), range(4), strict=True)]
    kept = zip(one.annotation.boxes.tolist(), one.annotation.labels.tolist(), strict=True)
    positions = [proposed.index((*box, label)) for box, label in kept]
    assert positions == sorted(set(positions))


def test_restored_all_is_the_real_image_again_and_dropped():
    one = judged(1, 2, 3)
    assert (one.dropped, len(one.annotation), one.restored.any()) == (NO_DRAWN_BOX_LEFT, 0, False)
    assert np.array_equal(one.pixels, candidate().pixels)  # what is kept aside shows what was drawn


def test_a_dropped_image_stays_as_it_was_drawn():
    one = judged(1, WHOLE_IMAGE)
    assert (one.dropped, one.restored.any()) == ("says: no", False)
    assert np.array_equal(one.pixels, candidate().pixels)


def test_drop_image_one_rejected_drawn_box_takes_the_image_along_and_later_filters_do_not_see_it():
    later = Rejects(kind="later")
    one = judged(policy="drop_image", filters=[Rejects(2), later])
    assert (one.dropped, len(one.annotation), later.num_seen) == ("says: no", 0, 0)
    undrawn = judged(0, policy="drop_image")
    assert (undrawn.dropped, undrawn.annotation.labels.tolist()) == ("", [1, 2, 3])


@pytest.mark.parametrize("policy", ["ignore", "restore", "drop_image"])
def test_what_the_generator_refused_is_dropped_for_its_reason_before_any_filter_sees_it(policy):
    a_filter = Rejects(1)
    one = judged(policy=policy, filters=[a_filter], refused="generator: safety_checker")
    assert (one.dropped, one.verdicts, a_filter.num_seen) == ("generator: safety_checker", (), 0)


def test_a_canvas_of_another_size_is_an_error():
    (one,) = judge([Rejects(1)], [Inspected(candidate=candidate(), seen=NOTHING)])
    with pytest.raises(ValueError, match=r"there has shape \(6, 12, 3\)"):
        restore(one, candidate(), CANVAS, SOURCE[:6])
