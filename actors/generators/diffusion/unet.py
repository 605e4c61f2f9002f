"""The config of the small U-Nets in pixel space."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from actors.config import Config

SidePx = Annotated[int, Field(ge=16, multiple_of=8)]
Channels = Annotated[tuple[int, ...], Field(min_length=2)]


class UNetConfig(Config):
    """Size of the pictures and channels of the levels."""

    size_px: SidePx
    """Side of the square pictures."""
    channels: Channels
    """Channels of the levels, multiples of 8; each level halves the resolution."""

    @model_validator(mode="after")
    def _fits_its_levels(self) -> Self:
        if any(width % 8 for width in self.channels):
            raise ValueError(f"channels: {self.channels} must be multiples of 8")
        if self.size_px % 2 ** (len(self.channels) - 1):
            raise ValueError(f"size_px: {self.size_px} cannot be halved {len(self.channels) - 1} times")
        return self
