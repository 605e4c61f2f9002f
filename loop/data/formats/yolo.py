"""YOLO: a ``data.yaml`` with class names and splits, one text file per image with ``class cx cy width height`` lines.

Coordinates are fractions of the image's sides, after its EXIF orientation is applied. Classes are those of
``data.yaml``, in its order. A split is a folder, a list file, or a list of these. The path of a label file is that of
the image with the last folder ``images`` replaced by ``labels``; without such a folder, it is beside the image. An
image without a label file is empty. A line with more numbers is a polygon; its bounding box is used.

``provenance.jsonl`` holds what label files have no room for: one line per image that is synthetic or that has ignored
boxes (their line numbers, from 0).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml
from upath import UPath

from loop.data.config import DataConfig
from loop.data.formats.base import (
    ALIASES,
    Corners,
    Notation,
    OutImage,
    RawBox,
    RawDataset,
    RawImage,
    below,
    check_name,
    choose_splits,
    inside,
    number,
    pictures,
)
from loop.data.ledger import Ledger
from loop.data.provenance import from_fields, to_fields

LOOKED_FOR = "data.yaml, dataset.yaml, or another *.yaml with 'names' and 'train'"
NOTATION: Notation = "centre x, centre y, width, height"
SIDECAR = "provenance.jsonl"

_NOT_LABELS = frozenset({"classes.txt", "labels.txt"})  # written beside the labels by labelling tools


def find(root: UPath) -> UPath | None:
    """The data file of ``root``, if there is one."""
    usual = [root / name for name in ("data.yaml", "data.yml", "dataset.yaml")]
    for file in [*usual, *sorted([*root.glob("*.yaml"), *root.glob("*.yml")])]:
        if file.is_file() and (file in usual or _looks_right(file)):
            return file
    return None


def read(root: UPath, config: DataConfig, ledger: Ledger) -> RawDataset:
    """Read all label files. Raises ValueError, naming the file, if ``data.yaml`` cannot be used."""
    file = find(root)
    if file is None:
        raise FileNotFoundError(f"{root}: no YOLO data here; looked for {LOOKED_FOR}")
    tree = _load(file)
    classes = _classes(tree.get("names"), file)
    base = _base(root, tree.get("path"), file, ledger)
    wanted = {name for names in ALIASES.values() for name in names} | {config.train, config.val, config.test}
    named = {key: value for key, value in tree.items() if key in wanted and value}
    sidecar = _read_sidecar(root)
    splits = {}
    for split, (name, value) in choose_splits(named, config, ledger).items():
        listed = _listed(root, base, value, f"{file}, {name}", config, ledger)
        splits[split] = tuple(_images(root, listed, classes, sidecar, config, ledger))
    return RawDataset(classes=classes, splits=splits)


def write(splits: Mapping[str, Sequence[OutImage]], classes: Sequence[str], out: UPath) -> None:
    """Write ``data.yaml``, ``labels/<split>/`` for images in ``images/<split>/``, and the sidecar."""
    tree = {split: f"images/{split}" for split in splits} | {"names": dict(enumerate(classes))}
    out.mkdir(parents=True, exist_ok=True)
    (out / "data.yaml").write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    sidecar = []
    for split, images in splits.items():
        (out / "labels" / split).mkdir(parents=True, exist_ok=True)
        for one in images:
            label_file = out / _label_path(picture_path(split, one.name))
            label_file.write_text("".join(_lines(one)), encoding="utf-8")
            sidecar += _sidecar_fields(one, split)
    lines = [json.dumps(fields, ensure_ascii=False) + "\n" for fields in sidecar]
    (out / SIDECAR).write_text("".join(lines), encoding="utf-8")


def picture_path(split: str, name: str) -> str:
    """The path of the image ``name`` of ``split`` in an export."""
    return f"images/{split}/{name}"


def _looks_right(file: UPath) -> bool:
    try:
        tree = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, ValueError):
        return False
    return isinstance(tree, dict) and "names" in tree and "train" in tree


def _load(file: UPath) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{file}: a YOLO data file is a mapping, this one holds {type(tree).__name__}")
    return tree


def _classes(names: object, file: UPath) -> tuple[str, ...]:
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise ValueError(f"{file}: the keys of 'names' must be 0 to {len(names) - 1}, they are {list(names)}")
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{file}: 'names' must list the classes, it is {names!r}")
    classes = tuple(map(str, names))
    if len(set(classes)) < len(classes):
        raise ValueError(f"{file}: a class is named twice in 'names': {list(classes)}")
    return classes


def _base(root: UPath, path: object, file: UPath, ledger: Ledger) -> str:
    """The folder that splits are relative to, itself relative to ``root``: ``path`` if it exists, else the root."""
    given = str(path or ".").removeprefix(str(root)).lstrip("/") or "."
    if ".." not in PurePosixPath(given).parts and (root / given).is_dir():
        return given
    ledger.remarks.append(f"{file}: path {str(path)!r} is no folder in {root}; the splits were looked for in {root}")
    return "."


def _listed(root: UPath, base: str, value: object, origin: str, config: DataConfig, ledger: Ledger) -> list[str]:
    """The images of a split, relative to ``root``, in the given order."""
    entries = value if isinstance(value, list) else [value]
    listed: list[str] = []
    for entry in entries:
        folder = _place(root, base, str(entry), origin, config)
        if folder.endswith(".txt"):
            listed += _list_file(root, base, folder)
        else:
            listed += pictures(root, folder, follow_links=config.follow_links)
            _drop_orphans(root, folder, listed, ledger)
    if not listed:
        raise FileNotFoundError(f"{origin}: no pictures in {value!r} below {root}")
    return listed


def _place(root: UPath, base: str, entry: str, origin: str, config: DataConfig) -> str:
    """A split's folder or list file, relative to ``root``. A leading ``../``, as Roboflow writes it, means the root."""
    relative = entry.removeprefix(str(root).rstrip("/") + "/")
    while relative.startswith(("../", "./")):
        relative = relative.removeprefix("../").removeprefix("./")
    for start in (base, "."):
        place = (PurePosixPath(start) / check_name(relative, origin)).as_posix()
        if inside(root, place, origin, follow_links=config.follow_links).exists():
            return place
    raise FileNotFoundError(f"{origin}: {entry!r} is not there; looked in {root / base} and {root}")


def _list_file(root: UPath, base: str, file: str) -> list[str]:
    """The images named in a list file. Names with ``./`` are relative to the file, others to the data set's folder."""
    try:
        lines = (root / file).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{root / file}: not UTF-8 text ({error})") from None
    listed = []
    for line in filter(None, map(str.strip, lines)):
        start = PurePosixPath(file).parent if line.startswith("./") else PurePosixPath(base)
        relative = line.removeprefix("./").removeprefix(str(root).rstrip("/") + "/")
        start = PurePosixPath() if line.startswith(str(root)) else start
        listed.append((start / check_name(relative, str(root / file))).as_posix())
    return listed


def _drop_orphans(root: UPath, folder: str, listed: Sequence[str], ledger: Ledger) -> None:
    """Record the label files of a folder that have no image."""
    wanted = {_label_path(name) for name in listed}
    labels = PurePosixPath(_label_path(f"{folder}/x")).parent.as_posix()
    for path in sorted((root / labels).rglob("*.txt")):
        if below(root, path) not in wanted and path.name not in _NOT_LABELS:
            ledger.drop(below(root, path), "image", "missing image", "a label file without picture")


def _label_path(picture: str) -> str:
    path = PurePosixPath(picture).with_suffix(".txt")
    parts = list(path.parts)
    folders = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return PurePosixPath(*parts).as_posix()


def _images(
    root: UPath,
    listed: Sequence[str],
    classes: Sequence[str],
    sidecar: Mapping[str, dict[str, Any]],
    config: DataConfig,
    ledger: Ledger,
) -> Iterator[RawImage]:
    num_unlabelled = 0
    for picture in listed:
        label = _label_path(picture)
        try:
            text = inside(root, label, picture, follow_links=config.follow_links).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            ledger.drop(label, "image", "unreadable annotation", f"not UTF-8 text: {error}")
            continue
        except FileNotFoundError:
            text, num_unlabelled = "", num_unlabelled + 1
        beside = sidecar.get(picture, {})
        yield RawImage(
            source=label,
            places=(picture,),
            boxes=tuple(_boxes(text, classes, beside.get("ignore", set()))),
            relative=True,
            provenance=from_fields(beside, SIDECAR),
        )
    if num_unlabelled == len(listed):
        raise FileNotFoundError(
            f"none of {len(listed)} pictures has a label file, e.g. {root / _label_path(listed[0])}"
        )
    if num_unlabelled:
        ledger.remarks.append(f"{num_unlabelled} of {len(listed)} pictures have no label file: taken as empty images")


def _boxes(text: str, classes: Sequence[str], ignored: set[int]) -> Iterator[RawBox]:
    lines = filter(str.strip, text.splitlines())
    for index, line in enumerate(lines):
        first, *numbers = line.split()
        label = number(first)
        known = label.is_integer() and 0 <= label < len(classes)
        yield RawBox(
            corners=_corners([number(value) for value in numbers]),
            label=classes[int(label)] if known else None,
            ignore=index in ignored,
            where=f"line {index + 1}: {line.strip()!r:.100}",
        )


def _corners(numbers: Sequence[float]) -> Corners:
    """Fractional xyxy of a box ``cx cy width height`` or of a polygon's points ``x y x y x y ...``; else NaN."""
    if len(numbers) == 4:
        cx, cy, width, height = numbers
        return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    if len(numbers) >= 6 and len(numbers) % 2 == 0 and not any(map(math.isnan, numbers)):
        return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])
    return (math.nan,) * 4


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
