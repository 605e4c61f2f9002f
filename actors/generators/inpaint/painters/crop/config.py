"""Config keys of the crop painter; see ``component`` for the component itself."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from actors.generators.diffusion.unet import Channels, SidePx, UNetConfig

PX_PER_LATENT = 8  # side of the square of pixels that a latent stands for, as in Stable Diffusion's autoencoders


class CropSettings(UNetConfig):
    """Network, fit and sampling of the crop painter."""

    not_in_fit: ClassVar = frozenset({"sampling_steps", "guidance", "batch_size"})

    vae: str | None = None
    """Paint in the latents of this autoencoder (arXiv 2112.10752), for windows of 256 px and more: a local folder or
    hub id of an AutoencoderTiny or AutoencoderKL in diffusers' format with 8 x 8 px per latent, e.g.
    madebyollin/taesd. Weights in safetensors only. null: paint in pixels."""
    vae_revision: str | None = None
    """Branch, tag or commit of ``vae`` on the hub; a commit makes a run repeatable."""
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

    @model_validator(mode="after")
    def _latents_fit_the_levels(self) -> Self:
        if self.vae_revision and not self.vae:
            raise ValueError(f"vae_revision {self.vae_revision!r} is of no vae: set vae to a hub id, or remove it")
        multiple = PX_PER_LATENT * 2 ** (len(self.channels) - 1)
        if self.vae and self.size_px % multiple:
            raise ValueError(
                f"size_px {self.size_px}: with vae it must be a multiple of {multiple}, e.g. {max(256, multiple)}: a "
                f"latent stands for {PX_PER_LATENT} x {PX_PER_LATENT} px, and {len(self.channels)} levels of channels "
                f"halve the latents {len(self.channels) - 1} times"
            )
        return self

    @property
    def varies(self) -> bool:
        """Whether painting starts from the window's pixels in the hole, rather than from noise alone."""
        return self.strength < 1
