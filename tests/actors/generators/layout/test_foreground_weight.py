"""GeoDiffusion's foreground re-weighting, and boxes as masks."""

import numpy as np
import pytest

from actors.generators.diffusion.box_masks import box_masks
from actors.generators.layout.foreground_weight import foreground_weight


def masks_of(boxes, size=(4, 8)):
    """Masks on a grid of 8 x 8 px cells."""
    return box_masks(np.array(boxes, np.float32).reshape(-1, 4), size[1] * 8, size[0] * 8, size)


def test_by_hand_geodiffusion_eqs_5_to_7():
    # 4 x 8 cells, p = 1, w = 2: a box of 2 x 2 cells counts 2 / 4 each, the 28 cells around it 1 / 32 each;
    # the sum is 2 + 28 / 32 = 2.875, so that all is scaled by 32 / 2.875
    found = foreground_weight(masks_of([[8, 8, 24, 24]]), weight=2.0, power=1.0)
    scale = 32 / 2.875
    assert found[1:3, 1:3] == pytest.approx(np.full((2, 2), 0.5 * scale))
    assert found[0] == pytest.approx(np.full(8, scale / 32))


@pytest.mark.parametrize(("weight", "power"), [(2.0, 0.2), (4.0, 0.0), (1.0, 0.4)])
def test_the_mean_is_1_geodiffusion_eq_7(weight, power):
    masks = masks_of([[0, 0, 64, 16], [8, 8, 12, 30], [50, 3, 64, 32]])
    assert foreground_weight(masks, weight=weight, power=power).mean() == pytest.approx(1.0)


def test_the_papers_setting_weighs_small_boxes_more_per_cell():
    found = foreground_weight(masks_of([[0, 0, 8, 8], [16, 0, 64, 32]]))
    assert found[0, 0] / found[0, 7] == pytest.approx(24**0.2)  # areas 1 and 24
    assert found[0, 7] / found[3, 0] == pytest.approx(2.0 * (32 / 24) ** 0.2)


def test_later_boxes_overwrite_earlier_ones():
    over = foreground_weight(masks_of([[0, 0, 64, 32], [0, 0, 8, 8]]), power=1.0)
    under = foreground_weight(masks_of([[0, 0, 8, 8], [0, 0, 64, 32]]), power=1.0)
    assert over[0, 0] / over[0, 1] == pytest.approx(32)
    assert (under == 1.0).all()


def test_without_boxes_all_counts_1():
    assert (foreground_weight(masks_of([])) == 1.0).all()


# --- boxes as masks


def test_a_mask_has_the_cells_whose_centres_lie_in_the_box():
    (mask,) = masks_of([[3, 5, 20, 24]])  # cells of 8 px, centres at 4, 12, 20, ...: columns 0 and 1, rows 1 and 2
    assert mask.dtype == np.float32
    assert np.argwhere(mask).tolist() == [[1, 0], [1, 1], [2, 0], [2, 1]]


def test_boxes_are_clipped_and_have_at_least_one_cell():
    inside, beyond, tiny, corner = masks_of([[-20, -9, 8, 8], [0, 0, 999, 999], [21, 9, 22, 30], [64, 32, 70, 40]])
    assert np.argwhere(inside).tolist() == [[0, 0]]
    assert beyond.all()
    assert np.argwhere(tiny).tolist() == [[1, 2], [2, 2], [3, 2]]  # narrower than a cell
    assert np.argwhere(corner).tolist() == [[3, 7]]  # outside: the nearest cell


def test_masks_of_no_boxes():
    assert masks_of([]).shape == (0, 4, 8)
