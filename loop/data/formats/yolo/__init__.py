"""YOLO: one text file per image, with a ``class cx cy width height`` line for each box.

Coordinates are fractions of the image's sides, after its EXIF orientation is applied. Class names and splits are those
of ``data.yaml`` or ``obj.data``, in its order; without such a file, those of ``classes.txt`` and of the folders
(``layout``). A split is a folder, a list file, or a list of these. The path of a label file is that of the image with
the last folder ``images`` replaced by ``labels``; without such a folder, it is beside the image (``labels``). An image
without a label file is empty, unless a label file that may be its own lies elsewhere: it is then left out. Longer lines
are polygons, whose bounding box is used, or boxes with further numbers (``rows``).

``provenance.jsonl`` holds what label files have no room for: one line per image that is synthetic or that has ignored
boxes (their line numbers, from 0).
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml
from upath import UPath

from actors.counted import counted
from loop.data.config import DataConfig
from loop.data.formats.base import Notation, OutImage, RawBox, RawDataset, RawImage, choose_splits, inside
from loop.data.formats.yolo.labels import LabelFiles, loose_stem, unclaimed
from loop.data.formats.yolo.layout import LOOKED_FOR, find, layout
from loop.data.formats.yolo.paths import text_of
from loop.data.formats.yolo.rows import NOWHERE, Evidence, Meaning, Row, meanings, remarks
from loop.data.ledger import Ledger
from loop.data.provenance import from_fields, to_fields

__all__ = ["LOOKED_FOR", "NOTATION", "SIDECAR", "find", "picture_path", "read", "write"]

NOTATION: Notation = "centre x, centre y, width, height"
SIDECAR = "provenance.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labelled:
    """A picture and the rows of its label file."""

    picture: str  # relative to the root
    label: str  # its label file, or where it would be
    rows: tuple[Row, ...]


def read(root: UPath, config: DataConfig, ledger: Ledger) -> RawDataset:
    """Read all label files.

    Raises FileNotFoundError and ValueError, naming the file, if the training split is not there, if a data file cannot
    be used, or if the labels could mean several things. A validation or test split that is not there, or has no label
    files, is left out with a remark.
    """
    found = layout(root, config, ledger)
    evidence = Evidence()
    labelled: dict[str, list[_Labelled]] = {}
    for split, (_, listing) in choose_splits(found.splits, config, ledger).items():
        try:
            labelled[split] = _labelled(root, listing(), evidence, config, ledger)
        except FileNotFoundError as error:
            if split == "train" or getattr(config, split):
                raise
            ledger.remarks.append(f"the {split} split is left out: {error}")
    meaning = meanings(evidence, found.num_keypoint_values, config, found.origin)
    ledger.remarks.extend(remarks(evidence, meaning))
    sidecar = _read_sidecar(root)
    return RawDataset(
        classes=found.classes,
        splits={
            split: tuple(_raw(one, found.classes, meaning, sidecar.get(one.picture, {})) for one in images)
            for split, images in labelled.items()
        },
    )


def write(splits: Mapping[str, Sequence[OutImage]], classes: Sequence[str], out: UPath) -> None:
    """Write ``data.yaml``, ``labels/<split>/`` for images in ``images/<split>/``, and the sidecar."""
    tree = {split: f"images/{split}" for split in splits} | {"names": dict(enumerate(classes))}
    out.mkdir(parents=True, exist_ok=True)
    (out / "data.yaml").write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    sidecar = []
    for split, images in splits.items():
        (out / "labels" / split).mkdir(parents=True, exist_ok=True)
        for one in images:
            label_file = out / "labels" / split / f"{PurePosixPath(one.name).stem}.txt"
            label_file.write_text("".join(_lines(one)), encoding="utf-8")
            sidecar += _sidecar_fields(one, split)
    lines = [json.dumps(fields, ensure_ascii=False) + "\n" for fields in sidecar]
    (out / SIDECAR).write_text("".join(lines), encoding="utf-8")


def picture_path(split: str, name: str) -> str:
    """The path of the image ``name`` of ``split`` in an export."""
    return f"images/{split}/{name}"


def _labelled(
    root: UPath, listed: Sequence[str], evidence: Evidence, config: DataConfig, ledger: Ledger
) -> list[_Labelled]:
    """The pictures of a split with their rows. Raises FileNotFoundError if none has a label file."""
    files = LabelFiles(root, listed)
    if not any(files.of(picture) for picture in listed):
        raise FileNotFoundError(
            f"none of {counted(len(listed), 'picture')} has a label file, e.g. {root / files.usual(listed[0])}"
        )
    for orphan in files.orphans(listed):
        ledger.drop(orphan, "image", "missing image", "a label file without picture")
    strays = {} if all(map(files.of, listed)) else unclaimed(root, config.follow_links)
    owners = Counter(filter(None, map(files.of, listed)))
    found, num_unlabelled = [], 0
    for picture in listed:
        label = files.of(picture)
        if label is None and (stray := strays.get(loose_stem(picture))):
            ledger.drop(picture, "image", "label file elsewhere", f"its boxes may be those of {stray}")
            continue
        if label and owners[label] > 1:
            ledger.note(picture, "image", "shared label file", f"{label} is of {owners[label]} pictures")
        num_unlabelled += label is None
        file = label and inside(root, label, picture, follow_links=config.follow_links)
        try:
            text = text_of(file) if file else ""
        except (ValueError, FileNotFoundError) as error:
            ledger.drop(str(label), "image", "unreadable annotation", str(error))
            continue
        rows = tuple(evidence.rows(text))
        found.append(_Labelled(picture=picture, label=label or files.usual(picture), rows=rows))
    if num_unlabelled:
        have = counted(num_unlabelled, "has", "have")
        ledger.remarks.append(f"of {counted(len(listed), 'picture')}, {have} no label file: taken as empty")
    return found


def _raw(one: _Labelled, classes: Sequence[str], meaning: Mapping[int, Meaning], beside: Mapping[str, Any]) -> RawImage:
    ignored = beside.get("ignore", set())
    return RawImage(
        source=one.label,
        places=(one.picture,),
        boxes=tuple(_raw_box(row, classes, meaning, row.index in ignored) for row in one.rows),
        relative=True,
        provenance=from_fields(beside, SIDECAR),
    )


def _raw_box(row: Row, classes: Sequence[str], meaning: Mapping[int, Meaning], ignore: bool) -> RawBox:
    known = row.label.is_integer() and 0 <= row.label < len(classes)
    return RawBox(
        corners=row.corners(meaning[row.length]) if row.length in meaning else NOWHERE,
        label=classes[int(row.label)] if known else None,
        ignore=ignore,
        where=f"line {row.index + 1}: {row.text!r}",
    )


def _read_sidecar(root: UPath) -> dict[str, dict[str, Any]]:
    file = root / SIDECAR
    entries = {}
    for index, line in enumerate(file.read_text(encoding="utf-8").splitlines() if file.is_file() else ()):
        try:
            fields = json.loads(line)
            entries[str(fields["file"])] = {**fields, "ignore": {int(box) for box in fields.get("ignore", ())}}
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{file}, line {index + 1}: not as detloop writes it ({error!r})") from None
    return entries


def _lines(one: OutImage) -> Iterator[str]:
    width, height = one.image.width, one.image.height
    for (x0, y0, x1, y1), label in zip(
        one.image.annotation.boxes.tolist(), one.image.annotation.labels.tolist(), strict=True
    ):
        shares = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
        yield f"{label} {' '.join(f'{share:.8f}' for share in shares)}\n"


def _sidecar_fields(one: OutImage, split: str) -> list[dict[str, Any]]:
    """The image's line in the sidecar, if it needs one."""
    ignored = [int(index) for index in one.image.annotation.ignore.nonzero()[0]]
    if one.provenance is None and not ignored:
        return []
    fields = {"file": picture_path(split, one.name), **to_fields(one.provenance, one.source_name)}
    return [fields | ({"ignore": ignored} if ignored else {})]
