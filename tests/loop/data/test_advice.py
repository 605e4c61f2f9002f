"""What is said about the data before a run: rare classes, tiny boxes, and leaks between splits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actors.records import Annotation, LabeledImage
from loop.data import leaks as module
from loop.data.advice import advise
from loop.data.importing import Dataset
from loop.data.leaks import leaks
from loop.data.ledger import ImportReport

Draw = Callable[[int], np.ndarray]
SIDE = 96


def scene(seed: int) -> np.ndarray:
    """An unrelated picture for each seed: blurred noise."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def moment(number: int) -> np.ndarray:
    """A frame of a video: the camera moves over a wide picture."""
    coarse = np.random.default_rng(7).integers(0, 255, (6, 60, 3), np.uint8)
    wide = np.asarray(Image.fromarray(coarse).resize((SIDE * 10, SIDE), Image.Resampling.BICUBIC))
    return wide[:, 2 * number : 2 * number + SIDE]


def images(folder: Path, names: list[str], draw: Draw, boxes: list[list[float]] | None = None) -> list[LabeledImage]:
    """One image for each name, drawn by the number in it."""
    made = []
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(int("".join(filter(str.isdigit, file.stem))))).save(file)
        annotation = Annotation.empty() if boxes is None else annotated(boxes)
        made.append(LabeledImage(id=name, uri=str(file), width=SIDE, height=SIDE, annotation=annotation))
    return made


def annotated(boxes: list[list[float]], labels: list[int] | None = None) -> Annotation:
    return Annotation(
        boxes=np.array(boxes, np.float32),
        labels=np.array(labels or [0] * len(boxes), np.int64),
        ignore=np.zeros(len(boxes), np.bool_),
    )


def dataset(tmp_path: Path, train: Annotation, val: Annotation) -> Dataset:
    first, second = images(tmp_path, ["train/a1.png", "val/b2.png"], scene)
    splits = {
        "train": (LabeledImage(id=first.id, uri=first.uri, width=SIDE, height=SIDE, annotation=train),),
        "val": (LabeledImage(id=second.id, uri=second.uri, width=SIDE, height=SIDE, annotation=val),),
    }
    report = ImportReport(format="coco", root="", splits={}, findings=(), remarks=())
    return Dataset(classes=("ant", "bee", "cat"), splits=splits, report=report, val_is_drawn=False)


def test_rare_classes_and_tiny_boxes_are_told(tmp_path):
    box, tiny = [10, 10, 40, 40], [10, 10, 40, 11]
    train = annotated([box] * 5 + [tiny] * 2, [0] * 5 + [2] * 2)
    said = list(advise(dataset(tmp_path, train, annotated([box] * 3, [0, 1, 1])), SIDE))
    assert len(said) == 3
    assert "1 class has validation boxes but no training box (bee 2)" in said[0]
    assert "1 class has fewer than 5 training boxes (cat 2)" in said[1]
    assert "2 of 7 train boxes have a side under 2 px" in said[2]
    assert len(list(advise(dataset(tmp_path, train, annotated([box])), 2 * SIDE))) == 1  # of 2 px; no bee is missed


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_near_copies_are_told_and_unrelated_pictures_are_not(tmp_path, suffix):
    def brighter_and_smaller(number: int) -> np.ndarray:
        pixels = np.clip(scene(number) * 0.8 + 20, 0, 255).astype(np.uint8)
        return np.asarray(Image.fromarray(pixels).resize((SIDE // 2, SIDE // 2), Image.Resampling.BILINEAR))

    train = images(tmp_path, [f"train/{number}{suffix}" for number in range(40)], scene)
    val = images(tmp_path, [f"val/{number}{suffix}" for number in range(100, 140)], scene)
    assert not list(leaks(train, {"val": val}))
    val += images(tmp_path, [f"val/{number}{suffix}" for number in (3, 17)], brighter_and_smaller)
    (said,) = leaks(train, {"val": val})
    assert said.startswith("of 42 val images, 2 are near-copies of training images")
    assert f"val/3{suffix} of train/3{suffix}, val/17{suffix} of train/17{suffix}" in said


@pytest.mark.parametrize("name", ["images/{}/clip_{:04}.png", "{}/clip-{}_jpg.rf.abcdef.png"])
def test_frames_of_one_video_are_told_and_numbered_photographs_are_not(tmp_path, name):
    numbers = {"train": [n for n in range(0, 120, 3) if n % 9], "val": list(range(0, 120, 9))}  # every third frame
    said = {}
    for draw in (moment, scene):
        made = {
            split: images(tmp_path / draw.__name__, [name.format(split, n) for n in of], draw)
            for split, of in numbers.items()
        }
        said[draw] = list(leaks(made["train"], {"val": made["val"]}))
    assert said[scene] == []
    (frames,) = said[moment]
    assert frames.startswith("of 14 val images, 14 are video frames next to a training frame")


def test_large_sets_are_sampled_and_that_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_IMAGES", 30)
    train = images(tmp_path, [f"train/{number}.png" for number in range(40)], scene)
    val = images(tmp_path, [f"val/{number}.png" for number in range(100, 110)], scene)
    assert list(leaks(train, {"val": val})) == ["leaks between splits were looked for in 30 of 50 images"]
