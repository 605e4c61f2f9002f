"""Objects of more than a third of their image's longer side: outlines, edges, and room beside another one."""

import numpy as np
import pytest
from PIL import Image

from actors.boxes import intersections
from actors.generators.copy_paste import CopyPaste, CopyPasteConfig
from actors.generators.cutouts.cutout import cut
from actors.generators.cutouts.positions import Overlap, find_room
from actors.generators.inpaint.component import InpaintConfig
from actors.generators.inpaint.generator import Inpaint
from actors.records import Annotation, LabeledImage, Lineage

LARGE = np.array([20, 40, 140, 160], np.float32)  # in an image of 200 x 200 px
SMALL = np.array([68, 88, 128, 148], np.float32)


def picture(box, colour=(40, 40, 120)):
    """A disc in ``box``, on a light ground with a little noise, 200 x 200 px."""
    pixels = np.random.default_rng(0).normal(170, 2, (200, 200, 3))
    y, x = np.mgrid[:200, :200] + 0.5
    centre, radius = (box[:2] + box[2:]) / 2, (box[2] - box[0]) / 2
    pixels[np.hypot(x - centre[0], y - centre[1]) < radius] = colour
    return np.clip(pixels, 0, 255).astype(np.uint8)


def hidden(box):
    """An object of which only a red spot stands out from its ground."""
    ground = 0.29 * (box[2] - box[0])
    return picture(np.array([*(box[:2] + ground), *(box[2:] - ground)]), colour=(200, 40, 40))


@pytest.fixture
def image(tmp_path):
    def write(pixels, box):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        Image.fromarray(pixels).save(file)
        annotation = Annotation(boxes=box[None], labels=np.zeros(1, np.int64), ignore=np.zeros(1, np.bool_))
        return LabeledImage(id=file.name, uri=str(file), width=200, height=200, annotation=annotation)

    return write


def lineages(image):
    return [Lineage(round=1, image_id=image.id, box_indices=(0,), generator="x", seed=seed) for seed in range(4)]


class Leaves:
    """A painter that varies, and leaves its windows as they are."""

    size_px, max_zoom, varies, attributes = 32, 1.0, True, {}

    def paint(self, windows):
        return [window.pixels for window in windows]


def test_an_object_is_large_by_its_share_of_its_image():
    assert cut(picture(LARGE), LARGE, "object").large
    assert not cut(picture(SMALL), SMALL, "object").large


def test_a_large_object_without_an_outline_would_show_its_ground():
    assert cut(hidden(LARGE), LARGE, "object").shows_ground
    assert not cut(picture(LARGE), LARGE, "object").shows_ground
    assert not cut(hidden(SMALL), SMALL, "object").shows_ground


def test_a_large_object_has_a_narrow_edge():
    """The margin is 14 px: without the limit, weights are above 0 up to 8 px beside the object; with it, 3."""
    alpha = cut(picture(LARGE), LARGE, "object").alpha()
    assert 0 < ((alpha > 0) & (alpha < 1)).any(axis=0)[:14].sum() <= 3


def test_a_large_object_is_made_smaller_where_it_has_no_room_else():
    cutout = cut(picture(LARGE), LARGE, "object")
    place, smaller = find_room(picture(LARGE), cutout, LARGE[None], Overlap(most=0.0), np.random.default_rng(0))
    assert 0.2 * cutout.width < smaller.width < 0.4 * cutout.width  # 60 px are free on the right, with a margin
    placed = smaller.box + np.array([place.x, place.y] * 2)
    assert intersections(placed[None].astype(np.float32), LARGE[None])[0, 0] == 0


def test_a_small_object_keeps_its_size():
    cutout, everywhere = cut(picture(SMALL), SMALL, "object"), np.array([[0, 0, 200, 200]], np.float32)
    assert find_room(picture(SMALL), cutout, everywhere, Overlap(most=0.0), np.random.default_rng(0)) is None


def test_large_objects_are_painted_at_new_places(image):
    real = image(picture(LARGE), LARGE)
    config = InpaintConfig(insert=1.0, rotate=False, modes=("plain",))
    candidates = Inpaint(config, [real], Leaves()).generate(lineages(real))
    assert [one.refused for one in candidates] == [""] * 4
    assert all(one.drawn.tolist() == [False, True] for one in candidates)


def test_large_objects_are_pasted_into_images_that_hold_another(image):
    real = [image(picture(LARGE), LARGE) for _ in range(3)]
    candidates = CopyPaste(CopyPasteConfig(modes=("plain",)), real).generate(lineages(real[0]))
    assert all(one.drawn.sum() == 1 for one in candidates)


def test_a_large_object_without_an_outline_is_not_pasted(image):
    real = [image(hidden(LARGE), LARGE), image(picture(SMALL), SMALL)]
    candidates = CopyPaste(CopyPasteConfig(modes=("plain",)), real).generate(lineages(real[0]))
    assert [one.refused for one in candidates] == ["generator: no_outline"] * 4


def test_a_large_object_without_an_outline_is_replaced_by_one_that_has(image):
    """The outlined disc is dark blue, the other instance has a red spot in its middle."""
    real = [image(hidden(LARGE), LARGE), image(picture(LARGE), LARGE)]
    config = InpaintConfig(insert=1.0, modes=("plain",))
    for candidate in Inpaint(config, real, Leaves()).generate(lineages(real[0])):
        left, top, right, bottom = candidate.annotation.boxes[1].astype(int)
        assert candidate.pixels[(top + bottom) // 2, (left + right) // 2, 0] < 100
