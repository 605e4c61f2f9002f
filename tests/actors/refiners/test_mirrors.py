"""Mirrored pictures and their boxes."""

import numpy as np
import pytest

from actors.letterbox import GREY, Letterbox
from actors.refiners.ssddet.mirrors import MIRRORS, mirrored_boxes, mirrored_canvas, mirrored_pixels

SIZE = (6, 9)  # height, width
BOX = np.array([[1, 2, 4, 3]], np.float32)


@pytest.mark.parametrize("mirror", MIRRORS)
def test_a_box_stays_around_its_object_and_mirrored_twice_where_it_was(mirror):
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[2:3, 1:4] = 255
    left, top, right, bottom = mirrored_boxes(BOX, SIZE, mirror)[0].astype(int)
    shown = mirrored_pixels(pixels, mirror)
    assert shown[top:bottom, left:right].min() == 255
    assert shown.sum() == pixels.sum()
    assert np.array_equal(mirrored_boxes(mirrored_boxes(BOX, SIZE, mirror), SIZE, mirror), BOX)
    assert np.array_equal(mirrored_pixels(shown, mirror), pixels)


def test_the_four_are_different():
    pixels = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(*SIZE, 3)
    assert len({mirrored_pixels(pixels, mirror).tobytes() for mirror in MIRRORS}) == 4


def test_a_mirrored_picture_lies_where_the_picture_would():
    place = Letterbox.fit(SIZE, 9, 9)
    canvas = mirrored_canvas(np.full((*SIZE, 3), 7, np.uint8), place, (True, True))
    left, top, right, bottom = place.bounds.astype(int)
    assert (canvas[top:bottom, left:right] == 7).all()
    assert (canvas == GREY).sum() == 3 * (81 - 54)
