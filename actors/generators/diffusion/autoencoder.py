"""Pictures as latents of a frozen autoencoder (latent diffusion, arXiv 2112.10752, Sec. 3.1), and back."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from actors.generators.diffusion.weights import Pipeline as Network
from actors.generators.diffusion.weights import load_weights
from actors.precision import autocast

CLASSES = ("AutoencoderTiny", "AutoencoderKL")


class Autoencoder:
    """A frozen ``AutoencoderKL`` or ``AutoencoderTiny`` of diffusers on a device."""

    def __init__(self, network: Network, device: torch.device) -> None:
        self.network, self.device = network.eval().requires_grad_(requires_grad=False), device
        self.network.to(device).to(memory_format=torch.channels_last)
        self.num_channels = int(network.config.latent_channels)
        self.px = int(2 ** (len(network.config.block_out_channels) - 1))  # side of a latent's square in the picture
        self._scale = float(network.config.scaling_factor)
        self._shift = float(getattr(network.config, "shift_factor", None) or 0.0)

    def shape(self, size_px: int) -> tuple[int, int, int]:
        """Channels, height and width of the latents of a picture with sides of ``size_px``."""
        return self.num_channels, size_px // self.px, size_px // self.px

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Latents ``[b, C, h, w]`` float32 of pictures ``[b, 3, S, S]`` in [-1, 1]; of a posterior, the mean."""
        with autocast(self.device):
            encoded = self.network.encode(pictures.to(self.device))
        latents: Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return (latents.float() - self._shift) * self._scale

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures ``[b, 3, S, S]`` from latents, the inverse of ``encode``."""
        with autocast(self.device):
            pictures: Tensor = self.network.decode(latents / self._scale + self._shift).sample
        return pictures


def open_autoencoder(place: str, revision: str | None, device: torch.device) -> Autoencoder:
    """The autoencoder in a folder or on the hub. Weights in safetensors only.

    Raises FileNotFoundError if it cannot be loaded, ValueError if it is of another class.
    """
    import diffusers

    config = load_weights(_config, place, revision, None, index="config.json")
    name = config.get("_class_name")
    if name not in CLASSES:
        raise ValueError(f"{place!r} holds a {name}; give an {' or '.join(CLASSES)} in diffusers' format")
    load = partial(getattr(diffusers, name).from_pretrained, use_safetensors=True)
    with _without_warnings():
        network = load_weights(load, place, revision, None, index="config.json")
    return Autoencoder(network, device)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence diffusers' warning that an AutoencoderTiny does not expect what its ``save_pretrained`` has written."""
    log = logging.getLogger("diffusers.configuration_utils")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _config(place: str, **options: str | None) -> Network:
    from diffusers import AutoencoderTiny

    return AutoencoderTiny.load_config(place, revision=options["revision"])
