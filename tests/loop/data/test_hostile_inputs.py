"""Broken and hostile data: each a clear error that names the file, or a counted drop."""

import json
import math
import os
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from upath import UPath

from actors.images import decode
from actors.images import read as read_picture
from loop.data.boxes import UNREADABLE
from loop.data.config import DataConfig
from loop.data.importing import Dataset, import_data
from loop.data.ledger import ADVICE
from loop.data.validate import PictureError, probe, validate_images

GOOD = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}


def noise(path: Path, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((width, height), 80).convert("RGB").save(path)


def coco_set(
    root: Path, images: list | None = None, annotations: list | None = None, changes: dict | None = None
) -> Path:
    """A sound training image ``good.png`` (id 0) and validation image, and whatever a test adds to train."""
    for split in ("train", "val"):
        noise(root / "images" / split / "good.png")
        tree = {
            "images": [{"id": 0, "file_name": "good.png"}],
            "annotations": [GOOD],
            "categories": [{"id": 1, "name": "thing"}],
        }
        if split == "train":
            tree["images"] = tree["images"] + (images or [])
            tree["annotations"] = tree["annotations"] + (annotations or [])
            tree |= changes or {}
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/{split}.json").write_text(json.dumps(tree))
    return root


def voc_set(root: Path, **files: bytes) -> Path:
    """Two sound images, and the given XML files, each with a picture."""
    for stem in ("good1", "good2", *files):
        noise(root / f"JPEGImages/{stem}.png")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / f"Annotations/{stem}.xml").write_bytes(files.get(stem, voc_xml()))
    return root


def test_aliases_that_stand_for_billions_of_names_are_refused_at_once(tmp_path):
    folds = ["&a0 [x, x, x, x, x, x, x, x, x]", *(f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    lines = "\n".join(f"a{number}: {fold}" for number, fold in enumerate(folds))
    (tmp_path / "data.yaml").write_text(f"{lines}\ntrain: images\nval: images\nnames: *a11\n")
    with pytest.raises(ValueError, match=r"data\.yaml: not readable as YAML: its aliases stand for .* values"):
        import_data(DataConfig(root=str(tmp_path), format="yolo"), UPath(tmp_path), 0)


def voc_xml(corners: tuple = (2, 2, 9, 9), name: str = "thing", head: str = "", filename: str = "x.png") -> bytes:
    tags = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return (
        f"{head}<annotation><filename>{filename}</filename><object><name>{name}</name><bndbox>{tags}</bndbox></object>"
        "</annotation>"
    ).encode()


def yolo_set(root: Path, label: bytes) -> Path:
    (root / "data.yaml").write_text("names: [thing]\ntrain: images/train\nval: images/val\n")
    for split, stem, text in (
        ("train", "good", b"0 .5 .5 .5 .5"),
        ("train", "bad", label),
        ("val", "v", b"0 .5 .5 1 1"),
    ):
        noise(root / f"images/{split}/{stem}.png")
        (root / f"labels/{split}").mkdir(parents=True, exist_ok=True)
        (root / f"labels/{split}/{stem}.txt").write_bytes(text)
    return root


def read(root: Path, **config) -> Dataset:
    return import_data(DataConfig(root=str(root), **config), UPath(root), 0)


def drops(data: Dataset) -> list[tuple[str, str, str]]:
    return [(drop.file, drop.what, drop.reason) for drop in data.report.dropped]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [1, 1, 0, 5]}, "zero area"),
        ({"bbox": [1, 1, 5, -5]}, "negative size"),
        ({"bbox": [64, 1, 5, 5]}, "outside the image"),
        ({"bbox": [-9, -9, 5, 5]}, "outside the image"),
        ({"bbox": [1, math.nan, 5, 5]}, "not a number"),
        ({"bbox": [1, 1, math.inf, 5]}, "not a number"),
        ({"bbox": [1, 1, 10**400, 5]}, "not a number"),
        ({"bbox": [1, 1, 5]}, "not a number"),
        ({"bbox": None}, "not a number"),
        ({"bbox": [1, 1, "wide", 5]}, "not a number"),
        ({"category_id": 9}, "unknown class"),
        ({"category_id": [1]}, "unknown class"),
        ({"image_id": 77}, "unknown image"),
        ({"image_id": [0]}, "unknown image"),
    ],
)
def test_bad_coco_boxes_are_counted_and_never_leave_an_object_unlabelled(tmp_path, change, reason):
    bad = {"image_id": 1, "id": 3} | change
    root = coco_set(tmp_path, [{"id": 1, "file_name": "b.png"}], [GOOD | {"id": 2, "image_id": 1}, GOOD | bad])
    noise(root / "images/train/b.png")
    data = read(root)
    lost = [("images/train/b.png", "image", "faulty boxes")] if reason in UNREADABLE else []
    assert drops(data) == [("annotations/train.json", "box", reason), *lost]
    assert data.report.splits["train"].boxes == 2 - len(lost)
    assert f"1 x box: {reason} ({ADVICE[reason]})" in str(data.report)
    assert data.report.to_dict()["dropped"][f"box: {reason}"] == 1
    json.dumps(data.report.to_dict())


@pytest.mark.parametrize("corners", [[1, 1, 0, 5], [64, 1, 5, 5]])
def test_an_image_that_lost_all_its_boxes_is_no_empty_one(tmp_path, corners):
    root = coco_set(tmp_path, [{"id": 1, "file_name": "b.png"}], [GOOD | {"image_id": 1, "bbox": corners}])
    noise(root / "images/train/b.png")
    data = read(root)
    assert [image.id for image in data.splits["train"]] == ["train/good.png"]
    assert drops(data)[1:] == [("images/train/b.png", "image", "no box left")]


@pytest.mark.parametrize(
    ("copies", "masks"), [([{}], ("",)), ([{"segmentation": [[1, 1, 5, 1, 5, 5]]}], None), ([{}, {}], ("",))]
)
def test_of_equal_boxes_one_is_used_and_the_others_are_counted(tmp_path, copies, masks):
    data = read(coco_set(tmp_path, annotations=[GOOD | {"id": 2 + i} | copy for i, copy in enumerate(copies)]))
    (image,) = data.splits["train"]
    assert len(image.annotation) == 1
    assert bool(image.masks) == (masks is None)  # the copy with a mask is kept
    assert drops(data) == [("annotations/train.json", "box", "exact duplicate")] * len(copies)


def test_equal_boxes_of_other_classes_are_no_copies(tmp_path):
    categories = [{"id": 1, "name": "thing"}, {"id": 2, "name": "part"}]
    data = read(coco_set(tmp_path, annotations=[GOOD | {"category_id": 2}], changes={"categories": categories}))
    assert len(data.splits["train"][0].annotation) == 2
    assert drops(data) == []


def many(boxes: list, number: int = 24) -> tuple[list, list]:
    """Images of 64x48 px, ``m0.png`` and so on, with one of the boxes each."""
    images = [{"id": 10 + i, "file_name": f"m{i}.png"} for i in range(number)]
    return images, [{**GOOD, "id": 10 + i, "image_id": 10 + i, **boxes[i % len(boxes)]} for i in range(number)]


CORNERS = [(3, 4, 20, 22), (40, 5, 60, 25), (30, 22, 50, 44), (5, 25, 25, 45), (35, 2, 62, 30)]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([list(box) for box in CORNERS], r"Are they x1, y1, x2, y2 in px instead"),
        (
            [[x0 / 64, y0 / 48, (x1 - x0) / 64, (y1 - y0) / 48] for x0, y0, x1, y1 in CORNERS],
            "Are they x, y, width, height in shares from 0 to 1",
        ),
        (
            [[x0 / 64 * 1000, y0 / 48 * 1000, x1 / 64 * 1000, y1 / 48 * 1000] for x0, y0, x1, y1 in CORNERS],
            "Are they x1, y1, x2, y2 in thousandths",
        ),
        ([[(a + c) / 2, (b + d) / 2, c - a, d - b] for a, b, c, d in CORNERS], "Are they centre x, centre y"),
        ([[40, 30, 3000, 2500]], "are they of these images, in this size"),
        ([[1, 1, 5, 5]] * 9 + [[1, 1, -5, 5]], r"4 x negative size\. They should be x, y, width, height in px"),
    ],
)
def test_many_faulty_boxes_stop_the_import_with_a_question(tmp_path, boxes, message):
    number = 40 if "negative" in message else 24
    root = coco_set(tmp_path, *many([{"bbox": box} for box in boxes], number))
    for index in range(number):
        noise(root / f"images/train/m{index}.png")
    with pytest.raises(ValueError, match=message) as error:
        read(root)
    assert "train.json, annotation 1" in str(error.value)
    assert "data.max_faulty_frac (now 0.05" in str(error.value)
    if "negative" in message:
        assert len(read(root, max_faulty_frac=0.1).splits["train"]) == 37


def test_boxes_of_classes_that_are_not_listed_stop_the_import_with_a_question(tmp_path):
    root = coco_set(tmp_path, *many([{}, {"category_id": 7}]))
    for index in range(24):
        noise(root / f"images/train/m{index}.png")
    with pytest.raises(ValueError, match=r"12 x unknown class\. Is the list of classes complete"):
        read(root)


def test_yolo_boxes_in_pixels_stop_the_import_with_a_question(tmp_path):
    boxes = [(a + i, b, c, d) for i in range(3) for a, b, c, d in CORNERS]
    lines = "".join(f"0 {(a + c) / 2} {(b + d) / 2} {c - a} {d - b}\n" for a, b, c, d in boxes)
    with pytest.raises(ValueError, match="Are they centre x, centre y, width, height in px instead"):
        read(yolo_set(tmp_path, lines.encode()))


def test_voc_boxes_with_width_and_height_stop_the_import_with_a_question(tmp_path):
    files = {f"f{i}": voc_xml((40, 30, 10 + i, 9 + i)) for i in range(6)}
    with pytest.raises(ValueError, match="Are they x, y, width, height in px instead"):
        read(voc_set(tmp_path, **files))


def test_boxes_that_stick_out_are_cut_and_counted(tmp_path):
    data = read(coco_set(tmp_path, annotations=[GOOD | {"id": 2, "bbox": [60, -4, 10, 10]}]))
    assert data.splits["train"][0].annotation.boxes.tolist()[1] == [60, 0, 64, 6]
    assert [note.reason for note in data.report.noted] == ["clipped at the image border"]
    assert drops(data) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "unreadable file"),
        (b"this is no picture", "unreadable file"),
        ("cut jpeg", "unreadable file"),
        ("cut png", "unreadable file"),
        ("bomb", "too many pixels"),
        ("giant bomb", "too many pixels"),
        (None, "missing image"),
    ],
)
def test_bad_pictures_are_counted_drops(tmp_path, content, reason):
    coco_set(tmp_path, images=[{"id": 1, "file_name": "bad.jpg"}], annotations=[GOOD | {"id": 2, "image_id": 1}])
    if content is not None:
        data = made(content, tmp_path) if isinstance(content, str) else content
        (tmp_path / "images/train/bad.jpg").write_bytes(data)
    data = read(tmp_path)
    file = "annotations/train.json" if content is None else "images/train/bad.jpg"
    assert drops(data) == [(file, "image", reason)]
    assert [image.id for image in data.splits["train"]] == ["train/good.png"]


def test_pictures_are_refused_alike_after_ultralytics_replaced_image_open(tmp_path):
    import ultralytics  # noqa: F401 - its import puts an Image.open in place that asks for HEIF support

    assert Image.open.__module__.startswith("ultralytics")
    (tmp_path / "bad.jpg").write_bytes(b"this is no picture")
    with pytest.raises(PictureError, match="unreadable file"):
        probe(UPath(tmp_path / "bad.jpg"))
    with pytest.raises(ValueError, match="not a readable picture"):
        decode(b"this is no picture", "bad.jpg")


def made(what: str, folder: Path) -> bytes:
    if what.startswith("cut"):
        path = folder / f"whole.{what.split()[1]}"
        noise(path)
        return path.read_bytes()[:-200]
    side = 10_000 if what == "bomb" else 40_000  # 100 megapixels; PIL itself refuses the 1600
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    chunk = (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\x00\x00\x00\x00IDAT" + b"\x00" * 4 + b"\x00\x00\x00\x00IEND"


def test_broken_pixels_behind_a_sound_header_and_end_are_found_by_validation(tmp_path):
    coco_set(tmp_path, images=[{"id": 1, "file_name": "bad.png"}])
    bad = tmp_path / "images/train/bad.png"
    noise(bad)
    data = bad.read_bytes()
    bad.write_bytes(data[:100] + bytes(200) + data[300:])
    images = read(tmp_path).splits["train"]
    assert [finding.file for finding in validate_images(images)] == [images[1].uri]


FRAMES = {"annotated": ((128, 96), [70, 50, 40, 40]), "image": ((32, 24), [40, 30, 20, 10])}
"""An annotated size for a picture of 64x48 px, and a box that fits one of the two frames only."""


@pytest.mark.parametrize(("frame", "box"), [("annotated", [35, 25, 55, 45]), ("image", [40, 30, 60, 40])])
def test_boxes_of_a_resized_picture_are_scaled_where_the_boxes_tell(tmp_path, frame, box):
    (width, height), corners = FRAMES[frame]
    image = {"id": 1, "file_name": "b.png", "width": width, "height": height}
    root = coco_set(tmp_path, [image], [GOOD | {"image_id": 1, "bbox": corners, "id": 2}])
    noise(root / "images/train/b.png")
    data = read(root)
    assert data.splits["train"][1].annotation.boxes.tolist() == [box]
    reason = "boxes moved into the image" if frame == "annotated" else "size mismatch"
    assert [(note.file, note.reason) for note in data.report.noted] == [("images/train/b.png", reason)]


@pytest.mark.parametrize("size", [(128, 96), (100, 48), (48, 64)])
def test_an_image_whose_size_disagrees_is_left_out_where_nothing_tells_how_to_move_its_boxes(tmp_path, size):
    image = {"id": 1, "file_name": "b.png", "width": size[0], "height": size[1]}
    root = coco_set(tmp_path, [image], [GOOD | {"image_id": 1, "id": 2}])
    noise(root / "images/train/b.png")
    assert drops(read(root)) == [("images/train/b.png", "image", "size mismatch")]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_boxes_of_the_stored_picture_are_turned_with_it(tmp_path, orientation, suffix):
    """A red square in the lower right corner of 64x48 stored px; its box is on it after the import."""
    pixels = np.full((48, 64, 3), 90, np.uint8)
    pixels[30:46, 44:62] = 255, 0, 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    images, annotations = [], []
    for index, lying in enumerate((orientation, 6)):  # 6 tells by its size that the set is of stored pictures
        exif[0x0112] = lying
        images.append({"id": index + 1, "file_name": f"{index}.{suffix}", "width": 64, "height": 48})
        annotations.append(GOOD | {"id": index + 2, "image_id": index + 1, "bbox": [44, 30, 18, 16]})
        coco_set(tmp_path)
        options = {"quality": 100} if suffix in {"jpg", "webp"} else {}
        Image.fromarray(pixels).save(tmp_path / f"images/train/{index}.{suffix}", exif=exif, **options)
    coco_set(tmp_path, images, annotations)
    data = read(tmp_path)
    for image in data.splits["train"][1:]:
        x0, y0, x1, y1 = image.annotation.boxes[0].astype(int)
        upright = read_picture(image.uri).astype(int)
        assert upright.shape[:2] == (image.height, image.width)
        inner = upright[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2]
        assert (inner[..., 0] - inner[..., 1] > 100).all()
        assert (x1 - x0) * (y1 - y0) == 18 * 16
    assert len(data.splits["train"]) == 3


def test_a_png_may_have_its_orientation_behind_its_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    (tmp_path / "late.png").write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])
    header = probe(UPath(tmp_path / "late.png"))
    assert (header.width, header.height, header.orientation) == (48, 64, 6)


@pytest.mark.parametrize(
    "name",
    [
        "../../secret.png",
        "/etc/passwd",
        "a/../../../b.png",
        "..\\secret.png",
        "C:\\secret.png",
        "\\\\host\\x.png",
        "a\0b",
    ],
)
def test_file_names_that_leave_the_folder_open_nothing_outside_it(tmp_path, name):
    noise(tmp_path / "secret.png")
    data = read(coco_set(tmp_path / "data", images=[{"id": 1, "file_name": name}]))
    assert drops(data) == [("annotations/train.json", "image", "missing image")]


FOREIGN = ["/home/u/shots/a.png", "C:\\Users\\u\\a.png", "..\\..\\upload\\4\\a.png", "other/A.PNG"]


@pytest.mark.parametrize("name", FOREIGN)
def test_pictures_named_by_another_machine_are_found_by_their_name_if_it_is_there_once(tmp_path, name):
    root = coco_set(tmp_path, [{"id": 1, "file_name": name}], [GOOD | {"id": 2, "image_id": 1}])
    noise(root / "deep/down/a.png")
    data = read(root)
    assert [image.uri for image in data.splits["train"]][1:] == [str(root / "deep/down/a.png")]
    assert any("1 picture is not where the annotations say" in remark for remark in data.report.remarks)
    noise(root / "deep/a.png")
    data = read(root)
    assert drops(data) == [("annotations/train.json", "image", "ambiguous file name")]
    assert "deep/a.png and deep/down/a.png" in data.report.dropped[0].detail


def test_of_two_pictures_of_one_name_the_folders_above_tell(tmp_path):
    root = coco_set(tmp_path, [{"id": 1, "file_name": "/home/u/x/down/a.png"}])
    noise(root / "deep/down/a.png")
    noise(root / "deep/a.png")
    assert read(root).splits["train"][1].uri == str(root / "deep/down/a.png")


def test_a_picture_of_another_annotation_is_not_taken_for_a_missing_one(tmp_path):
    root = coco_set(tmp_path, [{"id": 1, "file_name": "a.png"}], [GOOD | {"id": 2, "image_id": 1}])
    noise(root / "images/val/a.png")
    tree = json.loads((root / "annotations/val.json").read_text())
    tree["images"].append({"id": 1, "file_name": "a.png"})
    (root / "annotations/val.json").write_text(json.dumps(tree))
    assert drops(read(root)) == [("annotations/train.json", "image", "missing image")]


def test_two_annotations_do_not_share_a_picture_of_their_name(tmp_path):
    root = coco_set(tmp_path, [{"id": i, "file_name": f"/upload/{i}/a.png"} for i in (1, 2)])
    noise(root / "a.png")
    assert drops(read(root)) == [("annotations/train.json", "image", "ambiguous file name")] * 2


def test_names_in_another_unicode_normal_form_are_found(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Müllé한글.png") for form in ("NFC", "NFD"))
    root = coco_set(tmp_path, [{"id": 1, "file_name": composed}])
    noise(root / "images/train" / decomposed)
    noise(root / "images/val" / decomposed)  # of the same name: the usual places tell
    assert [image.id for image in read(root).splits["train"]][1:] == [f"train/{decomposed}"]


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_what_is_no_regular_file_is_dropped_and_never_opened(tmp_path, make):
    root = coco_set(tmp_path, [{"id": 1, "file_name": "pipe.png"}])
    make(root / "images/train/pipe.png")
    data = read(root)
    assert drops(data) == [("images/train/pipe.png", "image", "unreadable file")]


def test_an_annotation_that_is_a_pipe_is_refused(tmp_path):
    root = coco_set(tmp_path)
    (root / "annotations/train.json").unlink()
    os.mkfifo(root / "annotations/train.json")
    with pytest.raises(ValueError, match=r"train\.json: not a regular file"):
        read(root)


@pytest.mark.parametrize("name", ["pixels.tif", "12bit.png", "cut.tif", "cut.bmp", "cut.webp"])
def test_pictures_that_cannot_be_decoded_are_known_at_the_import(tmp_path, name):
    root = coco_set(tmp_path, [{"id": 1, "file_name": name}])
    file = root / "images/train" / name
    if name == "pixels.tif":
        Image.fromarray(np.zeros((48, 64), np.float32)).save(file)
    elif name == "12bit.png":
        Image.fromarray(np.full((48, 64), 4095, np.uint16)).save(file)
    else:
        noise(file)
        file.write_bytes(file.read_bytes()[:-500])
    assert drops(read(root)) == [(f"images/train/{name}", "image", "unreadable file")]


def test_links_out_of_the_root_are_refused_and_links_within_are_not(tmp_path):
    noise(tmp_path / "secret.png")
    root = coco_set(tmp_path / "data", images=[{"id": 1, "file_name": "link.png"}])
    link = root / "images/train/link.png"
    link.symlink_to(root / "images/val/good.png")
    assert len(read(root).splits["train"]) == 2
    link.unlink()
    link.symlink_to(tmp_path / "secret.png")
    with pytest.raises(ValueError, match=r"link\.png is a link to .*secret\.png, outside .* data\.follow_links=true"):
        read(root)
    assert len(read(root, follow_links=True).splits["train"]) == 2


def test_linked_folders_are_entered_on_request_only(tmp_path):
    root = voc_set(tmp_path / "data")
    (root / "JPEGImages").rename(tmp_path / "store")
    (root / "JPEGImages").symlink_to(tmp_path / "store")
    (tmp_path / "store/again").symlink_to(tmp_path / "store")  # a loop
    with pytest.raises(ValueError, match=r"link to .*store.*, outside .* data\.follow_links=true"):
        read(root)
    data = read(root, follow_links=True)
    assert {image.id for images in data.splits.values() for image in images} == {"good1.png", "good2.png"}


@pytest.mark.parametrize("name", ["../x.png", "/home/somebody/x.png", "C:\\data\\x.jpg"])
def test_voc_pictures_are_found_by_their_stem_whatever_their_file_name(tmp_path, name):
    data = read(voc_set(tmp_path, bad=voc_xml(filename=name)))
    assert drops(data) == []
    assert "bad.png" in {image.id for images in data.splits.values() for image in images}


def test_voc_set_files_and_yolo_lists_that_leave_the_folder_are_refused(tmp_path):
    voc_set(tmp_path / "voc")
    (tmp_path / "voc/ImageSets/Main").mkdir(parents=True)
    (tmp_path / "voc/ImageSets/Main/train.txt").write_text("../../../secret\n")
    with pytest.raises(ValueError, match=r"train\.txt: file name '../../../secret' leaves"):
        read(tmp_path / "voc")
    (tmp_path / "yolo").mkdir()
    yolo_set(tmp_path / "yolo", b"")
    (tmp_path / "yolo/data.yaml").write_text("names: [thing]\ntrain: list.txt\nval: images/val\n")
    (tmp_path / "yolo/list.txt").write_text("images/train/good.png\n/etc/secret.png\n../../secret.png\n")
    noise(tmp_path / "secret.png")
    lost = [drop.detail for drop in read(tmp_path / "yolo").report.dropped]
    assert lost == ["looked for etc/secret.png", "looked for secret.png"]  # below the root
    (tmp_path / "yolo/data.yaml").write_text("names: [thing]\ntrain: /etc\nval: images/val\n")
    with pytest.raises(FileNotFoundError, match=r"data\.yaml, train: '/etc' is not there"):
        read(tmp_path / "yolo")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [{"id": 0, "file_name": "good.png"}, {"id": 0, "file_name": "b.png"}]}, "two images have the id 0"),
        (
            {"images": [{"id": 0, "file_name": "good.png"}, {"id": 1, "file_name": "good.png"}]},
            "have the file name 'good.png'",
        ),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "two categories have the id 1"),
        ({"categories": [{"name": "a"}]}, "needs an integer 'id'"),
        ({"categories": [{"id": 1, "name": "a\nb"}]}, r"train\.json: class name 'a\\nb' has a line break"),
        ({"annotations": None}, "no list 'annotations'"),
        ({"images": "many"}, "no list 'images'"),
        ({"images": []}, "no usable image is left in train"),
        ({"annotations": []}, "no usable box is left in train"),
    ],
)
def test_coco_files_that_contradict_themselves_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read(coco_set(tmp_path, changes=change))


def test_repeated_annotation_ids_lose_no_box(tmp_path):
    data = read(coco_set(tmp_path, annotations=[GOOD | {"bbox": [2, 2, 5, 5]}]))
    assert data.report.splits["train"].boxes == 2
    assert any("1 annotation id is used again" in remark for remark in data.report.remarks)


def test_categories_of_one_name_are_joined(tmp_path):
    twice = [{"id": 1, "name": "thing"}, {"id": 2, "name": "thing"}]
    second = GOOD | {"category_id": 2, "bbox": [2, 2, 5, 5]}
    data = read(coco_set(tmp_path, annotations=[second], changes={"categories": twice}))
    assert data.classes == ("thing",)
    assert any("2 categories are called 'thing'" in remark for remark in data.report.remarks)


@pytest.mark.parametrize("content", [b"", b'{"images": [', b"\xff\xfe\xfa", b"[" * 100_000, b"[1, 2]"])
def test_broken_json_names_the_file(tmp_path, content):
    coco_set(tmp_path)
    (tmp_path / "annotations/train.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"annotations/train\.json"):
        read(tmp_path)


@pytest.mark.parametrize(
    "xml",
    [
        b"",
        b"<annotation><object>",
        b"no xml",
        b"\xff\xfe\x00",
        voc_xml(head='<?xml version="1.0" encoding="no-such-encoding"?>'),
        voc_xml(head='<!DOCTYPE a [<!ENTITY x "boom">]>', name="&x;"),
        voc_xml(head='<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>', name="&x;"),
        ('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY x "y">]><annotation/>').encode("utf-16"),
    ],
)
def test_xml_that_is_broken_or_defines_entities_drops_its_image(tmp_path, xml):
    data = read(voc_set(tmp_path, bad=xml))
    assert drops(data) == [("Annotations/bad.xml", "image", "unreadable annotation")]
    assert data.classes == ("thing",)


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (voc_xml((5, 5, 5, 5)), "zero area"),
        (voc_xml((9, 5, 5, 9)), "negative size"),
        (voc_xml(("nan", 2, 9, 9)), "not a number"),
        (voc_xml(("", 2, 9, 9)), "not a number"),
        (voc_xml((70, 2, 90, 9)), "outside the image"),
        (voc_xml(name=""), "unknown class"),
    ],
)
def test_bad_voc_boxes_are_counted_drops(tmp_path, xml, reason):
    image = "faulty boxes" if reason in UNREADABLE else "no box left"
    assert drops(read(voc_set(tmp_path, bad=xml))) == [
        ("Annotations/bad.xml", "box", reason),
        ("JPEGImages/bad.png", "image", image),
    ]


def test_line_breaks_in_class_names_of_xml_name_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"Annotations/bad\.xml: class name 'a\\nb' has a line break"):
        read(voc_set(tmp_path / "voc", bad=voc_xml(name=" a\nb ")))
    shape = "<box label='{}' xtl='1' ytl='1' xbr='9' ybr='9'/>"
    text = f"<annotations><image name='a.png'>{shape.format('a&#10;b')}</image></annotations>"
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(ValueError, match=r"/annotations\.xml: class name 'a\\nb' has a line break"):
        read(tmp_path)


def test_voc_images_and_annotations_without_their_other_half_are_counted(tmp_path):
    voc_set(tmp_path, alone=voc_xml(filename="alone.png"))
    (tmp_path / "JPEGImages/alone.png").unlink()
    noise(tmp_path / "JPEGImages/unlabelled.png")
    assert set(drops(read(tmp_path))) == {
        ("Annotations/alone.xml", "image", "missing image"),
        ("Annotations/unlabelled.xml", "image", "missing annotation"),
    }


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (b"1 .5 .5 .5 .5", "unknown class"),
        (b"-1 .5 .5 .5 .5", "unknown class"),
        (b"0.5 .5 .5 .5 .5", "unknown class"),
        (b"thing .5 .5 .5 .5", "unknown class"),
        (b"0 .5 .5 nan .5", "not a number"),
        (b"0 .5 .5 .5", "not a number"),
        (b"0 .5 .5 0 .5", "zero area"),
        (b"0 .5 .5 -.5 .5", "negative size"),
        (b"0 1.5 .5 .5 .5", "outside the image"),
    ],
)
def test_bad_yolo_boxes_are_counted_drops(tmp_path, label, reason):
    image = "faulty boxes" if reason in UNREADABLE else "no box left"
    assert drops(read(yolo_set(tmp_path, label))) == [
        ("labels/train/bad.txt", "box", reason),
        ("images/train/bad.png", "image", image),
    ]


def test_label_files_that_are_no_text_drop_their_image(tmp_path):
    data = read(yolo_set(tmp_path, b"0 .5 .5 .5 .5 \xff\xfe"))
    assert drops(data) == [("labels/train/bad.txt", "image", "unreadable annotation")]


def test_label_files_without_a_picture_are_counted(tmp_path):
    yolo_set(tmp_path, b"")
    (tmp_path / "labels/train/orphan.txt").write_text("0 .5 .5 .5 .5")
    assert drops(read(tmp_path)) == [("labels/train/orphan.txt", "image", "missing image")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a", "not readable as YAML"),
        ("just text", "holds str"),
        ("train: images/train\nval: images/val", "the class names are not known"),
        ("names: {1: a, 2: b}\ntrain: images/train", "the keys of 'names' must be 0 to 1"),
        ("names: [a, a]\ntrain: images/train", "a class is named twice"),
        ("names: [a, ' a ']\ntrain: images/train", "a class is named twice"),
        ("names: [a, ' ']\ntrain: images/train", "' ' in it is none"),
        (
            'names: ["a\\tb"]\ntrain: images/train',
            r"data\.yaml: class name 'a\\tb' has a line break or control character",
        ),
        ("names: [a]\nval: images/val\ntest: images/val", "no training split"),
    ],
)
def test_data_yaml_that_cannot_be_used_is_refused(tmp_path, text, message):
    yolo_set(tmp_path, b"")
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_splits_that_are_not_there_are_refused(tmp_path):
    yolo_set(tmp_path, b"")
    (tmp_path / "data.yaml").write_text("names: [thing]\ntrain: images/nowhere\n")
    with pytest.raises(FileNotFoundError, match="'images/nowhere' is not there"):
        read(tmp_path)


def test_pictures_without_any_label_file_are_no_data_set_of_empty_images(tmp_path):
    yolo_set(tmp_path, b"")
    for file in (tmp_path / "labels/train").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="none of 2 pictures has a label file"):
        read(tmp_path)


def test_an_image_in_two_splits_stays_held_out(tmp_path):
    yolo_set(tmp_path, b"0 .5 .5 .5 .5")
    (tmp_path / "data.yaml").write_text("names: [thing]\ntrain: images\nval: images/val\n")
    data = read(tmp_path)
    assert drops(data) == [("images/val/v.png", "image", "also in val")]
    assert [image.id for image in data.splits["val"]] == ["val/v.png"]
