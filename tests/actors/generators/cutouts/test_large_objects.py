"""Objects of more than a third of their image's longer side: outlines, edges, and room beside another one."""

import numpy as np
import pytest
from PIL import Image

from actors.boxes import empty, intersections
from actors.generators.copy_paste import CopyPaste, CopyPasteConfig
from actors.generators.cutouts import positions
from actors.generators.cutouts.cutout import cut, scaled, tight
from actors.generators.cutouts.extents import by_class
from actors.generators.cutouts.positions import Overlap, Search
from actors.generators.inpaint.component import InpaintConfig
from actors.generators.inpaint.generator import Inpaint
from actors.records import Annotation, LabeledImage, Lineage

LARGE = np.array([20, 40, 140, 160], np.float32)  # in an image of 200 x 200 px
SMALL = np.array([68, 88, 128, 148], np.float32)


EMPTY = empty()


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
    place, smaller = Search(picture(LARGE), LARGE[None], Overlap(most=0.0)).find(cutout, np.random.default_rng(0))
    assert 0.3 * cutout.width < smaller.width < 0.45 * cutout.width  # 60 px are free on the right, with a margin
    placed = smaller.box + np.array([place.x, place.y] * 2)
    assert intersections(placed[None].astype(np.float32), LARGE[None])[0, 0] == 0


def test_pixels_are_resized_only_for_the_scale_that_has_room(monkeypatch):
    """60 px are free on the right: of 120 px, half and a margin of 7 px have no room, 0.42 and a margin of 6 px do."""
    factors = []
    monkeypatch.setattr(positions, "scaled", lambda *args: factors.append(args[1]) or scaled(*args))
    cutout, rng = cut(picture(LARGE), LARGE, "object"), np.random.default_rng(0)
    everywhere = np.array([[0, 0, 200, 200]], np.float32)
    assert Search(picture(LARGE), everywhere, Overlap(most=0.0)).find(cutout, rng) is None
    assert factors == []
    assert Search(picture(LARGE), LARGE[None], Overlap(most=0.0)).find(cutout, rng)
    assert factors == [0.42]


def test_a_search_gives_what_a_new_search_gives():
    """Large and small discs in turns, each twice: what is kept for one is not taken for the other."""
    cutouts = [cut(picture(box), box, "object") for box in (LARGE, SMALL)] * 2
    new = [Search(picture(SMALL), SMALL[None], Overlap(most=0.0)) for _ in cutouts]
    found = []
    for searches in (new, new[:1] * 4):
        rng = np.random.default_rng(0)
        rooms = [search.find(cutout, rng) for search, cutout in zip(searches, cutouts, strict=True)]
        found.append([(place, at_scale.box.tolist()) for place, at_scale in rooms])
    assert found[0] == found[1]


def seen(*boxes, upright=True):
    """The extents of boxes in images of 200 x 200 px."""
    images = [
        LabeledImage(id=str(index), uri="", width=200, height=200, annotation=labelled(box))
        for index, box in enumerate(boxes)
    ]
    return by_class(images, upright=upright)[0]


def labelled(box):
    return Annotation(boxes=np.array([box], np.float32), labels=np.zeros(1, np.int64), ignore=np.zeros(1, np.bool_))


def placed(extents, occupied=EMPTY, rng=0):
    """The box of the large disc at its new place, None without one."""
    cutout, target = cut(picture(LARGE), LARGE, "object"), np.full((200, 200, 3), 170, np.uint8)
    room = Search(target, occupied, Overlap(most=0.0), extents).find(cutout, np.random.default_rng(rng))
    return room and room[1].box + np.array([room[0].x, room[0].y] * 2)


def test_a_large_object_becomes_no_smaller_than_its_class_is_seen():
    """60 px are free on the right: enough for objects of 40 px, which are seen, not for three quarters of 120 px."""
    beside = np.array([[0, 0, 140, 200]], np.float32)
    assert placed(seen((150, 20, 190, 60)), beside) is not None
    assert placed(seen((10, 20, 130, 140), (10, 20, 120, 130)), beside) is None


def test_a_large_object_stands_where_those_of_its_size_stand():
    """Those seen end at 195 px of 200; 5 % of the height are allowed beyond."""
    low = seen(*[(10, 75, 130, 195)] * 4)
    bottoms = [placed(low, rng=rng)[3] for rng in range(6)]
    assert min(bottoms) >= 184
    anywhere = [placed(seen((10, 75, 130, 195), upright=False), rng=rng)[3] for rng in range(6)]
    assert min(anywhere) < 184


def test_classes_and_ignored_boxes_have_extents_of_their_own():
    """Of two classes, an ignored box of the first does not count."""
    boxes = np.array([[0, 0, 50, 20], [0, 0, 10, 100], [0, 0, 199, 199]], np.float32)
    labels, ignore = np.array([0, 1, 0]), np.array([False, False, True])
    annotation = Annotation(boxes=boxes, labels=labels, ignore=ignore)
    found = by_class([LabeledImage(id="a", uri="", width=100, height=200, annotation=annotation)], upright=True)
    assert {label: one.sizes.tolist() for label, one in found.items()} == {0: [0.25], 1: [0.5]}
    assert found[1].bottoms.tolist() == [0.5]


def test_what_finds_no_room_at_home_is_painted_into_another_training_image(image):
    """A disc that fills its picture goes into one that holds a small disc, at a size that the class is seen at."""
    full, other = np.array([5, 5, 195, 195], np.float32), np.array([10, 130, 70, 190], np.float32)
    real = [image(picture(full), full), image(picture(other), other)]
    for candidate in Inpaint(InpaintConfig(insert=1.0, modes=("plain",)), real, Leaves()).generate(lineages(real[0])):
        assert (candidate.canvas, candidate.refused) == (real[1].id, "")
        sides = candidate.annotation.boxes[1, 2:] - candidate.annotation.boxes[1, :2]
        assert 58 <= sides.max() <= 130
        assert candidate.examples == ("", real[0].id)
    (stays,) = Inpaint(InpaintConfig(), real, Leaves()).generate(lineages(real[0])[:1])
    assert (stays.canvas, stays.refused) == (real[0].id, "generator: too_crowded")


def test_the_box_of_a_large_object_is_that_of_its_outline():
    loose = LARGE + np.array([-8, -8, 8, 8], np.float32)
    cutout = cut(picture(LARGE), loose, "object")
    assert tight(cutout).box - cutout.box == pytest.approx([8, 8, -8, -8], abs=2)
    small = cut(picture(SMALL), SMALL, "object")
    assert tight(small) is small


def test_a_small_object_keeps_its_size():
    cutout, everywhere = cut(picture(SMALL), SMALL, "object"), np.array([[0, 0, 200, 200]], np.float32)
    assert Search(picture(SMALL), everywhere, Overlap(most=0.0)).find(cutout, np.random.default_rng(0)) is None


def test_large_objects_are_painted_at_new_places(image):
    real, small = image(picture(LARGE), LARGE), image(picture(SMALL), SMALL)
    config = InpaintConfig(insert=1.0, modes=("plain",))
    candidates = Inpaint(config, [real, small], Leaves()).generate(lineages(real))
    assert [one.refused for one in candidates] == [""] * 4
    assert all(one.drawn.tolist() == [False, True] for one in candidates)


def test_large_objects_are_pasted_into_images_that_hold_another(image):
    real = [image(picture(box), box) for box in (LARGE, LARGE, SMALL)]
    candidates = CopyPaste(CopyPasteConfig(modes=("plain",)), real).generate(lineages(real[0]))
    assert all(one.drawn.sum() == 1 for one in candidates)


def test_a_large_object_without_an_outline_is_not_pasted(image):
    real = [image(hidden(LARGE), LARGE), image(picture(SMALL), SMALL)]
    candidates = CopyPaste(CopyPasteConfig(modes=("plain",)), real).generate(lineages(real[0]))
    assert [one.refused for one in candidates] == ["generator: no_outline"] * 4


def test_a_large_object_without_an_outline_is_replaced_by_one_that_has(image):
    """The outlined disc is dark blue, the other instance has a red spot in its middle."""
    real = [image(hidden(LARGE), LARGE), image(picture(LARGE), LARGE), image(picture(SMALL), SMALL)]
    config = InpaintConfig(insert=1.0, modes=("plain",))
    for candidate in Inpaint(config, real, Leaves()).generate(lineages(real[0])):
        left, top, right, bottom = candidate.annotation.boxes[1].astype(int)
        assert candidate.pixels[(top + bottom) // 2, (left + right) // 2, 0] < 100
