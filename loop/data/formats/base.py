"""What every annotation format is read into and written from, and the rules they share: split names, safe paths."""

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

    corners: Corners  # xyxy px, or shares of the image's sides; NaN where no number was given
    label: str | None  # class name, None where the file's class is unknown
    ignore: bool = False
    segmentation: object = None  # COCO's, as the file gives it, unchecked; None without one
    where: str  # what to call it in a report, e.g. "line 3"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawImage:
    """An image as an annotation file describes it. Its picture lies at the first of ``places`` that exists."""

    source: str  # the annotation file, below the root
    places: tuple[str, ...]  # below the root
    boxes: tuple[RawBox, ...]
    size: tuple[float, float] | None = None  # width and height in px as the file says
    relative: bool = False  # corners are shares of the image's sides
    provenance: Provenance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDataset:
    """All that the annotation files of a data set say."""

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[RawImage, ...]] = field(default_factory=dict)  # keys of ALIASES


@dataclass(frozen=True, slots=True, kw_only=True)
class OutImage:
    """An image to be written, and what its copy is called."""

    image: LabeledImage
    name: str  # file name, unique in the export, also without its suffix
    provenance: Provenance | None = None
    source_name: str = ""  # name of the copy that provenance.source is exported under, empty where it is not


def choose_splits(found: Mapping[str, Found], config: DataConfig, ledger: Ledger) -> dict[str, tuple[str, Found]]:
    """The splits that a data set has, as ``{"train": (its own name, what was found), ...}``.

    A name in the config decides; else the usual names do, with or without a year (``train2017``); one split of
    another name is all there is, and becomes train. Splits that are left over are remarked upon. Raises ValueError
    where this is ambiguous or train is missing.
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


def check_name(name: str, said_by: str) -> str:
    """``name`` with forward slashes, if it stays below the folder that it is meant for.

    Raises ValueError for absolute paths, ``..`` and NUL characters, by the rules of POSIX and of Windows.
    """
    windows = PureWindowsPath(name)
    absolute = PurePosixPath(name).is_absolute() or windows.root or windows.drive
    if not name or absolute or ".." in windows.parts or "\0" in name:
        raise ValueError(f"{said_by}: file name {name!r} leaves the image folder; names must be relative, without '..'")
    return windows.as_posix()


def inside(root: UPath, relative: str, said_by: str) -> UPath:
    """``root / relative``, refused with ValueError where a symbolic link leads out of ``root``."""
    path = root / relative
    if is_local(root):
        real_root = os.path.realpath(root.path)
        real = os.path.realpath(path.path)
        if os.path.commonpath([real, real_root]) != real_root:
            raise ValueError(f"{said_by}: {relative} is a link to {real}, outside {root}; copy the file into it")
    return path


def below(root: UPath, path: UPath) -> str:
    """``path`` as it is called below ``root``, with forward slashes."""
    return path.relative_to(root).as_posix()


def pictures(root: UPath, folder: str) -> list[str]:
    """The picture files in and below ``root / folder``, named below ``root``, sorted; hidden files are left out."""
    found = (below(root, path) for path in (root / folder).rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    return sorted(name for name in found if not PurePosixPath(name).name.startswith("."))


def number(value: object) -> float:
    """``value`` as a float, NaN where it is no number (or none that a float can hold)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def read_json(path: UPath) -> object:
    """The content of a JSON file in any Unicode encoding. Raises ValueError naming the file."""
    try:
        content: object = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); export it again or repair it") from None
    return content
