"""Windows around boxes: where they lie, what is a hole, and what comes back into the image; worked out by hand."""

import numpy as np
import pytest

from actors.generators.cutouts.window import Frame, feathered, frame, hole


def box(*corners):
    return np.array(corners, np.float32)


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


@pytest.mark.parametrize(
    ("of", "context", "least_px", "expected"),
    [
        (box(10, 20, 30, 24), 1.5, 8, Frame(left=5, top=7, side=30)),  # 20 wide, so 30; centre (20, 22)
        (box(10, 20, 30, 24), 1.5, 48, Frame(left=-4, top=-2, side=48)),  # small objects are not enlarged
    ],
)
def test_a_frame_has_the_box_in_its_middle(of, context, least_px, expected):
    assert frame(of, context, least_px) == expected


def test_a_window_outside_the_image_is_its_mirror():
    pixels = np.arange(4, dtype=np.uint8)[None, :, None].repeat(4, axis=0).repeat(3, axis=2)
    window = Frame(left=-2, top=0, side=8).cut(pixels, 8)
    assert window[0, :, 0].tolist() == [2, 1, 0, 1, 2, 3, 2, 1]


def test_a_hole_is_the_box_and_its_margin_without_the_neighbours():
    mask = hole((10, 10), box(2, 2, 6, 6), 0.25, boxes((5, 0, 9, 4)))
    expected = np.zeros((10, 10), bool)
    expected[1:7, 1:7] = True
    expected[0:4, 5:9] = False
    assert (mask == expected).all()


def test_boxes_go_into_the_window_by_shift_and_scale():
    place = Frame(left=10, top=20, side=20)
    assert place.to_window(box(15, 20, 30, 40), 40).tolist() == [10, 0, 40, 40]


def test_a_mask_in_a_smaller_window_covers_all_that_it_touches():
    mask = np.zeros((16, 16), bool)
    mask[4:8, 4:8] = True
    small = Frame(left=0, top=0, side=16).cut_mask(mask, 8)
    assert small[2:4, 2:4].all()
    assert not small[5:].any()
    speck = np.zeros((160, 160), bool)
    speck[81, 81] = True
    assert Frame(left=0, top=0, side=160).cut_mask(speck, 16)[8, 8]


def test_feathering_rises_inside_the_mask_only():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    alpha = feathered(mask, 2.0)
    assert (alpha[~mask] == 0).all()
    assert alpha[4, 4] == 1
    assert 0 < alpha[2, 4] < 1
    assert (feathered(mask, 0.0) == mask).all()


def test_a_mask_at_the_border_of_the_image_is_not_feathered_there():
    mask = np.zeros((8, 8), bool)
    mask[:, :4] = True
    assert (feathered(mask, 2.0)[:, 0] == 1).all()


@pytest.mark.parametrize("side", [8, 16])
def test_pasting_leaves_pixels_without_weight_alone(side):
    rng = np.random.default_rng(0)
    canvas = rng.integers(0, 256, (12, 12, 3), np.uint8)
    before, alpha = canvas.copy(), np.zeros((12, 12), np.float32)
    alpha[3:6, 3:6] = 1
    Frame(left=-2, top=-2, side=side).paste(canvas, np.full((8, 8, 3), 7, np.uint8), alpha)
    assert (canvas[3:6, 3:6] == 7).all()
    assert (canvas[alpha == 0] == before[alpha == 0]).all()


def test_what_shrinking_took_away_comes_back():
    """A window that comes back from its painter unchanged is the image again, at the image's own resolution."""
    pixels = np.random.default_rng(1).integers(60, 190, (40, 40, 3), np.uint8)
    place = Frame(left=4, top=4, side=32)
    same = place.sharpened(place.cut(pixels, 16), pixels)
    assert np.abs(same.astype(int) - pixels[4:36, 4:36]).max() <= 1
