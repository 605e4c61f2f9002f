"""Layouts after those of real images: mirrored, moved, and put together of two."""

import numpy as np
import pytest

from actors import boxes as geometry
from actors.generators.layout.arrangement import ArrangementConfig, Arranger, jittered
from actors.records import Annotation, Difficulty, LabeledImage

EASY, HARD = Difficulty.EASY, Difficulty.HARD


def image(name, boxes, labels=None, ignore=None, size=(100, 50)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.array(labels, np.int64)
    ignore = np.zeros(len(boxes), bool) if ignore is None else np.array(ignore)
    annotation = Annotation(boxes=boxes, labels=labels, ignore=ignore)
    return LabeledImage(id=name, uri=f"/nowhere/{name}", width=size[0], height=size[1], annotation=annotation)


ROW = image("row", [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], [0, 1, 2, 3])
ROW_TOLD = (EASY, HARD, EASY, HARD)


def layouts(config, images, difficulties, mined=(), num=50):
    arranger = Arranger(config, images, difficulties)
    return [arranger.arrange(images[0], mined, np.random.default_rng(seed)) for seed in range(num)]


def test_without_variation_a_layout_is_the_image_s_own():
    found = layouts(ArrangementConfig(flip=False), [ROW], {"row": ROW_TOLD}, num=5)
    assert all(one.annotation is ROW.annotation for one in found)
    assert all((one.difficulties, one.mirrored) == (ROW_TOLD, False) for one in found)


def test_half_of_the_layouts_are_mirrored_geodiffusion_sec_4_1():
    found = layouts(ArrangementConfig(), [ROW], {"row": ROW_TOLD}, num=200)
    mirrored = [one for one in found if one.mirrored]
    assert abs(len(mirrored) - 100) < 3 * np.sqrt(200 / 4)
    assert mirrored[0].annotation.boxes.tolist() == [
        [90, 0, 100, 10],
        [70, 0, 80, 10],
        [50, 0, 60, 10],
        [30, 0, 40, 10],
    ]
    assert mirrored[0].annotation.labels.tolist() == [0, 1, 2, 3]
    assert all((one.annotation.boxes == ROW.annotation.boxes).all() for one in found if not one.mirrored)


def test_the_seed_decides_and_nothing_else():
    config, told = ArrangementConfig(jitter=0.3, recombine=0.5), {"row": ROW_TOLD}
    for one, other in zip(layouts(config, [ROW], told), layouts(config, [ROW], told), strict=True):
        assert (one.annotation.boxes == other.annotation.boxes).all()
        assert (one.difficulties, one.mirrored) == (other.difficulties, other.mirrored)


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_moved_boxes_keep_their_size_and_stay_in_the_image(share):
    place = image("corners", [[0, 0, 10, 10], [90, 40, 100, 50], [0, 0, 100, 50], [40, 20, 60, 24]])
    before = place.annotation.boxes
    moved = np.stack([jittered(place.annotation, place, share, np.random.default_rng(s)).boxes for s in range(200)])
    np.testing.assert_allclose(
        moved[..., 2:] - moved[..., :2], np.tile(before[:, 2:] - before[:, :2], (200, 1, 1)), atol=1e-4
    )
    assert moved.min() >= 0
    assert (moved.max(axis=(0, 1)) <= np.array([100, 50, 100, 50]) + 1e-4).all()
    shift = np.abs(moved - before)[..., :2].max(axis=0)
    assert (shift[2] == 0).all()  # as large as the image: no room
    assert (shift <= share * np.array([[10, 10], [10, 10], [0, 0], [20, 4]]) + 1e-4).all()
    assert (shift[3] > 0.8 * share * np.array([20, 4])).all()


def test_half_of_one_image_and_what_fits_of_another():
    """The other image is half as large; of its boxes, one has room, one meets an own box, one is ignored."""
    other = image("other", [[40, 20, 45, 25], [0, 0, 35, 5], [0, 10, 5, 15]], [4, 4, 4], [False, False, True], (50, 25))
    told = {"row": ROW_TOLD, "other": (HARD, HARD, HARD)}
    arranger = Arranger(ArrangementConfig(flip=False, recombine=1.0), [other], told)
    for seed in range(20):
        found = arranger.arrange(ROW, (3,), np.random.default_rng(seed))
        labels = found.annotation.labels.tolist()
        assert sorted(labels[:2]) == labels[:2]
        assert labels[1:] == [3, 4]  # half of four, and box 3, the mined one, is always among them
        assert found.annotation.boxes[2].tolist() == [80, 40, 90, 50]  # twice as large
        assert found.difficulties == (ROW_TOLD[labels[0]], HARD, HARD)
    assert {arranger.arrange(ROW, (), np.random.default_rng(s)).annotation.labels[0] for s in range(40)} == {0, 1, 2}


def test_boxes_put_together_hardly_overlap():
    rng = np.random.default_rng(0)

    def crowd(name):
        corners = rng.uniform(0, 80, (6, 2)) * (1, 0.4)
        return image(name, np.concatenate([corners, corners + rng.uniform(5, 20, (6, 2)) * (1, 0.8)], axis=1))

    images = [crowd(str(number)) for number in range(12)]
    arranger = Arranger(ArrangementConfig(flip=False, recombine=1.0), images, {one.id: (HARD,) * 6 for one in images})
    joined = 0
    for seed in range(100):
        source = images[seed % 12]
        found = arranger.arrange(source, (), np.random.default_rng(seed)).annotation
        smaller = np.minimum.outer(geometry.areas(found.boxes), geometry.areas(found.boxes))
        shared = geometry.intersections(found.boxes, found.boxes) / smaller
        assert (shared[3:, :][~np.eye(len(found), dtype=bool)[3:]] <= 0.2 + 1e-6).all()
        joined += len(found) - 3
    assert joined > 100
