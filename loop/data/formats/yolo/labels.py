"""The label file of each picture, and the pictures of a data set by name."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from upath import UPath

from loop.data.formats.base import PICTURE_SUFFIXES, below, hidden, is_picture, number, pictures, walk

NOT_LABELS = frozenset({"classes.txt", "labels.txt", "predefined_classes.txt", "notes.txt"})  # of labelling tools

_LEAST_COLUMNS = 5


class LabelFiles:
    """Finds the label files of pictures, whatever the Unicode form of their names and the case of their suffix.

    The labels of a folder of pictures are in the first of these that has one: the folder with its last ``images``
    replaced by ``labels``, the folder itself, the folder with another of its parts replaced by ``labels``, the folder
    with ``labels`` inserted, ``Labels`` for ``Images``, ``labels/train`` for ``train/images`` and the other way round.
    """

    def __init__(self, root: UPath, listed: Sequence[str]) -> None:
        """``listed`` names the pictures whose labels are wanted, relative to ``root``."""
        self._root = root
        self._listings: dict[str, dict[str, str]] = {}
        stems = defaultdict[str, set[str]](set)
        for picture in listed:
            stems[_folder(picture)].add(_stem(picture))
        self._places = {folder: self._label_folder(folder, wanted) for folder, wanted in stems.items()}

    def of(self, picture: str) -> str | None:
        """The label file of a listed picture, relative to the root; None if there is none."""
        place = self._places[_folder(picture)]
        return None if place is None else self._listing(place).get(_stem(picture))

    def has_any(self, picture: str) -> bool:
        """True if the folder of a listed picture has label files."""
        return self._places[_folder(picture)] is not None

    def usual(self, picture: str) -> str:
        """Where the label file of a picture is expected, relative to the root."""
        return f"{next(_label_folders(_folder(picture)))}/{PurePosixPath(picture).stem}.txt"

    def orphans(self, listed: Sequence[str]) -> list[str]:
        """The label files in the label folders of the listed pictures that have no picture, listed or not."""
        wanted = {self.of(picture) for picture in listed}
        orphans = []
        for folder, place in self._places.items():
            others = {stem: file for stem, file in self._listing(place or "").items() if file not in wanted}
            pictured = _picture_stems(self._root / folder) if others else set()
            orphans += [file for stem, file in others.items() if stem not in pictured and _is_label(file)]
        return sorted(set(orphans))

    def _label_folder(self, folder: str, stems: set[str]) -> str | None:
        places = dict.fromkeys(_label_folders(folder))
        return next((place for place in places if not stems.isdisjoint(self._listing(place))), None)

    def _listing(self, folder: str) -> dict[str, str]:
        """The text files of a folder by their normalised stem."""
        if folder not in self._listings:
            files = sorted(text_files(self._root / folder)) if folder and (self._root / folder).is_dir() else []
            self._listings[folder] = {_stem(file.name): below(self._root, file) for file in files}
        return self._listings[folder]


class KnownPictures:
    """The pictures below a root, found by paths that were written on another machine."""

    def __init__(self, root: UPath, follow_links: bool) -> None:
        self.every = pictures(root, ".", follow_links=follow_links)  # relative to the root
        self._known = set(self.every)
        self._by_name = defaultdict[str, list[str]](list)
        for picture in self.every:
            self._by_name[_normal(PurePosixPath(picture).name)].append(picture)

    def __contains__(self, picture: str) -> bool:
        return picture in self._known

    def like(self, parts: Sequence[str]) -> str | None:
        """The picture whose path ends like ``parts``, of several the most alike; None if there is no single one."""
        same = self._by_name.get(_normal(parts[-1]), []) if parts else []
        shared = [_num_shared(PurePosixPath(one).parts, parts) for one in same]
        best = [one for one, number in zip(same, shared, strict=True) if number == max(shared)]
        return best[0] if len(best) == 1 else None


def unclaimed(root: UPath, follow_links: bool) -> dict[str, str]:
    """The label files below ``root`` that are of no picture, relative to it, by their ``loose_stem``."""
    files = [file for file in walk(root, ".", follow_links=follow_links) if not hidden(file)]
    listed = list(filter(is_picture, files))
    labels = LabelFiles(root, listed)
    claimed = {labels.of(picture) for picture in listed}
    texts = {file for file in files if PurePosixPath(file).suffix.lower() == ".txt" and _is_label(file)}
    return {loose_stem(file): file for file in sorted(texts - claimed)}


def loose_stem(file: str) -> str:
    """The name of a file in one letter case, without its suffix and that of a picture before it (``a.jpg.txt``)."""
    name = PurePosixPath(_normal(file).casefold()).stem
    path = PurePosixPath(name)
    return path.stem if path.suffix in PICTURE_SUFFIXES else name


def text_files(folder: UPath) -> Iterator[UPath]:
    """The text files in ``folder`` itself, without hidden ones."""
    return (file for file in folder.iterdir() if file.suffix.lower() == ".txt" and not file.name.startswith("."))


def looks_like_labels(text: str) -> bool:
    """True if the first line is a class id and four fractions, or more."""
    columns = next(filter(str.strip, text.splitlines()), "").split()
    values = [number(column) for column in columns[:_LEAST_COLUMNS]]
    is_row = len(values) == _LEAST_COLUMNS and values[0].is_integer()
    return is_row and all(-0.5 <= value <= 1.5 for value in values[1:])


def _picture_stems(folder: UPath) -> set[str]:
    return {_stem(file.name) for file in folder.iterdir() if is_picture(file.name)}


def _is_label(file: str) -> bool:
    return PurePosixPath(file).name not in NOT_LABELS


def _label_folders(folder: str) -> Iterator[str]:
    parts = PurePosixPath(folder).parts
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        yield _joined([*parts[:last], "labels", *parts[last + 1 :]])
    yield _joined(parts)
    yield from (_joined([*parts[:index], "labels", *parts[index + 1 :]]) for index in reversed(range(len(parts))))
    yield from (_joined([*parts[:index], "labels", *parts[index:]]) for index in reversed(range(len(parts) + 1)))
    for index in (index for index, part in enumerate(parts) if part.lower() == "images"):
        yield _joined([*parts[:index], "Labels", *parts[index + 1 :]])
        yield _joined([*parts[: max(index - 1, 0)], "labels", *parts[max(index - 1, 0) : index], *parts[index + 1 :]])
        yield _joined([*parts[:index], *parts[index + 1 : index + 2], "labels", *parts[index + 2 :]])


def _joined(parts: Sequence[str]) -> str:
    return PurePosixPath(*parts).as_posix()


def _folder(file: str) -> str:
    return PurePosixPath(file).parent.as_posix()


def _stem(file: str) -> str:
    return _normal(PurePosixPath(file).stem)


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _num_shared(first: Sequence[str], second: Sequence[str]) -> int:
    count = 0
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if _normal(one) != _normal(other):
            break
        count += 1
    return count
