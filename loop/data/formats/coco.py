"""COCO JSON: one annotation file per split, boxes as [x, y, width, height] in px from the upper left corner.

The first of these patterns that matches gives the annotation files: ``annotations/*.json`` (``train.json``,
``instances_train2017.json``, ``lvis_v1_train.json``), ``<split>/_annotations.coco.json``, ``*.json`` in the root, and
``<split>/*.json``. Other JSON files are left aside. An image of split S is the first of these files that exists:
``images/S/NAME``, ``S/NAME``, ``images/NAME``, ``NAME``, and ``NAME`` beside the annotation file, or in a folder
``images`` or ``data`` there; else it is found by its name alone (``loop.data.locating``). LVIS names images by their
``coco_url``.

Classes are the categories in the order of their ids in the training file, followed by those that occur in other splits
only. Categories are matched by name across files, so ids may differ. Boxes with ``iscrowd`` or ``ignore`` are ignored.
The ``segmentation`` of a box becomes its instance mask (``loop.data.segmentation``). It affects neither the box nor the
training of a detector. Keypoints are not read. The boxes of ``person_keypoints_*.json`` are, if there is no
other file.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from upath import UPath

from actors.counted import counted
from loop.data.config import DataConfig
from loop.data.formats import coco_files as files
from loop.data.formats.base import (
    ALIASES,
    Notation,
    OutImage,
    RawBox,
    RawDataset,
    RawImage,
    Size,
    below,
    choose_splits,
    class_name,
    number,
    read_json,
    safe_name,
)
from loop.data.formats.coco_fields import coco_tree
from loop.data.ledger import Ledger
from loop.data.provenance import from_fields

LOOKED_FOR = files.LOOKED_FOR
NOTATION: Notation = "x, y, width, height"

_TRUE = (True, 1, "1", "true", "True")


def find(root: UPath) -> dict[str, UPath]:
    """The annotation files below ``root`` by the name of their split; empty if there are none."""
    return files.find(root)


def read(root: UPath, config: DataConfig, ledger: Ledger) -> RawDataset:
    """Read all annotation files. Raises ValueError, naming the file, if one is not a COCO detection file."""
    found = find(root)
    if aside := files.left_aside(root, found.values()):
        ledger.remarks.append(f"left aside, as no detection annotations: {', '.join(aside)}")
    chosen = choose_splits(found, _by_split(root, found, config), ledger)
    trees = _trees(chosen, config, ledger)
    categories = {split: _categories(tree, chosen[split][1], ledger) for split, tree in trees.items()}
    classes = tuple(dict.fromkeys(name for names in categories.values() for name in names.values()))
    splits = {
        split: tuple(_images(root, chosen[split][1], tree, categories[split], config, ledger))
        for split, tree in trees.items()
    }
    return RawDataset(classes=classes, splits=splits)


def read_boxes(file: UPath, config: DataConfig, ledger: Ledger) -> list[tuple[str, Size, tuple[RawBox, ...]]]:
    """The file name, the size and the boxes of each image of one annotation file.

    The size is that of ``RawImage``. Raises ValueError as ``read`` does.
    """
    tree = _load(file, {})
    categories, images = _categories(tree, file, ledger), _by_id(tree["images"], file, ledger, str(file))
    boxes = _boxes(tree["annotations"], images.keys(), categories, config, ledger, str(file))
    return [(_file_name(fields), _size(fields), tuple(boxes[image_id])) for image_id, fields in images.items()]


def _by_split(root: UPath, found: Mapping[str, UPath], config: DataConfig) -> DataConfig:
    """The config with the names of splits where it has those of annotation files."""
    names = {name: key for key, file in found.items() for name in (file.name, below(root, file))}
    return config.model_copy(
        update={split: names.get(name, name) for split in ALIASES if (name := getattr(config, split)) is not None}
    )


def write(splits: Mapping[str, Sequence[OutImage]], classes: Sequence[str], out: UPath) -> None:
    """Write ``annotations/<split>.json`` for ``images/<split>/``; category ids are 1, 2, ... in class order."""
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for split, images in splits.items():
        tree = {"info": {"description": "exported by detloop"}, **coco_tree(images, classes)}
        (out / "annotations" / f"{split}.json").write_text(json.dumps(tree, indent=1), encoding="utf-8")


def picture_path(split: str, name: str) -> str:
    """The path of the image ``name`` of ``split`` in an export."""
    return f"images/{split}/{name}"


def _trees(
    chosen: Mapping[str, tuple[str, UPath]], config: DataConfig, ledger: Ledger
) -> dict[str, dict[str, list[Any]]]:
    """The content of the files by split. A test split that nobody labelled is left out, unless the config names it."""
    trees = {}
    for split, (_, file) in chosen.items():
        may_lack = split == "test" and config.test is None
        tree = _load(file, {"annotations": []} if may_lack else {})
        if may_lack and not tree["annotations"]:
            ledger.remarks.append(f"the test split is left out: {file} has no annotations")
        else:
            trees[split] = tree
    return trees


def _load(file: UPath, defaults: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    tree = read_json(file)
    if not isinstance(tree, dict):
        raise ValueError(f"{file}: a COCO file is a mapping, this one holds {type(tree).__name__}")
    tree = {**defaults, **{key: value for key, value in tree.items() if value is not None}}
    wanted = ("images", "annotations", "categories")
    wrong = [key for key in wanted if not isinstance(tree.get(key), list)]
    if wrong:
        raise ValueError(f"{file}: not a COCO detection file, it has no list {', '.join(map(repr, wrong))}")
    return {key: tree[key] for key in wanted}


def _categories(tree: Mapping[str, list[Any]], file: UPath, ledger: Ledger) -> dict[int, str]:
    """Category names by id, in the order of the ids. Categories of the same name become one class."""
    named: dict[int, str] = {}
    for category in tree["categories"]:
        category_id = _key(category.get("id")) if isinstance(category, dict) else None
        if not isinstance(category_id, int) or not _is_name(category.get("name")):
            raise ValueError(f"{file}: category {category!r} needs an integer 'id' and a 'name'")
        if category_id in named:
            raise ValueError(f"{file}: two categories have the id {category_id}; give each its own")
        named[category_id] = class_name(category["name"], file)
    for name, times in Counter(named.values()).items():
        if times > 1:
            ledger.remarks.append(f"{file}: {times} categories are called {name!r} and were joined")
    return dict(sorted(named.items()))


def _is_name(value: object) -> bool:
    return isinstance(value, str | int) and bool(str(value).strip())


def _images(
    root: UPath,
    file: UPath,
    tree: Mapping[str, list[Any]],
    categories: Mapping[int, str],
    config: DataConfig,
    ledger: Ledger,
) -> Iterator[RawImage]:
    source = below(root, file)
    images = _by_id(tree["images"], file, ledger, source)
    boxes = _boxes(tree["annotations"], images.keys(), categories, config, ledger, source)
    split, folder = files.split_name(root, file), PurePosixPath(source).parent
    _remark_on_lvis(images.values(), source, ledger)
    for image_id, fields in images.items():
        name = _file_name(fields)
        yield RawImage(
            source=source,
            places=_places(name, split, folder),
            boxes=tuple(boxes[image_id]),
            name=name,
            size=_size(fields),
            provenance=from_fields(fields, f"{file}, image {image_id!r}"),
        )


def _places(given: str, split: str, folder: PurePosixPath) -> tuple[str, ...]:
    """Where an image may be, relative to the root; nowhere if its name may lead out of it."""
    name = safe_name(given)
    if name is None:
        return ()
    usual = (f"images/{split}/{name}", f"{split}/{name}", f"images/{name}", name)
    return (*usual, *(str(folder / inner / name) for inner in ("", "images", "data")))


def _file_name(fields: Mapping[str, Any]) -> str:
    """The name of an image's file; in LVIS, the end of its address: folder and name."""
    return _text(fields.get("file_name")) or "/".join(_text(fields.get("coco_url")).split("/")[-2:])


def _size(fields: Mapping[str, Any]) -> Size:
    """Width and height in px as an image's entry gives them; NaN where it gives no number."""
    return number(fields.get("width")), number(fields.get("height"))


def _remark_on_lvis(images: Iterable[Mapping[str, Any]], source: str, ledger: Ledger) -> None:
    number_open = sum(bool(fields.get("not_exhaustive_category_ids")) for fields in images)
    if number_open:
        ledger.remarks.append(
            f"{source}: {counted(number_open, 'image is', 'images are')} not labelled exhaustively (LVIS); objects "
            "without a box are trained and counted as background"
        )


def _by_id(images: Iterable[Any], file: UPath, ledger: Ledger, source: str) -> dict[int | str, dict[str, Any]]:
    """The image entries by id. Raises ValueError if two share an id or a file name: their boxes would be ambiguous."""
    known: dict[int | str, dict[str, Any]] = {}
    names: dict[str, int | str] = {}
    for fields in images:
        image_id = _key(fields.get("id")) if isinstance(fields, dict) else None
        if image_id is None or not _file_name(fields):
            ledger.drop(source, "image", "malformed entry", f"{fields!r:.100}")
            continue
        name = _file_name(fields)
        if image_id in known:
            raise ValueError(f"{file}: two images have the id {image_id!r}: {_file_name(known[image_id])!r}, {name!r}")
        if name in names:
            raise ValueError(f"{file}: two images ({names[name]!r}, {image_id!r}) have the file name {name!r}")
        known[image_id], names[name] = fields, image_id
    return known


def _key(value: object) -> int | str | None:
    """An id as it is compared: numbers may be written as 7, 7.0 or "7"."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # a float would round large ids
    if isinstance(value, str):
        return int(value.partition(".")[0]) if re.fullmatch(r"[0-9]{1,99}(\.0+)?", value) else value
    as_number = number(value)
    return int(as_number) if as_number.is_integer() else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _boxes(
    annotations: Sequence[Any],
    image_ids: Iterable[int | str],
    categories: Mapping[int, str],
    config: DataConfig,
    ledger: Ledger,
    file: str,
) -> defaultdict[int | str, list[RawBox]]:
    """The boxes by image id. Those of unknown images are dropped. Raises ValueError if these are many."""
    known = set(image_ids)
    boxes: defaultdict[int | str, list[RawBox]] = defaultdict(list)
    ids: Counter[object] = Counter()
    num_masks = num_unknown = 0
    for fields in annotations:
        image_id = _key(fields.get("image_id")) if isinstance(fields, dict) else None
        if image_id not in known:
            ledger.drop(file, "box", "unknown image", f"{fields!r:.100}")
            num_unknown += 1
            continue
        boxes[image_id].append(_box(fields, categories))
        ids[repr(fields.get("id"))] += 1
        num_masks += bool(fields.get("segmentation"))
    if not config.accepts_faults(num_unknown, len(annotations)):
        raise ValueError(
            f"{config.root}: {file}: {num_unknown} of {len(annotations)} annotations are of images that it does not "
            "list. Are their image ids those of its images? To import the others, raise data.max_faulty_frac (now "
            f"{config.max_faulty_frac:g})"
        )
    num_repeated = sum(times - 1 for times in ids.values())
    if num_repeated:
        ledger.remarks.append(
            f"{file}: {counted(num_repeated, 'annotation id is', 'annotation ids are')} used again; "
            "ids are not needed, all boxes kept"
        )
    if num_masks:
        num_boxes = sum(map(len, boxes.values()))
        ledger.remarks.append(
            f"{file}: {num_masks} of {num_boxes} boxes have a segmentation, used by a generator's perception-aware loss"
        )
    return boxes


def _box(fields: Mapping[str, Any], categories: Mapping[int, str]) -> RawBox:
    box = fields.get("bbox")
    x, y, width, height = map(number, box) if isinstance(box, list) and len(box) == 4 else (math.nan,) * 4
    category = _key(fields.get("category_id"))
    return RawBox(
        corners=(x, y, x + width, y + height),
        label=categories.get(category) if isinstance(category, int) else None,
        ignore=fields.get("iscrowd") in _TRUE or fields.get("ignore") in _TRUE,
        segmentation=fields.get("segmentation"),
        area=number(fields.get("area")),
        where=f"annotation {fields.get('id')}, category {fields.get('category_id')!r:.50}, bbox {box!r:.100}",
    )
