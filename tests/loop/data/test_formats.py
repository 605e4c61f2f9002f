"""COCO, YOLO and VOC as they are found in the wild, read into records."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from upath import UPath

from actors.images import read as read_picture
from loop.data.config import DataConfig
from loop.data.export import export
from loop.data.formats import detect
from loop.data.importing import Dataset, import_data
from loop.data.splits import hold_out, subset
from loop.data.validate import validate_images


def picture(path: Path, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 60)).save(path)


def coco(path: Path, boxes: Mapping[str, list], categories: Mapping[int, str], **extra) -> None:
    """A COCO file: boxes by file name, each (category id, [x, y, w, h]) or with further fields as a third item."""
    images = [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(boxes)]
    annotations = [
        {"id": 100 * i + j, "image_id": i, "category_id": box[0], "bbox": box[1], **(box[2] if len(box) > 2 else {})}
        for i, found in enumerate(boxes.values())
        for j, box in enumerate(found)
    ]
    tree = {"images": images, "annotations": annotations, **extra}
    tree["categories"] = [{"id": key, "name": name} for key, name in categories.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))


def voc(path: Path, *objects: tuple, filename: str | None = None, size: tuple[int, int] = (40, 30)) -> None:
    """A VOC file: objects are (name, xmin, ymin, xmax, ymax, difficult)."""
    body = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, x0, y0, x1, y1, difficult in objects
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><filename>{filename or path.stem + '.png'}</filename>"
        f"<size><width>{size[0]}</width><height>{size[1]}</height></size>{body}</annotation>"
    )


def read(root: Path, seed: int = 0, **config) -> Dataset:
    return import_data(DataConfig(root=str(root), **config), UPath(root), seed)


def boxes(data: Dataset, split: str, image_id: str) -> list[list[float]]:
    (image,) = [image for image in data.splits[split] if image.id == image_id]
    return image.annotation.boxes.tolist()


def test_coco_reads_boxes_classes_crowds_and_empty_images(tmp_path):
    for split, name in (("train", "a.png"), ("train", "empty.png"), ("val", "a.png")):
        picture(tmp_path / "images" / split / name)
    train = {"a.png": [(7, [1, 2, 10, 20]), (3, [0, 0, 5, 5], {"iscrowd": 1})], "empty.png": []}
    coco(tmp_path / "annotations/train.json", train, {7: "seven", 3: "three"})
    coco(tmp_path / "annotations/val.json", {"a.png": [(1, [4, 4, 4, 4])]}, {1: "seven", 2: "unused"})
    data = read(tmp_path)
    assert data.classes == ("three", "seven", "unused")  # by id in train, then what only val knows
    assert [image.id for image in data.splits["train"]] == ["train/a.png", "train/empty.png"]
    first, second = data.splits["train"]
    assert first.annotation.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 5, 5]]
    assert first.annotation.labels.tolist() == [1, 0]
    assert first.annotation.ignore.tolist() == [False, True]
    assert first.uri == str(tmp_path / "images/train/a.png")
    assert (first.width, first.height) == (40, 30)
    assert len(second.annotation) == 0
    assert data.splits["val"][0].annotation.labels.tolist() == [1]  # by name: id 1 there is id 7 here
    assert data.report.splits["train"].empty == 1
    assert data.report.splits["train"].ignored == 1
    assert data.report.splits["train"].boxes_by_class == {"three": 1, "seven": 1, "unused": 0}
    assert "Dropped: nothing" in str(data.report)


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations/instances_{}2017.json", "{}2017"),
        ("annotations/instances_{}2017.json", "images/{}2017"),
        ("annotations/{}.json", "images"),
        ("{}.json", "{}"),
        ("{}/_annotations.coco.json", "{}"),
        ("{}_annotations.json", "."),
        ("{}/_annotations.coco.json", "{}/images"),
        ("{}/labels.json", "{}/data"),
        ("annotations/lvis_v1_{}.json", "images/lvis_v1_{}"),
        ("annotations/zhiyuan_objv2_{}.json", "{}/patch8"),
    ],
)
def test_coco_layouts(tmp_path, annotations, images):
    for split in ("train", "val"):
        picture(tmp_path / images.format(split) / f"{split}.png")
        coco(tmp_path / annotations.format(split), {f"{split}.png": [(1, [1, 1, 5, 5])]}, {1: "thing"})
    assert detect(UPath(tmp_path)) == "coco"
    data = read(tmp_path)
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 1, "val": 1}
    assert not data.val_is_drawn


def test_coco_pictures_of_lvis_are_named_by_their_address(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / f"{split}2017/1.png")
        coco(tmp_path / f"annotations/lvis_v1_{split}.json", {"1.png": [(1, [1, 1, 5, 5])]}, {1: "thing"})
        tree = json.loads((tmp_path / f"annotations/lvis_v1_{split}.json").read_text())
        del tree["images"][0]["file_name"]
        tree["images"][0] |= {"coco_url": f"http://host/{split}2017/1.png", "not_exhaustive_category_ids": [1]}
        (tmp_path / f"annotations/lvis_v1_{split}.json").write_text(json.dumps(tree))
    (tmp_path / "annotations/lvis_v1_image_info_test.json").write_text('{"images": [], "categories": []}')
    data = read(tmp_path)
    assert {split: [one.id for one in images] for split, images in data.splits.items()} == {
        "train": ["train2017/1.png"],
        "val": ["val2017/1.png"],
    }
    assert any("1 image is not labelled exhaustively" in remark for remark in data.report.remarks)


def test_coco_files_that_hold_something_else_are_left_aside_and_said(tmp_path):
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "images/b.png")
    names = {"a.png": [(1, [1, 1, 5, 5])], "b.png": [(1, [1, 1, 5, 5])]}
    coco(tmp_path / "annotations/instances_default.json", names, {1: "x"})
    (tmp_path / "annotations/classes.json").write_text('{"x": 1}')
    (tmp_path / "annotations/._instances_default.json").write_bytes(b"\0\5\x16\7")
    data = read(tmp_path)
    assert "left aside, as no detection annotations: annotations/classes.json" in data.report.remarks
    assert sum(map(len, data.splits.values())) == 2


def test_coco_files_of_keypoints_are_read_where_there_are_no_others(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
        coco(
            tmp_path / f"annotations/person_keypoints_{name}_train.json", {f"{name}.png": [(1, [1, 1, 5, 5])]}, {1: "x"}
        )
    (tmp_path / "annotations/person_keypoints_b_train.json").rename(tmp_path / "annotations/person_keypoints_val.json")
    data = read(tmp_path)
    assert [[image.id for image in images] for images in data.splits.values()] == [["a.png"], ["b.png"]]
    coco(
        tmp_path / "annotations/instances_train.json",
        {"a.png": [(1, [2, 1, 5, 5])], "b.png": [(1, [2, 1, 5, 5])]},
        {1: "x"},
    )
    data = read(tmp_path)
    assert sorted(image.annotation.boxes[0, 0] for images in data.splits.values() for image in images) == [2, 2]


@pytest.mark.parametrize("annotations", [None, [], "none"])
def test_coco_a_test_split_without_annotations_is_left_out(tmp_path, annotations):
    for split in ("train", "val", "test"):
        picture(tmp_path / f"images/{split}/a.png")
        coco(tmp_path / f"annotations/{split}.json", {"a.png": [(1, [1, 1, 5, 5])]}, {1: "x"})
    tree = json.loads((tmp_path / "annotations/test.json").read_text()) | {"annotations": annotations}
    tree = {key: value for key, value in tree.items() if value != "none"}
    (tmp_path / "annotations/test.json").write_text(json.dumps(tree))
    data = read(tmp_path)
    assert list(data.splits) == ["train", "val"]
    assert any("the test split is left out" in remark for remark in data.report.remarks)


def test_coco_two_files_of_one_split_want_a_name(tmp_path):
    for name in ("train", "instances_train", "val"):
        picture(tmp_path / f"images/{name}.png")
        coco(tmp_path / f"annotations/{name}.json", {f"{name}.png": [(1, [1, 1, 5, 5])]}, {1: "x"})
    message = r"could be train: \['annotations/instances_train.json', 'annotations/train.json'\]; .*--set data.train="
    with pytest.raises(ValueError, match=message):
        read(tmp_path)
    for name in ("annotations/train.json", "train.json"):
        assert [one.id for one in read(tmp_path, train=name).splits["train"]] == ["train.png"]


def test_coco_the_only_split_is_divided_and_that_is_said(tmp_path):
    for index in range(5):
        picture(tmp_path / f"val2017/{index}.png")
    coco(tmp_path / "annotations/instances_val2017.json", {f"{i}.png": [(1, [1, 1, 5, 5])] for i in range(5)}, {1: "x"})
    data = read(tmp_path)
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 4, "val": 1}
    assert "val2017 is the only split: it is divided into training and validation images" in data.report.remarks


def test_coco_ids_may_be_written_as_text_and_boxes_ignored_by_either_key(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    boxes = [(1, [1, 1, 5, 5], {"image_id": "0", "category_id": "1", "ignore": 1}), (1, [2, 2, 5, 5], {"ignore": 0})]
    coco(tmp_path / "all.json", {"a.png": boxes, "b.png": [(1, [1, 1, 5, 5])]}, {1: "x"})
    ignored = {one.id: one.annotation.ignore.tolist() for images in read(tmp_path).splits.values() for one in images}
    assert ignored == {"a.png": [True, False], "b.png": [False]}


@pytest.mark.parametrize("write", [str, float, lambda key: f"{key}.0"])
def test_coco_ids_of_categories_may_be_written_as_text_and_floats(tmp_path, write):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    coco(tmp_path / "all.json", {f"{name}.png": [(write(2), [1, 1, 5, 5])] for name in "ab"}, {})
    tree = json.loads((tmp_path / "all.json").read_text())
    tree["categories"] = [{"id": write(2), "name": "two"}, {"id": write(1), "name": "one"}]
    (tmp_path / "all.json").write_text(json.dumps(tree))
    data = read(tmp_path)
    assert data.classes == ("one", "two")
    assert [one.annotation.labels.tolist() for images in data.splits.values() for one in images] == [[1], [1]]


@pytest.mark.parametrize("write", [int, str])
def test_coco_ids_of_19_digits_are_not_rounded(tmp_path, write):
    coco(tmp_path / "all.json", {f"{i}.png": [(1, [1 + i, 1, 5, 5])] for i in range(4)}, {1: "x"})
    tree = json.loads((tmp_path / "all.json").read_text())
    for fields, key in [(one, "id") for one in tree["images"]] + [(one, "image_id") for one in tree["annotations"]]:
        fields[key] = write(1537292829197990000 + fields[key])
    (tmp_path / "all.json").write_text(json.dumps(tree))
    for index in range(4):
        picture(tmp_path / f"{index}.png")
    found = {one.id: one.annotation.boxes[0, 0] for images in read(tmp_path).splits.values() for one in images}
    assert found == {"0.png": 1, "1.png": 2, "2.png": 3, "3.png": 4}


def test_coco_pictures_that_are_named_by_an_address_are_found_by_name(tmp_path):
    for name in "ab":
        picture(tmp_path / f"images/{name}.png")
    coco(tmp_path / "all.json", {f"https://some.where/x/{name}.png": [(1, [1, 1, 5, 5])] for name in "ab"}, {1: "x"})
    data = read(tmp_path)
    assert sorted(image.id for images in data.splits.values() for image in images) == ["a.png", "b.png"]


def test_coco_annotations_of_other_images_stop_the_import(tmp_path):
    picture(tmp_path / "a.png")
    coco(tmp_path / "all.json", {"a.png": [(1, [i, 1, 5, 5], {"image_id": i % 2 * 9}) for i in range(8)]}, {1: "x"})
    with pytest.raises(ValueError, match=r"all\.json: 4 of 8 annotations are of images that it does not list"):
        read(tmp_path)


def test_coco_counts_the_masks(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    mask = {"segmentation": [[1, 1, 5, 1, 5, 5]]}
    coco(tmp_path / "all.json", {"a.png": [(1, [1, 1, 5, 5], mask)], "b.png": [(1, [1, 1, 5, 5])]}, {1: "thing"})
    assert any("1 of 2 boxes have a segmentation" in remark for remark in read(tmp_path).report.remarks)


def yolo(root: Path, data_yaml: str, labels: Mapping[str, str | None], images: str = "images/{}") -> None:
    """Labels by ``split/stem``; None writes no label file."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(data_yaml)
    for key, text in labels.items():
        split, stem = key.split("/")
        picture(root / images.format(split) / f"{stem}.png")
        target = root / images.replace("images", "labels").format(split) / f"{stem}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            target.write_text(text)


def test_yolo_reads_boxes_polygons_and_empty_images(tmp_path):
    labels = {
        "train/a": "1 0.5 0.5 0.5 0.2\n0 0.25 0.1 0.75 0.1 0.75 0.9\n",
        "train/empty": "",
        "train/bare": None,
        "val/a": "0 0.5 0.5 1 1\n",
    }
    yolo(tmp_path, "names: [second, ' first ']\nnc: 2\ntrain: images/train\nval: images/val\n", labels)
    data = read(tmp_path, classes=("second", "first "))
    assert data.classes == ("second", "first")
    # 40 x 30 px: centre (20, 15), 20 x 6 px; the polygon spans x 10..30, y 3..27
    np.testing.assert_allclose(boxes(data, "train", "train/a.png"), [[10, 12, 30, 18], [10, 3, 30, 27]], atol=1e-4)
    assert boxes(data, "train", "train/empty.png") == boxes(data, "train", "train/bare.png") == []
    assert any("of 3 pictures, 1 has no label file" in remark for remark in data.report.remarks)
    np.testing.assert_allclose(boxes(data, "val", "val/a.png"), [[0, 0, 40, 30]], atol=1e-4)


@pytest.mark.parametrize(
    ("data_yaml", "images"),
    [
        ("names: {0: thing}\ntrain: images/train\nval: images/val\npath: /somewhere/else/entirely\n", "images/{}"),
        ("names: [thing]\ntrain: ../train/images\nval: ../valid/images\n", "{}/images"),
        ("names: [thing]\npath: sub\ntrain: images/train\nval: images/valid\n", "sub/images/{}"),
        ("names: [thing]\ntrain: [images/train]\nval: images/valid\n", "images/{}"),
    ],
)
def test_yolo_layouts(tmp_path, data_yaml, images):
    val = "valid" if "valid" in data_yaml else "val"
    yolo(tmp_path, data_yaml, {"train/a": "0 .5 .5 .5 .5", f"{val}/b": "0 .5 .5 .5 .5"}, images)
    assert detect(UPath(tmp_path)) == "yolo"
    assert {split: len(images) for split, images in read(tmp_path).splits.items()} == {"train": 1, "val": 1}


def test_yolo_list_files(tmp_path):
    yolo(
        tmp_path,
        "names: [thing]\ntrain: train.txt\nval: lists/val.txt\n",
        {"x/a": "0 .5 .5 .5 .5", "x/b": "0 .5 .5 1 1"},
    )
    (tmp_path / "lists").mkdir()
    (tmp_path / "train.txt").write_text(f"{tmp_path}/images/x/a.png\nimages/x/a.png\n")
    (tmp_path / "lists/val.txt").write_text("images/x/b.png\n")
    data = read(tmp_path)
    assert [image.id for image in data.splits["train"]] == ["x/a.png"]
    assert [image.id for image in data.splits["val"]] == ["x/b.png"]
    assert [drop.reason for drop in data.report.dropped] == ["listed twice"]


def test_voc_counts_pixels_from_one_and_includes_the_last(tmp_path):
    things = [("cat", 1, 1, 40, 30, 0), ("ant", 11, 6, 20.5, 15, 1)]
    voc(tmp_path / "Annotations/a.xml", *things)
    voc(tmp_path / "Annotations/b.xml")
    voc(tmp_path / "Annotations/c.xml", things[0])
    for name in "abc":
        picture(tmp_path / f"JPEGImages/{name}.png")
        (tmp_path / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\n")
    (tmp_path / "ImageSets/Main/val.txt").write_text("b\nc\n")
    data = read(tmp_path)
    assert data.report.format == "voc"
    assert data.classes == ("ant", "cat")
    assert boxes(data, "train", "a.png") == [[0, 0, 40, 30], [10, 5, 20.5, 15]]
    assert data.splits["train"][0].annotation.ignore.tolist() == [False, True]
    assert boxes(data, "val", "b.png") == []


def test_voc_trainval_is_training_data_and_never_what_is_held_out(tmp_path):
    for name in "abcd":
        voc(tmp_path / f"Annotations/{name}.xml", ("cat", 1, 1, 9, 9, 0))
        picture(tmp_path / f"JPEGImages/{name}.png")
    sets = tmp_path / "ImageSets/Main"
    sets.mkdir(parents=True)
    (sets / "trainval.txt").write_text("a\nb\nc\n")
    (sets / "test.txt").write_text("c\nd\n")
    data = read(tmp_path, val_frac=0.5)
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 1, "val": 1, "test": 2}
    assert [drop.reason for drop in data.report.dropped] == ["also in test"]
    assert data.val_is_drawn


def test_voc_sets_have_usual_names_in_any_letter_case(tmp_path):
    for name in "abc":
        voc(tmp_path / f"Annotations/{name}.xml", ("cat", 1, 1, 9, 9, 0))
        picture(tmp_path / f"JPEGImages/{name}.png")
    (tmp_path / "Annotations/._a.xml").write_bytes(b"\0\5\x16\7")
    sets = tmp_path / "ImageSets/Main"
    sets.mkdir(parents=True)
    for name, stem in (("Train", "a"), ("Validation", "b"), ("TEST", "c"), ("cat_train", "c")):
        (sets / f"{name}.txt").write_text(f"{stem}\n")
    data = read(tmp_path)
    assert {split: [one.id for one in images] for split, images in data.splits.items()} == {
        "train": ["a.png"],
        "val": ["b.png"],
        "test": ["c.png"],
    }
    assert data.report.findings == ()


@pytest.mark.parametrize("line", ["{}", "{}  1", "{} -1", "{}.png", "JPEGImages/{}.png", "./JPEGImages/{}.jpg 0"])
def test_voc_sets_with_flags_suffixes_and_folders(tmp_path, line):
    sets = tmp_path / "ImageSets/Main"
    sets.mkdir(parents=True)
    for split, stem in (("train", "a 1"), ("val", "b")):
        voc(tmp_path / f"Annotations/{stem}.xml", ("cat", 1, 1, 9, 9, 0))
        picture(tmp_path / f"JPEGImages/{stem}.png")
        (sets / f"{split}.txt").write_text(line.format(stem) + "\n")
    data = read(tmp_path)
    assert [[one.id for one in images] for images in data.splits.values()] == [["a 1.png"], ["b.png"]]
    assert data.report.findings == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("object>", "Object>"),
        ("bndbox>", "BndBox>"),
        ("xmin>", "XMin>"),
        ("<annotation>", '<annotation xmlns="http://some.where">'),
        ("<object>", "<objects><object>"),
    ],
)
def test_voc_tags_of_other_tools_leave_no_image_empty(tmp_path, old, new):
    for name in "abc":
        voc(tmp_path / f"{name}.xml", ("cat", 2, 3, 9, 9, 0))
        picture(tmp_path / f"{name}.png")
    text = (tmp_path / "a.xml").read_text().replace(old, new)
    text = text.replace("</object>", "</object></objects>") if "<objects>" in text else text
    (tmp_path / "a.xml").write_text(text)
    data = read(tmp_path)
    found = [one.annotation.boxes.tolist() for images in data.splits.values() for one in images]
    assert found == [[[1, 2, 9, 9]]] * 3


@pytest.mark.parametrize("encoding", ["GB2312", "gbk", "Big5", "EUC-KR", "Shift_JIS"])
def test_voc_files_in_encodings_of_several_bytes(tmp_path, encoding):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
        voc(tmp_path / f"{name}.xml", ("\u4eba", 2, 3, 9, 9, 0))
        text = f'<?xml version="1.0" encoding="{encoding}"?>' + (tmp_path / f"{name}.xml").read_text(encoding="utf-8")
        (tmp_path / f"{name}.xml").write_bytes(text.encode(encoding))
    assert read(tmp_path).classes == ("\u4eba",)


def test_voc_files_that_name_another_picture_are_said(tmp_path):
    for name, other in (("a", "b"), ("b", "gone")):
        voc(tmp_path / f"{name}.xml", ("cat", 2, 3, 9, 9, 0), filename=f"{other}.png")
        picture(tmp_path / f"{name}.png")
    (note,) = read(tmp_path).report.noted
    assert (note.file, note.reason) == ("a.xml", "names another picture")


def test_voc_boxes_that_begin_at_pixel_0_are_said(tmp_path):
    voc(tmp_path / "a.xml", ("cat", 0, 3, 9, 9, 0))
    voc(tmp_path / "b.xml", ("cat", 1, 3, 9, 9, 0))
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    data = read(tmp_path)
    assert {tuple(one.annotation.boxes[0]) for images in data.splits.values() for one in images} == {(0, 2, 9, 9)}
    assert any("1 file has boxes that begin at pixel 0, e.g. a.xml" in remark for remark in data.report.remarks)
    assert data.report.findings == ()


CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{meta}
<image id="0" name="a.png" subset="Train" width="40" height="30">
  <box label="b" xtl="1" ytl="2" xbr="11" ybr="22" occluded="0"/>
  <box label="a" xtl="10" ytl="10" xbr="20" ybr="12" rotation="90"/>
  <polygon label="a" points="3,4;9,4;9,20.5"/>
  <ellipse label="a" cx="20" cy="15" rx="4" ry="2"/>
  <mask label="b" rle="1,2" left="5" top="6" width="7" height="8"/>
  <tag label="b"/>
</image>
<image id="1" name="b.png" subset="Train" width="40" height="30"><points label="a" points="1,2"/></image>
<image id="2" name="c.png" subset="Validation" width="40" height="30"><box label="a" xtl="1" ytl="2" xbr="3" ybr="4"/>
</image></annotations>"""


def test_cvat_xml_is_read(tmp_path):
    for name, split in (("a", "Train"), ("b", "Train"), ("c", "Validation")):
        picture(tmp_path / f"images/{split}/{name}.png")
    (tmp_path / "annotations.xml").write_text(CVAT.format(meta=""))
    data = read(tmp_path)
    assert (data.report.format, data.classes) == ("cvat", ("a", "b"))
    assert {split: [one.id for one in images] for split, images in data.splits.items()} == {
        "train": ["Train/a.png"],
        "val": ["Validation/c.png"],
    }
    np.testing.assert_allclose(
        boxes(data, "train", "Train/a.png"),
        [[1, 2, 11, 22], [14, 6, 16, 16], [3, 4, 9, 20.5], [16, 13, 24, 17], [5, 6, 12, 14]],
        atol=1e-5,
    )
    assert [drop.file for drop in data.report.dropped if drop.what == "image"] == ["images/Train/b.png"]  # points
    labels = "<meta><job><labels><label><name> b\n</name></label><label><name>a</name></label></labels></job></meta>"
    (tmp_path / "annotations.xml").write_text(CVAT.format(meta=labels))
    assert read(tmp_path).classes == ("b", "a")
    (tmp_path / "annotations.xml").write_text("<annotations><track id='0' label='a'/></annotations>")
    with pytest.raises(ValueError, match=r"annotations\.xml: CVAT for video is not read; export as"):
        read(tmp_path)


@pytest.mark.parametrize(("xml", "images"), [("annotations", "images"), ("{}", "{}"), (".", ".")])
def test_voc_layouts(tmp_path, xml, images):
    for split, name in (("train", "a"), ("valid", "b")):
        voc(tmp_path / xml.format(split) / f"{name}.xml", ("cat", 1, 1, 9, 9, 0))
        picture(tmp_path / images.format(split) / f"{name}.png")
    assert detect(UPath(tmp_path)) == "voc"
    assert {split: len(images) for split, images in read(tmp_path).splits.items()} == {"train": 1, "val": 1}


def test_voc_pictures_with_other_names_are_found_by_their_file_name(tmp_path):
    for index in (1, 2):
        voc(tmp_path / f"Annotations/{index}.xml", ("cat", 1, 1, 9, 9, 0), filename=f"other{index}.png")
        picture(tmp_path / f"JPEGImages/other{index}.png")
    data = read(tmp_path)
    assert {image.id for images in data.splits.values() for image in images} == {"other1.png", "other2.png"}


def test_sizes_are_those_of_the_upright_picture(tmp_path):
    upright = Image.Exif()
    upright[0x0112] = 6  # to be turned by 90 degrees
    for suffix in ("jpg", "png"):
        (tmp_path / "JPEGImages").mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / f"JPEGImages/{suffix}.{suffix}", exif=upright)
        voc(tmp_path / f"Annotations/{suffix}.xml", ("cat", 1, 1, 9, 39, 0), filename=f"{suffix}.{suffix}")
    data = read(tmp_path)
    for images in data.splits.values():
        assert [(image.width, image.height) for image in images] == [(30, 40)]
        assert images[0].annotation.boxes.tolist() == [[0, 0, 9, 39]]
    assert data.report.to_dict()["noted"] == {"image: size mismatch": 2}


def test_one_file_for_all_is_split_by_the_seed(tmp_path):
    for index in range(20):
        picture(tmp_path / f"images/{index}.png")
    coco(
        tmp_path / "annotations/instances_default.json", {f"{i}.png": [(1, [1, 1, 5, 5])] for i in range(20)}, {1: "x"}
    )
    first, again, other = (read(tmp_path, seed=seed, val_frac=0.25) for seed in (1, 1, 2))
    val = [{image.id for image in data.splits["val"]} for data in (first, again, other)]
    assert len(val[0]) == 5
    assert val[0] == val[1] != val[2]
    assert val[0].isdisjoint(image.id for image in first.splits["train"])
    assert first.val_is_drawn


def test_subsets_are_nested_and_keep_the_order(tmp_path):
    for index in range(30):
        picture(tmp_path / f"images/{index:02d}.png")
    coco(tmp_path / "all.json", {f"{i:02d}.png": [(1, [1, 1, 5, 5])] for i in range(30)}, {1: "x"})
    everything = read(tmp_path).splits["train"]
    small, large = ([image.id for image in read(tmp_path, subset=size).splits["train"]] for size in (5, 12))
    assert len(small) == 5
    assert set(small) < set(large)
    assert large == sorted(large)
    assert {i.id for i in subset(everything, 5, seed=1)} != set(small)
    with pytest.raises(ValueError, match=r"data\.subset: 25 images requested of only 24"):
        read(tmp_path, subset=25)


def test_at_least_one_image_is_held_out_and_one_is_left(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    coco(tmp_path / "all.json", {"a.png": [(1, [1, 1, 5, 5])], "b.png": [(1, [1, 1, 5, 5])]}, {1: "x"})
    data = read(tmp_path, val_frac=0.01)
    assert [len(images) for images in hold_out([*data.splits["train"], *data.splits["val"]], 0.99, 0)] == [1, 1]
    with pytest.raises(ValueError, match="cannot be split"):
        hold_out(data.splits["train"], 0.5, 0)


def test_splits_can_be_named(tmp_path):
    for split in ("train", "spring", "autumn"):
        picture(tmp_path / f"images/{split}/a.png")
        coco(tmp_path / f"annotations/{split}.json", {"a.png": [(1, [1, 1, 5, 5])]}, {1: "x"})
    data = read(tmp_path, train="spring", val="autumn")
    assert [image.id for image in data.splits["train"]] == ["spring/a.png"]
    with pytest.raises(
        ValueError, match=r"data\.val: there is no split 'winter'; found: \['autumn', 'spring', 'train'\]"
    ):
        read(tmp_path, val="winter")


def test_what_no_split_holds_is_remarked_upon(tmp_path):
    for split in ("train", "val", "extra"):
        picture(tmp_path / f"images/{split}/a.png")
        coco(tmp_path / f"annotations/{split}.json", {"a.png": [(1, [1, 1, 5, 5])]}, {1: "x"})
    picture(tmp_path / "images/train/unlabelled.png")
    assert read(tmp_path).report.remarks == (
        "splits that were found but are not used: extra",
        "in images/train, 1 picture is of no split, or without annotation",
    )


def test_other_files_in_the_folder_confuse_nothing(tmp_path):
    for name in "ab":
        voc(tmp_path / f"Annotations/{name}.xml", ("cat", 1, 1, 9, 9, 0))
        picture(tmp_path / f"JPEGImages/{name}.png")
    (tmp_path / "package.json").write_text('{"name": "x"}')
    (tmp_path / "docker.yaml").write_text("services: {}")
    (tmp_path / ".idea").mkdir()
    (tmp_path / ".idea/misc.xml").write_text("<project/>")
    assert read(tmp_path).report.format == "voc"


def test_folders_without_data_say_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"coco: annotations/\*\.json.*yolo: data\.yaml.*voc: Annotations/"):
        read(tmp_path)
    picture(tmp_path / "a.png")
    (tmp_path / "labels").mkdir()
    with pytest.raises(FileNotFoundError, match=r"The folder holds labels/, 1 x \.png"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="no yolo data here"):
        read(tmp_path, format="yolo")
    with pytest.raises(NotADirectoryError):
        read(tmp_path / "nowhere")


def test_folders_with_two_formats_want_a_name(tmp_path):
    picture(tmp_path / "images/train/a.png")
    picture(tmp_path / "images/train/b.png")
    yolo(tmp_path, "names: [thing]\ntrain: images/train\n", {"train/a": "0 .5 .5 .5 .5", "train/b": "0 .5 .5 .5 .5"})
    names = {"a.png": [(1, [1, 1, 5, 5])], "b.png": [(1, [1, 1, 5, 5])]}
    coco(tmp_path / "annotations/train.json", names, {1: "thing"})
    with pytest.raises(ValueError, match=r"could be coco or yolo; say which as data\.format"):
        read(tmp_path)
    assert read(tmp_path, format="coco").report.format == "coco"


def test_a_storage_uri_is_read_like_a_folder(tmp_path):
    root = UPath("memory://formats-test")
    for name in "ab":
        picture(tmp_path / f"{name}.png")
        target = root / "images" / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tmp_path / f"{name}.png").read_bytes())
    coco(tmp_path / "all.json", {"a.png": [(1, [1, 1, 5, 5])], "b.png": [(1, [1, 1, 5, 5])]}, {1: "x"})
    (root / "annotations").mkdir()
    (root / "annotations/all.json").write_bytes((tmp_path / "all.json").read_bytes())
    data = import_data(DataConfig(root=str(root)), root, 0)
    assert {image.uri for images in data.splits.values() for image in images} == {
        "memory://formats-test/images/a.png",
        "memory://formats-test/images/b.png",
    }


ODD_NAMES = ["12:30 x::y.png", "a b.png", "50%.png", "a%20b.png", "what?.png", "x#1.png", "[1].png", "{b}.png"]


def test_odd_file_names_are_read_decoded_and_exported(tmp_path):
    for name in ODD_NAMES:
        picture(tmp_path / "in/images" / name)
    coco(tmp_path / "in/annotations/train.json", {name: [(1, [1, 1, 5, 5])] for name in ODD_NAMES}, {1: "x"})
    data = read(tmp_path / "in")
    images = [one for split in data.splits.values() for one in split]
    assert {one.id for one in images} == set(ODD_NAMES)
    assert validate_images(images) == []
    assert all(read_picture(one.uri).shape == (30, 40, 3) for one in images)
    for fmt in ("coco", "yolo", "voc"):
        export(images, [], data.classes, UPath(tmp_path / fmt), fmt)
        again = read(tmp_path / fmt)
        assert sum(map(len, again.splits.values())) == len(ODD_NAMES)
        assert again.report.findings == ()


def test_bccd_as_its_authors_left_it(real_data):
    data = read(real_data / "bccd")
    assert data.report.format == "voc"
    assert data.classes == ("Platelets", "RBC", "WBC")
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 205, "val": 87, "test": 72}
    assert sum(counts.boxes for counts in data.report.splits.values()) == 4888 - 2
    drops = [(drop.file, drop.what, drop.reason) for drop in data.report.dropped]
    assert drops == [
        ("Annotations/BloodImage_00343.xml", "box", "zero area"),
        ("Annotations/BloodImage_00338.xml", "box", "zero area"),
    ]
    assert data.report.noted == ()


def test_deeppcb(real_data):
    data = read(real_data / "deeppcb", subset=20)
    assert data.classes == ("open", "short", "mousebite", "spur", "copper", "pin-hole")
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 20, "val": 100}
    assert data.report.dropped == ()
    assert data.report.splits["val"].boxes == 653


def test_outlines_without_boxes_are_asked_about(tmp_path):
    outline = {"segmentation": [[1, 1, 20, 1, 20, 20]]}
    found = {f"{number}.png": [(1, None, outline)] for number in range(12)}
    for name in found:
        picture(tmp_path / "train" / name)
    coco(tmp_path / "annotations/train.json", found, {1: "red"})
    with pytest.raises(ValueError, match=r"12 x not a number.* Are there boxes at all, or outlines or masks alone"):
        read(tmp_path)


@pytest.mark.parametrize("inner", ["VOCdevkit/VOC2007", "one"])
def test_data_in_a_folder_below_are_named(tmp_path, inner):
    picture(tmp_path / inner / "JPEGImages/a.png")
    voc(tmp_path / inner / "Annotations/a.xml", ("red", 1, 1, 9, 9, 0))
    with pytest.raises(FileNotFoundError, match=f"{inner} holds voc data: give that folder instead"):
        read(tmp_path)
