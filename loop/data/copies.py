"""Copies of an image: files of the same bytes, and files of another format or compression with the same picture.

Two images of the same size show the same picture if they differ by no more than a compression changes. The picture of
a part with a small defect and that of its template do not, nor do two photographs of the same plain surface:

* Means of blocks of 8 x 8 px. JPEG changes the mean of its own blocks by a few levels. A defect of 3 x 3 px that is 40
  levels darker changes one by more.
* One pixel of each block. A compression can at most erase fine texture, while the noise of two photographs adds up.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from actors.images import read
from actors.records import LabeledImage
from actors.seeds import derive_seed
from actors.storage import is_local

MOST_PIXELS = 1_000_000_000
"""Pixels of the images that are decoded to compare them: about ten seconds of decoding PNG."""

_BLOCK_PX = 8  # of JPEG
_MOST_LEVELS = 5.0  # between the means of a block; JPEG of quality 75: 4.2 on DeepPCB, 1.8 on photographs
_PLAIN = 0.5  # mean square of differences, in levels^2, that rounding makes on a picture without texture
_NUM_FIRST, _SLACK = 256, 1.5  # blocks that are compared first, and what their noise may have more
_NUM_READERS = 4

Images = Sequence[LabeledImage]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What of an image is compared."""

    image: LabeledImage
    means: NDArray[np.float32]  # [blocks], grey levels
    points: NDArray[np.float32]  # [blocks], grey levels of one pixel each

    @property
    def detail(self) -> float:
        """Mean square of the fine texture, in levels^2."""
        return float(np.square(self.points - self.means).mean())


def same_files(images: Images, others: Images) -> dict[str, LabeledImage]:
    """For each of the ``images`` whose file equals one of ``others`` in every byte, the first of these, by its id.

    Files of other sizes are not read.
    """
    sizes, other_sizes = (_each(_num_bytes, found) for found in (images, others))
    shared = set(sizes) & set(other_sizes)
    known = [one for one, size in zip(others, other_sizes, strict=True) if size in shared]
    first: dict[bytes, LabeledImage] = {}
    for one, digest in zip(known, _each(_digest, known), strict=True):
        first.setdefault(digest, one)
    candidates = [one for one, size in zip(images, sizes, strict=True) if size in shared]
    digests = _each(_digest, candidates)
    return {one.id: first[digest] for one, digest in zip(candidates, digests, strict=True) if digest in first}


def repeats(images: Images) -> dict[str, str]:
    """The ids of the ``images`` whose files equal an earlier one in every byte, each with the id of the first."""
    sizes = _each(_num_bytes, images)
    times = Counter(sizes)
    candidates = [one for one, size in zip(images, sizes, strict=True) if times[size] > 1]
    first: dict[bytes, str] = {}
    again = {}
    for image, digest in zip(candidates, _each(_digest, candidates), strict=True):
        if digest in first:
            again[image.id] = first[digest]
        first.setdefault(digest, image.id)
    return again


def comparable(images: Images, others: Images) -> tuple[Images, Images]:
    """Those of the ``images`` that ``same_pictures`` can look at in time, and those of ``others`` of the same sizes.

    All are looked at up to ``MOST_PIXELS``; of more, some are drawn by the hash of their ids. Remote ones are not.
    """
    sizes = {_size(image) for image in images}
    of_size = [one for one in others if _size(one) in sizes and is_local(UPath(one.uri))]
    num_left, chosen = MOST_PIXELS, set()
    for image in [*_drawn([one for one in images if is_local(UPath(one.uri))]), *_drawn(of_size)]:
        num_left -= image.width * image.height
        if num_left < 0:
            break
        chosen.add(image.uri)
    first, second = ([one for one in members if one.uri in chosen] for members in (images, of_size))
    return first, second


def same_pictures(images: Images, others: Images) -> dict[str, LabeledImage]:
    """For each of the ``images`` with the same picture as one of ``others`` or an earlier one of its own, that image.

    Of several, it is the most similar one. Pictures of other sizes, or that cannot be decoded, are none.
    """
    groups = defaultdict[tuple[int, int], list[_Look]](list)
    for look in _each(_look, [*others, *images]):
        if look is not None:
            groups[_size(look.image)].append(look)
    own = {image.uri for image in images}
    return {
        look.image.id: match.image
        for group in groups.values()
        for look, match in _matches(group, own)
        if match is not None
    }


def _matches(group: Sequence[_Look], own: set[str]) -> list[tuple[_Look, _Look | None]]:
    """For each look at one of the ``own`` images of a ``group`` of one size, the most similar earlier copy.

    Some of the blocks are compared first, so that hundreds of pictures of one fixed camera take seconds.
    """
    some = slice(None, None, max(group[0].means.size // _NUM_FIRST, 1))
    means = np.stack([look.means[some] for look in group])
    points = np.stack([look.points[some] for look in group])
    limits = _SLACK * np.maximum(np.square(points - means).mean(axis=1), _PLAIN)
    found = []
    for row, look in enumerate(group):
        if look.image.uri in own:
            near = np.flatnonzero(np.abs(means[:row] - means[row]).max(axis=1, initial=0) <= _MOST_LEVELS)
            noise = np.square(points[near] - points[row]).mean(axis=1)
            near = near[noise <= np.maximum(limits[near], limits[row])]
            found.append((look, _best(look, [group[index] for index in near])))
    return found


def _best(look: _Look, near: Sequence[_Look]) -> _Look | None:
    """The most similar one of those ``near`` that show the same picture; None if there is none."""
    alike = [one for one in near if np.abs(one.means - look.means).max() <= _MOST_LEVELS]
    noise = [float(np.square(one.points - look.points).mean()) for one in alike]
    copies = [
        (level, index)
        for index, (level, one) in enumerate(zip(noise, alike, strict=True))
        if level <= max(one.detail, look.detail, _PLAIN)
    ]
    return alike[min(copies)[1]] if copies else None


def _look(image: LabeledImage) -> _Look | None:
    """The blocks of an image; None if it cannot be decoded."""
    import cv2

    try:
        gray = cv2.cvtColor(read(image.uri), cv2.COLOR_RGB2GRAY)
    except (ValueError, OSError):
        return None
    height, width = gray.shape
    side = max(min(height, width, _BLOCK_PX**2) // _BLOCK_PX, 1)  # smaller blocks, so that a small picture has many
    gray = cv2.copyMakeBorder(gray, 0, -height % side, 0, -width % side, cv2.BORDER_REPLICATE)
    blocks = gray.reshape(gray.shape[0] // side, side, gray.shape[1] // side, side)
    return _Look(
        image=image,
        means=blocks.mean(axis=(1, 3), dtype=np.float32).ravel(),
        points=blocks[:, side // 2, :, side // 2].astype(np.float32).ravel(),
    )


def _drawn(images: Images) -> list[LabeledImage]:
    return sorted(images, key=lambda image: derive_seed(0, "copies", image.id))


def _size(image: LabeledImage) -> tuple[int, int]:
    return image.width, image.height


def _each(look: Callable[[LabeledImage], T], images: Images) -> list[T]:
    with ThreadPoolExecutor(_NUM_READERS) as threads:
        return list(threads.map(look, images))


def _num_bytes(image: LabeledImage) -> int:
    return UPath(image.uri).stat().st_size


def _digest(image: LabeledImage) -> bytes:
    return hashlib.sha256(UPath(image.uri).read_bytes()).digest()
