"""The annotation files of a COCO data set, by the name of their split."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from upath import UPath

from loop.data.formats.base import below, content, hidden, names_split, read_json

CLEAN = ("clean", "images/clean")
"""Folders of a data set that are taken for its pictures without objects. Annotations in them count if there are no
others."""

LOOKED_FOR = "annotations/*.json, <split>/_annotations.coco.json, *.json or <split>/*.json"

_ROBOFLOW = "_annotations.coco.json"
_OTHER_TASKS = re.compile(r"(captions|panoptic|stuff)|(.*_)?image_info", re.IGNORECASE)
_KEYPOINTS = re.compile(r"person_keypoints", re.IGNORECASE)  # their boxes are those of the instances
_AFFIXES = re.compile(r"^_?(instances|annotations?)[_-]|[._-](instances|annotations?|coco)$")
_LISTS = re.compile(rb'"(images|annotations)"\s*:\s*\[')
_MANY = 20  # a folder with more JSON files has one for each image: another format


def find(root: UPath) -> dict[str, UPath]:
    """The annotation files of the first layout that has any; empty if there are none.

    Two files of one split are both named by their paths below ``root``.
    """
    of_clean = list[UPath]()
    for found in map(list, _layouts(root)):
        files = [file for file in found if below(root, file.parent) not in CLEAN]
        if files:
            break
        of_clean = of_clean or found
    else:
        files = of_clean
    files = _without_keypoints(files)
    names = Counter(split_name(root, file) for file in files)
    return {name if names[name := split_name(root, file)] == 1 else below(root, file): file for file in files}


def left_aside(root: UPath, files: Iterable[UPath]) -> list[str]:
    """The JSON files beside the annotation files, relative to ``root``."""
    used = {below(root, file) for file in files}
    folders = {file.parent for file in files}
    return sorted({below(root, file) for folder in folders for file in _json(folder.glob("*.json"), root)} - used)


def split_name(root: UPath, file: UPath) -> str:
    """The name of a file's split: that of the file, without usual affixes, or of its folder."""
    name = _AFFIXES.sub("", file.stem)
    own_folder = file.parent not in {root, root / "annotations"}
    return file.parent.name if own_folder and not names_split(name) else name


def _without_keypoints(files: list[UPath]) -> list[UPath]:
    """The files without those of keypoints, unless there are no others."""
    return [file for file in files if not _KEYPOINTS.match(file.name)] or files


def _layouts(root: UPath) -> Iterator[Iterator[UPath]]:
    yield _annotation_folder(root)
    yield (file for file in _json(root.glob(f"*/{_ROBOFLOW}"), root))
    yield (file for file in _json(root.glob("*.json"), root) if _is_coco(file, broken=True))
    yield _split_folders(root)


def _annotation_folder(root: UPath) -> Iterator[UPath]:
    """The COCO files in ``annotations/``, and files that must be of a split by their name, whatever they hold."""
    files = [file for file in _json((root / "annotations").glob("*.json"), root) if not _OTHER_TASKS.match(file.name)]
    sound = [file for file in files if _is_coco(file, broken=True)]
    splits = {names_split(split_name(root, file)) for file in _without_keypoints(sound)}
    for file in files:
        if file in sound or names_split(split_name(root, file)) not in splits | {None}:
            yield file


def _split_folders(root: UPath) -> Iterator[UPath]:
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not hidden(path.name)):
        files = list(islice(_json(folder.glob("*.json"), root), _MANY + 1))
        yield from (file for file in files if len(files) <= _MANY and _is_coco(file, broken=False))


def _json(files: Iterable[UPath], root: UPath) -> Iterator[UPath]:
    yield from (file for file in sorted(files) if not hidden(below(root, file)))


def _is_coco(file: UPath, *, broken: bool) -> bool:
    """True if a JSON file is a COCO detection file, by the keys in it; ``broken`` if it cannot be read.

    A broken file is then among those to import, which raises an error that names it.
    """
    if _OTHER_TASKS.match(file.name):
        return False
    try:
        if {found.group(1) for found in _LISTS.finditer(content(file))} == {b"images", b"annotations"}:
            return True
        tree = read_json(file)
    except ValueError:
        return broken
    return isinstance(tree, dict) and {"images", "annotations"} <= tree.keys()
