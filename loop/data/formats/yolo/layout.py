"""Where a YOLO data set has its pictures, labels and class names: by its data file, or by its folders.

Data files are ``data.yaml`` (Ultralytics, Roboflow) and ``obj.data`` (Darknet, CVAT). Their paths are often those of
another machine or of a parent folder; such a path is looked for by its last parts below the root. Without a data file,
pictures belong to the split whose name (train, val, test ...) is among their folders.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import yaml
from upath import UPath

from actors.counted import counted
from actors.yaml_text import parse_yaml
from loop.data.config import DataConfig
from loop.data.formats.base import ALIASES, class_name, hidden
from loop.data.formats.yolo.labels import LabelFiles, looks_like_labels, text_files
from loop.data.formats.yolo.paths import SPLIT_NAME, Paths, endings, text_of
from loop.data.ledger import Ledger

LOOKED_FOR = (
    "data.yaml, another *.yaml with 'names' and 'train' or 'val', obj.data, or label files (*.txt) in the folder, in "
    "labels/ or beside the pictures of a split"
)

NAMES = ("classes.txt", "obj.names", "classes.names", "predefined_classes.txt", "_darknet.labels", "labels.txt")
"""Files with a class name in each line, as labelling tools write them."""

_USUAL = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "obj.data")
_NUM_TRIED = 20  # text files in a folder that are looked at
_DEEPEST = 3  # levels of folders that are searched for label files and class names
_MOST_FOLDERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The parts of a YOLO data set."""

    origin: str  # the data file, or the root; names the data set in errors
    classes: tuple[str, ...]
    num_keypoint_values: int | None  # the product of kpt_shape
    splits: Mapping[str, Callable[[], list[str]]]  # lists the pictures of a split, relative to the root


def find(root: UPath) -> UPath | None:
    """The data file of ``root``; else its first folder with label files, if there is one."""
    return _data_file(root) or next((folder for folder in _folders(root) if _has_labels(folder)), None)


def layout(root: UPath, config: DataConfig, ledger: Ledger) -> Layout:
    """The layout of the data set in ``root``.

    Raises FileNotFoundError without YOLO data, and ValueError, naming the file, if a data file cannot be used or if
    the class names are not known.
    """
    file = _data_file(root)
    if file is None and find(root) is None:
        raise FileNotFoundError(f"{root}: no YOLO data here; looked for {LOOKED_FOR}")
    tree = _load(file) if file else {}
    origin = str(file or root)
    paths = Paths(root, origin, config.follow_links, ledger)
    return Layout(
        origin=origin,
        classes=_classes(root, tree.get("names"), config, origin, ledger),
        num_keypoint_values=_keypoints(tree.get("kpt_shape"), origin),
        splits=_splits_of_file(paths, tree, config) or _splits_of_folders(paths, config),
    )


def _data_file(root: UPath) -> UPath | None:
    usual = [root / name for name in _USUAL]
    for file in [*usual, *sorted([*root.glob("*.yaml"), *root.glob("*.yml")])]:
        if file.is_file() and (file in usual or _looks_right(file)):
            return file
    return None


def _looks_right(file: UPath) -> bool:
    try:
        tree = _load(file)
    except ValueError:
        return False
    return "names" in tree and bool({"train", "val"} & tree.keys())


def _load(file: UPath) -> dict[str, Any]:
    if file.suffix == ".data":
        lines = (line.partition("=") for line in text_of(file).splitlines())
        return {{"valid": "val"}.get(key.strip(), key.strip()): value.strip() for key, mark, value in lines if mark}
    try:
        tree = parse_yaml(text_of(file))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{file}: not readable as YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{file}: a YOLO data file is a mapping, this one holds {type(tree).__name__}")
    return tree


def _keypoints(shape: object, origin: str) -> int | None:
    if shape is None:
        return None
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) and n > 0 for n in shape):
        return int(shape[0]) * int(shape[1])
    raise ValueError(f"{origin}: kpt_shape must be [number of keypoints, 2 or 3], it is {shape!r}")


def _classes(root: UPath, names: object, config: DataConfig, origin: str, ledger: Ledger) -> tuple[str, ...]:
    """The class names: of the data file, of a file of names, or of ``data.classes``."""
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise ValueError(f"{origin}: the keys of 'names' must be 0 to {len(names) - 1}, they are {list(names)}")
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    given = names
    if names is None or isinstance(names, str):
        names = _names_of_files(root, names, ledger) or list(config.classes or ())
    if not isinstance(names, list) or not names:
        raise ValueError(
            f"{origin}: the class names are not known ('names' is {given!r}, and there is no {', '.join(NAMES[:2])}). "
            "Name them in the order of their ids: data.classes, or `detloop init --classes first,second`"
        )
    if odd := [name for name in names if _is_no_name(name)]:
        raise ValueError(f"{origin}: 'names' must be a list of names, {odd[0]!r} in it is none; put names in quotes")
    classes = tuple(class_name(name, origin) for name in names)
    if len(set(classes)) < len(classes):
        raise ValueError(f"{origin}: a class is named twice in 'names': {list(classes)}")
    return classes


def _is_no_name(value: object) -> bool:
    return value is None or isinstance(value, bool | list | dict) or not str(value).strip()  # yes and no are bools


def _names_of_files(root: UPath, name: str | None, ledger: Ledger) -> list[str]:
    """The lines of the file ``name`` or of the first usual one. Raises ValueError if such files differ."""
    named = (root / place for place in endings(name or ""))
    files = [file for file in named if file.is_file()][:1]
    folders = list(_folders(root))
    for usual in NAMES:
        files = files or [folder / usual for folder in folders if (folder / usual).is_file()]
    found = {tuple(filter(None, map(str.strip, text_of(file).splitlines()))): file for file in files}
    if len(found) > 1:
        raise ValueError(f"{' and '.join(map(str, found.values()))} name other classes; remove one, or write data.yaml")
    for file in found.values():
        ledger.remarks.append(f"class names are those of {file}")
    return list(next(iter(found), ()))


def _splits_of_file(paths: Paths, tree: Mapping[str, Any], config: DataConfig) -> dict[str, Callable[[], list[str]]]:
    """The splits of a data file, and the folders below the root that the config names as splits."""
    given = {name for name in (config.train, config.val, config.test) if name}
    wanted = {name for names in ALIASES.values() for name in names} | given
    named = {key: value for key, value in tree.items() if key in wanted and value}
    if named:
        named |= {name: name for name in given - named.keys() if paths.exists(name)}
        paths.set_base(tree.get("path"))
    return {name: partial(paths.listed, value, name) for name, value in named.items()}


def _splits_of_folders(paths: Paths, config: DataConfig) -> dict[str, Callable[[], list[str]]]:
    """The splits of list files (``train.txt``) in the root, else of the folders that are named like a split."""
    given = {name for name in (config.train, config.val, config.test) if name}
    lists = {file.stem: file.name for file in text_files(paths.root) if SPLIT_NAME.fullmatch(file.stem)}
    if lists:
        return {name: partial(paths.listed, file, name) for name, file in lists.items()}
    found = paths.known.every
    labels = LabelFiles(paths.root, found)
    splits = defaultdict[str, list[str]](list)
    num_others = 0
    for picture in found:
        folders = PurePosixPath(picture).parts[:-1]
        name = next((one for one in folders if one in given or SPLIT_NAME.fullmatch(one)), None)
        if name is None and not labels.has_any(picture):
            num_others += 1
            continue
        splits[name or "all"].append(picture)
    if num_others:
        paths.ledger.remarks.append(f"left out: {counted(num_others, 'picture')} in folders without label files")
    return {name: partial(list, listed) for name, listed in splits.items()}


def _folders(root: UPath, depth: int = _DEEPEST) -> Iterator[UPath]:
    """``root`` and the first folders in it, without hidden ones."""
    yield root
    if depth:
        inner = (path for path in sorted(root.iterdir()) if path.is_dir() and not hidden(path.name))
        for folder in islice(inner, _MOST_FOLDERS):
            yield from _folders(folder, depth - 1)


def _has_labels(folder: UPath) -> bool:
    return any(looks_like_labels(text_of(file)) for file in islice(text_files(folder), _NUM_TRIED) if file.is_file())
