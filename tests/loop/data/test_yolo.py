"""YOLO folders as tools and people leave them: which rows are boxes, and where pictures, labels and names lie."""

import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from upath import UPath

from loop.data.config import DataConfig
from loop.data.formats import detect
from loop.data.importing import Dataset, import_data

NAMES = "names: [red, blue]\n"
WIDTH, HEIGHT = 40, 30
Rows = Callable[[np.random.Generator], list[float]]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def read(root: Path, **config) -> Dataset:
    return import_data(DataConfig(root=str(root), **config), UPath(root), 0)


def counts(data: Dataset) -> dict[str, int]:
    return {split: len(images) for split, images in data.splits.items()}


def remarks(data: Dataset) -> str:
    return "\n".join(data.report.remarks)


def place(rng: np.random.Generator) -> list[float]:
    """``cx cy width height`` of a box inside the image."""
    size = rng.uniform(0.1, 0.5, 2)
    return [*rng.uniform(size / 2, 1 - size / 2), *size]


def keypoints(rng: np.random.Generator, number: int, size: int) -> list[float]:
    """A box with keypoints in it, some of them not in the picture."""
    cx, cy, width, height = place(rng)
    row = [cx, cy, width, height]
    for _ in range(number):
        seen = rng.random() > 0.2
        x, y = (cx + rng.uniform(-0.5, 0.5) * width, cy + rng.uniform(-0.5, 0.5) * height) if seen else (0.0, 0.0)
        row += [x, y, 2.0 * seen][:size]
    return row


def corners(rng: np.random.Generator) -> list[float]:
    """The four corners of an oriented box."""
    cx, cy, width, height = place(rng)
    turn = rng.uniform(0, np.pi)
    along = np.array([np.cos(turn), np.sin(turn)]) * width / 3
    across = np.array([-np.sin(turn), np.cos(turn)]) * height / 3
    points = [(cx, cy) + a * along + b * across for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return np.clip(points, 0, 1).ravel().tolist()


def outline(rng: np.random.Generator, number: int) -> list[float]:
    cx, cy, width, height = place(rng)
    angles = np.linspace(0, 2 * np.pi, number, endpoint=False)
    return np.stack([cx + width / 2 * np.cos(angles), cy + height / 2 * np.sin(angles)], axis=1).ravel().tolist()


def bounds(row: list[float]) -> list[float]:
    return [min(row[::2]), min(row[1::2]), max(row[::2]), max(row[1::2])]


def box(row: list[float]) -> list[float]:
    cx, cy, width, height = row[:4]
    return [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]


def rows_of(root: Path, rows: list[list[float]], data_yaml: str = "") -> Path:
    """One picture for each row, and a validation picture."""
    write(root / "data.yaml", f"{NAMES}train: images/train\nval: images/val\n{data_yaml}")
    for index, row in enumerate(rows):
        picture(root / f"images/train/{index:03}.png")
        write(root / f"labels/train/{index:03}.txt", f"1 {' '.join(f'{value:.6f}' for value in row)}\n")
    picture(root / "images/val/v.png")
    write(root / "labels/val/v.txt", "0 .5 .5 .5 .5\n")
    return root


def assert_boxes(data: Dataset, expected: list[list[float]]) -> None:
    """``expected`` in fractions of the image's sides."""
    found = [image.annotation.boxes for image in data.splits["train"]]
    wanted = np.clip(expected, 0, 1) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
    np.testing.assert_allclose(np.concatenate(found), wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("row", "meaning"),
    [
        (lambda rng: keypoints(rng, 4, 2), box),
        (lambda rng: keypoints(rng, 5, 3), box),
        (lambda rng: keypoints(rng, 17, 3), box),
        (lambda rng: [*place(rng), rng.random()], box),  # confidence
        (lambda rng: [*place(rng), rng.random(), float(rng.integers(1, 99))], box),  # confidence and track id
        (corners, bounds),
        (lambda rng: [*corners(rng), rng.random()], lambda row: bounds(row[:8])),
        (lambda rng: outline(rng, 6), bounds),
        (lambda rng: outline(rng, int(rng.integers(3, 30))), bounds),
        (lambda rng: [*outline(rng, int(rng.integers(3, 30))), rng.random()], lambda row: bounds(row[:-1])),
    ],
)
def test_long_rows_are_read_by_what_fits_all_of_them(tmp_path, row: Rows, meaning):
    rng = np.random.default_rng(0)
    rows = [row(rng) for _ in range(30)]
    data = read(rows_of(tmp_path, rows))
    assert_boxes(data, [meaning(one) for one in rows])
    assert "30 of 31 label rows" in remarks(data)


@pytest.mark.parametrize(("number", "size"), [(1, 2), (2, 2), (4, 2), (17, 3)])
def test_the_shape_of_keypoints_decides(tmp_path, number, size):
    rng = np.random.default_rng(0)
    rows = [keypoints(rng, number, size) for _ in range(8)]
    rows[0] += [0.9]  # a confidence
    assert_boxes(read(rows_of(tmp_path, rows, f"kpt_shape: [{number}, {size}]")), [box(row) for row in rows])


def test_rows_that_could_be_either_are_asked_about_and_a_key_answers(tmp_path):
    """A triangle with this first corner and this second one is also a box of that size with one keypoint."""
    rows = [[0.5, 0.5, 0.4, 0.3, 0.55, 0.45 + index / 100] for index in range(8)]
    rows_of(tmp_path, rows)
    with pytest.raises(ValueError, match=r"8 label rows have 7 columns\. Are they boxes .* or polygons\?"):
        read(tmp_path)
    assert_boxes(read(tmp_path, yolo_rows="box"), [box(row) for row in rows])
    assert_boxes(read(tmp_path, yolo_rows="polygon"), [bounds(row) for row in rows])


def test_names_that_yaml_reads_as_truth_values_are_refused(tmp_path):
    rows_of(tmp_path, [[0.5, 0.5, 0.4, 0.3]])
    (tmp_path / "data.yaml").write_text("names: [yes, no]\ntrain: images/train\nval: images/val\n")
    with pytest.raises(ValueError, match="True in it is none; put names in quotes"):
        read(tmp_path)


def test_a_confidence_before_the_box_is_asked_about_and_one_after_it_is_not(tmp_path):
    rng = np.random.default_rng(0)
    rows = [[rng.uniform(0.2, 0.6), *place(rng)] for _ in range(40)]  # mild: many make sense as a box
    with pytest.raises(ValueError, match=r"40 label rows have 6 columns. Is the confidence before the box\?"):
        read(rows_of(tmp_path / "before", rows))
    after = [[*row[1:], row[0]] for row in rows]
    assert_boxes(read(rows_of(tmp_path / "after", after)), [box(row) for row in after])


def test_half_of_the_files_with_a_confidence_lose_no_box(tmp_path):
    rng = np.random.default_rng(0)
    rows = [[*place(rng), *([0.9] if index % 2 else [])] for index in range(12)]
    data = read(rows_of(tmp_path, rows))
    assert_boxes(data, [box(row) for row in rows])
    assert "6 of 13 label rows have numbers after the box" in remarks(data)


def folder(root: Path, files: Mapping[str, str | None]) -> Path:
    """Pictures by path; each with its label file unless that is None."""
    for name, label in files.items():
        picture(root / name)
        if label is not None:
            write(root / label, "1 .5 .5 .5 .5\n")
    return root


USUAL = {
    "train/images/a.png": "train/labels/a.txt",
    "train/images/b.png": "train/labels/b.txt",
    "valid/images/c.png": "valid/labels/c.txt",
}


@pytest.mark.parametrize(
    "paths",
    [
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images",
        "train: /content/datasets/shapes-1/train/images\nval: /content/datasets/shapes-1/valid/images",
        "train: C:\\data\\shapes\\train\\images\nval: C:\\data\\shapes\\valid\\images",
        "train: shapes-1/train/images\nval: shapes-1/valid/images",
        "path: ../datasets/shapes-1\ntrain: shapes-1/train/images\nval: [shapes-1/valid/images]",
        "path: /content/x\ntrain: train/images\nval: valid/images",
        "path: [/content/x]\ntrain: train/images\nval: valid/images",
    ],
)
def test_paths_of_other_places_are_found_by_their_end(tmp_path, paths):
    folder(tmp_path / "data", USUAL)
    write(tmp_path / "data/data.yaml", f"{NAMES}{paths}\n")
    data = read(tmp_path / "data")
    assert counts(data) == {"train": 2, "val": 1}
    assert remarks(data)


def test_a_missing_split_is_not_taken_from_a_folder_of_another(tmp_path):
    """``test/images`` is not shortened to ``images``, which holds the training pictures."""
    folder(tmp_path, {"images/a.png": "labels/a.txt", "images/b.png": "labels/b.txt"})
    write(tmp_path / "data.yaml", f"{NAMES}train: images\nval: /old/val/images\ntest: ../test/images\n")
    data = read(tmp_path)
    assert counts(data) == {"train": 1, "val": 1}
    assert data.val_is_drawn
    assert "the val split is left out" in remarks(data)
    assert "the test split is left out" in remarks(data)


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_pictures_without_labels_are_left_out(tmp_path, split):
    folder(tmp_path, {f"images/train/{name}.png": f"labels/train/{name}.txt" for name in "abc"})
    folder(tmp_path, {f"images/{split}/d.png": None})
    write(tmp_path / "data.yaml", f"{NAMES}train: images/train\n{split}: images/{split}\n")
    data = read(tmp_path)
    assert f"the {split} split is left out: none of 1 picture has a label file" in remarks(data)
    assert "test" not in counts(data)


def test_a_split_that_the_config_names_must_be_there(tmp_path):
    folder(tmp_path, USUAL)
    write(tmp_path / "data.yaml", f"{NAMES}train: train/images\nmine: nowhere\n")
    with pytest.raises(FileNotFoundError, match="mine: 'nowhere' is not there"):
        read(tmp_path, val="mine")


@pytest.mark.parametrize(("split", "copy"), [("train", "val"), ("val", "test"), ("train", "test")])
def test_a_split_of_the_same_pictures_as_another_is_left_out(tmp_path, split, copy):
    folder(tmp_path, USUAL)
    places = {"train": "train/images", "val": "valid/images"}
    places[copy] = places[split]
    write(tmp_path / "data.yaml", NAMES + "".join(f"{name}: {place}\n" for name, place in places.items()))
    data = read(tmp_path)
    assert list(counts(data)) == ["train", "val"]
    assert f"{copy} is left out: it holds the same" in remarks(data)
    assert data.report.dropped == ()


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [("Images/{}", "Labels/{}"), ("{}/Images", "{}/Labels"), ("{}/images", "labels/{}"), ("images/{}", "{}/labels")],
)
def test_labels_in_folders_of_another_order_or_letter_case(tmp_path, pictures, labels):
    for split, name in (("train", "a"), ("val", "b")):
        folder(tmp_path, {f"{pictures.format(split)}/{name}.png": f"{labels.format(split)}/{name}.txt"})
    write(tmp_path / "data.yaml", NAMES + "".join(f"{split}: {pictures.format(split)}\n" for split in ("train", "val")))
    data = read(tmp_path)
    assert [[len(image.annotation) for image in images] for images in data.splits.values()] == [[1], [1]]


@pytest.mark.parametrize("label", ["labels/A.txt", "labels/a.png.txt", "images/a.txt", "old/a.txt"])
def test_a_picture_whose_label_file_lies_elsewhere_is_not_taken_as_empty(tmp_path, label):
    files = {"images/b.png": "labels/b.txt", "images/c.png": "labels/c.txt", "images/empty.png": None}
    folder(tmp_path, {**files, "images/a.png": label})
    write(tmp_path / "data.yaml", f"{NAMES}train: images\n")
    data = read(tmp_path)
    found = sorted(image.id for images in data.splits.values() for image in images)
    assert found == ["b.png", "c.png", "empty.png"]
    assert ("images/a.png", "label file elsewhere") in [(drop.file, drop.reason) for drop in data.report.dropped]


def test_pictures_that_share_a_label_file_are_said(tmp_path):
    folder(tmp_path, {"images/a.png": "labels/a.txt", "images/b.png": "labels/b.txt", "images/a.bmp": None})
    write(tmp_path / "data.yaml", f"{NAMES}train: images\n")
    assert [note.reason for note in read(tmp_path).report.noted] == ["shared label file"] * 2


@pytest.mark.parametrize(("orientation", "noted"), [(1, 0), (3, 2), (6, 2)])
def test_turned_pictures_are_said_as_fractions_do_not_tell_their_frame(tmp_path, orientation, noted):
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder(tmp_path, {**USUAL, "train/images/b.png": None})
    for file in tmp_path.glob("*/images/*.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(file, exif=exif)
    write(tmp_path / "data.yaml", f"{NAMES}train: train/images\nval: valid/images\n")
    assert [note.reason for note in read(tmp_path).report.noted] == ["orientation"] * noted


@pytest.mark.parametrize("names", ["[red, null]", "[[red], [blue]]", "[{name: red}, {name: blue}]", "red, blue"])
def test_names_that_are_none_are_refused_as_given(tmp_path, names):
    folder(tmp_path, USUAL)
    write(tmp_path / "data.yaml", f"names: {names}\ntrain: train/images\nval: valid/images\n")
    with pytest.raises(ValueError, match=r"None in it|\['red'\] in it|\{'name': 'red'\} in it|'names' is 'red, blue'"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["classes.txt", "obj.names", "predefined_classes.txt", "labels/classes.txt"])
@pytest.mark.parametrize("flat", [False, True])
def test_folders_without_a_data_file(tmp_path, name, flat):
    labels = "" if flat else "labels/"
    folder(tmp_path, {f"{'' if flat else 'images/'}{one}.png": f"{labels}{one}.txt" for one in "abcd"})
    write(tmp_path / name, "red\nblue\n")
    assert detect(UPath(tmp_path)) == "yolo"
    data = read(tmp_path)
    assert data.classes == ("red", "blue")
    assert counts(data) == {"train": 3, "val": 1}
    assert not data.report.dropped
    assert name in remarks(data)


@pytest.mark.parametrize("layout", ["{}/images/{}.png {}/labels/{}.txt", "images/{}/{}.png labels/{}/{}.txt"])
def test_folders_named_like_splits_are_splits(tmp_path, layout):
    image, label = layout.split()
    members = {"train": "abc", "valid": "d", "test": "e"}
    for split, names in members.items():
        folder(tmp_path, {image.format(split, name): label.format(split, name) for name in names})
    write(tmp_path / "classes.txt", "red\nblue\n")
    assert counts(read(tmp_path)) == {"train": 3, "val": 1, "test": 1}


def test_darknet_folders_of_cvat(tmp_path):
    folder(tmp_path, {f"obj_train_data/{name}.png": f"obj_train_data/{name}.txt" for name in "abc"})
    write(tmp_path / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    write(tmp_path / "obj.names", "red\nblue\n")
    write(tmp_path / "train.txt", "".join(f"data/obj_train_data/{name}.png\n" for name in "abc"))
    data = read(tmp_path)
    assert data.classes == ("red", "blue")
    assert counts(data) == {"train": 2, "val": 1}


def test_names_can_be_given_where_there_are_none(tmp_path):
    folder(tmp_path, {f"images/{name}.png": f"labels/{name}.txt" for name in "ab"})
    with pytest.raises(ValueError, match=r"the class names are not known.*--classes first,second"):
        read(tmp_path)
    assert read(tmp_path, classes=["red", "blue"]).classes == ("red", "blue")
    write(tmp_path / "classes.txt", "other\nnames\n")
    with pytest.raises(ValueError, match=r"data\.classes is \['red', 'blue'\], but .* names its classes itself"):
        read(tmp_path, classes=["red", "blue"])


def test_hidden_folders_and_other_picture_formats(tmp_path):
    folder(tmp_path, {f"images/train/{name}": f"labels/train/{name[0]}.txt" for name in ("a.gif", "b.ppm", "c.JPG")})
    folder(tmp_path, {"images/train/.ipynb_checkpoints/a-checkpoint.png": None, "images/train/._b.png": None})
    folder(tmp_path, {"images/val/v.png": "labels/val/v.txt"})
    write(tmp_path / "data.yaml", f"{NAMES}train: images/train\nval: images/val\n")
    data = read(tmp_path)
    assert [(image.id, len(image.annotation)) for image in data.splits["train"]] == [
        ("train/a.gif", 1),
        ("train/b.ppm", 1),
        ("train/c.JPG", 1),
    ]


@pytest.mark.parametrize("listed", [False, True])
def test_names_in_another_unicode_form_are_the_same(tmp_path, listed):
    composed, apart = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    folder(tmp_path, {f"images/train/{apart}.png": f"labels/train/{composed}.txt"})
    folder(tmp_path, {"images/val/v.png": "labels/val/v.txt"})
    write(tmp_path / "list.txt", f"images/train/{composed}.png\n")
    write(tmp_path / "data.yaml", f"{NAMES}train: {'list.txt' if listed else 'images/train'}\nval: images/val\n")
    assert [len(image.annotation) for image in read(tmp_path).splits["train"]] == [1]


def test_listed_pictures_of_another_machine_are_found_once(tmp_path):
    folder(tmp_path, {f"images/{name}.png": f"labels/{name}.txt" for name in ("x/a", "y/a", "x/b", "v")})
    write(tmp_path / "train.txt", "/home/me/set/images/x/a.png\nD:\\set\\images\\x\\b.png\n/elsewhere/a.png\n")
    write(tmp_path / "val.txt", "./images/v.png\n")
    write(tmp_path / "data.yaml", f"{NAMES}train: train.txt\nval: val.txt\n")
    data = read(tmp_path)
    assert [image.id for image in data.splits["train"]] == ["x/a.png", "x/b.png"]
    assert [drop.reason for drop in data.report.dropped] == ["missing image"]  # /elsewhere/a.png: of x or of y?
    assert "of 3 pictures, 2 were found by the end of the path" in remarks(data)
