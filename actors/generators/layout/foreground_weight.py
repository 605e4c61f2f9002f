"""Foreground re-weighting of the denoising loss (GeoDiffusion, arXiv 2306.04607, Sec. 3.3, Eqs. 5-7)."""

import numpy as np
from numpy.typing import NDArray


def foreground_weight(masks: NDArray[np.float32], *, weight: float = 2.0, power: float = 0.2) -> NDArray[np.float32]:
    """Weights ``[h, w]`` of the cells' squared errors, given box masks ``[K, h, w]`` on the latent grid.

    A cell in a box of area ``c`` cells gets ``weight / c ** power``, one in the background ``1 / (h * w) ** power``,
    and all are then scaled to mean 1: small boxes count more per cell. Later boxes overwrite earlier ones. Without
    boxes, all weights are 1. In the authors' code, boxes are one cell wider and higher than the cells they cover.
    """
    size = masks.shape[1:]
    counts = np.full(size, float(np.prod(size)) ** -power)
    for mask in masks > 0:
        counts[mask] = weight / float(mask.sum()) ** power
    return np.asarray(counts / counts.mean(), np.float32)
