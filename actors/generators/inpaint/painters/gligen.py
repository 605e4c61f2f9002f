"""Grounded inpainting by box and phrase: GLIGEN (arXiv 2301.07093, Sec. 4), as Gen2Det (arXiv 2312.04566, Sec. 3.1).

Gen2Det names no checkpoint for its frozen generator; GLIGEN's inpainting model is the public one of that kind.

diffusers 0.42 keeps ``StableDiffusionGLIGENPipeline`` under ``pipelines/deprecated`` ("no fixes after 0.33.1"); it
loads and runs. Its own call takes one picture, and draws part of its noise from torch's global generator, so that a
seed would not determine the picture. Here, its networks are run on a batch of windows, each with its own box, phrase,
mask and noise.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from actors.generators.inpaint.painters.base import Window
from actors.generators.inpaint.painters.pipelines import (
    Flags,
    Pictures,
    PipelineConfig,
    PipelinePainter,
    generators,
    load_pipeline,
)

if TYPE_CHECKING:
    import torch

MAX_OBJECTS = 30  # grounding tokens that the network was trained with; unused ones hold a learned null


class GligenConfig(PipelineConfig):
    """A GLIGEN inpainting checkpoint and its prompts."""

    kind: Literal["gligen"] = "gligen"
    model: str = "masterful/gligen-1-4-inpainting-text-box"
    """Hub id or local folder of GLIGEN's inpainting model by text and box."""
    guidance: float = Field(7.5, ge=0.0)
    """Classifier-free guidance by prompt, phrase and box; there is none up to 1."""
    grounded_frac: float = Field(1.0, ge=0.0, le=1.0)
    """Share of the steps, from the first, that use box and phrase (scheduled sampling, Eq. 10)."""

    @override
    def build(self, classes: tuple[str, ...], fitted: str | None = None) -> "GligenPainter":
        return GligenPainter(self, classes)


class GligenPainter(PipelinePainter):
    """Paints one object of the window's class into its box; see ``PipelinePainter``.

    The caption is the prompt, the phrase is the class name. Raises FileNotFoundError if the weights cannot be loaded,
    ValueError if the checkpoint is no GLIGEN model for inpainting.
    """

    def __init__(self, config: GligenConfig, classes: tuple[str, ...]) -> None:
        from diffusers import StableDiffusionGLIGENPipeline

        super().__init__(config, classes, load_pipeline(StableDiffusionGLIGENPipeline.from_pretrained, config))
        self.config = config
        unet = self.pipeline.unet.config
        if unet.in_channels != 9 or unet.attention_type != "gated":
            raise ValueError(
                f"{config.model!r} is no GLIGEN model for inpainting: it has {unet.in_channels} input channels and "
                f"attention_type {unet.attention_type!r}; 9 and 'gated' are needed"
            )

    def _draw(self, windows: Sequence[Window]) -> tuple[Pictures, Flags]:
        pipeline = self.pipeline
        noise = generators(windows)
        latents = self._denoise(windows, noise)
        images = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor, return_dict=False)[0]
        images, flags = pipeline.run_safety_checker(images, images.device, images.dtype)
        pipeline.maybe_free_model_hooks()
        return pipeline.image_processor.postprocess(images.float(), output_type="np"), flags

    def _denoise(self, windows: Sequence[Window], noise: list["torch.Generator"]) -> "torch.Tensor":
        """The windows' latents ``[n, 4, h, w]`` after all steps; known cells get new noise before each."""
        import torch

        scheduler, device = self.pipeline.scheduler, self._device
        scheduler.set_timesteps(self.config.steps, device=device)
        text, grounding = self._conditions(windows)
        known, keep = self._known(windows, noise)
        latents: torch.Tensor = _noise_like(known, noise) * scheduler.init_noise_sigma
        grounded = int(self.config.grounded_frac * len(scheduler.timesteps))
        extra = torch.cat([known * keep, keep], dim=1)
        options = self.pipeline.prepare_extra_step_kwargs(noise, 0.0)
        for step, time in enumerate(scheduler.timesteps):
            self.pipeline.enable_fuser(step < grounded)
            noised = scheduler.add_noise(known, _noise_like(known, noise), time[None])
            latents = torch.where(keep.bool(), noised, latents)
            inputs = torch.cat([scheduler.scale_model_input(latents, time), extra], dim=1)
            predicted = self._predict(inputs, time, text, grounding)
            latents = scheduler.step(predicted, time, latents, **options).prev_sample
        return latents

    def _predict(
        self, inputs: "torch.Tensor", time: "torch.Tensor", text: "torch.Tensor", grounding: dict[str, "torch.Tensor"]
    ) -> "torch.Tensor":
        """The network's prediction ``[n, 4, h, w]``, guided."""
        import torch

        inputs = torch.cat([inputs] * (len(text) // len(inputs)))
        options = {"encoder_hidden_states": text, "cross_attention_kwargs": {"gligen": grounding}}
        predicted: torch.Tensor = self.pipeline.unet(inputs, time, **options).sample
        if self.config.guidance <= 1:
            return predicted
        without, given = predicted.chunk(2)
        return without + self.config.guidance * (given - without)

    def _known(
        self, windows: Sequence[Window], noise: list["torch.Generator"]
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Latents ``[n, 4, h, w]`` of the windows, and a mask ``[n, 1, h, w]``: 1 in cells without a pixel to paint."""
        import torch

        vae = self.pipeline.vae
        pixels = self.pipeline.image_processor.preprocess(np.stack([window.pixels for window in windows]) / 255)
        encoded = vae.encode(pixels.to(self._device, vae.dtype)).latent_dist.sample(noise)
        mask = torch.from_numpy(np.stack([window.mask for window in windows])).float()[:, None]
        painted = torch.nn.functional.max_pool2d(mask, self.pipeline.vae_scale_factor)
        return encoded * vae.config.scaling_factor, (1 - painted).to(encoded)

    def _conditions(self, windows: Sequence[Window]) -> tuple["torch.Tensor", dict[str, "torch.Tensor"]]:
        """Captions ``[m, tokens, c]`` and grounding: m = n, or under guidance 2n, the unconditional half first."""
        import torch

        guided = self.config.guidance > 1
        captions = [self.caption(window) for window in windows]
        against = [self.config.negative_prompt] * len(windows) if guided else None
        text, no_text = self.pipeline.encode_prompt(captions, self._device, 1, guided, against)
        grounding = self._grounding(windows)
        if not guided:
            return text, grounding
        twice = {name: torch.cat([value] * 2) for name, value in grounding.items()}
        twice["masks"][: len(windows)] = 0
        return torch.cat([no_text, text]), twice

    def _grounding(self, windows: Sequence[Window]) -> dict[str, "torch.Tensor"]:
        """One object per window, in the first of the network's places: box in [0, 1] and the phrase's embedding."""
        import torch

        encoder = self.pipeline.text_encoder
        phrases = [self.name(window) for window in windows]
        tokens = self.pipeline.tokenizer(phrases, padding=True, truncation=True, return_tensors="pt").to(self._device)
        embeddings = encoder(**tokens).pooler_output
        boxes = torch.from_numpy(np.stack([window.box for window in windows]) / self.size_px).clamp(0, 1)
        places: dict[str, Any] = {"device": self._device, "dtype": embeddings.dtype}
        grounding = {
            "boxes": torch.zeros(len(windows), MAX_OBJECTS, 4, **places),
            "positive_embeddings": torch.zeros(len(windows), MAX_OBJECTS, embeddings.shape[-1], **places),
            "masks": torch.zeros(len(windows), MAX_OBJECTS, **places),
        }
        grounding["boxes"][:, 0] = boxes.to(**places)
        grounding["positive_embeddings"][:, 0] = embeddings
        grounding["masks"][:, 0] = 1
        return grounding

    @property
    def _device(self) -> "torch.device":
        device: torch.device = self.pipeline._execution_device  # noqa: SLF001 - offloaded weights are on another device
        return device


def _noise_like(latents: "torch.Tensor", noise: list["torch.Generator"]) -> "torch.Tensor":
    """Normal noise, drawn for each window from its own generator."""
    from diffusers.utils.torch_utils import randn_tensor

    drawn: torch.Tensor = randn_tensor(latents.shape, generator=noise, device=latents.device, dtype=latents.dtype)
    return drawn
