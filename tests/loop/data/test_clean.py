"""Images without objects: which pictures of the folder are used, and why the others are not."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from upath import UPath

from loop.data import copies
from loop.data.config import DataConfig, WorldConfig
from loop.data.importing import Dataset, import_data
from loop.data.world import write_world

SIDE = 64


def scene(seed: int) -> Image.Image:
    """An unrelated picture for each seed: blurred noise."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def write_split(root: Path, split: str, seeds: list[int], num_empty: int = 0) -> None:
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "images" / split).mkdir(parents=True)
    images, boxes = [], []
    for number, seed in enumerate(seeds, start=1):
        scene(seed).save(root / "images" / split / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        if number > num_empty:
            boxes.append({"id": number, "image_id": number, "category_id": 1, "bbox": [4, 4, 20, 20], "iscrowd": 0})
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "spot"}]}
    (root / "annotations" / f"{split}.json").write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """COCO data of 4 training images, the first of them empty, and 4 validation images; ``clean`` has 3 pictures."""
    root = tmp_path / "data"
    write_split(root, "train", [1, 2, 3, 4], num_empty=1)
    write_split(root, "val", [11, 12, 13, 14])
    for number, seed in enumerate([21, 22, 23], start=1):
        place = root / "clean" / ("line" if number == 3 else ".") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        scene(seed).save(place)
    return root


def imported(root: Path, clean: str | None = "clean", **keys: object) -> Dataset:
    config = DataConfig.model_validate({"root": str(root), "clean": clean, **keys})
    return import_data(config, UPath(root), 0)


def dropped(data: Dataset) -> dict[str, str]:
    return {one.file: one.reason for one in data.report.dropped}


def ids(data: Dataset) -> list[str]:
    return [image.id for image in data.clean]


def test_every_picture_below_the_folder_is_a_clean_image(root):
    data = imported(root)
    assert ids(data) == ["clean/1.png", "clean/2.png", "clean/line/3.png"]
    assert all(len(image.annotation) == 0 for image in data.clean)
    assert [(image.width, image.height) for image in data.clean] == [(SIDE, SIDE)] * 3
    assert all(Path(image.uri).is_file() for image in data.clean)
    assert not data.report.findings
    assert data.report.splits["clean"].images == data.report.splits["clean"].empty == 3
    assert data.real == (*data.splits["train"], *data.clean)


def test_without_the_key_nothing_changes(root):
    plain, with_clean = imported(root, None), imported(root)
    assert plain.clean == ()
    assert "clean" not in {**plain.identity(), **plain.report.splits}
    own = with_clean.identity()
    assert own.pop("clean").startswith("3 images ")
    assert own == plain.identity()
    assert repr(with_clean.splits) == repr(plain.splits)


def test_the_folder_may_lie_elsewhere_and_one_below_the_root_comes_first(root, tmp_path, monkeypatch):
    shutil.copytree(root / "clean" / "line", tmp_path / "elsewhere" / "clean")
    assert ids(imported(root, str(tmp_path / "elsewhere" / "clean"))) == ["clean/3.png"]
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(imported(root, "clean").clean) == 3
    shutil.rmtree(root / "clean")
    assert ids(imported(root, "clean")) == ["clean/3.png"]


def test_a_turned_photograph_has_its_upright_size(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(31).resize((SIDE, SIDE // 2)).save(root / "clean" / "4.jpg", exif=exif)
    turned = imported(root).clean[2]
    assert (turned.id, turned.width, turned.height) == ("clean/4.jpg", SIDE // 2, SIDE)


def test_what_cannot_be_used_is_left_out_with_its_reason(root):
    clean = root / "clean"
    (clean / "broken.png").write_bytes((clean / "1.png").read_bytes()[:200])
    shutil.copy(clean / "1.png", clean / "9.png")
    shutil.copy(root / "images" / "train" / "1.png", clean / "empty.png")
    shutil.copy(root / "images" / "train" / "2.png", clean / "boxed.png")
    shutil.copy(root / "images" / "val" / "1.png", clean / "held.png")
    (clean / "text.jpg").write_text("hello")
    data = imported(root)
    assert ids(data) == ["clean/1.png", "clean/2.png", "clean/line/3.png"]
    assert dropped(data) == {
        "clean/broken.png": "unreadable file",
        "clean/9.png": "repeated picture",
        "clean/empty.png": "also in train",
        "clean/boxed.png": "labelled objects",
        "clean/held.png": "labelled objects",
        "clean/text.jpg": "unreadable file",
    }
    details = {one.file: one.detail for one in data.report.dropped}
    assert details["clean/text.jpg"] == "not a picture of a known format"
    assert details["clean/boxed.png"] == "the same file as train/2.png in train"
    assert details["clean/held.png"] == "the same file as val/1.png in val"


def test_a_copy_in_another_format_is_left_out(root):
    """A picture with one small mark more or less is none, nor is a second photograph of the same surface."""
    clean, noise = root / "clean", np.random.default_rng(7).normal(128, 3, (2, SIDE, SIDE, 1))
    scene(2).save(clean / "boxed.bmp")
    scene(1).save(clean / "empty.jpg", quality=80)
    scene(13).save(clean / "held.webp", quality=80)
    scene(21).save(clean / "z.jpg", quality=80)
    marked = np.array(scene(3))
    marked[30:33, 30:33] = (marked[30:33, 30:33].astype(int) + 90) % 256
    Image.fromarray(marked).save(clean / "marked.png")
    for number, one in enumerate(noise):
        Image.fromarray(one.repeat(3, axis=2).astype(np.uint8)).save(clean / f"surface_{number}.png")
    data = imported(root)
    found = {one.file: f"{one.reason}: {one.detail}" for one in data.report.dropped}
    assert found == {
        "clean/boxed.bmp": "labelled objects: the same picture as train/2.png in train",
        "clean/empty.jpg": "also in train: the same picture as train/1.png in train",
        "clean/held.webp": "labelled objects: the same picture as val/3.png in val",
        "clean/z.jpg": "repeated picture: the same picture as clean/1.png",
    }
    assert {"clean/marked.png", "clean/surface_0.png", "clean/surface_1.png"} < set(ids(data))


def test_more_pictures_than_can_be_compared_are_told(root, monkeypatch):
    monkeypatch.setattr(copies, "MOST_PIXELS", 2 * SIDE**2)
    assert "data.clean: copies were looked for among 2 of 3 images" in imported(root).report.remarks


def test_tiny_pictures_are_noted(root):
    scene(31).resize((12, 40)).save(root / "clean" / "tiny.png")
    data = imported(root)
    assert [(one.file, one.reason, one.detail) for one in data.report.noted] == [
        ("clean/tiny.png", "tiny picture", "12x40 px")
    ]


def test_a_near_copy_of_a_validation_image_is_left_out(root):
    brighter = np.clip(np.asarray(scene(12), np.int16) + 9, 0, 255).astype(np.uint8)
    Image.fromarray(brighter).save(root / "clean" / "like.png")
    Image.fromarray(np.asarray(scene(2)) // 2 + 60).save(root / "clean" / "template_of_train.png")
    data = imported(root)
    assert dropped(data) == {"clean/like.png": "near-copy of a held-out image"}
    assert "clean/template_of_train.png" in ids(data)


def test_images_of_a_fixed_camera_are_used(root):
    """Training images resemble the held-out one as well, so the clean image gives nothing away."""
    for place, shade in (("images/train/2.png", 3), ("images/val/2.png", 0), ("clean/camera.png", 9)):
        pixels = np.clip(np.asarray(scene(12), np.int16) + shade, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / place)
    data = imported(root)
    assert "clean/camera.png" in ids(data)
    assert any("of 4 images, 1 resemble held-out images, as training images do" in one for one in data.report.remarks)


def test_held_out_training_images_count_as_held_out(root):
    shutil.rmtree(root / "images" / "val")
    (root / "annotations" / "val.json").unlink()
    for number in range(1, 5):
        pixels = np.clip(np.asarray(scene(number), np.int16) + 9, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "clean" / f"like_{number}.png")
    data = imported(root, val_frac=0.5)
    held = {Path(image.id).stem for image in data.splits["val"]}
    assert dropped(data) == {f"clean/like_{number}.png": "near-copy of a held-out image" for number in held}
    assert len(held) == 2


def test_pictures_with_label_files_hold_objects(root):
    (root / "labels" / "parts").mkdir(parents=True)
    shutil.move(root / "clean", root / "images" / "parts")
    (root / "labels" / "parts" / "1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "labels" / "parts" / "2.txt").write_text("")
    data = imported(root, "images/parts", format="coco")
    assert ids(data) == ["clean/2.png", "clean/line/3.png"]
    assert dropped(data) == {"clean/1.png": "labelled objects"}


def test_a_label_file_in_the_folder_is_of_its_picture_alone(root):
    (root / "clean" / "1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    data = imported(root, format="coco")
    assert ids(data) == ["clean/2.png", "clean/line/3.png"]
    assert [one.detail for one in data.report.dropped] == ["see clean/1.txt"]
    (root / "clean" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"clean/1\.txt is a label file, and no picture has its name"):
        imported(root, format="coco")


@pytest.mark.parametrize(
    ("clean", "error", "message"),
    [
        ("nowhere", NotADirectoryError, "data.clean: there is no folder 'nowhere'"),
        ("nothing", FileNotFoundError, "holds no picture"),
        ("../other", ValueError, r"is a labelled data set \(see .*other/annotations/train\.json\)"),
        ("images/train", ValueError, r"(?s)no picture in .* can be used; give .*also in train: .*labelled objects: "),
    ],
)
def test_a_folder_that_cannot_be_meant_is_an_error(root, clean, error, message):
    write_split(root.parent / "other", "train", [5])
    (root / "nothing").mkdir()
    with pytest.raises(error, match=message):
        imported(root, clean)


def test_a_link_out_of_the_folder_is_followed_on_request_only(root, tmp_path):
    scene(41).save(tmp_path / "far.png")
    (root / "clean" / "link.png").symlink_to(tmp_path / "far.png")
    with pytest.raises(ValueError, match=r"data\.follow_links"):
        imported(root)
    assert "clean/link.png" in ids(imported(root, follow_links=True))


def test_ids_of_labelled_images_are_never_taken(root):
    shutil.move(root / "images" / "train", root / "images" / "clean")
    content = json.loads((root / "annotations" / "train.json").read_text())
    for image in content["images"]:
        image["file_name"] = f"clean/{image['file_name']}"
    (root / "annotations" / "train.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"has a labelled image clean/1\.png of its own"):
        imported(root)


def test_the_world_has_its_own_clean_scenes(tmp_path):
    config = DataConfig(format="world", world=WorldConfig(train=2, val=2, clean=3, seed=5))
    write_world(UPath(tmp_path), config.world)
    data = import_data(config, UPath(tmp_path), 0)
    assert ids(data) == [f"clean/00000{number}.png" for number in range(3)]
    assert Counter(map(len, data.splits.values())) == {2: 2}
    without = config.model_copy(update={"world": WorldConfig(train=2, val=2, seed=5)})
    assert import_data(without, UPath(tmp_path), 0).clean == ()
    with pytest.raises(ValidationError, match=r"world\.clean"):
        DataConfig(format="world", clean="clean")


def test_deeppcb_has_a_defect_free_template_of_each_training_board(real_data):
    """The templates resemble the training boards, which is what they are for, and no validation board."""
    root = real_data / "deeppcb"
    if not (root / "clean").is_dir():
        pytest.skip("deeppcb/clean is not there")
    data = imported(root)
    assert len(data.clean) == 100
    assert not data.report.findings
