"""Blank-image filter: rejects constant images, such as the black one that a diffusion safety checker returns."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from actors.filters.base import DetectorAccess, FilterBase, RealImages, State
from actors.images import Pixels, read
from actors.records import WHOLE_IMAGE, Inspected, Verdict


class BlankConfig(FilterBase):
    """Rejects images with too little contrast, measured as the standard deviation of the grey levels (0 to 255)."""

    kind: Literal["blank"] = "blank"
    real_share: float = Field(0.25, ge=0.0, le=1.0)
    """Threshold, as a fraction of the lowest contrast among the real training images."""
    min_std: float = Field(1.0, ge=0.0)
    """Lower bound on the threshold, in grey levels, however flat the real images are."""
    max_images: int = Field(200, ge=1)
    """Maximum number of real training images to measure, the first by id."""

    @override
    def fit(self, real: RealImages) -> State:
        contrasts = (contrast(read(image.uri)) for image in real.train[: self.max_images])
        return {"lowest_std": min(contrasts, default=0.0)}

    @override
    def build(self, state: State, detectors: DetectorAccess | None = None) -> "Blank":
        return Blank(self, state)


class Blank:
    """One verdict per image: kept if its contrast in grey levels is above the threshold, else ``blank``.

    Contrast is a standard deviation, not the share of the most common value: a binary image with a few dark pixels is
    nearly all white, but not blank.
    """

    def __init__(self, config: BlankConfig, state: State) -> None:
        self.threshold = max(config.min_std, config.real_share * float(state["lowest_std"]))

    def judge(self, batch: Sequence[Inspected]) -> list[tuple[Verdict, ...]]:
        """One verdict on each whole image."""
        return [(self._judge_one(inspected.candidate.pixels),) for inspected in batch]

    def _judge_one(self, pixels: Pixels) -> Verdict:
        score = contrast(pixels)
        keep = score > self.threshold
        reason = "" if keep else "blank"
        return Verdict(filter="blank", box=WHOLE_IMAGE, keep=keep, score=score, threshold=self.threshold, reason=reason)


def contrast(pixels: Pixels) -> float:
    """Standard deviation of the grey levels (mean of R, G, B; 0 to 255) of ``[H, W, 3]`` pixels."""
    return float(pixels.mean(axis=2, dtype=np.float32).std(dtype=np.float64))
