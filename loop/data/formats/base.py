"""Records that all annotation formats read and write, and their common rules for split names and safe paths."""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import TypeVar

from upath import UPath

from actors.records import LabeledImage
from actors.storage import is_local
from loop.data.config import DataConfig
from loop.data.ledger import Ledger
from loop.data.provenance import Provenance

Found = TypeVar("Found")

Corners = tuple[float, float, float, float]

ALIASES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RawBox:
    """A box as its file gives it, before any check."""

    corners: Corners  # xyxy px, or fractions of the image's sides; NaN where no number was given
    label: str | None  # class name; None if the file's class is unknown
    ignore: bool = False
    segmentation: object = None  # COCO's, unchecked; None without one
    where: str  # its name in a report, e.g. "line 3"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawImage:
    """An image as an annotation file describes it. Its file is the first of ``places`` that exists."""

    source: str  # the annotation file, relative to the root
    places: tuple[str, ...]  # relative to the root
    boxes: tuple[RawBox, ...]
    size: tuple[float, float] | None = None  # width and height in px, as the annotation file gives them
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

    A name in the config takes precedence over the usual names, which may have a year (``train2017``). If there is only
    one split, of another name, it becomes train. Unused splits are mentioned in a remark. Raises ValueError if a split
    is ambiguous or train is missing.
    """
    chosen: dict[str, tuple[str, Found]] = {}
    for split, aliases in ALIASES.items():
        name = _named(found, split, getattr(config, split)) or _usual(found, split, aliases)
        if name is not None:
            chosen[split] = (name, found[name])
    if "train" not in chosen and len(found) == 1 and not chosen:
        chosen["train"] = next(iter(found.items()))
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


def _usual(found: Mapping[str, Found], split: str, aliases: tuple[str, ...]) -> str | None:
    pattern = re.compile(rf"({'|'.join(aliases)})([-_]?\d+)?", re.IGNORECASE)
    names = [name for name in found if pattern.fullmatch(name)]
    if len(names) > 1:
        raise ValueError(f"several splits could be {split}: {sorted(names)}; name one as data.{split}")
    return names[0] if names else None


def check_name(name: str, origin: str) -> str:
    """``name`` with forward slashes; ``origin`` names its file in errors.

    Raises ValueError if ``name`` may leave its folder: for absolute paths, ``..`` and NUL characters, by the rules of
    both POSIX and Windows.
    """
    windows = PureWindowsPath(name)
    absolute = PurePosixPath(name).is_absolute() or windows.root or windows.drive
    if not name or absolute or ".." in windows.parts or "\0" in name:
        raise ValueError(f"{origin}: file name {name!r} leaves the image folder; names must be relative, without '..'")
    return windows.as_posix()


def inside(root: UPath, relative: str, origin: str) -> UPath:
    """``root / relative``. Raises ValueError if a symbolic link leads out of ``root``."""
    path = root / relative
    if is_local(root):
        real_root = os.path.realpath(root.path)
        real = os.path.realpath(path.path)
        if os.path.commonpath([real, real_root]) != real_root:
            raise ValueError(f"{origin}: {relative} is a link to {real}, outside {root}; copy the file into it")
    return path


def below(root: UPath, path: UPath) -> str:
    """``path`` relative to ``root``, with forward slashes."""
    return path.relative_to(root).as_posix()


def pictures(root: UPath, folder: str) -> list[str]:
    """The image files in and below ``root / folder``, relative to ``root``, sorted, without hidden files."""
    found = (below(root, path) for path in (root / folder).rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    return sorted(name for name in found if not PurePosixPath(name).name.startswith("."))


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
        content: object = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); export it again or repair it") from None
    return content
