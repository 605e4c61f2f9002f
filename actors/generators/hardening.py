"""Hard modes (ours): what makes a real instance harder to find. Both copy-paste and inpainting start from such ones."""

from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from actors.config import Config
from actors.generators.cutout import Cutout, blurred, faded, scaled

Mode = Literal["plain", "scale", "contrast", "blur"]
Range = tuple[float, float]  # low, high


class HardeningConfig(Config):
    """How far each mode goes."""

    scale: Range = (0.6, 1.5)
    """Mode scale: range of the factor."""
    contrast: Range = (0.35, 0.65)
    """Mode contrast: range of the object's weight over the background."""
    blur_px: Range = (1.0, 2.5)
    """Mode blur: range of the Gaussian's sigma."""

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        for name in set(type(self).model_fields) & {"scale", "occlusion", "contrast", "blur_px"}:
            low, high = getattr(self, name)
            if not 0 < low <= high or (name in ("occlusion", "contrast") and high > 1):
                raise ValueError(
                    f"{name}: {low} to {high} is no range of positive values (shares: up to 1), low to high"
                )
        return self

    def harden(self, cutout: Cutout, mode: Mode, rng: np.random.Generator) -> Cutout:
        """The cutout after ``mode``; how far it goes is drawn from ``rng``."""
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
