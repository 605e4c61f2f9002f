"""What makes a part hard to see, as numbers."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """How one part of a scene can be seen. Occlusion and contrast are measured in the picture, not merely intended."""

    occlusion: float  # share of the part's outline that something above it covers, in [0, 1]
    contrast: float  # RMS difference of its visible pixels to the mean colour around it, of full scale, in [0, 1]
    blur_px: float  # sigma of the part's own defocus, 0 where it is in focus
    size_px: float  # square root of the area of its box
    tilt_deg: float  # angle between the part's plane and the image plane, in [0, 90)
    rotation_deg: float  # angle in the image plane, in [0, 360); makes nothing hard

    @property
    def hard(self) -> bool:
        """Some factor is past its limit in ``HARD``."""
        return (
            self.occlusion >= HARD.occlusion
            or self.contrast <= HARD.contrast
            or self.blur_px >= HARD.blur_px
            or self.size_px <= HARD.size_px
            or self.tilt_deg >= HARD.tilt_deg
        )


HARD: Final = Factors(occlusion=0.3, contrast=0.09, blur_px=1.5, size_px=20.0, tilt_deg=45.0, rotation_deg=0.0)
"""The limits: a part is hard where it is covered, blurred or tilted this much or more, or this faint or small."""
