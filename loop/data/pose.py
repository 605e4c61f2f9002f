"""Whether objects may be turned and mirrored, by a classifier two-sample test (Lopez-Paz and Oquab, arXiv 1610.06545).

A linear classifier compares a crop of a real object with the same crop turned or mirrored, and says which one is real.
If it is right no more often than by chance, turned objects look like real ones. The test is cross-validated by image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.counted import counted
from actors.images import Pixels, read
from actors.records import LabeledImage

Floats = NDArray[np.float32]

LEAST_SHARE = 0.6
"""Share of pairs that the classifier must exceed to say that objects have a pose; chance is 0.5."""

_CROP_PX = 32
_CELLS = 4  # a side, in which gradients are counted
_NUM_ANGLES = 8
_NUM_FOLDS = 5
_NUM_VIEWS = 5  # as it is, turned by 90, 180 and 270 degrees, mirrored
_MOST_IMAGES, _MOST_CROPS = 120, 300  # some seconds
_LEAST_CROPS = 30
_LEAST_CONTRAST = 2.0  # grey levels, standard deviation: crops with less look the same at any turn
_JITTER = 0.1  # of a box's sides: no annotator leaves the same margin at all sides, which would tell how a crop lies


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How often the classifier tells a real crop from a changed one."""

    share: float  # of pairs
    margin: float  # half of the 95 % interval
    num_crops: int
    num_images: int

    @property
    def enough(self) -> bool:
        """Whether there are enough crops to say anything."""
        return self.num_crops >= _LEAST_CROPS and self.num_images >= _NUM_FOLDS

    @property
    def different(self) -> bool:
        """Whether changed crops certainly differ from real ones."""
        return self.enough and self.share - self.margin > LEAST_SHARE

    @property
    def alike(self) -> bool:
        """Whether changed crops are certainly as good as real ones."""
        return self.enough and self.share + self.margin < LEAST_SHARE

    def __str__(self) -> str:
        if not self.enough:
            return (
                f"not measured: {counted(self.num_crops, 'crop with contrast is', 'crops with contrast are')} too few"
            )
        return f"{self.share:.0%} of pairs told, +/- {100 * self.margin:.0f}, {self.num_crops} crops"


@dataclass(frozen=True, slots=True, kw_only=True)
class Poses:
    """How often crops are told from turned and from mirrored ones."""

    turned: Told
    mirrored: Told


def measure(images: Sequence[LabeledImage], seed: int = 0) -> Poses:
    """Measure at most 300 boxes of at most 120 images. Pictures that cannot be read are passed over.

    All classes are measured together: the classifier has one direction for all of them.
    """
    rng = np.random.default_rng(seed)
    drawn = [images[index] for index in rng.permutation(len(images))[:_MOST_IMAGES]]
    crops, groups = _crops(drawn, rng)
    if len(crops) < _LEAST_CROPS or len(np.unique(groups)) < _NUM_FOLDS:
        unknown = Told(share=0.5, margin=0.5, num_crops=len(crops), num_images=len(np.unique(groups)))
        return Poses(turned=unknown, mirrored=unknown)
    views = [crops[:, 0], *(np.rot90(crops[:, turns], turns, (1, 2)) for turns in (1, 2, 3)), crops[:, 4, :, ::-1]]
    real, *turned, mirrored = (_features(view) for view in views)
    return Poses(turned=_told(real, turned, groups), mirrored=_told(real, [mirrored], groups))


def _crops(images: Sequence[LabeledImage], rng: np.random.Generator) -> tuple[Floats, NDArray[np.int_]]:
    """Grey crops ``[n, 5, 32, 32]``, one for each view, each framed anew, and the index ``[n]`` of their image."""
    most = max(_MOST_CROPS // max(len(images), 1), 1)
    found: list[tuple[Floats, int]] = []
    for index, image in enumerate(images):
        counted = np.flatnonzero(~image.annotation.ignore)
        chosen = rng.permutation(counted)[:most]
        for box, gray in _pictured(image, chosen):
            crop = np.stack([_crop(gray, box, rng) for _ in range(_NUM_VIEWS)])
            if crop[0].std() >= _LEAST_CONTRAST:
                found.append((crop, index))
    crops = np.array([crop for crop, _ in found], np.float32).reshape(-1, _NUM_VIEWS, _CROP_PX, _CROP_PX)
    return crops, np.array([index for _, index in found], np.int_)


def _pictured(image: LabeledImage, chosen: NDArray[np.int_]) -> Iterator[tuple[Floats, Pixels]]:
    """The chosen boxes ``[4]`` with the grey picture; none if it cannot be read, which ``data validate`` reports."""
    import cv2

    try:
        pixels = read(image.uri) if len(chosen) else None
    except (ValueError, OSError):
        return
    if pixels is not None:
        gray = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
        yield from ((image.annotation.boxes[index], gray) for index in chosen)


def _crop(gray: Pixels, box: Floats, rng: np.random.Generator) -> Floats:
    """The square ``[32, 32]`` around a box ``[4]``, shifted and resized by some tenths of its sides."""
    import cv2

    sides = np.maximum(box[2:] - box[:2], 1.0)
    centre = (box[:2] + box[2:]) / 2 + rng.uniform(-_JITTER, _JITTER, 2) * sides
    side = float(sides.max()) * float(np.exp(rng.uniform(0, 2 * _JITTER)))
    left, top = (round(float(one) - side / 2) for one in centre)
    width = max(round(side), 2)
    rows = np.clip(np.arange(top, top + width), 0, gray.shape[0] - 1)
    columns = np.clip(np.arange(left, left + width), 0, gray.shape[1] - 1)
    method = cv2.INTER_AREA if width > _CROP_PX else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(gray[np.ix_(rows, columns)], (_CROP_PX, _CROP_PX), interpolation=method), np.float32)


def _features(crops: Floats) -> Floats:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005) of crops ``[n, 32, 32]``, ``[n, d]``.

    Angles have a sign, so that light from above differs from light from below.
    """
    down, right = np.gradient(crops, axis=(1, 2))
    strength, turns = np.hypot(down, right), np.arctan2(down, right) / (2 * np.pi) * _NUM_ANGLES
    low = np.floor(turns)
    counted = [
        strength * np.where(low % _NUM_ANGLES == k, low + 1 - turns, 0)
        + strength * np.where((low + 1) % _NUM_ANGLES == k, turns - low, 0)
        for k in range(_NUM_ANGLES)
    ]
    size = _CROP_PX // _CELLS
    cells = np.stack(counted, 1).reshape(len(crops), _NUM_ANGLES, _CELLS, size, _CELLS, size).sum((3, 5))
    rows = cells.reshape(len(crops), -1)
    return np.asarray(np.sqrt(rows / np.maximum(rows.sum(1, keepdims=True), 1e-6)), np.float32)


def _told(real: Floats, changed: Sequence[Floats], groups: NDArray[np.int_]) -> Told:
    """The share of pairs in which the classifier gives the real crop ``[n, d]`` the higher score.

    The interval counts images, whose crops are not independent.
    """
    names = np.unique(groups)
    fold = np.random.default_rng(0).permutation(len(names))[np.searchsorted(names, groups)] % _NUM_FOLDS
    differences = np.stack([real - one for one in changed], 1)  # [n, k, d]
    right = np.zeros(len(real))
    for held in range(_NUM_FOLDS):
        direction = _direction(differences[fold != held].reshape(-1, real.shape[1]))
        scores = differences[fold == held] @ direction
        right[fold == held] = ((scores > 0) + 0.5 * (scores == 0)).mean(1)
    by_image = np.array([right[groups == name].mean() for name in names])
    margin = 1.96 * float(by_image.std(ddof=1)) / np.sqrt(len(names))
    return Told(share=float(by_image.mean()), margin=float(margin), num_crops=len(real), num_images=len(names))


def _direction(differences: Floats) -> Floats:
    """The ridge regression ``[d]`` by which all differences ``[n, d]`` should score 1."""
    second = differences.T @ differences / len(differences)
    ridge = np.eye(len(second), dtype=np.float32) * max(float(np.trace(second)) / len(second), 1e-6)
    return np.asarray(np.linalg.solve(second + ridge, differences.mean(0)), np.float32)
