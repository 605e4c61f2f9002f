"""Records as rows of plain columns and back, also joined into batches as the actors get them."""

import json

import numpy as np
import pytest

from actors import rows
from actors.hosting import join_rows, split_rows
from actors.records import Annotation, Candidate, Detections, Lineage

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
    )


def detections(num_boxes):
    known = annotation(num_boxes)
    return Detections(boxes=known.boxes, labels=known.labels, scores=np.ones(num_boxes, np.float32))


def row(num_boxes, height=3):
    one = candidate(num_boxes, height)
    return rows.lineage_row(LINEAGE) | rows.candidate_columns(one) | rows.detections_columns(detections(num_boxes))


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


def assert_same(inspected, num_boxes, height):
    expected, seen = candidate(num_boxes, height), detections(num_boxes)
    found = inspected.candidate
    assert found.lineage == LINEAGE
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
