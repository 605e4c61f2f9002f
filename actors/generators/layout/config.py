"""Config keys of the layout-to-image generator; see ``component`` for the component itself."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from actors.config import Config, Need
from actors.generators.diffusion.low_rank import LowRankConfig
from actors.generators.diffusion.unet import Channels, SidePx, UNetConfig
from actors.generators.layout.arrangement import ArrangementConfig
from actors.generators.layout.prompt import LayoutPromptConfig
from actors.records import Strategy


class SmallConfig(UNetConfig):
    """A small network in pixel space, from random weights, for CPUs and a few hundred images."""

    kind: Literal["small"] = "small"
    size_px: SidePx = 64
    """Side of the square that images are stretched to."""
    channels: Channels = (32, 64, 96, 128)
    """Channels of the U-Net's levels, multiples of 8; each level halves the resolution. The coarser half of
    the levels attends to the prompt."""
    text_width: int = Field(128, ge=16, multiple_of=16)
    """Width of the text encoder."""
    text_layers: int = Field(2, ge=1)
    """Layers of the text encoder."""


class StableDiffusionConfig(Config):
    """A pretrained StableDiffusionPipeline; its text encoder and U-Net are fitted, its VAE is frozen."""

    kind: Literal["stable_diffusion"] = "stable_diffusion"
    model: str
    """Hub id, or a local folder written by ``save_pretrained``. Weights in safetensors only."""
    revision: str | None = None
    """Branch, tag or commit on the hub; a commit makes a run repeatable."""
    variant: str | None = None
    """Weight files of this variant, e.g. fp16."""
    size_px: int = Field(256, ge=32, multiple_of=8)
    """Side of the square that images are stretched to (the paper's COCO models: 256)."""
    text_learning_rate: float = Field(0.75, gt=0.0)
    """Learning rate of the text encoder relative to the U-Net's (GeoDiffusion's code)."""
    lora: LowRankConfig | None = None
    """Train only low-rank updates and the embeddings of the prompts' own tokens, for little data or memory; null trains
    all weights, as in the papers. The checkpoint then holds these alone, and needs the same ``model`` to be used."""

    def needs(self) -> tuple[Need, ...]:
        """The checkpoint."""
        from actors.generators.diffusion.weights import is_hub_id

        return (Need(what="weights of the layout model", place=self.model, is_release=is_hub_id(self.model)),)


class LayoutFitConfig(Config):
    """Fit of the model on the real images."""

    steps: int = Field(1500, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=1)
    """Images per step, over all workers."""
    accumulate: int = Field(1, ge=1)
    """Gradient accumulation: parts of a worker's share of a batch. Affects only memory and the last bits of results."""
    learning_rate: float = Field(1e-3, gt=0.0)
    """Peak rate of AdamW: linear warm-up over the first twentieth of the steps, then cosine decay to 0."""
    null_prompt: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the images that are fitted with an empty prompt, for guidance."""
    foreground_weight: float = Field(2.0, gt=0.0)
    """w of GeoDiffusion's foreground re-weighting (arXiv 2306.04607, Eqs. 5-7)."""
    foreground_power: float = Field(0.2, ge=0.0)
    """p of the same re-weighting: 0 treats small and large boxes alike."""
    mask_loss: float = Field(0.01, ge=0.0)
    """lambda, the weight of the perception-aware loss (DetDiffusion, Eq. 5); 0 turns it off."""

    @model_validator(mode="after")
    def _equal_parts(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size ({self.batch_size}) is no multiple of accumulate ({self.accumulate})")
        return self


class LayoutSettings(Config):
    """Network, fit, prompts and sampling of the layout-to-image generator."""

    not_in_fit: ClassVar = frozenset({"strategy", "sampling_steps", "guidance", "batch_size"})

    network: Annotated[SmallConfig | StableDiffusionConfig, Field(discriminator="kind")] = SmallConfig()
    prompt: LayoutPromptConfig = LayoutPromptConfig()
    fit: LayoutFitConfig = LayoutFitConfig()
    strategy: Strategy = "hard"
    """Requested difficulty (DetDiffusion, Fig. 3): origin, as measured for each box, or the same for all boxes."""
    arrangement: ArrangementConfig = ArrangementConfig()
    strength: float = Field(1.0, gt=0.0, le=1.0)
    """Share of the noise schedule applied to the layout's real image before denoising (SDEdit, arXiv 2108.01073). 1, as
    in the paper, starts from noise alone, which takes a long fit; with less, boxes must stay where they are."""
    sampling_steps: int = Field(25, ge=1)
    """Steps of DPM-Solver++ (arXiv 2211.01095)."""
    guidance: float = Field(3.0, ge=1.0)
    """Classifier-free guidance (arXiv 2207.12598); 1 turns it off and takes half the time."""
    batch_size: int = Field(16, ge=1)
    """Images sampled at a time."""

    @model_validator(mode="after")
    def _boxes_stay_where_the_picture_stays(self) -> Self:
        if self.strength < 1 and self.arrangement.moves:
            raise ValueError(
                f"strength {self.strength} keeps a part of the real image, whose objects stay where they are: "
                "set arrangement.jitter and arrangement.recombine to 0, or strength to 1"
            )
        return self

    @model_validator(mode="after")
    def _prompt_has_the_difficulty(self) -> Self:
        if self.strategy != "origin" and not self.prompt.attribute:
            raise ValueError(
                f"strategy {self.strategy} needs a word in the prompt, but prompt.attribute: false writes none: "
                "set strategy to origin, or prompt.attribute to true"
            )
        return self
