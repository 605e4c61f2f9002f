"""Folders after public bug reports, each imported as its README expects: ``DETLOOP_CASES=FOLDER pytest THIS_FILE``.

Class ``red`` lies on red and ``blue`` on blue, so an import is right where each box lies on its colour.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from upath import UPath

from actors.images import read as read_picture
from loop.cli import app
from loop.config_files import load
from loop.data.importing import Dataset, import_data


@dataclass(frozen=True, kw_only=True)
class Read:
    """The case is imported."""

    images: dict[str, int]  # by split
    boxes: int  # in all splits
    status: int = 0  # of detloop data validate
    ignored: int = 0
    said: tuple[str, ...] = ()  # in the report
    config: str = ""  # further keys of the data


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The case is not imported, and the message says these."""

    said: tuple[str, ...]
    config: str = ""


TWO = {"train": 12, "val": 6}
ONE = {"train": 14, "val": 4}

CASES: dict[str, list[Read | Refused]] = {
    "02": [Read(images=TWO, boxes=36, status=1, said=("18 x image: boxes moved into the image",))],
    "03": [Read(images=ONE, boxes=36)],
    "04": [Read(images=TWO, boxes=36)],
    "05": [Read(images=ONE, boxes=36, said=("18 pictures are not where the annotations say",))],
    "08": [Read(images=ONE, boxes=36, said=("18 pictures are not where the annotations say",))],
    "09b": [Read(images=TWO, boxes=36)],
    "10": [Read(images=ONE, boxes=36, said=("val2017 is the only split", "4 training images held out"))],
    "16": [Refused(said=("Are they x1, y1, x2, y2 in px instead?", "data.max_faulty_frac"))],
    "17": [Refused(said=("in shares from 0 to 1 instead?", "data.max_faulty_frac"))],
    "18": [Read(images=TWO, boxes=36, status=1, said=("36 x box: exact duplicate",))],
    "24": [
        Refused(said=("annotations/instances_train.json", "annotations/train.json", "--set data.train=")),
        Read(images=TWO, boxes=36, config="train: annotations/train.json"),
        Read(images={"train": 4, "val": 6}, boxes=20, config="train: instances_train.json"),
    ],
    "26": [Read(images=TWO, boxes=36)],
    "27": [Read(images={"train": 13, "val": 3}, boxes=32)],
    "29": [Read(images={"train": 9, "val": 2}, boxes=22)],
    "31": [Read(images={"train": 13, "val": 6}, boxes=37)],
    "32": [Read(images=ONE, boxes=36, said=("left aside", "annotations/classes.json"))],
    "34": [Read(images=TWO, boxes=36, ignored=18)],
    "36": [Read(images=TWO, boxes=36)],
    "51": [Read(images=TWO, boxes=36, said=("the test split is left out",))],
    "52": [Read(images=TWO, boxes=36, said=("the test split is left out",))],
    "54": [Read(images=ONE, boxes=36)],
    "60": [Read(images=TWO, boxes=36, said=("is taken to be train/images", "is taken to be valid/images"))],
    "62": [Read(images=TWO, boxes=36, said=("is taken to be train/images", "is taken to be valid/images"))],
    "67": [Read(images=TWO, boxes=36, said=("36 of 36 label rows have numbers after the box",))],
    "69": [Read(images=TWO, boxes=36)],
    "70": [Refused(said=("data.follow_links",)), Read(images=TWO, boxes=36, config="follow_links: true")],
    "71": [Read(images={"train": 16, "val": 6}, boxes=44)],
    "80": [Read(images=ONE, boxes=36)],
    "82": [Read(images=TWO, boxes=36)],
    "85": [Read(images=ONE, boxes=36)],
    "91": [Read(images=ONE, boxes=36)],
    "96": [Read(images={"train": 11, "val": 6}, boxes=34, status=1, said=("float.tif", "save it with 8 or 16 bits"))],
    "97": [Read(images=TWO, boxes=36, said=("12 of 36 label rows have numbers after the box",))],
    "area": [Read(images={"train": 1, "val": 60}, boxes=301, ignored=31)],
}
STORE = "70-store-outside"  # what the links of case 70 lead to
NO_COLOURS = {"phone.jpg"}
"""Pictures without coloured rectangles, besides those of ``area-of-mask-eval``."""


@pytest.fixture(scope="module")
def cases() -> Path:
    folder = os.environ.get("DETLOOP_CASES")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set DETLOOP_CASES to the folder of cases to run this test")
    return Path(folder)


def test_every_case_is_tried(cases):
    folders = [path.name for path in cases.iterdir() if path.is_dir() and path.name != STORE]
    assert [name for name in folders if name.split("-")[0] not in CASES] == []
    assert len(folders) == len(CASES)


@pytest.mark.parametrize(
    ("case", "expected"),
    [pytest.param(name, one, id=f"{name}.{i}") for name in CASES for i, one in enumerate(CASES[name])],
)
def test_a_public_case_is_imported_as_expected(cases, tmp_path, case, expected):
    root = copied(next(path for path in cases.glob(f"{case}-*") if path.name != STORE), tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text(f"name: case\ndata:\n  root: {root}\n  {expected.config}\n")
    result = CliRunner().invoke(app, ["data", "validate", str(file)])
    if isinstance(expected, Refused):
        assert isinstance(result.exception, ValueError | OSError)
        assert [part for part in expected.said if part not in str(result.exception)] == []
        return
    assert (result.exit_code, type(result.exception)) in {(expected.status, type(None)), (expected.status, SystemExit)}
    assert [part for part in expected.said if part not in result.output] == []
    data = import_data(load([file], []).data, UPath(root), 0)
    counts = data.report.splits
    assert {split: count.images for split, count in counts.items()} == expected.images
    assert sum(count.boxes for count in counts.values()) == expected.boxes
    assert sum(count.ignored for count in counts.values()) == expected.ignored
    assert case == "area" or off_their_colour(data) == []


def copied(case: Path, folder: Path) -> Path:
    """The case where its links can be made: in a checkout they may be files that hold their target."""
    shutil.copytree(case, folder / case.name)
    if case.name.startswith("70"):
        shutil.copytree(case.parent / STORE, folder / STORE)
        for link in (folder / case.name / "images").iterdir():
            target = folder / STORE / link.name
            link.chmod(0o644)
            link.unlink()
            link.symlink_to(target)
    return folder / case.name


def off_their_colour(data: Dataset) -> list[tuple[str, list[float]]]:
    """The images and boxes whose middle is not of the colour of their class."""
    wrong = []
    for image in (one for images in data.splits.values() for one in images if Path(one.id).name not in NO_COLOURS):
        pixels = read_picture(image.uri).astype(int)
        for (x0, y0, x1, y1), label in zip(image.annotation.boxes.tolist(), image.annotation.labels, strict=True):
            quarter_x, quarter_y = (x1 - x0) / 4, (y1 - y0) / 4
            rows = slice(round(y0 + quarter_y), round(y1 - quarter_y))
            inner = pixels[rows, round(x0 + quarter_x) : round(x1 - quarter_x)].reshape(-1, 3).mean(axis=0)
            redness = inner[0] - inner[2] if data.classes[label] == "red" else inner[2] - inner[0]
            if not (np.isfinite(redness) and redness > 60):
                wrong.append((image.id, [x0, y0, x1, y1]))
    return wrong
