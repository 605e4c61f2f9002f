"""The sample sheet of a fit: a row for each picture, a column for each variant, boxes in the colour of what is told."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from actors.fitting import Preview
from actors.records import Annotation, Difficulty
from loop.report.contact_sheet import CONTEXT, DRAWN, MINED, SEEN
from loop.report.fit_sheet import CELL, GAP, HEADER, MARGIN, fit_sheet


def preview(*variants):
    """120 x 60 px, black, and variants that are grey: an easy box, a hard one, and one that is ignored."""
    boxes = np.array([[10, 10, 30, 30], [50, 10, 70, 30], [90, 10, 110, 30]], np.float32)
    return Preview(
        real=np.zeros((60, 120, 3), np.uint8),
        annotation=Annotation(boxes=boxes, labels=np.zeros(3, np.int64), ignore=np.array([False, False, True])),
        difficulties=(Difficulty.EASY, Difficulty.HARD, Difficulty.EASY),
        drawn={name: np.full((60, 120, 3), 90, np.uint8) for name in variants},
    )


def cells(*previews):
    """The pictures of the sheet by row and column, ``[CELL / 2, CELL, 3]`` each: they are twice as wide as high."""
    sheet = np.asarray(Image.open(BytesIO(fit_sheet(previews, "layout, after 2 of 8 steps"))).convert("RGB"))
    num_columns = 1 + len(previews[0].drawn)
    assert sheet.shape[1] == 2 * MARGIN + num_columns * (CELL + GAP) - GAP
    tops = [HEADER + row * (CELL // 2 + GAP) for row in range(len(previews))]
    lefts = [MARGIN + column * (CELL + GAP) for column in range(num_columns)]
    return [[sheet[top : top + CELL // 2, left : left + CELL] for left in lefts] for top in tops]


def side(cell, box):
    """The colour of a box's left side."""
    return tuple(cell[40, (20, 100, 180)[box]].tolist())


def test_boxes_have_the_colour_of_what_was_measured_and_of_what_is_asked():
    for real, easy, hard in cells(preview("easy", "hard"), preview("easy", "hard")):
        assert [side(real, box) for box in range(3)] == [SEEN, MINED, CONTEXT]
        assert [side(easy, box) for box in range(3)] == [SEEN, SEEN, CONTEXT]
        assert [side(hard, box) for box in range(3)] == [MINED, MINED, CONTEXT]
        assert [cell[80, 80].tolist() for cell in (real, easy, hard)] == [[0] * 3, [90] * 3, [90] * 3]


def test_a_generator_without_variants_has_one_column_in_neither_colour():
    ((_, origin),) = cells(preview("origin"))
    assert [side(origin, box) for box in range(3)] == [DRAWN, DRAWN, CONTEXT]


def test_pictures_of_other_objects_have_their_own_boxes_and_no_difficulty():
    place, box = preview("inserted", "removed"), np.array([[90, 10, 110, 30]], np.float32)
    other = Annotation(boxes=box, labels=np.zeros(1, np.int64), ignore=np.zeros(1, bool))
    plain = replace(place, difficulties=(), others={"removed": other}, heading="place")
    ((empty, inserted, removed),) = cells(plain)
    assert [side(empty, box) for box in range(3)] == [DRAWN, DRAWN, CONTEXT]
    assert [side(inserted, box) for box in range(3)] == [DRAWN, DRAWN, CONTEXT]
    assert [side(removed, box) for box in range(3)] == [(90, 90, 90), (90, 90, 90), DRAWN]
    sheet = np.asarray(Image.open(BytesIO(fit_sheet([plain], "insertion_gan"))).convert("RGB"))
    assert not any((sheet[:HEADER] == colour).all(axis=-1).any() for colour in (SEEN, MINED))


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="needs a preview"):
        fit_sheet([], "layout")
