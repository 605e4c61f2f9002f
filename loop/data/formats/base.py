"""Records that all annotation formats read and write, and their common rules for split names and safe paths."""

import json
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal, TypeVar

from upath import UPath

from actors.counted import counted
from actors.records import LabeledImage
from actors.storage import is_local
from loop.data.config import DataConfig
from loop.data.ledger import Ledger
from loop.data.provenance import Provenance

Found = TypeVar("Found")

Notation = Literal["x, y, width, height", "x1, y1, x2, y2", "centre x, centre y, width, height"]
"""The four numbers of a box in a file."""

Corners = tuple[float, float, float, float]
Size = tuple[float, float]  # width, height

ALIASES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pnm"}
)


_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode categories: control characters, line breaks, half characters
_LISTED = 12  # folders and kinds of files that an error lists


@dataclass(frozen=True, slots=True, kw_only=True)
class RawBox:
    """A box as its file gives it, before any check."""

    corners: Corners  # xyxy px, or fractions of the image's sides; NaN where no number was given
    label: str | None  # class name; None if the file's class is unknown
    ignore: bool = False
    segmentation: object = None  # COCO's, unchecked; None without one
    area: float = math.nan  # of the object in px^2, as COCO's; NaN where no number was given
    where: str  # its name in a report, e.g. "line 3"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawImage:
    """An image as an annotation file describes it.

    Its file is the first of ``places`` that exists, else the only picture below the root with the file name of
    ``name``.
    """

    source: str  # the annotation file, relative to the root
    places: tuple[str, ...]  # relative to the root
    boxes: tuple[RawBox, ...]
    name: str = ""  # as the annotation file gives it, of any machine; empty: only the places count
    size: Size | None = None  # width and height in px, as the annotation file gives them
    relative: bool = False  # corners are fractions of the image's sides
    provenance: Provenance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDataset:
    """The contents of a data set's annotation files."""

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[RawImage, ...]] = field(default_factory=dict)  # keys of ALIASES


@dataclass(frozen=True, slots=True, kw_only=True)
class OutImage:
    """An image to export, and the name of its copy."""

    image: LabeledImage
    name: str  # file name; its stem is unique in the export
    provenance: Provenance | None = None
    source_name: str = ""  # path of the exported copy of provenance.source; empty if it is not exported


def choose_splits(found: Mapping[str, Found], config: DataConfig, ledger: Ledger) -> dict[str, tuple[str, Found]]:
    """The splits of a data set, as ``{"train": (its own name, its entry in found), ...}``.

    A name in the config takes precedence over the usual names, which may have a year (``train2017``) or stand at the
    end of a longer name (``lvis_v1_train``). If there is only one split, it becomes train, whatever its name. Unused
    splits are mentioned in a remark. Raises ValueError if a split is ambiguous or train is missing.
    """
    chosen: dict[str, tuple[str, Found]] = {}
    for split in ALIASES:
        name = _named(found, split, getattr(config, split)) or _usual(found, split)
        if name is not None:
            chosen[split] = (name, found[name])
    if "train" not in chosen and len(found) == 1:
        name, entry = next(iter(found.items()))
        if names_split(name):
            ledger.remarks.append(f"{name} is the only split: it is divided into training and validation images")
        chosen = {"train": (name, entry)}
    if "train" not in chosen:
        raise ValueError(f"{config.root}: no training split among {sorted(found)}; name it as data.train")
    unused = sorted(found.keys() - {name for name, _ in chosen.values()})
    if unused:
        ledger.remarks.append(f"splits that were found but are not used: {', '.join(unused)}")
    return chosen


def _named(found: Mapping[str, Found], split: str, name: str | None) -> str | None:
    if name is not None and name not in found:
        raise ValueError(f"data.{split}: there is no split {name!r}; found: {sorted(found)}")
    return name


def names_split(name: str) -> str | None:
    """The split that a name means, by its end: val for ``valid``, ``val2017``, ``lvis_v1_val`` and ``a/val.json``."""
    for split, aliases in ALIASES.items():
        if re.fullmatch(rf"(.*[^a-z0-9])?({'|'.join(aliases)})([-_]?\d+)?(\.json)?", name, re.IGNORECASE):
            return split
    return None


def _usual(found: Mapping[str, Found], split: str) -> str | None:
    names = [name for name in found if names_split(name) == split]
    if len(names) > 1:
        raise ValueError(f"several splits could be {split}: {sorted(names)}; name one (--set data.{split}={names[0]})")
    return names[0] if names else None


def safe_name(name: str) -> str | None:
    """``name`` with forward slashes; None if it may leave its folder.

    It may if it is absolute, an address (``https://...``), or has ``..`` or a NUL character, by the rules of POSIX or
    Windows.
    """
    windows = PureWindowsPath(name)
    absolute = PurePosixPath(name).is_absolute() or windows.root or windows.drive or "://" in name
    return None if not name or absolute or ".." in windows.parts or "\0" in name else windows.as_posix()


def check_name(name: str, origin: str) -> str:
    """``safe_name`` of ``name``. Raises ValueError, naming its file ``origin``, if it may leave its folder."""
    safe = safe_name(name)
    if safe is None:
        raise ValueError(f"{origin}: file name {name!r} leaves the image folder; names must be relative, without '..'")
    return safe


def class_name(text: object, origin: object) -> str:
    """The name of a class without outer white space; empty if there is nothing else.

    Raises ValueError, naming its file ``origin``, if there is a line break or another control character in it.
    """
    name = str(text).strip()
    if any(unicodedata.category(letter) in _CONTROLS for letter in name):
        raise ValueError(f"{origin}: class name {name!r} has a line break or control character in it; rename the class")
    return name


def inside(root: UPath, relative: str, origin: str, *, follow_links: bool) -> UPath:
    """``root / relative``. Raises ValueError if a symbolic link leads out of ``root`` and links are not followed."""
    path = root / relative
    if is_local(root) and not follow_links:
        real_root = os.path.realpath(root.path)
        real = os.path.realpath(path.path)
        if os.path.commonpath([real, real_root]) != real_root:
            raise ValueError(
                f"{origin}: {relative} is a link to {real}, outside {root}; if that is meant, set data.follow_links: "
                "true (--set data.follow_links=true), else copy the file into the folder"
            )
    return path


def below(root: UPath, path: UPath) -> str:
    """``path`` relative to ``root``, with forward slashes."""
    return path.relative_to(root).as_posix()


def hidden(relative: str) -> bool:
    """True for a path with a hidden file or folder, such as ``.ipynb_checkpoints/`` or macOS's ``._name``."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(relative).parts)


def is_picture(relative: str) -> bool:
    """True for the path of an image file that is not hidden."""
    return PurePosixPath(relative).suffix.lower() in PICTURE_SUFFIXES and not hidden(relative)


def pictures(root: UPath, folder: str, *, follow_links: bool) -> list[str]:
    """The image files in and below ``root / folder``, relative to ``root``, sorted, without hidden ones.

    Linked folders are entered if ``follow_links``; else one that leads out of ``root`` raises ValueError.
    """
    if not follow_links:
        for link in _linked_folders(root, folder):
            inside(root, link, folder, follow_links=False)
    return sorted(filter(is_picture, walk(root, folder, follow_links=follow_links)))


def walk(root: UPath, folder: str, *, follow_links: bool) -> Iterator[str]:
    """All files in and below ``root / folder``, relative to ``root``. A folder that is linked twice is entered once."""
    if not is_local(root):
        yield from (below(root, path) for path in (root / folder).rglob("*"))
        return
    seen: set[str] = set()
    for at, folders, files in os.walk((root / folder).path, followlinks=follow_links):
        real = os.path.realpath(at)
        folders[:] = [] if real in seen else sorted(name for name in folders if not hidden(name))
        start = PurePosixPath(Path(at).relative_to(root.path).as_posix())
        yield from ((start / name).as_posix() for name in files if real not in seen)
        seen.add(real)


def _linked_folders(root: UPath, folder: str) -> list[str]:
    if not is_local(root):
        return []
    paths = [Path(at, name) for at, folders, _ in os.walk((root / folder).path) for name in folders]
    links = [path.relative_to(root.path).as_posix() for path in paths if path.is_symlink()]
    return [link for link in links if not hidden(link)]


def folders(root: UPath) -> Iterator[UPath]:
    """The folders in ``root`` that are not hidden, by name."""
    return (path for path in sorted(root.iterdir()) if path.is_dir() and not hidden(path.name))


def listing(root: UPath) -> str:
    """What a folder holds, for an error: its folders, and the number of its files by their ending."""
    entries = [path for path in sorted(root.iterdir()) if not hidden(path.name)]
    inner = [f"{path.name}/" for path in folders(root)]
    endings = Counter(path.suffix.lower() or "no ending" for path in entries if not path.is_dir())
    files = [f"{number} x {ending}" for ending, number in endings.most_common()]
    more = [f"and {counted(len(inner) - _LISTED, 'more folder')}"] if len(inner) > _LISTED else []
    return ", ".join([*inner[:_LISTED], *more, *files[:_LISTED]]) or "nothing"


def content(path: UPath) -> bytes:
    """The bytes of a file. Raises FileNotFoundError, and ValueError for a pipe, a device or a folder."""
    if is_local(path) and path.exists() and not path.is_file():
        raise ValueError(f"{path}: not a regular file; remove it")
    return path.read_bytes()


def number(value: object) -> float:
    """``value`` as a float; NaN if it is not a number, or too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def read_json(path: UPath) -> object:
    """The content of a JSON file in any Unicode encoding. Raises ValueError, naming the file, if it is not JSON."""
    try:
        tree: object = json.loads(content(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); export it again or repair it") from None
    return tree
