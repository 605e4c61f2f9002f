"""The paths in data files and list files, found below the root of the data set."""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import PurePosixPath, PureWindowsPath

from upath import UPath

from actors.counted import counted
from loop.data.formats.base import ALIASES, content, inside, pictures
from loop.data.formats.yolo.labels import KnownPictures
from loop.data.ledger import Ledger

SPLIT_NAME = re.compile(
    rf"({'|'.join(name for names in ALIASES.values() for name in names)})([-_]?\d+)?", re.IGNORECASE
)


class Paths:
    """Finds the pictures of splits.

    A path may be that of another machine, or start above the root. It is looked for by its last parts, the longest
    first; a part that names a split is never left out.
    """

    def __init__(self, root: UPath, origin: str, follow_links: bool, ledger: Ledger) -> None:
        """``origin`` names the data set in errors and remarks."""
        self.root = root
        self.origin = origin
        self.follow_links = follow_links
        self.ledger = ledger
        self.base = "."  # the folder that paths are relative to, itself relative to the root

    @cached_property
    def known(self) -> KnownPictures:
        """All pictures below the root."""
        return KnownPictures(self.root, self.follow_links)

    def set_base(self, path: object) -> None:
        """Make paths relative to ``path``, if there is such a folder below the root."""
        if path is None or str(path) in {"", "."}:
            return
        place = next((one for one in self._places(str(path)) if (self.root / one).is_dir()), None)
        self.base = place or "."
        if place is None:
            self.ledger.remarks.append(
                f"{self.origin}: path {str(path)!r} is no folder in {self.root}, where the splits were looked for"
            )

    def exists(self, entry: str) -> bool:
        """True if ``entry`` is a file or folder below the root."""
        return any((self.root / place).exists() for place in self._plain(entry))

    def listed(self, value: object, name: str) -> list[str]:
        """The pictures of the split ``name``, relative to the root, in the given order.

        ``value`` is a folder, a list file or a list of these. Raises FileNotFoundError if one is not there or if there
        are no pictures, and ValueError if it is another file.
        """
        found: list[str] = []
        for entry in value if isinstance(value, list) else [value]:
            place = self._place(str(entry), name)
            if place.lower().endswith(".txt"):
                found += self._list_file(place)
            elif (self.root / place).is_dir():
                found += pictures(self.root, place, follow_links=self.follow_links)
            else:
                raise ValueError(
                    f"{self.origin}, {name}: {place} is neither a folder nor a list of pictures (*.txt). If it was a "
                    "link, copy the data set anew so that links stay links"
                )
        if not found:
            raise FileNotFoundError(f"{self.origin}, {name}: no pictures in {value!r} below {self.root}")
        return found

    def _place(self, entry: str, name: str) -> str:
        """A split's folder or list file, relative to the root."""
        origin = f"{self.origin}, {name}"
        for place in self._places(entry):
            if inside(self.root, place, origin, follow_links=self.follow_links).exists():
                if place not in self._plain(entry):
                    self.ledger.remarks.append(f"{origin}: {entry!r} is taken to be {place} in {self.root}")
                return place
        raise FileNotFoundError(f"{origin}: {entry!r} is not there; looked in {self.root / self.base} and {self.root}")

    def _list_file(self, file: str) -> list[str]:
        """The images that a file lists. Names with ``./`` are relative to the file, others to the base."""
        lines = [line for line in map(str.strip, text_of(self.root / file).splitlines()) if line]
        beside = PurePosixPath(file).parent.as_posix()
        listed, num_moved = [], 0
        for line in lines:
            plain = self._plain(line, beside if line.startswith("./") else self.base)
            place = next((one for one in plain if one in self.known), None) or self.known.like(parts_of(line))
            num_moved += place is not None and place not in plain
            listed.append(place or plain[0])
        if num_moved:
            self.ledger.remarks.append(
                f"{file}: of {counted(len(lines), 'picture')}, {counted(num_moved, 'was', 'were')} found by the "
                "end of the path"
            )
        return listed

    def _places(self, entry: str) -> Iterator[str]:
        yield from self._plain(entry)
        for ending in endings(entry):
            yield from (PurePosixPath(start, ending).as_posix() for start in (self.base, "."))

    def _plain(self, entry: str, base: str | None = None) -> list[str]:
        """What ``entry`` says. Above the root there is nothing: ``../train``, as Roboflow writes it, is in it."""
        own = entry.removeprefix(self.root.path.rstrip("/") + "/")
        starts = (self.base if base is None else base, ".")
        return [PurePosixPath(start, *parts_of(own)).as_posix() for start in starts]


def text_of(path: UPath) -> str:
    """The text of a file. Raises ValueError if it is not UTF-8."""
    try:
        return content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error})") from None


def endings(entry: str) -> Iterator[str]:
    """The path and what is left of it without its first parts. A part that names a split is not left out."""
    parts = parts_of(entry)
    for index, part in enumerate(parts):
        yield "/".join(parts[index:])
        if SPLIT_NAME.fullmatch(part):
            return


def parts_of(entry: str) -> list[str]:
    """The parts of a path of any system, without drive, root, ``.`` and ``..``."""
    path = PureWindowsPath(entry.replace("\0", ""))
    kept: list[str] = []
    for part in path.parts[bool(path.anchor) :]:
        kept = kept[:-1] if part == ".." else [*kept, part]
    return kept
