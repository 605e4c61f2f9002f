"""COCO's segmentations against pycocotools, and on their way through the data; a broken one never costs a box."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from upath import UPath

from actors.generators.diffusion.instance_masks import decode
from actors.plain import dumps, loads
from actors.records import LabeledImage
from loop.data.config import DataConfig
from loop.data.export import export
from loop.data.importing import import_data
from loop.data.segmentation import compressed

WIDTH, HEIGHT = 40, 30
WHOLE = np.array([0, 0, WIDTH, HEIGHT], np.float32)
TRIANGLE = [3.5, 2, 30, 8, 12, 25.5]
SQUARE = [20, 20, 28, 20, 28, 28, 20, 28]
BLOB = np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] - np.array([14, 22])[:, None, None])) < 9
BLOB[10:18, 20:24] = False  # a hole


def runs_of(mask):
    """COCO's uncompressed counts, by hand: down the columns, the background first."""
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([*([0, 0] if flat[0] else [0]), *edges, flat.size]).tolist()


def squeezed(mask):
    return coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


def sized(counts, size=(HEIGHT, WIDTH)):
    return {"size": list(size), "counts": counts}


@pytest.mark.parametrize("polygons", [[TRIANGLE], [TRIANGLE, SQUARE], [[str(one) for one in SQUARE]]])
def test_polygons_are_filled_as_pycocotools_fills_them(polygons):
    numbers = [[float(one) for one in points] for points in polygons]
    expected = coco.decode(coco.merge(coco.frPyObjects(numbers, HEIGHT, WIDTH)))
    mask = compressed(polygons, WHOLE, WIDTH, HEIGHT)
    assert (decode(mask, WIDTH, HEIGHT) == expected).all()
    assert expected.any()


@pytest.mark.parametrize("mask", [BLOB, ~BLOB, np.ones_like(BLOB), np.random.default_rng(0).random(BLOB.shape) < 0.5])
def test_run_lengths_in_both_forms_come_out_as_they_went_in(mask):
    for counts in (runs_of(mask), squeezed(mask)):
        found = compressed(sized(counts), WHOLE, WIDTH, HEIGHT)
        assert found == squeezed(mask)
        assert (decode(found, WIDTH, HEIGHT) == mask).all()


def test_long_run_lengths_take_several_characters():
    mask = np.zeros((1200, 900), bool)
    mask[:, 400:850] = True
    mask[7, 20] = True
    assert compressed(
        sized(squeezed(mask), mask.shape), np.array([0, 0, 900, 1200], np.float32), 900, 1200
    ) == squeezed(mask)


FAULTS = {
    "a name": ("mask.png", "polygons or run lengths"),
    "a flat polygon": (SQUARE, "three or more points"),
    "two points": ([[1, 1, 5, 5]], "three or more points"),
    "half a point": ([[*SQUARE, 1]], "three or more points"),
    "no number": ([[1, 1, 5, None, 5, 5]], "three or more points"),
    "a word": ([[1, 1, 5, "wide", 5, 5]], "three or more points"),
    "not a number": ([[1, 1, 5, math.nan, 5, 5]], "three or more points"),
    "too large for a float": ([[1, 1, 10**400, 1, 5, 5]], "three or more points"),
    "far away": ([[1, 1, 1e9, 1, 5, 5]], "three or more points"),
    "nested": ([[[1, 1], [5, 1], [5, 5]]], "three or more points"),
    "endless": ([[0, 0, 90_000, 90_000] * 50], "longer than a picture"),
    "a line": ([[1, 1, 5, 1, 9, 1]], "nothing in its box"),
    "no counts": ({"size": [HEIGHT, WIDTH]}, "counts are lengths"),
    "negative": (sized([-1, 1201]), "counts are lengths"),
    "in words": (sized(["1200"]), "counts are lengths"),
    "too few": (sized([600, 599]), "add up to 1199"),
    "too many": (sized([600, 2**40]), "add up to 1099511628376"),
    "nothing": (sized([1200]), "nothing in its box"),
    "of another size": (sized([600, 600], (WIDTH, HEIGHT)), "size \\[40, 30\\], but the picture's is \\[30, 40\\]"),
    "without a size": ({"counts": [600, 600]}, "size None"),
    "cut short": (sized(squeezed(BLOB)[:-1] + "o"), "end within a number"),
    "too short": (sized(squeezed(BLOB)[:-3]), "add up to|counts are lengths"),
    "strange letters": (sized("5ä"), "unexpected character 'ä'"),
    "an endless number": (sized("o" * 1000), "unexpected character 'o'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_mask_is_refused(name):
    segmentation, message = FAULTS[name]
    with pytest.raises(ValueError, match=message):
        compressed(segmentation, WHOLE, WIDTH, HEIGHT)


def test_a_mask_outside_its_box_is_none_of_its():
    with pytest.raises(ValueError, match="nothing in its box"):
        compressed([SQUARE], np.array([1, 1, 9, 9], np.float32), WIDTH, HEIGHT)


def write(root, annotations):
    """A COCO folder whose image ``a.png`` has ``annotations``; there are a second image and a validation image."""
    for split, names in {"train": ("a.png", "b.png"), "val": ("v.png",)}.items():
        (root / "images" / split).mkdir(parents=True)
        images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
        for name in names:
            Image.effect_noise((WIDTH, HEIGHT), 60).convert("RGB").save(root / "images" / split / name)
        plain = [{"image_id": number, "category_id": 1, "bbox": [1, 1, 5, 5]} for number in range(len(names))]
        chosen = [*annotations, plain[1]] if split == "train" else plain
        tree = {"images": images, "categories": [{"id": 1, "name": "thing"}], "annotations": chosen}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{split}.json").write_text(json.dumps(tree))
    return root


def read(root, **config):
    return import_data(DataConfig(root=str(root), **config), UPath(root), 0)


def box(corners=(0, 0, WIDTH, HEIGHT), **fields):
    return {"id": 5, "image_id": 0, "category_id": 1, "bbox": list(corners), **fields}


def test_masks_stay_with_their_boxes_through_drops_records_and_exports(tmp_path):
    annotations = [
        box(segmentation=[TRIANGLE]),
        box((0, 0, 0, 5), segmentation=[TRIANGLE]),  # dropped
        box((0, 0, WIDTH, 29)),
        box(segmentation=sized(runs_of(BLOB)), iscrowd=1),
        box((0, 0, 39, HEIGHT), segmentation=[]),
    ]
    data = read(write(tmp_path / "in", annotations))
    first, second = data.splits["train"]
    triangle = compressed([TRIANGLE], WHOLE, WIDTH, HEIGHT)
    assert first.masks == (triangle, "", squeezed(BLOB), "")
    assert first.annotation.ignore.tolist() == [False, False, True, False]
    assert second.masks == data.splits["val"][0].masks == ()
    assert "annotations/train.json: 3 of 6 boxes have a segmentation" in str(data.report)
    assert not data.report.noted
    again = loads(tuple[LabeledImage, ...], dumps(data.splits["train"]))
    assert [one.masks for one in again] == [first.masks, ()]
    assert {image.masks for image in read(tmp_path / "in", subset=1).splits["train"]} <= {first.masks, ()}
    export(data.splits["train"], [], data.classes, UPath(tmp_path / "out"), "coco", {"val": data.splits["val"]})
    assert [image.masks for image in read(tmp_path / "out").splits["train"]] == [first.masks, ()]


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_segmentation_is_noted_with_its_place_and_its_box_stays(tmp_path, name):
    data = read(write(tmp_path, [box(segmentation=FAULTS[name][0]), box((0, 0, 39, HEIGHT), segmentation=[TRIANGLE])]))
    (image, _) = data.splits["train"]
    assert len(image.annotation) == 2
    assert image.masks == ("", compressed([TRIANGLE], WHOLE, WIDTH, HEIGHT))
    (note,) = data.report.noted
    assert (note.file, note.what, note.reason) == ("annotations/train.json", "box", "segmentation not usable")
    assert note.detail.startswith("annotation 5, category 1, ")
    assert note.detail.endswith("; the box is used instead")
    assert not data.report.dropped


def test_only_masks_change_what_data_are_known_by(tmp_path):
    plain = read(write(tmp_path / "plain", [box()]))
    empty, masked = (read(write(tmp_path / name, [box(segmentation=one)])) for name, one in
                     (("empty", []), ("masked", [TRIANGLE])))  # fmt: skip
    assert plain.identity() == empty.identity()
    assert {key for key, said in masked.identity().items() if said != plain.identity()[key]} == {"train"}
    assert b'"masks"' not in dumps(plain.splits["train"])
    (first, _) = masked.splits["train"]
    assert dumps(replace(first, masks=())) == dumps(plain.splits["train"][0]).replace(b"/plain/", b"/masked/")
