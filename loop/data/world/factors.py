"""Factors that make a part hard to detect."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """Visibility of one part of a scene. Occlusion and contrast are measured in the finished image."""

    occlusion: float  # fraction of the part's outline that is covered, in [0, 1]
    contrast: float  # RMS difference of its visible pixels to the mean colour around it, of full scale, in [0, 1]
    blur_px: float  # sigma of the part's own defocus, 0 if it is in focus
    size_px: float  # square root of the area of its box
    tilt_deg: float  # angle between the part's plane and the image plane, in [0, 90)
    rotation_deg: float  # angle in the image plane, in [0, 360); does not affect difficulty

    @property
    def hard(self) -> bool:
        """Whether any factor is past its limit in ``HARD``."""
        return (
            self.occlusion >= HARD.occlusion
            or self.contrast <= HARD.contrast
            or self.blur_px >= HARD.blur_px
            or self.size_px <= HARD.size_px
            or self.tilt_deg >= HARD.tilt_deg
        )


HARD: Final = Factors(occlusion=0.3, contrast=0.09, blur_px=1.5, size_px=20.0, tilt_deg=45.0, rotation_deg=0.0)
"""The limits: a part is hard if it is covered, blurred or tilted this much or more, or this faint or small."""
