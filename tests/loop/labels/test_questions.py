"""Questions about labels, on made-up detections: one fault of each kind among labels that are right."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from actors.records import Annotation, Detections, LabeledImage
from loop.labels.placement import moved, offsets
from loop.labels.questions import Question, ask, num_found
from loop.labels.sheet import GREY, HEADER, MARGIN, MINED, sheet
from loop.labels.unseen import Looked
from loop.labels.votes import hit_rates, vote

LEFT, RIGHT = [10.0, 10.0, 50.0, 50.0], [60.0, 10.0, 90.0, 80.0]


def annotation(*boxes, labels=None):
    kinds = np.zeros(len(boxes), np.int64) if labels is None else np.array(labels)
    return Annotation(boxes=np.array(boxes, np.float32), labels=kinds, ignore=np.zeros(len(boxes), np.bool_))


def detections(*boxes, scores, labels=None):
    kinds = np.zeros(len(boxes), np.int64) if labels is None else np.array(labels)
    return Detections(boxes=np.array(boxes, np.float32), labels=kinds, scores=np.array(scores, np.float32))


def looked(name, labels, seen):
    image = LabeledImage(id=name, uri=name, width=100, height=100, annotation=labels)
    return Looked(image=image, seen=seen, refinement=None)


def right(number):
    """An image whose two labels are seen where they are, give or take a pixel, with a faint detection of nothing."""
    rng = np.random.default_rng(number)
    jitter = rng.normal(0, 1, (3, 4))
    seen = detections(*(np.array([LEFT, RIGHT, [0, 85, 9, 95]]) + jitter), scores=[0.8, 0.7, 0.1], labels=[0, 1, 0])
    return looked(f"right {number}", annotation(LEFT, RIGHT, labels=[0, 1]), seen)


RIGHT_ONES = [right(number) for number in range(20)]
SEEN = detections(LEFT, RIGHT, scores=[0.8, 0.7], labels=[0, 1])


def asked(labels, seen=SEEN):
    """The questions about the labels of one image, beside those that are right."""
    return [one for one in ask([*RIGHT_ONES, looked("odd", labels, seen)]) if one.image == "odd"]


def test_labels_that_are_right_raise_no_question():
    assert ask(RIGHT_ONES) == ()
    assert num_found(RIGHT_ONES) == 40


def test_a_box_beside_its_object_is_moved_onto_it():
    (one,) = asked(annotation([20, 16, 56, 60], RIGHT, labels=[0, 1]))
    assert (one.kind, one.index, one.label, one.new_label) == ("box", 0, 0, 0)
    assert one.score > 0.8
    assert np.abs(np.array(one.new_box) - LEFT).max() < 1.5


def test_an_object_without_a_label_is_missing():
    (one,) = asked(annotation(RIGHT, labels=[1]))
    assert (one.kind, one.index, one.box, one.new_label) == ("missing", None, None, 0)
    assert one.new_box == tuple(LEFT)


def test_a_detection_of_part_of_an_object_is_none_that_is_missing():
    part = detections(LEFT, RIGHT, [62, 12, 88, 30], scores=[0.8, 0.7, 0.7], labels=[0, 1, 1])
    assert asked(annotation(LEFT, RIGHT, labels=[0, 1]), part) == []


def test_two_detections_of_one_object_are_one_question():
    twice = detections(LEFT, RIGHT, [14, 10, 52, 50], scores=[0.8, 0.7, 0.75], labels=[0, 1, 0])
    assert [one.kind for one in asked(annotation(RIGHT, labels=[1]), twice)] == ["missing"]


def test_a_label_of_another_class_than_all_see_has_the_wrong_one():
    (one,) = asked(annotation(LEFT, RIGHT, labels=[0, 0]))
    assert (one.kind, one.index, one.label, one.new_label) == ("class", 1, 0, 1)


def test_a_copy_of_a_label_is_doubled():
    (one,) = asked(annotation(LEFT, RIGHT, [11, 11, 52, 51], labels=[0, 1, 0]))
    assert (one.kind, one.index, one.new_label, one.new_box) == ("doubled", 2, None, None)


@pytest.mark.parametrize(
    ("seen", "classes", "doubled"),
    [
        (detections(RIGHT, scores=[0.7], labels=[1]), [0, 0, 0], []),
        (detections(LEFT, RIGHT, scores=[0.8, 0.7], labels=[0, 1]), [0, 0, 0], [1, 2]),
        (detections(LEFT, [14, 10, 54, 50], RIGHT, scores=[0.8, 0.8, 0.7], labels=[0, 0, 1]), [0, 0, 0], [2]),
        (detections(LEFT, RIGHT, scores=[0.8, 0.7], labels=[0, 1]), [0, 1, 1], []),
    ],
    ids=["nothing seen", "one seen", "two seen", "other classes"],
)
def test_each_label_beyond_those_seen_is_doubled_once(seen, classes, doubled):
    labels = annotation(LEFT, [14, 10, 54, 50], [12, 10, 52, 50], RIGHT, labels=[*classes, 1])
    assert sorted(one.index for one in asked(labels, seen) if one.kind == "doubled") == doubled


def test_two_labels_with_a_detection_each_are_two_objects():
    near = detections(LEFT, RIGHT, [14, 10, 56, 50], scores=[0.8, 0.7, 0.8], labels=[0, 1, 0])
    assert asked(annotation(LEFT, RIGHT, [15, 10, 56, 50], labels=[0, 1, 0]), near) == []


def test_labels_to_ignore_are_not_asked_about_and_what_they_cover_is_not_missing():
    whole = annotation(LEFT, [55, 5, 95, 95], labels=[0, 1])
    assert asked(replace(whole, ignore=np.array([False, True]))) == []


def test_the_hit_rate_is_that_of_detections_of_about_the_same_score():
    rates = hit_rates(RIGHT_ONES)
    assert np.stack(rates)[:, :2].min() > 0.9
    assert np.stack(rates)[:, 2].max() == 0.0
    assert max(rate.max() for rate in rates) < 1.0


def test_a_vote_merges_the_detections_of_an_object_by_their_rates():
    seen = detections([10, 10, 50, 50], [12, 10, 52, 50], [60, 10, 90, 80], scores=[0.5, 0.5, 0.9])
    found = vote(annotation([16, 10, 56, 50]), seen, np.array([0.5, 0.5, 0.9], np.float32))
    assert found.rates == pytest.approx([0.5])
    assert 11 < found.boxes[0, 0] < 12
    none = vote(annotation([0, 90, 9, 99]), seen, np.array([0.5, 0.5, 0.9], np.float32))
    assert (none.boxes.tolist(), none.rates.tolist()) == ([[0, 90, 9, 99]], [0.0])


def test_two_labels_do_not_share_a_detection():
    seen = detections(LEFT, scores=[0.8])
    found = vote(annotation(LEFT, [14, 10, 54, 50]), seen, np.array([0.8], np.float32))
    assert found.rates.tolist() == pytest.approx([0.8, 0.0])


@pytest.mark.parametrize("background", [0, 255])
def test_labels_are_drawn_as_in_the_legend_on_dark_and_bright_pictures(tmp_path, background):
    Image.new("RGB", (100, 100), (background,) * 3).save(file := tmp_path / "a.png")
    known = annotation([40, 40, 60, 60], [50, 50, 70, 70])
    image = LabeledImage(id="a", uri=str(file), width=100, height=100, annotation=known)
    moved_box = Question(
        image="a", kind="box", score=0.9, index=0, label=0, box=(40, 40, 60, 60), new_box=(40, 40, 60, 60)
    )
    drawn = np.asarray(Image.open(BytesIO(sheet([moved_box], {"a": image}, ["thing"], "Boxes"))))
    lines = drawn[HEADER + 70, MARGIN + 50 : MARGIN + 60], drawn[HEADER + 150, MARGIN + 95 : MARGIN + 105]
    for line, colour in zip(lines, (MINED, GREY), strict=True):  # the left sides of the label and of the other one
        assert line.tolist().count(list(colour)) == 2
        assert list(colour) in drawn[42].tolist()


def test_offsets_and_their_inverse():
    boxes, seen = np.array([[0, 0, 20, 10]], np.float32), np.array([[5, 0, 15, 10]], np.float32)
    assert offsets(boxes, seen) == pytest.approx(np.array([[0, 0, np.log(2), 0]]))
    by = np.array([0.1, -0.2, 0.3, 0.0])
    assert offsets(moved(boxes, by), boxes)[0] == pytest.approx(by, abs=1e-6)
