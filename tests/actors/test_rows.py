"""Records as rows of plain columns and back, also joined into batches as the actors get them."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from actors import rows
from actors.hosting import join_rows, split_rows
from actors.records import WHOLE_IMAGE, Annotation, Candidate, Detections, Judged, Lineage, Refined, Verdict

LINEAGE = Lineage(round=2, image_id="a.png", box_indices=(1, 3), generator="layout", seed=2**63 - 1, strategy="hard")


def annotation(num_boxes, seed=0):
    rng = np.random.default_rng(seed)
    return Annotation(
        boxes=rng.random((num_boxes, 4)).astype(np.float32),
        labels=rng.integers(0, 9, num_boxes),
        ignore=rng.random(num_boxes) < 0.5,
    )


def candidate(num_boxes, height=3):
    pixels = np.random.default_rng(num_boxes).integers(0, 256, (height, 5, 3), np.uint8)
    drawn = np.arange(num_boxes) % 2 == 0
    return Candidate(
        pixels=pixels,
        annotation=annotation(num_boxes),
        drawn=drawn,
        painted=np.full(pixels.shape[:2], -1, np.int16),
        canvas="b.png",
        lineage=LINEAGE,
        examples=tuple(f"{number}.png" for number in range(num_boxes)),
    )


def detections(num_boxes):
    known = annotation(num_boxes)
    return Detections(boxes=known.boxes, labels=known.labels, scores=np.ones(num_boxes, np.float32))


def row(num_boxes, height=3):
    one = candidate(num_boxes, height)
    return rows.lineage_row(LINEAGE) | rows.candidate_columns(one) | rows.detections_columns(detections(num_boxes))


def judged(num_boxes, height=3):
    """Of a candidate with ``num_boxes`` boxes, the last of which is rejected and undone."""
    one = candidate(num_boxes, height)
    restored = np.arange(num_boxes) == num_boxes - 1
    verdict = Verdict(filter="agreement", box=num_boxes - 1, keep=False, score=0.1, threshold=1 / 3, reason="no")
    whole = Verdict(filter="blank", box=WHOLE_IMAGE, keep=True, score=1e-300, threshold=0.0, reason="")
    return Judged(
        pixels=255 - one.pixels if num_boxes else one.pixels,
        as_drawn=one.pixels,
        annotation=one.annotation.take(~restored),
        proposed=one.annotation,
        drawn=one.drawn,
        restored=restored,
        seen=detections(num_boxes),
        verdicts=(whole, verdict) if num_boxes else (),
        dropped="" if num_boxes else "chain: no_drawn_box_left",
        lineage=LINEAGE,
        canvas=one.canvas,
        examples=one.examples,
    )


def refined(num_boxes, height=3):
    """The same with its first box moved by a refiner."""
    one = judged(num_boxes, height)
    if not num_boxes:
        return one
    ious = {"prompt_iou": 1 / 3, "seen_before": 0.25, "seen_after": 0.75}
    moved = Refined(box=0, corners=(0.0, 1 / 3, 2.0, 3.0), **ious, confidence=0.5, fate="moved")
    return replace(one, refined=(moved,))


def judged_row(num_boxes, height=3):
    return row(num_boxes, height) | rows.judged_columns(judged(num_boxes, height))


def test_a_lineage_row_names_its_candidate():
    one = rows.lineage_row(LINEAGE)
    assert one["id"] == LINEAGE.id
    assert one["error"] == ""
    assert json.loads(one["lineage"])["seed"] == 2**63 - 1
    assert rows.read_lineage(one) == LINEAGE
    assert rows.read_lineage(one).id == LINEAGE.id


@pytest.mark.parametrize("num_boxes", [0, 1, 4])
def test_a_row_gives_its_records_back(num_boxes):
    assert_same(rows.read_inspected(row(num_boxes)), num_boxes, height=3)


@pytest.mark.parametrize("counts", [(0, 0), (2, 2), (0, 3, 1), (4, 0)])
def test_rows_survive_a_batch(counts):
    """As many boxes in every row, none in any, or different numbers: three different kinds of column."""
    batch = join_rows([row(count, height=3 + count) for count in counts])
    for count, one in zip(counts, split_rows(batch), strict=True):
        assert_same(rows.read_inspected(one), count, height=3 + count)


def test_rows_survive_arrow():
    """What Ray Data does to a batch on its way: to Arrow, and back to arrays."""
    from ray.data.block import BlockAccessor

    counts = (0, 3, 1, 0)
    batch = join_rows([row(count, height=3 + count) for count in counts])
    block = BlockAccessor.batch_to_block(batch)
    back = BlockAccessor.for_block(block).to_batch_format("numpy")
    for count, one in zip(counts, split_rows(back), strict=True):
        assert_same(rows.read_inspected(one), count, height=3 + count)


@pytest.mark.parametrize("num_boxes", [0, 1, 4])
def test_a_judged_row_gives_its_record_back(num_boxes):
    assert_equal(rows.read_judged(judged_row(num_boxes)), judged(num_boxes))


def test_a_judged_row_holds_pixels_once_unless_a_box_was_restored():
    one, restored = judged_row(0), judged_row(2)
    assert (one["pixels"].shape, one["as_drawn"].shape) == ((3, 5, 3), (1, 1, 3))
    assert np.array_equal(restored["pixels"], judged(2).pixels)
    assert np.array_equal(restored["as_drawn"], candidate(2).pixels)


@pytest.mark.parametrize("counts", [(0, 0), (2, 2), (0, 3, 1), (4, 0)])
def test_judged_rows_survive_a_batch_and_arrow(counts):
    from ray.data.block import BlockAccessor

    batch = join_rows([judged_row(count, height=3 + count) for count in counts])
    block = BlockAccessor.batch_to_block(batch)
    for back in (batch, BlockAccessor.for_block(block).to_batch_format("numpy")):
        for count, one in zip(counts, split_rows(back), strict=True):
            assert_equal(rows.read_judged(one), judged(count, height=3 + count))


@pytest.mark.parametrize("counts", [(0, 0), (2, 2), (0, 3, 1), (4, 0)])
def test_refined_rows_survive_a_batch_and_arrow(counts):
    from ray.data.block import BlockAccessor

    columns = [rows.refined_columns(refined(count, 3 + count)) for count in counts]
    batch = join_rows([judged_row(n, 3 + n) | more for n, more in zip(counts, columns, strict=True)])
    block = BlockAccessor.batch_to_block(batch)
    for back in (batch, BlockAccessor.for_block(block).to_batch_format("numpy")):
        for count, one in zip(counts, split_rows(back), strict=True):
            assert_equal(rows.read_judged(one), refined(count, height=3 + count))


def test_a_row_that_could_not_be_judged_is_dropped_for_its_error():
    blank = rows.read_judged(rows.lineage_row(LINEAGE) | rows.judged_columns(rows.BLANK_JUDGED))
    assert (blank.dropped, blank.lineage, len(blank.annotation)) == ("error", LINEAGE, 0)


def assert_equal(found, expected):
    """Two records of one type, field by field, arrays to the byte."""
    for field in fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(theirs, np.ndarray):
            assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
            assert not ours.flags.writeable
        elif isinstance(theirs, Annotation | Detections):
            assert_equal(ours, theirs)
        else:
            assert ours == theirs


def assert_same(inspected, num_boxes, height):
    expected, seen = candidate(num_boxes, height), detections(num_boxes)
    found = inspected.candidate
    assert (found.lineage, found.canvas, found.examples) == (LINEAGE, "b.png", expected.examples)
    pairs = [
        (found.pixels, expected.pixels),
        (found.drawn, expected.drawn),
        (found.annotation.boxes, expected.annotation.boxes),
        (found.annotation.labels, expected.annotation.labels),
        (found.annotation.ignore, expected.annotation.ignore),
        (inspected.seen.boxes, seen.boxes),
        (inspected.seen.labels, seen.labels),
        (inspected.seen.scores, seen.scores),
    ]
    for ours, theirs in pairs:
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
        assert not ours.flags.writeable
