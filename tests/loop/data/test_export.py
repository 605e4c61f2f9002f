"""An export keeps boxes, classes, empty images, flags and lineage, in every format and through all of them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from upath import UPath

from actors import images as pixels
from actors.records import Annotation, Detections, LabeledImage, Lineage, Sample
from loop.data.config import DataConfig
from loop.data.export import export
from loop.data.formats import FORMATS
from loop.data.importing import Dataset, import_data
from loop.data.provenance import Provenance

CLASSES = ("straße", "never seen", "a & <b>")


def annotation(boxes: list, labels: list, ignore: list) -> Annotation:
    return Annotation(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        ignore=np.array(ignore, np.bool_),
    )


NOTHING = annotation([], [], [])
THINGS = annotation(
    [[0, 0, 61, 47], [10.25, 7.5, 20.125, 9.75], [30, 30, 31, 31], [40.2, 40.1, 40.4, 46], [60.5, 46.6, 61, 47]],
    [0, 2, 0, 2, 0],
    [False, True, False, False, False],
)
ONE = annotation([[1, 2, 30.5, 40]], [2], [False])


def picture(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((61, 47), 60).convert("RGB").save(path)
    return str(path)


def image(folder: Path, name: str, found: Annotation) -> LabeledImage:
    return LabeledImage(id=name, uri=picture(folder / name), width=61, height=47, annotation=found)


def sample(folder: Path, source: str, seed: int, dropped: str = "") -> Sample:
    lineage = Lineage(round=2, image_id=source, box_indices=(0, 2), generator="copy_paste", seed=seed)
    uri = picture(folder / f"{lineage.id}.png")
    return Sample(
        id=lineage.id,
        uri=uri,
        sha256=hashlib.sha256(Path(uri).read_bytes()).hexdigest(),
        as_drawn=uri,
        width=61,
        height=47,
        annotation=ONE,
        proposed=ONE,
        drawn=np.ones(1, np.bool_),
        restored=np.zeros(1, np.bool_),
        seen=Detections(
            boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), scores=np.zeros(0, np.float32)
        ),
        verdicts=(),
        dropped=dropped,
        lineage=lineage,
    )


@pytest.fixture
def parts(tmp_path):
    """Training images, pool and held-out images whose names are hard to keep apart."""
    names = ("train/a.png", "train/a.jpg", "train/deep er/ä.png")
    real = [image(tmp_path / "real", name, found) for name, found in zip(names, (THINGS, NOTHING, ONE), strict=True)]
    pool = [
        sample(tmp_path / "pool", "train/a.png", 2**62 + 1),
        sample(tmp_path / "pool", "train/deep er/ä.png", 7),
        sample(tmp_path / "pool", "train/a.png", 8, dropped="blank: empty"),
    ]
    held_out = {
        "val": [image(tmp_path / "real", "val/a.png", ONE)],
        "test": [image(tmp_path / "real", "b.png", ONE)],
    }
    return real, pool, held_out


def read(root: UPath) -> Dataset:
    return import_data(DataConfig(root=str(root)), root, 0)


def passed_on(data: Dataset, out: UPath, fmt: str) -> Dataset:
    """The data set after one more export and import."""
    held_out = {split: images for split, images in data.splits.items() if split != "train"}
    export(data.splits["train"], [], data.classes, out, fmt, held_out, data.synthetic)
    return read(out)


def by_picture(data: Dataset) -> dict[tuple[str, str], tuple[LabeledImage, Provenance | None]]:
    """Images by split and by what their pictures show: names may change on the way, pictures may not."""
    return {
        (split, hashlib.sha256(Path(one.uri).read_bytes()).hexdigest()): (one, data.synthetic.get(one.id))
        for split, images in data.splits.items()
        for one in images
    }


def assert_same(before: Dataset, after: Dataset) -> None:
    assert before.classes == after.classes
    old, new = by_picture(before), by_picture(after)
    assert old.keys() == new.keys()
    for key, (image_before, origin_before) in old.items():
        image_after, origin_after = new[key]
        was, now = image_before.annotation, image_after.annotation
        np.testing.assert_array_equal(was.labels, now.labels)
        np.testing.assert_array_equal(was.ignore, now.ignore)
        np.testing.assert_allclose(was.boxes, now.boxes, atol=0.5, rtol=0)
        assert (origin_before is None) == (origin_after is None)
        if origin_before and origin_after:
            assert origin_before.lineage == origin_after.lineage
            source = {one.id: one.uri for one in before.splits["train"]}[origin_before.source]
            again = {one.id: one.uri for one in after.splits["train"]}[origin_after.source]
            assert Path(source).read_bytes() == Path(again).read_bytes()


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_export_reads_back_whole(tmp_path, parts, fmt):
    real, pool, held_out = parts
    out = UPath(tmp_path / "out")
    card = export(real, pool, CLASSES, out, fmt, held_out)
    data = read(out)
    assert data.report.format == fmt
    assert data.report.dropped == ()
    assert data.classes == CLASSES
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 5, "val": 1, "test": 1}
    train = {Path(one.uri).read_bytes(): one for one in data.splits["train"]}
    for one in [*real, *(sample for sample in pool if not sample.dropped)]:
        found = train[Path(one.uri).read_bytes()].annotation
        np.testing.assert_allclose(found.boxes, one.annotation.boxes, atol=0.5, rtol=0)
        np.testing.assert_array_equal(found.labels, one.annotation.labels)
        np.testing.assert_array_equal(found.ignore, one.annotation.ignore)
    origins = {train[Path(one.uri).read_bytes()].id: one.lineage for one in pool[:2]}
    assert {key: origin.lineage for key, origin in data.synthetic.items()} == origins
    sources = {Path(one.uri).read_bytes(): train[Path(one.uri).read_bytes()].id for one in real}
    assert data.synthetic[next(iter(origins))].source == sources[Path(real[0].uri).read_bytes()]
    assert "| train | 5 | 2 | 1 | 8 | 1 |" in card.read_text(encoding="utf-8")


def test_coco_to_yolo_to_voc_to_coco(tmp_path, parts):
    real, pool, held_out = parts
    export(real, pool, CLASSES, UPath(tmp_path / "first"), "coco", held_out)
    first = read(UPath(tmp_path / "first"))
    data = first
    for fmt in ("yolo", "voc", "coco"):
        data = passed_on(data, UPath(tmp_path / fmt), fmt)
        assert data.report.dropped == ()
    assert_same(first, data)
    assert data.report.splits["train"].boxes_by_class["never seen"] == 0
    assert len(data.synthetic) == 2


@pytest.mark.parametrize("name", ["bccd", "deeppcb"])
def test_real_data_round_trip(tmp_path, real_data, name):
    first = read(UPath(real_data / name))
    data = first
    for fmt in ("coco", "yolo", "voc", "coco"):
        data = passed_on(data, UPath(tmp_path / f"{fmt}{len(list(tmp_path.iterdir()))}"), fmt)
        assert data.report.dropped == data.report.noted == ()
    assert_same(first, data)


def test_whole_pixel_boxes_stay_exact_in_voc(tmp_path):
    exact = annotation([[0, 0, 61, 47], [3, 4, 10, 20]], [0, 1], [False, False])
    real = [image(tmp_path, name, exact) for name in ("a.png", "b.png")]
    export(real[:1], [], ("x", "y"), UPath(tmp_path / "out"), "voc", {"val": real[1:]})
    xml = (tmp_path / "out/Annotations/a.xml").read_text()
    assert "<xmin>1</xmin>" in xml
    assert "<xmax>61</xmax>" in xml
    assert read(UPath(tmp_path / "out")).splits["train"][0].annotation.boxes.tolist() == exact.boxes.tolist()


def test_flags_lie_where_the_readme_says(tmp_path, parts):
    real, pool, held_out = parts
    for fmt in FORMATS:
        export(real, pool, CLASSES, UPath(tmp_path / fmt), fmt, held_out)
    tree = json.loads((tmp_path / "coco/annotations/train.json").read_text())
    assert [entry["synthetic"] for entry in tree["images"]] == [False] * 3 + [True] * 2
    made = tree["images"][3]
    assert made["lineage"] == {
        "round": 2,
        "image_id": "train/a.png",
        "box_indices": [0, 2],
        "generator": "copy_paste",
        "seed": 2**62 + 1,
        "strategy": "origin",
    }
    assert (tmp_path / "coco" / made["source_image"]).read_bytes() == Path(real[0].uri).read_bytes()
    assert sum(box["iscrowd"] for box in tree["annotations"]) == 1
    lines = [json.loads(line) for line in (tmp_path / "yolo/provenance.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["synthetic"], line.get("ignore")) for line in lines] == [(False, [1]), (True, None), (True, None)]
    assert (tmp_path / "yolo" / lines[1]["source_image"]).read_bytes() == Path(real[0].uri).read_bytes()
    assert yaml.safe_load((tmp_path / "yolo/data.yaml").read_text(encoding="utf-8"))["names"] == dict(
        enumerate(CLASSES)
    )
    made_xml = (tmp_path / f"voc/Annotations/{Path(made['file_name']).stem}.xml").read_text(encoding="utf-8")
    assert '"synthetic": true' in made_xml


def test_ultralytics_reads_our_yolo_export(tmp_path, parts):
    from ultralytics.data.dataset import YOLODataset

    real, pool, held_out = parts
    export(real, pool, CLASSES, UPath(tmp_path / "out"), "yolo", held_out)
    tree = yaml.safe_load((tmp_path / "out/data.yaml").read_text(encoding="utf-8"))
    data = YOLODataset(
        img_path=str(tmp_path / "out" / tree["train"]), data=tree, task="detect", imgsz=64, augment=False
    )
    found = {Path(label["im_file"]).read_bytes(): label["cls"].ravel().tolist() for label in data.labels}
    assert [found[Path(one.uri).read_bytes()] for one in real] == [[0, 2, 0, 2, 0], [], [2]]


def test_pycocotools_reads_our_coco_export(tmp_path, parts):
    from pycocotools.coco import COCO

    real, pool, held_out = parts
    export(real, pool, CLASSES, UPath(tmp_path / "out"), "coco", held_out)
    found = COCO(str(tmp_path / "out/annotations/train.json"))
    assert len(found.getAnnIds(iscrowd=False)) == 7


def test_exports_never_overwrite(tmp_path, parts):
    real, pool, held_out = parts
    out = UPath(tmp_path / "out")
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        export(real, pool, CLASSES, out, "coco", held_out)
    assert [path.name for path in out.iterdir()] == ["precious.txt"]
    with pytest.raises(ValueError, match="unknown export format 'tfrecord'; choose one of coco, yolo, voc"):
        export(real, pool, CLASSES, UPath(tmp_path / "new"), "tfrecord", held_out)


def test_synthetic_images_of_held_out_ones_are_refused(tmp_path, parts):
    real, _, held_out = parts
    leak = sample(tmp_path / "pool", "val/a.png", 3)
    with pytest.raises(ValueError, match=r"val/a\.png belongs to val, which must stay real"):
        export(real, [leak], CLASSES, UPath(tmp_path / "out"), "coco", held_out)
    assert not (tmp_path / "out").exists()


def test_synthetic_images_are_never_held_out_on_import(tmp_path, parts):
    real, pool, _ = parts
    out = UPath(tmp_path / "out")
    export(real, pool, CLASSES, out, "coco")
    data = import_data(DataConfig(root=str(out), val_frac=0.6), out, 0)
    assert len(data.splits["val"]) == 2  # of three real images, not of five
    assert all(one.id not in data.synthetic for one in data.splits["val"])
    (tmp_path / "out/annotations/train.json").rename(tmp_path / "out/annotations/val.json")
    (tmp_path / "out/images/train").rename(tmp_path / "out/images/val")
    export(real, [], CLASSES, UPath(tmp_path / "real-only"), "coco")
    (tmp_path / "real-only/annotations/train.json").rename(tmp_path / "out/annotations/train.json")
    (tmp_path / "real-only/images/train").rename(tmp_path / "out/images/train")
    assert [drop.reason for drop in read(out).report.dropped] == ["synthetic image held out"] * 2


def test_lineage_that_is_not_ours_names_the_file(tmp_path, parts):
    real, pool, held_out = parts
    export(real, pool, CLASSES, UPath(tmp_path / "out"), "coco", held_out)
    file = tmp_path / "out/annotations/train.json"
    tree = json.loads(file.read_text())
    tree["images"][3]["lineage"] = {"round": "first"}
    file.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=r"train\.json, image 4: lineage .* is not as detloop writes it"):
        read(UPath(tmp_path / "out"))


def test_an_export_can_go_to_a_storage_uri(parts):
    real, pool, held_out = parts
    out = UPath("memory://export-test/out")
    export(real, pool, CLASSES, out, "voc", held_out)
    assert len(read(out).synthetic) == 2


@pytest.mark.parametrize("fmt", FORMATS)
def test_pictures_that_readers_do_not_know_are_converted(tmp_path, fmt):
    suffixes = (".gif", ".ppm", ".jfif", ".JPG", ".tiff")
    real = [image(tmp_path / "real", f"{index}{suffix}", ONE) for index, suffix in enumerate(suffixes)]
    export(real[1:], [], CLASSES, UPath(tmp_path / "out"), fmt, {"val": real[:1]})
    data = read(UPath(tmp_path / "out"))
    names = {Path(one.uri).name for images in data.splits.values() for one in images}
    converted = {"0.gif", "1.ppm", "2.jfif"} if fmt == "coco" else {"0.png", "1.png", "2.png"}
    assert names == {*converted, "3.JPG", "4.tiff"}
    for was in real:
        (now,) = [one for images in data.splits.values() for one in images if Path(one.uri).stem == Path(was.uri).stem]
        np.testing.assert_array_equal(pixels.read(was.uri), pixels.read(now.uri))
        np.testing.assert_allclose(now.annotation.boxes, ONE.boxes, atol=0.01)


ODD_NAMES = ("yes", "1", "null", "- a: b # c", "猫")


@pytest.mark.parametrize("fmt", ["coco", "yolo"])
def test_odd_class_names_survive(tmp_path, fmt):
    real = [image(tmp_path / "real", f"{name}.png", ONE) for name in "ab"]
    export(real[:1], [], ODD_NAMES, UPath(tmp_path / "out"), fmt, {"val": real[1:]})
    assert read(UPath(tmp_path / "out")).classes == ODD_NAMES


@pytest.mark.parametrize("name", ["two\nlines", " outer", "bell\x07", ""])
def test_class_names_that_voc_cannot_hold_are_refused(tmp_path, name):
    real = [image(tmp_path / "real", f"{name}.png", NOTHING) for name in "ab"]
    with pytest.raises(ValueError, match="VOC cannot hold the class name"):
        export(real[:1], [], (name,), UPath(tmp_path / "out"), "voc", {"val": real[1:]})
    assert not (tmp_path / "out").exists()


def test_copies_of_images_that_an_import_holds_out_leave_training(tmp_path):
    real = [image(tmp_path / "real", f"{name}.png", ONE) for name in "abcdef"]
    pool = [sample(tmp_path / "pool", one.id, seed) for seed, one in enumerate(real)]
    export(real, pool, CLASSES, UPath(tmp_path / "out"), "yolo")
    data = read(UPath(tmp_path / "out"))
    held_out = {one.id for one in data.splits["val"]}
    assert len(held_out) == 1
    assert len(data.splits["train"]) == 10  # of 12: without the held-out image and its copy
    assert held_out.isdisjoint(origin.source for origin in data.synthetic.values())
    assert [drop.reason for drop in data.report.dropped] == ["copy of a held-out image"]
    passed_on(data, UPath(tmp_path / "again"), "coco")
