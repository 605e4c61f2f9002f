"""`detloop labels` from the command line and from Python, on a copy of the easy data with one fault of each kind."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

import detloop as package
from actors.records import Detections
from loop import cross_fit
from loop.labels import run as check
from loop.labels.questions import KINDS
from loop.labels.run import Choice
from loop.labels.told import COLUMNS
from loop.labels.unseen import Looked

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def faulty(easy_data, tmp_path_factory):
    """The easy data with a box that is moved, one that is gone, one of the other class, and one that is there twice."""
    folder = tmp_path_factory.mktemp("faulty") / "data"
    shutil.copytree(easy_data, folder)
    file = folder / "annotations/train.json"
    tree = json.loads(file.read_text())
    boxes = tree["annotations"]
    boxes[0]["bbox"][0] += 9
    boxes[2]["category_id"] = 3 - boxes[2]["category_id"]
    boxes.append({**boxes[6], "id": 99, "bbox": [value + 0.5 for value in boxes[6]["bbox"]]})
    del boxes[4]
    file.write_text(json.dumps(tree))
    return folder


@pytest.fixture(scope="module")
def config(faulty, easy_config, tmp_path_factory):
    """The file of a config for these data, whose root is beside it."""
    folder = tmp_path_factory.mktemp("labels")
    training = {**easy_config["training"], "steps": 60, "epoch_steps": 20}
    tree = {**easy_config, "data": {"root": str(faulty)}, "mining": {"cross_fit": 2}, "training": training}
    (folder / "easy.yaml").write_text(yaml.safe_dump({**tree, "root": str(folder / "runs")}))
    return folder / "easy.yaml"


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def checked(config, faulty):
    """The folder of a check, its table, and the data's files before."""
    before = contents(faulty)
    table = package.labels(str(config), confidence=0.5, apply=("box", "missing"))
    return config.parent / "runs/labels/easy", table, before


def test_the_files_of_the_data_stay_as_they_were(checked, faulty):
    assert contents(faulty) == checked[2]


def test_the_table_is_the_csv_and_the_surest_come_first(checked):
    folder, table, _ = checked
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == tuple(table.columns) == COLUMNS
    assert [(row["image"], row["question"]) for row in rows] == list(zip(table.image, table.question, strict=True))
    assert table.score.is_monotonic_decreasing
    assert table.score.between(0.5, 1).all()
    assert set(table.question) <= set(KINDS)


def test_what_was_applied_is_in_the_corrected_file_and_nothing_else(checked, faulty):
    folder, table, _ = checked
    applied = table[table.applied]
    assert set(applied.question) <= {"box", "missing"}
    assert len(applied) == (table.question.isin(["box", "missing"])).sum()
    given, corrected = (
        json.loads(file.read_text()) for file in (faulty / "annotations/train.json", folder / "corrected.json")
    )
    assert len(corrected["annotations"]) == len(given["annotations"]) + (applied.question == "missing").sum()
    boxes = {tuple(round(value, 1) for value in one["bbox"]) for one in given["annotations"]}
    changed = [one for one in corrected["annotations"] if tuple(round(v, 1) for v in one["bbox"]) not in boxes]
    assert len(changed) == len(applied)


def test_every_kind_that_was_asked_has_a_sheet(checked):
    folder, table, _ = checked
    sheets = {file.stem for file in folder.glob("*.png")}
    assert sheets == set(table.question)
    assert all(Image.open(folder / f"{kind}.png").width > 300 for kind in sheets)


def test_the_same_command_again_trains_nothing_and_names_the_next_one(checked, config, detloop, monkeypatch):
    folder, table, _ = checked
    monkeypatch.setattr(cross_fit, "train", None)
    status, said, _ = detloop("labels", config, "--confidence", "0.9")
    assert status == 0
    assert f"8 training images with {16} labels, each image seen by a detector that was not trained on it" in said
    for kind in KINDS:
        number = (table.question == kind).sum()
        assert any(line.split()[:2] == [kind, str(number)] for line in said.splitlines())
    assert "train on it" not in said
    arguments = ("--set", "name=easy", "--set", "rounds=1", "--confidence", "0.5", "--apply", "missing")
    status, said, _ = detloop("labels", config, *arguments)
    keys = f"--set name=easy-corrected --set rounds=0 --set data.labels={folder / 'corrected.json'}"
    command = f"detloop run {config} {keys}"
    assert f"train on it: {command}\n" in said
    assert detloop("check", *command.split()[2:])[0] == 0
    assert "of 8 training images, 8 have the labels of" in detloop("check", *command.split()[2:])[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "seed=3"], "holds the check of another config or of other data"),
        (["--out", "{data}/new"], "the folder of the data"),
        (["--out", "{data}/../other"], "is not empty"),
        (["--out", "{data}/../other/mine.txt"], "is a file, not a folder"),
        (["--confidence", "2"], "confidence: a number from 0 to 1, not 2.0"),
    ],
)
def test_other_folders_and_arguments_out_of_range_are_refused(checked, config, faulty, detloop, arguments, message):
    other = faulty.parent / "other"
    other.mkdir(exist_ok=True)
    (other / "mine.txt").touch()
    status, _, error = detloop("labels", config, *(one.format(data=faulty) for one in arguments))
    assert (status, message in error) == (2, True)
    assert contents(faulty) == checked[2]
    assert [file.name for file in other.iterdir()] == ["mine.txt"]


def seen_in(num_images):
    """A ``look`` whose detectors see the labels of so many images, and in the last of them an object without one."""

    def look(data):
        for number, image in enumerate(data.splits["train"]):
            known = image.annotation
            boxes, labels = (known.boxes, known.labels) if number < num_images else (known.boxes[:0], known.labels[:0])
            if number == num_images - 1:
                boxes, labels = np.append(boxes, np.float32([[0, 56, 6, 63]]), axis=0), np.append(labels, labels[0])
            scores = np.full(len(labels), 0.9, np.float32)
            seen = Detections(boxes=boxes, labels=labels, scores=scores)
            yield Looked(image=image, seen=seen, refinement=None)

    return lambda _config, data, _reporter: tuple(look(data))


WEAK = "of the labels again: too weak to say much"


@pytest.mark.parametrize(
    ("num_images", "told", "untold"),
    [
        (0, [WEAK, "nothing: the detectors are too weak to say"], ["no label looks wrong", "train on it"]),
        (4, [WEAK, "proposals taken over: 1", "the detectors are weak: look", "train on it"], []),
        (8, ["proposals taken over: 1", "train on it"], ["these detectors", "the detectors are"]),
    ],
)
def test_weak_detectors_are_named_as_such(config, tmp_path, detloop, monkeypatch, num_images, told, untold):
    monkeypatch.setattr(check, "look", seen_in(num_images))
    arguments = ("--out", tmp_path / "out", "--confidence", "0.5", "--apply", "missing")
    status, said, _ = detloop("labels", config, *arguments)
    assert status == 0
    assert [words for words in told if words not in said] == []
    assert [words for words in untold if words in said] == []


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="apply: 'boxes' is no kind of question"):
        Choice(kinds=("boxes",))
