"""Annotation formats: each module finds and reads one, most also write it. ``detect`` gives the format of a folder."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Protocol

from upath import UPath

from loop.data.config import DataConfig
from loop.data.formats import coco, cvat, voc, yolo
from loop.data.formats.base import Notation, OutImage, RawDataset, folders, listing
from loop.data.ledger import Ledger


class Reader(Protocol):
    """The interface of a format's module."""

    LOOKED_FOR: str
    NOTATION: Notation

    def find(self, root: UPath) -> object:
        """A truthy value if ``root`` holds data of this format."""
        ...

    def read(self, root: UPath, config: DataConfig, ledger: Ledger) -> RawDataset:
        """The contents of the annotation files, unchecked."""
        ...


class Format(Reader, Protocol):
    """The interface of a format that is also written."""

    def write(self, splits: Mapping[str, Sequence[OutImage]], classes: Sequence[str], out: UPath) -> None:
        """Write the annotation files. The caller copies the images."""
        ...

    def picture_path(self, split: str, name: str) -> str:
        """The path of an image in an export."""
        ...


FORMATS: Mapping[str, Format] = {"coco": coco, "yolo": yolo, "voc": voc}
READERS: Mapping[str, Reader] = {**FORMATS, "cvat": cvat}

_MOST_FOLDERS = 50  # of each level that are searched for data, if there are none in the folder itself


def detect(root: UPath) -> str:
    """The format of the data in ``root``.

    Raises NotADirectoryError if there is no such folder, FileNotFoundError if it holds no known format, and ValueError
    if it holds several.
    """
    if not root.is_dir():
        raise NotADirectoryError(f"{root}: there is no such folder")
    found = kinds(root)
    if not found:
        looked_for = "; ".join(f"{name}: {module.LOOKED_FOR}" for name, module in READERS.items())
        raise FileNotFoundError(
            f"{root}: no detection data found here. Looked for {looked_for}. The folder holds {listing(root)}"
            + "".join(f". {inner} holds {kind} data: give that folder instead" for inner, kind in _below(root))
        )
    if len(found) > 1:
        raise ValueError(f"{root}: could be {' or '.join(found)}; say which as data.format")
    return found[0]


def kinds(root: UPath) -> list[str]:
    """The formats of the data in the folder ``root``; none if it holds no labels."""
    return [name for name, module in READERS.items() if module.find(root)]


def _below(root: UPath) -> Iterator[tuple[UPath, str]]:
    """The first folder with data one or two levels below ``root``, and its format."""
    inner = list(islice(folders(root), _MOST_FOLDERS))
    inner += islice((deeper for folder in inner for deeper in folders(folder)), _MOST_FOLDERS)
    return islice(((folder, known[0]) for folder in inner if (known := kinds(folder))), 1)
