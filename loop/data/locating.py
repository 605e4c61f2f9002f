"""Finding of the image files that annotations name, and reading of their headers.

An image is looked for at its usual places first. If it is at none of them, as when annotations hold the paths of
another machine, the pictures below the root are searched for its file name, whatever its letter case and Unicode
normal form. Two candidates are told apart by the folders above them, if these match the given path. If they do not, or
if two annotations want the same file, the image is left out: nothing is guessed.
"""

import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from PIL import Image
from upath import UPath

from actors.counted import counted
from loop.data.config import DataConfig
from loop.data.formats.base import RawImage, inside, is_picture, walk
from loop.data.ledger import Ledger
from loop.data.validate import Header, PictureError, probe

_NUM_READERS = 8  # threads that open image files: remote storage is slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """An image whose file was found."""

    raw: RawImage
    place: str  # relative to the root
    header: Header

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px of the upright image."""
        return self.header.width, self.header.height


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lost:
    """An image that cannot be used, and why."""

    file: str
    reason: str
    detail: str


_Found = Located | _Lost


def locate(
    root: UPath, splits: Mapping[str, Sequence[RawImage]], config: DataConfig, ledger: Ledger
) -> dict[str, list[Located]]:
    """The images whose files can be used, by split, in their order. The others are dropped."""
    images = [(split, raw) for split, members in splits.items() for raw in members]
    with warnings.catch_warnings(), ThreadPoolExecutor(_NUM_READERS) as threads:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # probe has a limit of its own
        found = list(threads.map(partial(_at_its_places, root, config), [raw for _, raw in images]))
        lost = [raw for (_, raw), one in zip(images, found, strict=True) if one is None]
        claimed = {one.place for one in found if isinstance(one, Located)}
        by_name = _by_name(root, lost, claimed, config) if lost else {}
        later = iter(list(threads.map(lambda raw: _opened(root, raw, by_name[id(raw)], config), lost)))
    _remark_on_names([(raw.name, by_name[id(raw)]) for raw in lost], ledger)
    located: dict[str, list[Located]] = {split: [] for split in splits}
    for (split, _), one in zip(images, found, strict=True):
        result = next(later) if one is None else one
        if isinstance(result, Located):
            located[split].append(result)
        else:
            ledger.drop(result.file, "image", result.reason, result.detail)
    return located


def _at_its_places(root: UPath, config: DataConfig, raw: RawImage) -> _Found | None:
    """The image at the first of its places that exists; None if there is none."""
    for place in dict.fromkeys(raw.places):
        try:
            return _probed(root, raw, place, config)
        except FileNotFoundError:
            continue
    return None


def _probed(root: UPath, raw: RawImage, place: str, config: DataConfig) -> _Found:
    try:
        header = probe(inside(root, place, raw.source, follow_links=config.follow_links))
    except PictureError as error:
        return _Lost(file=place, reason=error.reason, detail=error.detail)
    return Located(raw=raw, place=place, header=header)


def _opened(root: UPath, raw: RawImage, place: "str | _Lost", config: DataConfig) -> _Found:
    return place if isinstance(place, _Lost) else _probed(root, raw, place, config)


def _by_name(root: UPath, lost: Sequence[RawImage], claimed: set[str], config: DataConfig) -> dict[int, "str | _Lost"]:
    """For each image of ``lost`` (by ``id``) the only picture of its name that no other image claims, or the reason."""
    index = defaultdict(list)
    for place in sorted(filter(is_picture, walk(root, ".", follow_links=config.follow_links))):
        if place not in claimed:
            index[_plain(place)[-1]].append(place)
    chosen = {id(raw): _choice(raw, index) for raw in lost}
    wanted = defaultdict(set)
    for raw in lost:
        wanted[chosen[id(raw)]].add(_plain(raw.name))
    return {
        id(raw): place if isinstance(place, _Lost) or len(wanted[place]) == 1 else _shared(raw, place)
        for raw in lost
        for place in [chosen[id(raw)]]
    }


def _choice(raw: RawImage, index: Mapping[str, Sequence[str]]) -> "str | _Lost":
    given = _plain(raw.name)
    candidates = index.get(given[-1], ()) if given else ()
    here = [place for place in candidates if _plain(place) in {_plain(one) for one in raw.places}]
    ranks = {place: _num_common(_plain(place), given) for place in here or candidates}
    best = [place for place, rank in ranks.items() if rank == max(ranks.values())]
    if len(best) == 1:
        return best[0]
    if best:
        return _Lost(file=raw.source, reason="ambiguous file name", detail=f"{raw.name!r} is {' and '.join(best[:5])}")
    looked_for = ", ".join(dict.fromkeys(raw.places)) or repr(raw.name)
    return _Lost(file=raw.source, reason="missing image", detail=f"looked for {looked_for}")


def _shared(raw: RawImage, place: str) -> _Lost:
    detail = f"{raw.name!r} is not there; another image is also called {place}"
    return _Lost(file=raw.source, reason="ambiguous file name", detail=detail)


def _plain(path: str) -> tuple[str, ...]:
    """The parts of a path of any machine, in one letter case and one Unicode normal form."""
    parts = PurePosixPath(unicodedata.normalize("NFC", path.replace("\\", "/")).casefold()).parts
    return tuple(part for part in parts if part not in {".", "..", "/"})


def _num_common(one: Sequence[str], other: Sequence[str]) -> int:
    """The number of last parts that are the same."""
    pairs = list(zip(reversed(one), reversed(other), strict=False))
    return next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))


def _remark_on_names(found: Iterable[tuple[str, "str | _Lost"]], ledger: Ledger) -> None:
    places = [(name, place) for name, place in found if isinstance(place, str)]
    if places:
        name, place = places[0]
        ledger.remarks.append(
            f"{counted(len(places), 'picture is', 'pictures are')} not where the annotations say, but found by file "
            f"name, e.g. {name!r} as {place}"
        )
