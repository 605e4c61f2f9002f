"""Seeded noise fields for the surfaces."""

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def fractal(rng: np.random.Generator, shape: tuple[int, int], scale_px: float, octaves: int = 3) -> Field:
    """Smooth noise ``[H, W]``, standard deviation about 1, with blobs of ``scale_px`` and finer ones on top."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        total += 0.55**octave * _smooth(rng, shape, max(scale_px / 2**octave, 1.5))
    return total


def streaks(rng: np.random.Generator, shape: tuple[int, int], length_px: int) -> Field:
    """Noise ``[H, W]`` stretched to lines of ``length_px`` along x, standard deviation about 1."""
    import cv2

    grain = rng.standard_normal(shape, dtype=np.float32)
    return np.asarray(cv2.blur(grain, (length_px, 1)) * np.sqrt(length_px), np.float32)


def speckle(rng: np.random.Generator, shape: tuple[int, int], share: float) -> Field:
    """Small grains ``[H, W]``: about 1 on ``share`` of the pixels, 0 elsewhere, with soft edges."""
    import cv2

    grains = (rng.random(shape, dtype=np.float32) < share).astype(np.float32)
    return np.asarray(np.minimum(cv2.GaussianBlur(grains, (0, 0), 0.7) * 2.5, 1.0), np.float32)


def _smooth(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> Field:
    import cv2

    height, width = (int(np.ceil(side / scale_px)) + 2 for side in shape)
    coarse = rng.standard_normal((height, width), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)
