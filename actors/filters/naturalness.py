"""Naturalness: NIQE (Mittal et al., IEEE SPL 2013) as the image filter of Gen2Det (arXiv 2312.04566, Sec. 3.2).

Natural-scene statistics are fitted on the run's real images. By default, an image is kept if its score is at least the
mean score of the real images. Gen2Det uses an aesthetic score instead.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from actors.counted import counted
from actors.filters.base import DetectorAccess, FilterBase, RealImages, State
from actors.images import Pixels, read
from actors.records import WHOLE_IMAGE, Inspected, Verdict

Floats = NDArray[np.float64]

_RIDGE = 1e-2  # added to covariances of standardised features; bounds the distance for few or identical patches


class NaturalnessConfig(FilterBase):
    """Rejects images whose local statistics are too far from those of the real images."""

    kind: Literal["naturalness"] = "naturalness"
    quantile: float | None = Field(None, ge=0.0, le=1.0)
    """Quantile of the real images' scores to use as threshold. Null uses their mean, as in Gen2Det, which rejects
    about half of the images that are as natural as the real ones."""
    patch_px: int = Field(64, ge=16, multiple_of=2)
    """Side of the patches in px; the half-size scale uses half of it. Smaller images use their shorter side."""
    max_images: int = Field(200, ge=2)
    """Maximum number of real training images to fit on, chosen at random."""

    @override
    def fit(self, real: RealImages) -> State:
        """Mean and covariance of the real training images' patches, and the threshold.

        Each image is scored by a model fitted without it. Raises ValueError for fewer than two training images.
        """
        measured = real.some(self.max_images)
        if len(measured) < 2:
            raise ValueError(
                f"naturalness: {counted(len(measured), 'real training image')}: too few to fit on; it needs two"
            )
        patches = [patch_features(read(image.uri), self.patch_px) for image in measured]
        scores = _left_out_scores(patches)
        threshold = scores.mean() if self.quantile is None else np.quantile(scores, self.quantile)
        return {"threshold": float(threshold), **_Model.fitted(np.concatenate(patches)).state()}

    @override
    def build(self, state: State, detectors: DetectorAccess | None = None) -> "Naturalness":
        return Naturalness(self, state)


class Naturalness:
    """One verdict per image: ``unnatural`` if its score is below the threshold.

    The score is minus the NIQE distance between the image's patch statistics and those of the real training images;
    higher is better. Deviations from NIQE: the fit uses all patches, not only the sharpest, since the real images
    define what is natural here, blur included. Features are standardised, and covariances get a small ridge.
    """

    def __init__(self, config: NaturalnessConfig, state: State) -> None:
        self.config = config
        self.threshold = float(state["threshold"])
        self.model = _Model.from_state(state)

    def judge(self, batch: Sequence[Inspected]) -> list[tuple[Verdict, ...]]:
        """One verdict on each whole image."""
        return [(self._judge_one(inspected.candidate.pixels),) for inspected in batch]

    def _judge_one(self, pixels: Pixels) -> Verdict:
        score = self.model.score(patch_features(pixels, self.config.patch_px))
        keep = score >= self.threshold
        reason = "" if keep else "unnatural"
        return Verdict(
            filter="naturalness", box=WHOLE_IMAGE, keep=keep, score=score, threshold=self.threshold, reason=reason
        )


class _Model:
    """A Gaussian over standardised patch features."""

    def __init__(self, mean: Floats, scale: Floats, covariance: Floats) -> None:
        self.mean = mean  # [d]
        self.scale = scale  # [d] > 0
        self.covariance = covariance  # [d, d] of the standardised features

    @classmethod
    def fitted(cls, features: Floats) -> "_Model":
        """The model of patches ``[n, d]``."""
        mean = features.mean(axis=0)
        scale = np.maximum(features.std(axis=0), 1e-6)
        return cls(mean, scale, _covariance((features - mean) / scale))

    @classmethod
    def of_moments(cls, count: int, total: Floats, squares: Floats, centre: Floats) -> "_Model":
        """The same from the sum ``[d]`` and the sum of outer products ``[d, d]`` of patches less ``centre`` ``[d]``."""
        mean = total / count
        spread = squares - count * np.outer(mean, mean)
        scale = np.maximum(np.sqrt(np.maximum(np.diag(spread) / count, 0)), 1e-6)
        return cls(centre + mean, scale, spread / np.outer(scale, scale) / max(count - 1, 1))

    @classmethod
    def from_state(cls, state: State) -> "_Model":
        return cls(*(np.asarray(state[key], np.float64) for key in ("mean", "scale", "covariance")))

    def state(self) -> dict[str, object]:
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist(), "covariance": self.covariance.tolist()}

    def score(self, features: Floats) -> float:
        """Minus the NIQE distance (its Eq. 10) of an image's patches ``[n, d]``."""
        standard = (features - self.mean) / self.scale
        shift = standard.mean(axis=0)
        pooled = (self.covariance + _covariance(standard)) / 2 + _RIDGE * np.eye(len(shift))
        return -float(np.sqrt(shift @ np.linalg.solve(pooled, shift)))


def _left_out_scores(patches: Sequence[Floats]) -> Floats:
    """The score ``[n]`` of each image's patches ``[k, d]`` by the model of all others."""
    centre = np.concatenate(patches).mean(axis=0)
    moments = [(len(shifted), shifted.sum(axis=0), shifted.T @ shifted) for shifted in (p - centre for p in patches)]
    count, total, squares = (sum(part) for part in zip(*moments, strict=True))
    return np.array(
        [
            _Model.of_moments(count - own[0], total - own[1], squares - own[2], centre).score(features)
            for own, features in zip(moments, patches, strict=True)
        ]
    )


def patch_features(pixels: Pixels, patch_px: int) -> Floats:
    """NIQE's 36 features ``[num_patches, 36]`` of ``[H, W, 3]`` pixels: 18 at full size, 18 at half size."""
    import cv2

    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    side = min(patch_px, *gray.shape) // 2 * 2
    height, width = (length // side * side for length in gray.shape)
    gray = gray[:height, :width]
    half = cv2.resize(gray, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return np.concatenate([_scale_features(gray, side), _scale_features(half, side // 2)], axis=1)


def _scale_features(gray: NDArray[np.float32], side: int) -> Floats:
    """18 features ``[num_patches, 18]``: shape and spread of the MSCN coefficients and of their neighbour products."""
    mscn = _mscn(gray)
    shape, _, left, right = _asymmetric_gaussian(_patches(mscn, side))
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        features += _asymmetric_gaussian(_patches(mscn * np.roll(mscn, shift, axis=(0, 1)), side))
    return np.stack(features, axis=1)


def _mscn(gray: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean-subtracted, contrast-normalised coefficients; 0 where the surroundings are constant."""
    import cv2

    mean = cv2.GaussianBlur(gray, (7, 7), 7 / 6)
    variance = cv2.GaussianBlur(gray * gray, (7, 7), 7 / 6) - mean * mean
    return np.asarray((gray - mean) / (np.sqrt(np.maximum(variance, 0)) + 1), dtype=np.float32)


def _patches(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """``[num_patches, side * side]`` of a map whose sides are multiples of ``side``."""
    rows, columns = values.shape[0] // side, values.shape[1] // side
    return values.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, side * side)


def _asymmetric_gaussian(patches: NDArray[np.float32]) -> list[Floats]:
    """Shape, mean, left and right scale, each ``[n]``, of an asymmetric generalised Gaussian, by moment matching."""
    from scipy.special import gamma

    tiny = 1e-6  # constant patches have no spread; they get the smallest shape and scales of almost zero
    squares = patches * patches
    left, right = (
        np.sqrt((squares * side).sum(axis=1, dtype=np.float64) / np.maximum(side.sum(axis=1), 1)) + tiny
        for side in (patches < 0, patches > 0)
    )
    ratio = left / right
    moments = np.abs(patches).mean(axis=1, dtype=np.float64) ** 2 / (squares.mean(axis=1, dtype=np.float64) + tiny**2)
    target = moments * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes = np.arange(0.2, 10.0, 0.001)
    shape = np.interp(target, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes)), shapes)
    normal = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    left, right = left * normal, right * normal
    mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
    return [shape, mean, left, right]


def _covariance(centred: Floats) -> Floats:
    """``[d, d]`` covariance of rows ``[n, d]``; zero for a single row."""
    deviation = centred - centred.mean(axis=0)
    return np.asarray(deviation.T @ deviation / max(len(centred) - 1, 1))
