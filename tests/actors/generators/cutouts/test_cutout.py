import numpy as np
import pytest

from actors.generators.cutouts.cutout import Cutout, cut, rotated, scaled
from actors.generators.cutouts.outline import bounds
from actors.generators.inpaint.component import InpaintConfig


def bar(width, height, pad=6):
    """A bright bar on grey, its box one pixel wider on every side."""
    core = np.zeros((height + 2 * pad, width + 2 * pad), bool)
    core[pad : pad + height, pad : pad + width] = True
    pixels = np.where(core[..., None], 220, 90).astype(np.uint8).repeat(3, axis=2)
    box = bounds(core) + np.array([-1, -1, 1, 1], np.float32)
    return Cutout(pixels=pixels, core=core, box=box, margin_px=pad, at_border=np.zeros((3, 3), bool))


@pytest.mark.parametrize(
    ("degrees", "sides"), [(90, (12, 42)), (180, (42, 12)), (45, (37.4, 37.4)), (-30, (41.6, 30.7))]
)
def test_a_turned_bar_is_framed_by_its_box(degrees, sides):
    """40 x 10 px: |40 cos| + |10 sin| by |40 sin| + |10 cos|, and a pixel more on every side."""
    turned = rotated(bar(40, 10), degrees)
    assert turned.box[2:] - turned.box[:2] == pytest.approx(sides, abs=1.6)
    inside = turned.pixels[turned.core]
    assert (inside > 150).mean() > 0.97
    assert (turned.pixels[~turned.core] < 160).mean() > 0.97
    assert turned.core.sum() == pytest.approx(400, rel=0.08)


def test_what_is_turned_by_nothing_stays_as_it_is():
    before = bar(20, 14)
    after = rotated(before, 0.0)
    assert (after.pixels == before.pixels).all()
    assert (after.core == before.core).all()
    assert after.box.tolist() == before.box.tolist()


def test_an_object_of_a_pixel_stays_as_it_is():
    """Half a pixel in no place is an object no more."""
    for degrees in range(0, 180, 5):
        assert rotated(bar(1, 1), degrees).core.any()


def test_a_cutout_does_not_hold_on_to_its_image():
    pixels = np.full((60, 80, 3), 90, np.uint8)
    assert not np.shares_memory(cut(pixels, np.array([20, 20, 40, 40], np.float32), "box").pixels, pixels)


def test_boxes_cannot_be_turned_by_any_angle():
    with pytest.raises(ValueError, match="use cutout: object"):
        InpaintConfig(cutout="box", turn_deg=20)


@pytest.mark.parametrize("factor", [0.05, 0.6, 1.0, 1.5])
def test_the_geometry_of_a_resized_cutout_is_known_before(factor):
    before, after = bar(20, 14).footprint(factor), scaled(bar(20, 14), factor)
    assert (before.width, before.height, before.box.tolist()) == (after.width, after.height, after.box.tolist())
    assert (before.width, before.height) == (max(round(32 * factor), 3), max(round(26 * factor), 3))
