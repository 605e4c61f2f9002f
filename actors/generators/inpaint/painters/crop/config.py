"""Config keys of the crop painter; see ``component`` for the component itself."""

from typing import ClassVar

from pydantic import Field

from actors.generators.diffusion.unet import Channels, SidePx, UNetConfig


class CropSettings(UNetConfig):
    """Network, fit and sampling of the crop painter."""

    not_in_fit: ClassVar = frozenset({"sampling_steps", "guidance", "batch_size"})

    size_px: SidePx = 48
    """Side of the windows; larger objects are shrunk to fit, smaller ones painted at their own size."""
    channels: Channels = (16, 32, 64, 96)
    """Channels of the U-Net's levels, multiples of 8; each level halves the resolution."""
    fit_steps: int = Field(400, ge=1)
    """Optimiser steps of the fit."""
    fit_batch_size: int = Field(32, ge=1)
    """Crops per step."""
    learning_rate: float = Field(2e-3, gt=0.0)
    """Peak rate of AdamW: linear warm-up over the first twentieth of the steps, then cosine decay to 0."""
    mask_loss_weight: float = Field(0.0, ge=0.0)
    """Weight of the perception-aware loss in the fit (lambda of DetDiffusion, arXiv 2403.13304, Eq. 5; 0.01 there): a
    head on the U-Net's features predicts the object's mask. 0 turns it off."""
    condition_dropout: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the crops that are fitted without their class and difficulty, for guidance."""
    strength: float = Field(0.05, gt=0.0, le=1.0)
    """Share of the noise schedule applied to the example in a window before denoising (SDEdit, arXiv 2108.01073): 1
    starts from noise alone, which takes a long fit; less keeps more of the example. After a fit of minutes on a few
    images, values above 0.05 leave specks."""
    sampling_steps: int = Field(3, ge=1)
    """Steps of DPM-Solver++ (arXiv 2211.01095)."""
    guidance: float = Field(1.0, ge=1.0)
    """Classifier-free guidance (arXiv 2207.12598); 1 turns it off and takes half the time."""
    batch_size: int = Field(32, ge=1)
    """Windows painted at a time."""

    @property
    def varies(self) -> bool:
        """Whether painting starts from the window's pixels in the hole, rather than from noise alone."""
        return self.strength < 1
