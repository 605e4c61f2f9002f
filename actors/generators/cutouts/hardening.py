"""Hard modes (ours): changes that make a real instance harder to detect, for copy-paste and inpainting."""

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, ValidationInfo

from actors.config import Config
from actors.generators.cutouts.cutout import Cutout, blurred, faded, scaled

Mode = Literal["plain", "scale", "contrast", "blur"]


def _rises(bounds: tuple[float, float], info: ValidationInfo, most: float = np.inf) -> tuple[float, float]:
    low, high = bounds
    if not 0 < low <= high <= most:
        raise ValueError(
            f"{info.field_name}: {low} to {high} is no rising range of positive values (shares: at most 1)"
        )
    return bounds


def _rises_to_one(bounds: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
    return _rises(bounds, info, most=1.0)


Range = Annotated[tuple[float, float], AfterValidator(_rises)]  # low, high
ShareRange = Annotated[tuple[float, float], AfterValidator(_rises_to_one)]


class HardeningConfig(Config):
    """Strength of each hard mode."""

    not_in_fit: ClassVar = frozenset({"modes", "scale", "contrast", "blur_px"})

    scale: Range = (0.6, 1.5)
    """Mode scale: range of the resize factor."""
    contrast: ShareRange = (0.35, 0.65)
    """Mode contrast: range of the object's weight over the background."""
    blur_px: Range = (1.0, 2.5)
    """Mode blur: range of the Gaussian's sigma."""

    def harden(self, cutout: Cutout, mode: Mode, rng: np.random.Generator) -> Cutout:
        """The cutout after ``mode``, with a strength drawn from ``rng``."""
        match mode:
            case "plain":
                return cutout
            case "scale":
                low, high = np.log(self.scale)
                return scaled(cutout, float(np.exp(rng.uniform(low, high))))
            case "contrast":
                return faded(cutout, rng.uniform(*self.contrast))
            case "blur":
                return blurred(cutout, rng.uniform(*self.blur_px))
