"""The networks of the layout model (DetDiffusion, arXiv 2403.13304, Sec. 3): text encoder, U-Net, optional VAE.

The same code runs a Stable Diffusion checkpoint and a small network in pixel space from random weights.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from actors.checkpoint import Header, write_checkpoint
from actors.fitting import read_fitted
from actors.generators.diffusion.autoencoder import Autoencoder
from actors.generators.diffusion.learner import (
    NUM_TRAIN_TIMESTEPS,
    guided,
    noise_of,
    noise_scheduler,
    sample,
    sampling_timesteps,
    to_pixels,
)
from actors.generators.diffusion.low_rank import adapt, merge
from actors.generators.diffusion.weights import Pipeline, load_weights
from actors.generators.layout.config import LayoutSettings, SmallConfig, StableDiffusionConfig
from actors.generators.layout.prompt import extend_vocabulary, place_locations, word_tokenizer
from actors.images import Pixels
from actors.precision import autocast, cast_weights
from actors.records import Attributes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FAMILY = "layout"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """A picture for a network to draw."""

    text: str
    start: NDArray[np.float32] | None  # [3, S, S] in [-1, 1]: the picture to start from; None: from noise alone
    seed: int  # of the noise


class Denoiser(nn.Module):
    """The fitted part: a text encoder and the U-Net conditioned on it."""

    def __init__(self, text_encoder: nn.Module, unet: nn.Module) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def __deepcopy__(self, memo: dict[int, Any]) -> "Denoiser":
        """Copies share the buffers, which hold frozen weights (see ``actors.generators.diffusion.low_rank``)."""
        memo |= {id(buffer): buffer for buffer in self.buffers()}
        return Denoiser(deepcopy(self.text_encoder, memo), deepcopy(self.unet, memo)).train(self.training)

    def read(self, tokens: Tensor) -> Tensor:
        """Text states ``[b, T, D]`` of tokens ``[b, T]``."""
        states: Tensor = self.text_encoder(input_ids=tokens).last_hidden_state
        return states

    def forward(self, noisy: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """The prediction ``[b, C, h, w]`` float32 for noisy latents of that shape."""
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        predicted: Tensor = self.unet(noisy, timesteps, encoder_hidden_states=states).sample
        return predicted.float()


class LayoutNetwork:
    """Tokenizer, denoiser, VAE and forward process. ``attributes`` are the difficulties it was fitted with."""

    def __init__(
        self,
        config: LayoutSettings,
        classes: tuple[str, ...],
        attributes: Attributes,
        device: str | None = None,
    ) -> None:
        """The network before a fit: with pretrained weights, or random ones from torch's generator."""
        self.config, self.classes, self.attributes = config, classes, attributes
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.vae: Autoencoder | None = None
        match config.network:
            case SmallConfig() as small:
                self.tokenizer: Any = word_tokenizer(config.prompt, classes)
                self.denoiser = _small(small, self.tokenizer, config)
                self.forward: Any = noise_scheduler()
            case StableDiffusionConfig() as pretrained:
                self.tokenizer, self.denoiser, vae, self.forward = _pretrained(pretrained, config)
                self.vae = Autoencoder(vae, self.device)
        self.denoiser.eval()  # no dropout, not in a fit either: all randomness comes from seeds
        self.denoiser.to(self.device).to(memory_format=torch.channels_last)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one picture's latents."""
        size = self.config.network.size_px
        return self.vae.shape(size) if self.vae else (3, size, size)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Tokens ``[b, T]`` of prompts, padded."""
        length = self.config.prompt.max_tokens
        encoded = self.tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        ids: Tensor = encoded.input_ids
        return ids.to(self.device)

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents of pictures ``[b, 3, S, S]`` in [-1, 1]: the mean of the VAE's posterior, or the pictures."""
        return self.vae.encode(pictures) if self.vae else pictures.to(self.device)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures ``[b, 3, S, S]`` from latents, the inverse of ``encode``."""
        return self.vae.decode(latents) if self.vae else latents

    @torch.inference_mode()
    def draw(self, orders: Sequence[Order]) -> list[Pixels]:
        """The pictures ``[S, S, 3]``; each is independent of the others, up to the last bits of the arithmetic."""
        noise = torch.from_numpy(np.stack([noise_of(order.seed, self.latent_shape) for order in orders]))
        with autocast(self.device):
            states = self.denoiser.read(self.tokens([order.text for order in orders]))
            without = self.denoiser.read(self.tokens([""])).expand_as(states)
        timesteps = sampling_timesteps(self.config.strength, self.config.sampling_steps)
        predict = partial(self._predict, states, without)
        latents = sample(self.forward, predict, self._start(orders), noise.to(self.device), timesteps)
        return to_pixels(self.decode(latents))

    def _start(self, orders: Sequence[Order]) -> Tensor:
        """Latents of the pictures to start from; zeros, which do not matter, if there are none."""
        starts = [order.start for order in orders if order.start is not None]
        if starts:
            return self.encode(torch.from_numpy(np.stack(starts)))
        return torch.zeros(len(orders), *self.latent_shape, device=self.device)

    def _predict(self, states: Tensor, without: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
        """The denoiser's prediction under guidance; both branches are computed as one batch."""
        times = timestep.to(self.device).expand(len(latents))
        with autocast(self.device):
            if self.config.guidance == 1:
                alone: Tensor = self.denoiser(latents, times, states)
                return alone
            both = self.denoiser(latents.repeat(2, 1, 1, 1), times.repeat(2), torch.cat([states, without]))
        conditional, unconditional = both.chunk(2)
        return guided(conditional, unconditional, self.config.guidance)

    def header(self) -> Header:
        """The header of this network's checkpoints."""
        return Header(
            family=FAMILY,
            model=_architecture(self.config),
            classes=self.classes,
            image_size_px=self.config.network.size_px,
            attributes={name: tuple(found) for name, found in self.attributes.items()},
        )


def save_network(network: LayoutNetwork, denoiser: nn.Module, uri: str) -> None:
    """Write the weights of ``denoiser``, fitted for ``network``, to ``uri``, atomically, without the VAE's."""
    write_checkpoint(uri, network.header(), denoiser.state_dict())


def load_network(config: LayoutSettings, classes: tuple[str, ...], uri: str | None) -> LayoutNetwork:
    """The network with the weights at ``uri``, frozen.

    Raises ValueError or FileNotFoundError if they do not belong to it.
    """
    header, tensors = read_fitted(uri, FAMILY, _architecture(config), classes)
    network = LayoutNetwork(config, classes, header.attributes or {})
    network.denoiser.load_state_dict(tensors)
    network.denoiser.requires_grad_(requires_grad=False)
    if isinstance(config.network, StableDiffusionConfig) and config.network.lora:
        merge(network.denoiser)
    cast_weights(network.denoiser, network.device)
    return network


def _architecture(config: LayoutSettings) -> str:
    prompt = config.prompt
    match config.network:
        case SmallConfig() as small:
            levels = "-".join(map(str, small.channels))
            network = f"small-{levels}-text-{small.text_width}-{small.text_layers}"
        case StableDiffusionConfig() as pretrained:
            network = f"{pretrained.model}@{pretrained.revision or 'main'}"
            if lora := pretrained.lora:
                network += f" with LoRA of rank {lora.rank} and alpha {lora.alpha:g}"
    grid = "x".join(map(str, prompt.grid))
    attribute = "with" if prompt.attribute else "without"
    return f"{network}, {prompt.prefix!r} and {prompt.max_tokens} tokens, grid {grid}, {attribute} attribute"


def _small(config: SmallConfig, tokenizer: "PreTrainedTokenizerFast", layout: LayoutSettings) -> Denoiser:
    """A small denoiser with random weights."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.text_width,
            intermediate_size=4 * config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=config.text_width // 16,
            max_position_embeddings=layout.prompt.max_tokens,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    place_locations(tokenizer, text, layout.prompt)
    levels, plain = len(config.channels), len(config.channels) // 2
    down = ("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",) * (levels - plain)
    up = ("CrossAttnUpBlock2D",) * (levels - plain) + ("UpBlock2D",) * plain
    unet: Any = UNet2DConditionModel(
        sample_size=config.size_px,
        in_channels=3,
        out_channels=3,
        block_out_channels=config.channels,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=config.text_width,
        attention_head_dim=8,
    )
    return Denoiser(text, unet)


def _pretrained(config: StableDiffusionConfig, layout: LayoutSettings) -> tuple[Any, Denoiser, Any, Any]:
    """Tokenizer, denoiser, VAE and forward process of a checkpoint, extended by the prompts' tokens.

    Raises FileNotFoundError if it cannot be loaded, ValueError if it is of another kind.
    """
    from diffusers import DDPMScheduler, StableDiffusionPipeline

    options = {
        "dtype": torch.float32,
        "safety_checker": None,
        "requires_safety_checker": False,
        "use_safetensors": True,
    }
    load = partial(StableDiffusionPipeline.from_pretrained, **options)
    pipeline = load_weights(load, config.model, config.revision, config.variant)
    extend_vocabulary(pipeline.tokenizer, pipeline.text_encoder, layout.prompt)
    forward: Any = DDPMScheduler.from_config(pipeline.scheduler.config)
    _check(config.model, pipeline, forward.config.num_train_timesteps)
    if config.lora:
        words = [*layout.prompt.location_tokens, *layout.prompt.attribute_tokens]
        adapt(config.lora, pipeline.unet, pipeline.text_encoder, pipeline.tokenizer.convert_tokens_to_ids(words))
    return pipeline.tokenizer, Denoiser(pipeline.text_encoder, pipeline.unet), pipeline.vae, forward


def _check(model: str, pipeline: Pipeline, num_timesteps: int) -> None:
    unet, latent_channels = pipeline.unet.config, pipeline.vae.config.latent_channels
    if unet.in_channels != latent_channels:
        raise ValueError(
            f"{model!r} is no text-to-image model: its U-Net takes {unet.in_channels} channels, latents have "
            f"{latent_channels}; give a StableDiffusionPipeline"
        )
    if num_timesteps != NUM_TRAIN_TIMESTEPS:
        raise ValueError(
            f"{model!r} was trained with {num_timesteps} timesteps; {NUM_TRAIN_TIMESTEPS} are "
            "needed, as all Stable Diffusion models have"
        )
