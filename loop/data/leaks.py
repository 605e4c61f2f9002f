"""Leaks between splits: held-out images that the training images give away, so that figures on them are too high.

* Near-copies: two images are near-copies if few bits of their perceptual hashes differ and their grey thumbnails
  correlate. Hashes alone would pair unrelated scans of text.
* Frames of a video: files that are numbered (``clip_0012.jpg``) in which neighbours resemble each other more than
  images far apart do. Held-out frames beside a training frame show the same moment. Numbered photographs, whose
  neighbours are unrelated, are none.

Large data sets are sampled, so that the check takes seconds.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps
from upath import UPath

from actors.counted import counted
from actors.filters.duplicate import perceptual_hash
from actors.images import Pixels, decode, open_picture
from actors.records import LabeledImage
from actors.seeds import derive_seed
from actors.storage import is_local

MOST_IMAGES = 4000
"""Images that are looked at, held-out and training images together."""
MOST_PIXELS = 1_000_000_000
"""Their pixels: about ten seconds of decoding PNG."""
COPIES = ("is a near-copy of a training image", "are near-copies of training images")
FRAMES = ("is a video frame next to a training frame", "are video frames next to a training frame")

_MOST_BITS = 8  # of 64; 14 and more between unrelated photographs, but 6 between scanned receipts
_LEAST_CORRELATION = 0.93  # of thumbnails; up to 0.87 between scanned receipts
_SIDE_PX = 32  # of a thumbnail
_NEAR = 2  # positions in a sequence
_LEAST_NEIGHBOURS = 10  # pairs of neighbours that tell a video from numbered photographs
_LEAST_FRAME_CORRELATION = 0.5
_CHUNK = 256
_NUM_READERS = 4
_NUMBERED = re.compile(r"(.*?)(\d+)(_(jpg|jpeg|png)\.rf\.[0-9a-z]+)?")

Images = Sequence[LabeledImage]


@dataclass(frozen=True, slots=True)
class _Looks:
    """Fingerprints of images."""

    images: Images
    hashes: NDArray[np.uint64]  # [n]
    thumbnails: NDArray[np.float32]  # [n, 1024], of mean 0 and length 1; 0 for a blank image

    def rows(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """The thumbnails of some images."""
        index = {image.id: row for row, image in enumerate(self.images)}
        return self.thumbnails[[index[one] for one in ids]]


def leaks(train: Images, held_out: Mapping[str, Images]) -> Iterator[str]:
    """A sentence on each kind of leak, for each of the splits of ``held_out``, with numbers and examples.

    Remote images are not looked at. Pictures that cannot be decoded are left out.
    """
    every = [*train, *(image for images in held_out.values() for image in images)]
    if not all(is_local(UPath(image.uri)) for image in every[:1]):
        return
    neighbours = _neighbours(train, held_out)
    chosen = _sampled(train, held_out, neighbours)
    looks = _looks([image for image in every if image.id in chosen])
    seen = {image.id for image in looks.images}
    if len(looks.images) < len(every):
        yield f"leaks between splits were looked for in {len(looks.images)} of {counted(len(every), 'image')}"
    first = _pick(looks, train, seen)
    pairs = {held: [one for one in near if one in seen] for held, near in neighbours.items() if held in seen}
    threshold = _frame_threshold(looks, pairs)
    for split, images in held_out.items():
        second = _pick(looks, images, seen)
        copies = _copies(first, second)
        if copies:
            yield _sentence(copies, len(second.images), split, COPIES)
        frames = _frames(looks, {i.id: pairs.get(i.id, []) for i in second.images}, threshold, copies)
        if frames:
            yield _sentence(frames, len(second.images), split, FRAMES)


def near_copies(train: Images, held_out: Images) -> dict[str, str]:
    """For each near-copy among ``held_out``, the training image that it resembles most.

    Ids may occur in both. Remote images are not looked at, and large data sets are sampled.
    """
    if not train or not held_out or not all(is_local(UPath(one.uri)) for one in (train[0], held_out[0])):
        return {}
    chosen = _sampled(train, {"held out": held_out}, {})
    known, held = (_looks([image for image in images if image.id in chosen]) for images in (train, held_out))
    return _copies(known, held)


def num_compared(train: Images, held_out: Images) -> int:
    """The number of images of ``held_out`` that ``near_copies`` looks at; ids differ from those of ``train``."""
    chosen = _sampled(train, {"held out": held_out}, {})
    return sum(image.id in chosen for image in held_out)


def _sentence(pairs: Mapping[str, str], total: int, split: str, what: tuple[str, str]) -> str:
    examples = ", ".join(f"{held} of {train}" for held, train in list(pairs.items())[:3])
    return (
        f"of {counted(total, f'{split} image')}, {counted(len(pairs), *what)} ({examples}): figures on them "
        "are too high. Put images of one scene or video into one split"
    )


def _neighbours(train: Images, held_out: Mapping[str, Images]) -> dict[str, list[str]]:
    """For each held-out image, the training images within two positions of its numbered sequence, the nearest first."""
    trained = {image.id for image in train}
    sequences = defaultdict[tuple[str, str], list[tuple[int, str]]](list)
    for image in [*train, *(image for images in held_out.values() for image in images)]:
        path = PurePosixPath(image.id)
        match = _NUMBERED.fullmatch(path.stem)
        if match:
            sequences[_video(path), match[1]].append((int(match[2]), image.id))
    near: dict[str, list[str]] = {}
    for sequence in sequences.values():
        ids = [image_id for _, image_id in sorted(sequence)]
        for at, image_id in enumerate(ids):
            if image_id not in trained:
                around = [at + step for distance in range(1, _NEAR + 1) for step in (-distance, distance)]
                near[image_id] = [ids[i] for i in around if 0 <= i < len(ids) and ids[i] in trained]
    return near


def _video(path: PurePosixPath) -> str:
    """The folder of a video, if videos have folders: one that several splits can have in common."""
    usual = {"images", "train", "training", "val", "valid", "validation", "test", "testing"}
    return "/".join(part for part in path.parts[:-1] if part.lower() not in usual)


def _sampled(train: Images, held_out: Mapping[str, Images], neighbours: Mapping[str, Sequence[str]]) -> set[str]:
    """The ids of the images to look at: a sixth of the budget for held-out images, then their neighbours, then others.

    Images are drawn by the hash of their ids, so that more images do not change which of the others are drawn.
    """
    by_id = {image.id: image for images in (train, *held_out.values()) for image in images}
    held = _drawn([image.id for images in held_out.values() for image in images])[: MOST_IMAGES // 6]
    beside = [near for one in held for near in neighbours.get(one, ())[:2]]
    order = dict.fromkeys([*held, *beside, *_drawn([image.id for image in train])])
    chosen: set[str] = set()
    pixels = 0
    for image_id in list(order)[:MOST_IMAGES]:
        pixels += by_id[image_id].width * by_id[image_id].height
        if pixels > MOST_PIXELS:
            break
        chosen.add(image_id)
    return chosen


def _drawn(ids: Sequence[str]) -> list[str]:
    return sorted(ids, key=lambda image_id: derive_seed(0, "leaks", image_id))


def _looks(images: Images) -> _Looks:
    with ThreadPoolExecutor(_NUM_READERS) as threads:
        found = [(image, look) for image, look in zip(images, threads.map(_look, images), strict=True) if look]
    return _Looks(
        images=[image for image, _ in found],
        hashes=np.array([hashed for _, (hashed, _) in found], np.uint64),
        thumbnails=np.array([thumbnail for _, (_, thumbnail) in found], np.float32).reshape(-1, _SIDE_PX**2),
    )


def _look(image: LabeledImage) -> tuple[np.uint64, NDArray[np.float32]] | None:
    """The hash and the thumbnail of an image; None if it cannot be decoded."""
    import cv2

    try:
        pixels = _small(image.uri)
    except (ValueError, OSError):
        return None
    small = np.asarray(cv2.resize(pixels, (2 * _SIDE_PX, 2 * _SIDE_PX), interpolation=cv2.INTER_AREA), np.uint8)
    gray = cv2.resize(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
    thumbnail = gray.astype(np.float32).ravel() - gray.mean(dtype=np.float32)
    return perceptual_hash(small), thumbnail / max(float(np.linalg.norm(thumbnail)), 1.0)


def _small(uri: str) -> Pixels:
    """The pixels of an image; those of a JPEG are decoded at a fraction of its size."""
    data = UPath(uri).read_bytes()
    with open_picture(BytesIO(data)) as picture:
        if picture.format != "JPEG":
            return decode(data, uri)
        picture.draft("RGB", (2 * _SIDE_PX, 2 * _SIDE_PX))
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), np.uint8)


def _pick(looks: _Looks, images: Images, seen: set[str]) -> _Looks:
    wanted = {image.id for image in images} & seen
    keep = [row for row, image in enumerate(looks.images) if image.id in wanted]
    return _Looks([looks.images[row] for row in keep], looks.hashes[keep], looks.thumbnails[keep])


def _copies(train: _Looks, held: _Looks) -> dict[str, str]:
    """For each held-out image with a near-copy in training, the most similar one."""
    found: dict[str, str] = {}
    for start in range(0, len(held.images) if train.images else 0, _CHUNK):
        rows = slice(start, start + _CHUNK)
        apart = np.bitwise_count(held.hashes[rows, None] ^ train.hashes[None])
        alike = np.where(apart <= _MOST_BITS, held.thumbnails[rows] @ train.thumbnails.T, 0)
        best = alike.argmax(axis=1)
        for row in np.flatnonzero(alike.max(axis=1) >= _LEAST_CORRELATION):
            found[held.images[start + int(row)].id] = train.images[int(best[row])].id
    return found


def _frame_threshold(looks: _Looks, pairs: Mapping[str, Sequence[str]]) -> float | None:
    """The correlation above which neighbours in a sequence are frames of a video; None if there is no video."""
    nearest = [(held, near[0]) for held, near in pairs.items() if near]
    if len(nearest) < _LEAST_NEIGHBOURS:
        return None
    first, second = (looks.rows(ids) for ids in zip(*nearest, strict=True))
    beside = (first * second).sum(axis=1)
    far = (first * np.roll(second, len(second) // 2, axis=0)).sum(axis=1)
    threshold = max(float(np.percentile(far, 95)), _LEAST_FRAME_CORRELATION)
    return threshold if np.median(beside) > threshold else None


def _frames(
    looks: _Looks, pairs: Mapping[str, Sequence[str]], threshold: float | None, copies: Mapping[str, str]
) -> dict[str, str]:
    """For each held-out frame beside a training frame, the latter; without near-copies, which are told already."""
    nearest = [(held, near[0]) for held, near in pairs.items() if near and held not in copies]
    if threshold is None or not nearest:
        return {}
    first, second = (looks.rows(ids) for ids in zip(*nearest, strict=True))
    alike = (first * second).sum(axis=1) > threshold
    return {held: near for (held, near), is_alike in zip(nearest, alike, strict=True) if is_alike}
