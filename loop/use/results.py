"""Detections as files: COCO JSON, YOLO label files, and pictures with the boxes drawn on them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

import yaml
from upath import UPath

from actors.counted import counted
from actors.records import Detections
from actors.storage import write_bytes
from loop.progress import Reporter
from loop.report.marks import Colour, Mark, marked
from loop.use.chosen import Chosen
from loop.use.predict import Found, Picture, Predicted, open_detector, predict_reported

LAYOUTS = ("coco", "yolo")
MIN_DRAWN_PX, MAX_DRAWN_PX = 640, 1600  # longer side of a drawn picture
COLOURS: tuple[Colour, ...] = (
    *((24, 104, 214), (182, 44, 38), (34, 122, 68), (126, 74, 176), (190, 98, 0), (0, 124, 134)),
    *((176, 42, 126), (92, 84, 20), (70, 82, 96)),
)
"""Of the classes in turn; white letters can be read on each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Writes detections into the new folder ``out``, in the layout coco or yolo."""

    out: UPath
    layout: str
    classes: Sequence[str]
    draw: bool  # also write each picture with its boxes

    def prepare(self, pictures: Sequence[Picture]) -> None:
        """Check that the results of ``pictures`` can be written, before the first is.

        Raises ValueError if the layout is unknown, ``out`` is not empty, or two pictures would share a file of theirs.
        """
        if self.layout not in LAYOUTS:
            raise ValueError(f"unknown format {self.layout!r}; choose one of {', '.join(LAYOUTS)}")
        if self.out.exists() and (not self.out.is_dir() or any(True for _ in self.out.iterdir())):
            raise ValueError(f"{self.out} is not empty; give a new folder")
        names: dict[PurePosixPath, str] = {}
        for picture in pictures if self.draw or self.layout == "yolo" else ():
            stem = PurePosixPath(picture.name).with_suffix("")
            if other := names.get(stem):
                raise ValueError(
                    f"{other} and {picture.name} differ in their ending alone, so their results would share a name; "
                    "rename one, or use the format coco without drawing"
                )
            names[stem] = picture.name

    def add(self, one: Predicted) -> None:
        """Write the files of one picture."""
        height, width = one.pixels.shape[:2]
        if self.layout == "yolo":
            lines = "".join(_yolo_lines(one.seen, width, height))
            write_bytes(self._place("labels", one.picture, ".txt"), lines.encode())
        if self.draw:
            write_bytes(self._place("drawn", one.picture, ".jpg"), _drawn(one, self.classes))

    def _place(self, folder: str, picture: Picture, suffix: str) -> UPath:
        return self.out / folder / PurePosixPath(picture.name).with_suffix(suffix).as_posix()

    def finish(self, found: Sequence[Found]) -> UPath:
        """Write the file of the whole set, and return it."""
        if self.layout == "yolo":
            names = yaml.safe_dump({"names": dict(enumerate(self.classes))}, sort_keys=False, allow_unicode=True)
            write_bytes(place := self.out / "classes.yaml", names.encode())
        else:
            tree = coco(found, self.classes)
            write_bytes(place := self.out / "predictions.json", json.dumps(tree, indent=1, ensure_ascii=False).encode())
        return place


def predict_into(
    results: Results, chosen: Chosen, pictures: Sequence[Picture], score: float, reporter: Reporter, *, control: bool
) -> int:
    """Detect in ``pictures`` and write the results. Returns the number of pictures that cannot be read.

    Raises the errors of ``Results.prepare`` and ``open_detector`` before anything is written.
    """
    results.prepare(pictures)
    detector = open_detector(chosen, score, control=control)
    reporter.say(chosen.one(control=control)[1])
    found = predict_reported(detector, pictures, reporter, results.add)
    place = results.finish(found)
    num_boxes = sum(len(one.seen) for one in found)
    reporter.say(
        f"{counted(num_boxes, 'detection')}, {len(found)} of {counted(len(pictures), 'picture')} read: {place}"
    )
    if found and not num_boxes:
        reporter.warn(f"nothing scored {score} or more; a detector trained for few steps needs a lower --score")
    return len(pictures) - len(found)


def coco(found: Sequence[Found], classes: Sequence[str]) -> dict[str, Any]:
    """A COCO data set whose annotations have a ``score``. Ids count from 1; boxes are x, y, width, height in px."""
    pictures = [
        {"id": number, "file_name": one.picture.name, "width": one.width, "height": one.height}
        for number, one in enumerate(found, start=1)
    ]
    boxes = [
        {"image_id": number, **fields} for number, one in enumerate(found, start=1) for fields in _coco_boxes(one.seen)
    ]
    return {
        "images": pictures,
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes, start=1)],
        "annotations": [{"id": number, **fields} for number, fields in enumerate(boxes, start=1)],
    }


def _coco_boxes(seen: Detections) -> list[dict[str, Any]]:
    return [
        {
            "category_id": label + 1,
            "bbox": [round(value, 3) for value in (x0, y0, x1 - x0, y1 - y0)],
            "area": round((x1 - x0) * (y1 - y0), 3),
            "iscrowd": 0,
            "score": round(score, 5),
        }
        for (x0, y0, x1, y1), label, score in zip(
            seen.boxes.tolist(), seen.labels.tolist(), seen.scores.tolist(), strict=True
        )
    ]


def _yolo_lines(seen: Detections, width: int, height: int) -> list[str]:
    """A line for each detection, as ultralytics' ``save_conf`` writes it: class, centre and size as shares, score."""
    return [
        f"{label} {(x0 + x1) / 2 / width:.6f} {(y0 + y1) / 2 / height:.6f} {(x1 - x0) / width:.6f} "
        f"{(y1 - y0) / height:.6f} {score:.5f}\n"
        for (x0, y0, x1, y1), label, score in zip(
            seen.boxes.tolist(), seen.labels.tolist(), seen.scores.tolist(), strict=True
        )
    ]


def _drawn(one: Predicted, classes: Sequence[str]) -> bytes:
    """A JPEG of the picture with its boxes, classes and scores."""
    marks = [
        Mark(box=box, colour=COLOURS[label % len(COLOURS)], label=f"{classes[label]} {score:.2f}")
        for box, label, score in zip(one.seen.boxes, one.seen.labels.tolist(), one.seen.scores.tolist(), strict=True)
    ]
    side = min(max(*one.pixels.shape[:2], MIN_DRAWN_PX), MAX_DRAWN_PX)
    buffer = BytesIO()
    marked(one.pixels, marks, side).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()
