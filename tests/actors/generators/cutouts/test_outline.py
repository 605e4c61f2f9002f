"""Outlines follow the edges of the picture; an oval around an object does not."""

import cv2
import numpy as np
import pytest

from actors.generators.cutouts.outline import bounds, ellipse_distance, fit_to_edges, outline

BOX = np.array([20, 20, 100, 100])  # in a crop of 120 x 120 px


def ground(seed=0):
    """Coarse texture, as of a lawn."""
    noise = np.random.default_rng(seed).normal(0, 1, (30, 30, 3)).astype(np.float32)
    texture = cv2.resize(noise, (120, 120), interpolation=cv2.INTER_CUBIC) * 14
    return np.clip(110 + texture, 0, 255).astype(np.uint8)


def drawn(points, colour=(30, 30, 160)):
    """A filled polygon on the ground, and its mask."""
    mask = np.zeros((120, 120), np.uint8)
    cv2.fillPoly(mask, [np.array(points, np.int32)], 1)
    pixels = ground()
    pixels[mask > 0] = colour
    return pixels, mask > 0


CROSS = [(50, 20), (70, 20), (70, 50), (99, 50), (99, 70), (70, 70), (70, 99), (50, 99), (50, 70), (20, 70), (20, 50)]
CROSS.append((50, 50))


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_the_outline_of_an_object_follows_edges_and_an_oval_around_it_does_not():
    pixels, mask = drawn(CROSS)
    oval = ellipse_distance((120, 120), BOX) < 1
    assert fit_to_edges(pixels, mask) > 0.9
    assert fit_to_edges(pixels, oval) < 0.6
    assert fit_to_edges(pixels, np.roll(mask, 12, axis=0)) < fit_to_edges(pixels, mask) - 0.15


def test_what_the_border_cuts_off_is_not_judged():
    """A bar from the left border to the right: only its long sides are edges."""
    pixels, mask = drawn([(0, 40), (119, 40), (119, 80), (0, 80)])
    assert fit_to_edges(pixels, mask) > 0.9
    assert fit_to_edges(pixels, np.ones((120, 120), np.bool_)) == 0
    assert fit_to_edges(pixels, np.zeros((120, 120), np.bool_)) == 0


def test_an_object_is_found_beyond_the_ellipse_in_its_box():
    """A broad bar from corner to corner: its ends lie outside the ellipse."""
    pixels, mask = drawn([(20, 48), (48, 20), (99, 71), (71, 99)])
    found = outline(pixels, BOX, 128)
    assert iou(found, mask) > 0.9
    assert bounds(found) == pytest.approx(BOX, abs=4)


def test_a_true_oval_is_an_outline():
    disc = ellipse_distance((120, 120), BOX) < 1
    pixels = ground()
    pixels[disc] = (30, 30, 160)
    assert iou(outline(pixels, BOX, 128), disc) > 0.95


def test_where_nothing_stands_out_there_is_no_outline():
    assert outline(ground(), BOX, 128) is None
