"""The detector of a finished run: exported, used on pictures, and measured on the test images."""

import json
import shutil
from io import StringIO
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from upath import UPath

import detloop as face
from actors.storage import read_detections
from loop.config import LoopConfig
from loop.config_files import validate
from loop.driver import run
from loop.progress import Reporter
from loop.use.chosen import choose

pytestmark = pytest.mark.slow

SCORE = 0.1


@pytest.fixture(scope="module")
def data(easy_data, tmp_path_factory):
    """The easy data with a test split, a copy of the validation split: it has the same metrics."""
    folder = shutil.copytree(easy_data, tmp_path_factory.mktemp("data") / "easy")
    shutil.copytree(folder / "val", folder / "test")
    shutil.copy(folder / "annotations/val.json", folder / "annotations/test.json")
    return folder


@pytest.fixture(scope="module")
def finished(easy_config, data, new_root):
    """A run of two rounds, and what it said."""
    said = StringIO()
    tree = {**easy_config, "root": str(new_root()), "data": {"format": "coco", "root": str(data)}}
    folder = run(validate(LoopConfig, tree, "test"), Reporter(Console(file=said, width=400)))
    return Path(folder), said.getvalue()


@pytest.fixture
def folder(finished, tmp_path):
    """The run in a storage root of its own, moved from where it was made."""
    root = shutil.copytree(finished[0].parent, tmp_path / "moved", ignore=shutil.ignore_patterns("mlflow.db"))
    return root / finished[0].name


def known_boxes(folder, number):
    """The detections of a round's detector in the validation images: box, label and score, by file name."""
    found = read_detections(UPath(folder / f"rounds/{number:03d}/val.npz"))
    return {
        Path(name).name: [
            (*box, label, score)
            for box, label, score in zip(one.boxes.tolist(), one.labels.tolist(), one.scores.tolist(), strict=True)
            if score >= SCORE
        ]
        for name, one in found.items()
    }


def best(folder):
    aps = [json.loads((folder / f"rounds/{number:03d}/round.json").read_text())["ap"] for number in (1, 2)]
    assert aps[0] != aps[1]
    return 1 if aps[0] > aps[1] else 2


def assert_boxes(found, expected):
    assert len(found) == len(expected)
    np.testing.assert_allclose(sorted(found), sorted(expected), atol=1e-3)


# Choice


def test_the_best_round_is_used_unless_one_is_named(folder):
    number = best(folder)
    chosen = choose(UPath(folder))
    assert chosen.round == number
    assert chosen.loop == (str(folder / f"rounds/{number:03d}/detector.safetensors"),)
    other = choose(UPath(folder), 3 - number)
    assert other.loop != chosen.loop
    assert other.control == chosen.control
    with pytest.raises(ValueError, match="no finished round 3; 2 are finished"):
        choose(UPath(folder), 3)


def test_a_control_that_is_gone_is_named(folder):
    shutil.rmtree(folder.parent / "controls")
    with pytest.raises(FileNotFoundError, match=r"the detectors of round . are gone: .*controls"):
        choose(UPath(folder))


def test_before_the_first_round_has_finished_there_is_the_control_alone(folder, detloop, tmp_path):
    shutil.rmtree(folder / "rounds/001")
    picture = folder.parent / "picture.png"
    Image.new("RGB", (64, 64)).save(picture)
    status, _, told = detloop("predict", folder, picture, "--out", tmp_path / "out")
    assert (status, "no round has finished; only the control can be used (--control)" in told) == (2, True)
    assert detloop("predict", folder, picture, "--out", tmp_path / "out", "--control")[0] == 0
    table = face.evaluate(folder)
    assert list(table.columns) == ["control"]


def test_a_run_ends_with_the_commands_that_use_its_detector(finished):
    folder, said = finished
    for command in ("predict", "export-model", "evaluate"):
        assert f"detloop {command} {folder}" in said
    used = f"use the {choose(UPath(folder)).one(control=False)[1]}: detloop predict"
    assert (used in said, f"the detector of round {best(folder)} (AP " in used) == (True, True)
    assert "the best of 2)" in used


# Export


def test_the_exported_file_is_that_of_the_chosen_detector(folder, detloop, tmp_path):
    from ultralytics import YOLO

    status, said, _ = detloop("export-model", folder, "--out", tmp_path / "a.pt")
    assert (status, f"detector of round {best(folder)} (AP " in said) == (0, True)
    assert "Reduce pictures of more than 640 px on the longer side to 640 px first" in said
    face.export_model(folder, "pt", tmp_path / "control.pt", control=True)
    assert (tmp_path / "a.pt").read_bytes() != (tmp_path / "control.pt").read_bytes()
    model, expected = YOLO(tmp_path / "a.pt"), known_boxes(folder, best(folder))
    assert model.names == {0: "blue", 1: "red"}
    for file in sorted((folder.parents[1] / "val").glob("*.png")):
        (seen,) = model.predict(file, conf=SCORE, iou=0.7, device="cpu", verbose=False)
        boxes = np.column_stack([seen.boxes.xyxy, seen.boxes.cls, seen.boxes.conf])
        assert_boxes(boxes.tolist(), expected[file.name])


def test_an_export_does_not_replace_a_file(folder, detloop, tmp_path):
    file = tmp_path / "detector.pt"
    file.write_text("mine")
    assert detloop("export-model", folder, "--out", file)[0] == 2
    assert detloop("export-model", folder, "--format", "caffe", "--out", tmp_path / "b")[0] == 2
    assert (file.read_text(), (tmp_path / "b").exists()) == ("mine", False)


# Prediction


@pytest.fixture
def shots(data, tmp_path):
    """The validation pictures in nested folders: one lies on its side with a tag that says so, one is broken."""
    folder = tmp_path / "shots"
    (folder / "more/.hidden").mkdir(parents=True)
    for file in sorted((data / "val").glob("*.png")):
        shutil.copy(file, folder / "more" if file.stem < "4" else folder)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    Image.open(folder / "8.png").transpose(Image.Transpose.ROTATE_90).save(folder / "8.png", exif=exif)
    (folder / "broken.jpg").write_bytes((folder / "7.png").read_bytes()[:200])
    shutil.copy(folder / "7.png", folder / "more/.hidden")
    return folder


def test_pictures_in_folders_get_the_boxes_of_the_detector_as_coco(folder, shots, detloop, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out"
    status, said, _ = detloop("predict", folder, shots, "--out", out, "--score", SCORE, "--draw")
    assert (status, "broken.jpg cannot be read" in said, "8 of 9 pictures read" in said) == (1, True, True)
    tree = json.loads((out / "predictions.json").read_text())
    names = {image["id"]: image["file_name"] for image in tree["images"]}
    assert sorted(names.values()) == [
        "4.png",
        "5.png",
        "6.png",
        "7.png",
        "8.png",
        *(f"more/{n}.png" for n in (1, 2, 3)),
    ]
    expected = known_boxes(folder, best(folder))
    for image_id, name in names.items():
        boxes = [
            (*box["bbox"], box["category_id"] - 1, box["score"])
            for box in tree["annotations"]
            if box["image_id"] == image_id
        ]
        assert_boxes([(x, y, x + w, y + h, *rest) for x, y, w, h, *rest in boxes], expected[Path(name).name])
    assert [category["name"] for category in tree["categories"]] == ["blue", "red"]
    drawn = np.asarray(Image.open(out / "drawn/more/1.jpg").resize((64, 64)), float)
    assert 2 < np.abs(drawn - np.asarray(Image.open(shots / "more/1.png"))).mean() < 60  # the same picture, with lines
    assert [file for file in sorted(tmp_path.rglob("*")) if out not in (file, *file.parents)] == before


def test_yolo_results_are_shares_of_the_upright_picture(folder, shots, detloop, tmp_path):
    out = tmp_path / "out"
    assert detloop("predict", folder, shots / "*.png", "--out", out, "--score", SCORE, "--format", "yolo")[0] == 0
    assert sorted(file.stem for file in (out / "labels").iterdir()) == ["4", "5", "6", "7", "8"]
    expected = known_boxes(folder, best(folder))
    for file in (out / "labels").iterdir():
        rows = [list(map(float, line.split())) for line in file.read_text().splitlines()]
        boxes = [
            (64 * (x - w / 2), 64 * (y - h / 2), 64 * (x + w / 2), 64 * (y + h / 2), label, score)
            for label, x, y, w, h, score in rows
        ]
        assert_boxes(boxes, expected[f"{file.stem}.png"])
    assert (out / "classes.yaml").read_text() == "names:\n  0: blue\n  1: red\n"


def test_from_python_predictions_are_a_table(folder, shots):
    table = face.predict(face.Result(folder), [shots / "4.png", shots / "more"], score=SCORE)
    expected = known_boxes(folder, best(folder))
    given = ("4.png", "more/1.png", "more/2.png", "more/3.png")
    assert set(table.image) == {name for name in given if expected[Path(name).name]} != set()
    for name, rows in table.groupby("image"):
        labels = [["blue", "red"].index(label) for label in rows.label]
        boxes = np.column_stack([rows[["x0", "y0", "x1", "y1"]], labels, rows.score])
        assert_boxes(boxes.tolist(), expected[Path(name).name])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{shots}/none*.png"], "no picture here"),
        (["{shots}/4.png", "--out", "{shots}"], "is not empty"),
        (["{shots}/4.png", "--score", "30"], "score: a number from 0 to 1, not 30"),
        (["{shots}/4.png", "--format", "voc"], "unknown format 'voc'; choose one of coco, yolo"),
        (["{shots}/4.png", "{shots}/4.bmp", "--draw"], "differ in their ending alone"),
        (["{shots}/4.png", "--round", "7"], "no finished round 7"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_written(folder, shots, detloop, tmp_path, words, message):
    Image.open(shots / "4.png").save(shots / "4.bmp")
    out = [] if "--out" in words else ["--out", tmp_path / "out"]
    status, _, told = detloop("predict", folder, *(word.format(shots=shots) for word in words), *out)
    assert (status, message in told, (tmp_path / "out").exists()) == (2, True, False)


def test_a_run_in_a_remote_root_is_used_from_there(folder, shots):
    fsspec.filesystem("memory").put(str(folder.parent), "memory://remote-runs", recursive=True)
    fsspec.filesystem("memory").put(str(shots), "memory://remote-shots", recursive=True)
    remote, local = "memory://remote-runs/easy", face.predict(folder, shots, score=SCORE)
    table = face.predict(remote, "memory://remote-shots", score=SCORE)
    assert table.drop(columns="uri").equals(local.drop(columns="uri"))
    face.export_model(remote, "pt", "memory://remote-models/a.pt")
    assert UPath("memory://remote-models/a.pt").stat().st_size > 100_000


def test_a_score_that_nothing_reaches_is_told(folder, shots, detloop, tmp_path):
    status, said, _ = detloop("predict", folder, shots / "4.png", "--out", tmp_path / "out", "--score", "1")
    assert (status, "0 detections, 1 of 1 picture read" in said, "nothing scored 1.0 or more" in said) == (
        0,
        True,
        True,
    )


# Evaluation


def test_the_test_images_are_measured_with_the_control_and_recorded(folder, detloop):
    number = best(folder)
    status, said, _ = detloop("evaluate", folder)
    warning = "warning: of 8 test images, 8 are validation images of the run: the figures are too good"
    assert (status, said.count("warning: "), warning in said) == (0, 1, True)
    record = json.loads((folder / "evaluations/001.json").read_text())
    known = json.loads((folder / f"rounds/{number:03d}/metrics.json").read_text())
    summary = json.loads((folder / f"rounds/{number:03d}/round.json").read_text())
    for arm in ("loop", "control"):
        assert record["metrics"][arm] == {key: value for key, value in known[arm].items() if key != "AP_hard"}
    assert (record["gain"], record["gain_ci95"]) == (summary["gain"], summary["gain_ci95"])
    assert (record["round"], record["split"], record["earlier"]) == (number, "test", {})
    assert record["own"] == {"validation": 8}
    assert record["images"].startswith("8 images ")
    assert f"{100 * record['metrics']['loop']['AP']:.1f}" in said


def test_it_is_told_how_often_the_same_test_images_were_measured_in_any_run(folder, detloop, data):
    assert detloop("evaluate", folder)[0] == 0
    assert "earlier" not in detloop("evaluate", folder, "--split", "val")[1]
    shutil.copytree(folder, folder.with_name("other"))
    said = detloop("evaluate", folder.with_name("other"), "--data", data)[1]
    assert "earlier measurements of these images: 2, in easy (1), other (1)" in " ".join(said.split())
    assert len(list((folder.parent / "other/evaluations").glob("*.json"))) == 3


@pytest.fixture
def others(data, tmp_path):
    """Writes a data set of training, validation, re-encoded training and new images, and gives its folder."""

    def write(train, val, encoded, new):
        folder = tmp_path / "others"
        folder.mkdir()
        sources = [("train", "png", n) for n in range(train)] + [("val", "png", n) for n in range(val)]
        sources += [("train", "bmp", n) for n in range(train, train + encoded)]
        for split, suffix, number in sources:
            picture = data / split / f"{number + 1}.png"
            name = folder / f"{split}{number}.{suffix}"
            shutil.copy(picture, name) if suffix == "png" else Image.open(picture).save(name)
        rng = np.random.default_rng(0)
        for number in range(new):
            blocks = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(blocks).resize((64, 64)).save(folder / f"new{number}.png")
        files = sorted(file.name for file in folder.iterdir())
        images = [{"id": n, "file_name": name, "width": 64, "height": 64} for n, name in enumerate(files)]
        box = {"category_id": 1, "bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0}
        boxes = [{"id": n + 1, "image_id": n, **box} for n in range(len(files))]
        tree = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "red"}]}
        (folder / "boxes.json").write_text(json.dumps(tree))
        return folder

    return write


@pytest.mark.parametrize(
    ("counts", "own", "told"),
    [
        ((3, 2, 1, 2), {"training": 3, "validation": 2, "near_copies": 1}, "3 are training images of the run, 2 are"),
        ((0, 0, 2, 1), {"near_copies": 2}, "of 3 test images, 2 are near-copies of its training images"),
        ((0, 0, 0, 2), {}, ""),
    ],
)
def test_images_that_the_run_has_seen_are_told_and_recorded(folder, others, detloop, counts, own, told):
    status, said, _ = detloop("evaluate", folder, "--data", others(*counts))
    assert (status, told in said, "warning" in said) == (0, True, bool(told))
    assert json.loads((folder / "evaluations/001.json").read_text())["own"] == own


def test_training_images_alone_are_no_test(folder, others, detloop):
    status, _, said = detloop("evaluate", folder, "--data", others(3, 0, 0, 0))
    assert (status, "all 3 test images are training images of the run" in said) == (2, True)
    assert not (folder / "evaluations").exists()


def test_where_the_data_of_the_run_are_gone_it_is_told_that_nothing_was_compared(folder, others, detloop):
    config = folder / "config.json"
    tree = json.loads(config.read_text())
    tree["data"]["root"] = "/nowhere"
    config.write_text(json.dumps(tree))
    status, said, _ = detloop("evaluate", folder, "--data", others(1, 0, 0, 1))
    assert (status, "whether these images are among them was not checked" in said) == (0, True)


def test_other_data_are_matched_by_the_names_of_their_classes(folder, data, tmp_path):
    content = json.loads((data / "annotations/test.json").read_text())
    content["categories"] = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    for box in content["annotations"]:
        box["category_id"] = 3 - box["category_id"]
    other = shutil.copytree(data / "test", tmp_path / "other")
    (other / "boxes.json").write_text(json.dumps(content))
    table = face.evaluate(folder, data=other)
    assert table.equals(face.evaluate(folder))
    assert table.loc["AP", "gain"] == table.loc["AP", "loop"] - table.loc["AP", "control"]
    config = tmp_path / "other.yaml"
    config.write_text(f"data: {{root: {data}}}\n")
    assert face.evaluate(folder, data=config, split="val").equals(table)
    (other / "boxes.json").write_text(json.dumps(content).replace('"red"', '"crimson"'))
    with pytest.raises(ValueError, match=r"classes \['crimson'\] are not among those of the run: \['blue', 'red'\]"):
        face.evaluate(folder, data=other)


def test_a_split_that_is_not_there_is_told(folder, easy_data, tmp_path):
    with pytest.raises(ValueError, match="has no split 'test'; it has: train, val"):
        face.evaluate(folder, data=easy_data)
    with pytest.raises(ValueError, match="split: test or val, not 'train'"):
        face.evaluate(folder, split="train")
    (tmp_path / "data.yaml").write_text("names: [a]\n")
    with pytest.raises(ValueError, match="has no section `data`"):
        face.evaluate(folder, data=tmp_path / "data.yaml")
    assert not (folder / "evaluations").exists()
