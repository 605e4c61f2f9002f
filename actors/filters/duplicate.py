"""Near-duplicates by perceptual hash (pHash; Zauner, "Implementation and benchmarking of perceptual image hash", 2010).

A generated image may equal the real image it was painted into except for small areas. The two checks therefore compare
different pixels:

* Copies of a *held-out* image: the whole image is hashed and compared with every validation and test image.
* Copies of a *training* image: where the whole image resembles a training image, the generated boxes are hashed and
  compared with the same areas of that image. It is a copy only if no generated box differs.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from actors import boxes as geometry
from actors.counted import counted
from actors.filters.base import DetectorAccess, FilterBase, RealImages, State
from actors.images import Pixels, read
from actors.records import WHOLE_IMAGE, Candidate, Inspected, LabeledImage, Verdict

NUM_BITS = 64
MAX_CELLS = 2_000_000  # of a table of distances: 16 MB of differing bits


class DuplicateConfig(FilterBase):
    """Rejects images that are too close to a real image."""

    kind: Literal["duplicate"] = "duplicate"
    max_distance: int = Field(6, ge=0, le=NUM_BITS)
    """Hashes that differ in at most this many of their 64 bits are near-duplicates. Unrelated images from one fixed
    camera differ in more: 14 or more on BCCD and on DeepPCB."""

    @override
    def fit(self, real: RealImages) -> State:
        """Hashes of all real images, and remarks on leaks: training images that are near-duplicates of held-out ones.

        A leak is a fault of the data set. Generated images close to that held-out image are still rejected. Images
        without objects count as training images, and have a remark of their own.
        """
        state = {"train": _entries((*real.train, *real.clean)), "held_out": _entries(real.held_out)}
        leaks = _near(_hashes(state["train"]), _hashes(state["held_out"]), self.max_distance)
        pairs = [(i >= len(real.train), state["train"][i]["id"], state["held_out"][j]["id"]) for i, j in leaks]
        told = [
            _told([(one, held) for is_clean, one, held in pairs if is_clean == kind], kind) for kind in (False, True)
        ]
        return {**state, "remarks": [remark for remark in told if remark]}

    @override
    def build(self, state: State, detectors: DetectorAccess | None = None) -> "Duplicate":
        return Duplicate(self, state)


class Duplicate:
    """One verdict per image: ``near_duplicate_of_held_out``, ``near_duplicate_of_train``, or kept.

    The score is the number of differing bits to the nearest real image; an image is kept if it is above
    ``max_distance``. Whole images are compared. Where a training image is within ``max_distance``, its distance is
    that of the generated box that differs most, or 0 without generated boxes.
    """

    def __init__(self, config: DuplicateConfig, state: State) -> None:
        self.max_distance = config.max_distance
        self.train = _hashes(state["train"])
        self.held_out = _hashes(state["held_out"])
        self.train_uris = [entry["uri"] for entry in state["train"]]
        self.read = lru_cache(maxsize=16)(read)

    def judge(self, batch: Sequence[Inspected]) -> list[tuple[Verdict, ...]]:
        """One verdict on each whole image."""
        return [(self._judge_one(inspected.candidate),) for inspected in batch]

    def _judge_one(self, candidate: Candidate) -> Verdict:
        whole = perceptual_hash(candidate.pixels)
        held_out = int(_distances(self.held_out, whole).min(initial=NUM_BITS))
        train = self._distance_to_train(candidate, whole)
        score, reason = min((held_out, "near_duplicate_of_held_out"), (train, "near_duplicate_of_train"))
        keep = score > self.max_distance
        return Verdict(
            filter="duplicate",
            box=WHOLE_IMAGE,
            keep=keep,
            score=float(score),
            threshold=float(self.max_distance),
            reason="" if keep else reason,
        )

    def _distance_to_train(self, candidate: Candidate, whole: np.uint64) -> int:
        """Differing bits to the nearest training image; generated boxes are compared where the whole is the same."""
        apart = _distances(self.train, whole)
        near = np.flatnonzero(apart <= self.max_distance)
        drawn = candidate.annotation.boxes[candidate.drawn]
        distances = [int(apart[apart > self.max_distance].min(initial=NUM_BITS))]
        for index in near:
            real = _resized(self.read(self.train_uris[index]), candidate.pixels)
            distances.append(max((_box_distance(candidate.pixels, real, box) for box in drawn), default=0))
        return min(distances)


def perceptual_hash(pixels: Pixels) -> np.uint64:
    """The 64-bit pHash of ``[H, W, 3]`` pixels; a constant image hashes to 0.

    A bit is set where one of the 8 x 8 lowest DCT coefficients of the 32 x 32 px grey image is above their median. The
    first coefficient, the brightness, counts as 0.
    """
    import cv2
    from scipy.fft import dctn

    gray = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA)
    lowest = np.round(dctn(small.astype(np.float64), norm="ortho")[:8, :8], 3).ravel()
    lowest[0] = 0.0
    bits = lowest > np.median(lowest[1:])
    return np.uint64(int.from_bytes(np.packbits(bits).tobytes(), "big"))


def _told(pairs: Sequence[tuple[str, str]], are_clean: bool) -> str:
    """The remark on pairs of a training image, or of an image without objects, and a held-out one; empty for none."""
    if not pairs:
        return ""
    what = "images without objects" if are_clean else "training images"
    step = "remove the first from data.clean" if are_clean else "put both into one split"
    number = f"{counted(len(pairs), 'pair')}, such as {pairs[0][0]} and {pairs[0][1]}"
    return f"near-duplicates among {what} and held-out images: {number}; if they show the same scene or part, {step}"


def _entries(images: Sequence[LabeledImage]) -> list[dict[str, str]]:
    return [
        {"id": image.id, "uri": image.uri, "hash": f"{int(perceptual_hash(read(image.uri))):016x}"} for image in images
    ]


def _hashes(entries: Sequence[dict[str, str]]) -> NDArray[np.uint64]:
    return np.array([int(entry["hash"], 16) for entry in entries], dtype=np.uint64)


def _distances(first: NDArray[np.uint64], second: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint8]:
    """Numbers of differing bits, broadcast."""
    return np.asarray(np.bitwise_count(first ^ second))


def _near(first: NDArray[np.uint64], second: NDArray[np.uint64], max_distance: int) -> list[tuple[int, int]]:
    """The positions of all pairs that differ in at most ``max_distance`` bits, sorted."""
    num_rows = max(MAX_CELLS // max(len(second), 1), 1)
    return [
        (start + int(i), int(j))
        for start in range(0, len(first), num_rows)
        for i, j in np.argwhere(_distances(first[start : start + num_rows, None], second) <= max_distance)
    ]


def _resized(real: Pixels, like: Pixels) -> Pixels:
    if real.shape == like.shape:
        return real
    import cv2

    return np.asarray(cv2.resize(real, (like.shape[1], like.shape[0]), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _box_distance(pixels: Pixels, real: Pixels, box: geometry.Boxes) -> int:
    """Differing bits between the crops of a box ``[4]`` from two images of the same size."""
    height, width = pixels.shape[:2]
    left, top = np.floor(np.clip(box[:2], 0, [width - 1, height - 1])).astype(int)
    right, bottom = np.maximum(np.ceil(np.clip(box[2:], 0, [width, height])).astype(int), [left + 1, top + 1])
    first, second = pixels[top:bottom, left:right], real[top:bottom, left:right]
    return int(_distances(np.array([perceptual_hash(first)]), perceptual_hash(second))[0])
