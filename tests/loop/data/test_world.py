import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from upath import UPath

from actors.images import read
from actors.seeds import derive_seed
from loop.data.config import WorldConfig
from loop.data.world import CLASSES, HARD, HEIGHT_PX, WIDTH_PX, Factors, render_scene, write_world
from loop.data.world.light import NYLON, Light, draw_light
from loop.data.world.scene import SHAPE, _contrast, _Stage
from loop.data.world.sprite import Pose, Sprite, Window, draw_part, lay

SMALL = WorldConfig(train=3, val=2, clean=1, seed=5)


@pytest.fixture(scope="module")
def scenes():
    return [render_scene(derive_seed(0, "test", index)) for index in range(50)]


@pytest.fixture(scope="module")
def factors(scenes):
    return [factors for scene in scenes for factors in scene.factors]


def _light() -> Light:
    return draw_light(np.random.default_rng(0), SHAPE)


def _pose(label: str, **changes) -> Pose:
    upright = Pose(
        label=label,
        material=NYLON,
        x_px=160.3,
        y_px=120.6,
        length_px=50,
        rotation_deg=0,
        tilt_deg=0,
        tilt_axis_deg=0,
        blur_px=0,
    )
    return replace(upright, **changes)


def _square(left: int, top: int, side: int) -> Sprite:
    solid = np.ones((side, side), np.float32)
    return Sprite(
        window=Window(left, top, left + side, top + side),
        alpha=solid,
        soft_alpha=solid,
        colour=np.ones((side, side, 3), np.float32),
        height_px=1.0,
        box=(left, top, left + side, top + side),
    )


def test_a_seed_gives_the_same_scene_again_and_another_seed_another_one():
    first, again, other = render_scene(7), render_scene(7), render_scene(8)
    assert np.array_equal(first.pixels, again.pixels)
    assert np.array_equal(first.annotation.boxes, again.annotation.boxes)
    assert first.factors == again.factors
    assert not np.array_equal(first.pixels, other.pixels)


def test_scenes_hold_two_to_eight_parts_of_every_class_inside_the_picture(scenes):
    for scene in scenes:
        boxes = scene.annotation.boxes
        assert scene.pixels.shape == (HEIGHT_PX, WIDTH_PX, 3)
        assert scene.pixels.dtype == np.uint8
        assert 2 <= len(boxes) == len(scene.factors) <= 8
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= (WIDTH_PX, HEIGHT_PX)).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 4).all()
    assert {int(label) for scene in scenes for label in scene.annotation.labels} == set(range(len(CLASSES)))


@pytest.mark.parametrize("label", CLASSES)
@pytest.mark.parametrize(
    "changes", [{}, {"rotation_deg": 33}, {"tilt_deg": 60, "tilt_axis_deg": 200}, {"length_px": 13}]
)
def test_a_box_is_tight_around_its_part(label, changes):
    canvas = np.zeros((*SHAPE, 3), np.float32)  # shadows do not show on black
    sprite = draw_part(_pose(label, **changes), _light(), np.random.default_rng(3), SHAPE)
    lay(canvas, sprite, _light())
    rows, columns = np.nonzero(canvas.max(-1) > 0.05)
    drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.abs(np.subtract(sprite.box, drawn)).max() <= 1.0


def test_a_ring_of_known_size_has_the_box_that_geometry_gives():
    flat = draw_part(_pose("washer", x_px=100, y_px=90, length_px=40), _light(), np.random.default_rng(0), SHAPE)
    assert np.allclose(flat.box, (80, 70, 120, 110), atol=0.51)
    narrow = draw_part(
        _pose("washer", x_px=100, y_px=90, length_px=40, tilt_deg=60), _light(), np.random.default_rng(0), SHAPE
    )
    assert narrow.box[3] - narrow.box[1] == pytest.approx(40, abs=1.1)
    assert 20 <= narrow.box[2] - narrow.box[0] <= 20 + 40 * 0.1 + 1.1  # cos 60 of the face, and some of its side


def test_occlusion_is_the_share_of_the_outline_under_what_lies_above():
    stage = _Stage(canvas=np.zeros((*SHAPE, 3), np.float32), light=_light())
    stage.put_part(_square(50, 50, 20), shadow=1.0)
    assert stage.hidden_under(_square(60, 50, 20)) == [pytest.approx(0.5)]
    stage.put(_square(60, 50, 20))
    stage.put(_square(60, 60, 20))  # hides what is hidden already
    assert stage.hidden_under(_square(200, 200, 20)) == [pytest.approx(0.5)]


def test_contrast_is_the_difference_of_visible_pixels_to_the_ground():
    pixels = np.full((*SHAPE, 3), 100, np.uint8)
    pixels[50:70, 50:60] = 151  # the half that can be seen
    pixels[50:70, 60:70] = 250  # what lies over the other half
    part, outlines, above = _square(50, 50, 20), np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    outlines[50:70, 50:70] = 1
    above[50:70, 60:70] = 1
    assert _contrast(pixels, part, above, outlines) == pytest.approx(51 / 255, abs=1e-5)
    assert _contrast(pixels, part, np.ones(SHAPE, np.float32), outlines) == 0.0


def test_every_factor_makes_some_parts_hard_and_most_parts_are_easy(factors):
    assert 0.3 <= np.mean([part.hard for part in factors]) <= 0.5
    past = {
        "occlusion": [part.occlusion >= HARD.occlusion for part in factors],
        "contrast": [part.contrast <= HARD.contrast for part in factors],
        "blur_px": [part.blur_px >= HARD.blur_px for part in factors],
        "size_px": [part.size_px <= HARD.size_px for part in factors],
        "tilt_deg": [part.tilt_deg >= HARD.tilt_deg for part in factors],
    }
    assert {name: np.mean(flags) >= 0.03 for name, flags in past.items()} == dict.fromkeys(past, True)


def test_every_part_can_be_seen_at_least_in_part(factors):
    assert max(part.occlusion for part in factors) < 0.9


def test_a_part_is_hard_when_any_one_factor_is_past_its_limit():
    plain = Factors(occlusion=0.0, contrast=0.3, blur_px=0.0, size_px=40.0, tilt_deg=0.0, rotation_deg=90.0)
    assert not plain.hard
    for name in ("occlusion", "contrast", "blur_px", "size_px", "tilt_deg"):
        assert replace(plain, **{name: getattr(HARD, name)}).hard, name


def test_a_clean_scene_is_the_same_photograph_without_the_parts():
    clean, one = render_scene(11, num_parts=0), render_scene(11, num_parts=1)
    assert len(clean.annotation) == len(clean.factors) == 0
    left, top, right, bottom = one.annotation.boxes[0].astype(int)
    changed = np.abs(clean.pixels.astype(int) - one.pixels).max(-1) > 40
    reach = 40  # of shadows, or of the tape or cable that may lie over the part
    elsewhere = changed.copy()
    elsewhere[max(top - reach, 0) : bottom + reach, max(left - reach, 0) : right + reach] = False
    assert changed[top:bottom, left:right].mean() > 0.1
    assert elsewhere.sum() == 0


@pytest.mark.parametrize("num_parts", [-1, 9])
def test_an_impossible_number_of_parts_is_refused(num_parts):
    with pytest.raises(ValueError, match=f"num_parts is {num_parts}"):
        render_scene(0, num_parts)


def test_the_folder_is_a_coco_data_set_with_the_truth_in_it(tmp_path):
    write_world(UPath(tmp_path), SMALL)
    for split, count in {"train": 3, "val": 2}.items():
        coco = COCO(tmp_path / "annotations" / f"{split}.json")
        assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
        assert coco.getCatIds() == [1, 2, 3, 4, 5]
        assert len(coco.getImgIds()) == count
        for position, image in enumerate(coco.loadImgs(coco.getImgIds())):
            scene = render_scene(derive_seed(SMALL.seed, split, position))
            entries = coco.imgToAnns[image["id"]]
            assert np.array_equal(read(str(tmp_path / "images" / split / image["file_name"])), scene.pixels)
            assert [entry["category_id"] - 1 for entry in entries] == scene.annotation.labels.tolist()
            corners = np.array([entry["bbox"] for entry in entries]) @ np.block(
                [[np.eye(2), np.eye(2)], [np.zeros((2, 2)), np.eye(2)]]
            )
            assert np.allclose(corners, scene.annotation.boxes, atol=0.02)
            assert [entry["area"] for entry in entries] == [
                pytest.approx(e["bbox"][2] * e["bbox"][3], abs=0.01) for e in entries
            ]
            assert all(entry["iscrowd"] == 0 for entry in entries)
            for entry, truth in zip(entries, scene.factors, strict=True):
                assert Factors(**entry["factors"]) == Factors(
                    **{key: round(value, 4) for key, value in asdict(truth).items()}
                )
    assert len(list((tmp_path / "images" / "clean").iterdir())) == 1


def test_a_larger_world_starts_with_the_smaller_one(tmp_path):
    for name, count in {"few": 2, "more": 4}.items():
        write_world(UPath(tmp_path / name), WorldConfig(train=count, val=1))
    few, more = (json.loads((tmp_path / name / "annotations" / "train.json").read_text()) for name in ("few", "more"))
    assert more["images"][:2] == few["images"]
    assert more["annotations"][: len(few["annotations"])] == few["annotations"]
    for picture in (tmp_path / "few" / "images" / "train").iterdir():
        assert (tmp_path / "more" / "images" / "train" / picture.name).read_bytes() == picture.read_bytes()


def test_a_killed_write_is_completed_and_a_complete_one_is_left_alone(tmp_path):
    write_world(UPath(tmp_path), SMALL)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    (tmp_path / "annotations" / "train.json").unlink()
    (tmp_path / "images" / "train" / "000001.png").write_bytes(b"half")
    write_world(UPath(tmp_path), SMALL)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before
    times = {path: path.stat().st_mtime_ns for path in before}
    write_world(UPath(tmp_path), SMALL)
    assert {path: path.stat().st_mtime_ns for path in before} == times


def test_growing_in_place_adds_scenes_and_another_data_set_is_left_alone(tmp_path):
    write_world(UPath(tmp_path), SMALL)
    write_world(UPath(tmp_path), SMALL.model_copy(update={"train": 4}))
    assert len(json.loads((tmp_path / "annotations" / "train.json").read_text())["images"]) == 4
    (tmp_path / "annotations" / "train.json").write_text('{"info": {"description": "mine"}, "images": []}')
    with pytest.raises(ValueError, match="choose another folder"):
        write_world(UPath(tmp_path), SMALL)
