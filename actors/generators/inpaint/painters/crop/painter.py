"""Crop painter: diffusion (DDPM, arXiv 2006.11239; v, 2202.00512; guidance, 2207.12598) by difficulty (2403.13304).

A small inpainting network in pixel or latent space, fitted on crops of the run's real images. In pixels it downloads
nothing and needs no foundation model of the domain, which rarely exists for boards, smears and X-rays.
"""

from collections.abc import Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.checkpoint import Header, write_checkpoint
from actors.fitting import read_fitted
from actors.generators.inpaint.painters.base import Window
from actors.generators.inpaint.painters.crop.config import CropSettings
from actors.generators.inpaint.painters.crop.space import Space
from actors.images import Pixels
from actors.precision import autocast, reproducible
from actors.records import Attributes, Difficulty

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

DIFFICULTIES = tuple(Difficulty)
FAMILY = "crop"


def build_network(config: CropSettings, num_classes: int, shape: tuple[int, int, int]) -> "nn.Module":
    """The denoiser: ``(noisy, known, condition, timestep)`` to v of ``shape`` (C, h, w); see ``Space`` for ``known``.

    ``condition`` ``[b]`` is ``condition_index``; the last index stands for no condition.
    """
    from diffusers import UNet2DModel

    levels = len(config.channels)
    network: Any = UNet2DModel(
        sample_size=shape[1],
        in_channels=2 * shape[0] + 2,
        out_channels=shape[0],
        block_out_channels=config.channels,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=8,
        add_attention=False,
        num_class_embeds=num_classes * len(DIFFICULTIES) + 1,
    )
    built: nn.Module = network
    return built


def condition_index(label: int, difficulty: Difficulty) -> int:
    """The position of a class and a difficulty in the network's embedding."""
    return label * len(DIFFICULTIES) + DIFFICULTIES.index(difficulty)


def save_network(
    network: "nn.Module", config: CropSettings, classes: tuple[str, ...], attributes: Attributes, uri: str
) -> None:
    """Write the weights of ``network`` to ``uri`` as a checkpoint, atomically."""
    header = Header(
        family=FAMILY,
        model=_architecture(config),
        classes=classes,
        image_size_px=config.size_px,
        attributes=dict(attributes),
    )
    write_checkpoint(uri, header, network.state_dict())


def load_painter(config: CropSettings, classes: tuple[str, ...], uri: str | None) -> "CropPainter":
    """The painter with the weights at ``uri``; see ``read_network``."""
    header, weights = read_network(config, classes, uri)
    space = Space(config, device())
    network = build_network(config, len(classes), space.shape)
    network.load_state_dict(weights)
    return CropPainter(config, network, space, header.attributes or {})


def read_network(config: CropSettings, classes: tuple[str, ...], uri: str | None) -> "tuple[Header, dict[str, Tensor]]":
    """The checkpoint at ``uri``. Raises ValueError or FileNotFoundError if it is not of this network."""
    return read_fitted(uri, FAMILY, _architecture(config), classes)


def _architecture(config: CropSettings) -> str:
    network = f"unet-{'-'.join(map(str, config.channels))}"
    return f"{network} on latents of {config.vae}@{config.vae_revision or 'main'}" if config.vae else network


def device() -> "torch.device":
    """The GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class CropPainter:
    """A fitted network that fills windows; see ``actors.generators.inpaint.painters.base.Painter``."""

    max_zoom = 1.0

    def __init__(
        self,
        config: CropSettings,
        network: "nn.Module",
        space: Space,
        attributes: Attributes = MappingProxyType({}),
    ) -> None:
        import torch

        self.config, self.size_px, self.attributes = config, config.size_px, attributes
        self.space, self.device = space, space.device
        self.varies = config.varies
        built_with: Any = network.config
        self.num_conditions = built_with.num_class_embeds - 1
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.network.to(memory_format=torch.channels_last)

    def paint(self, windows: Sequence[Window]) -> list[Pixels]:
        """The painted windows ``[S, S, 3]``; this painter refuses none."""
        size = self.config.batch_size
        batches = [windows[start : start + size] for start in range(0, len(windows), size)]
        return [pixels for batch in batches for pixels in self._paint_batch(batch)]

    def _paint_batch(self, windows: Sequence[Window]) -> list[Pixels]:
        import torch

        from actors.generators.diffusion.learner import noise_of, noise_scheduler, sample, sampling_timesteps

        space, indices = self.space, [condition_index(window.label, window.difficulty) for window in windows]
        full = np.minimum(np.arange(self.config.batch_size), len(windows) - 1)  # its size changes the last bits
        with reproducible():
            known = np.stack([space.known(window.pixels, window.mask, window.box) for window in windows])
            examples = np.stack([space.encode(window.pixels) for window in windows])
            noise = np.stack([noise_of(window.seed, space.shape) for window in windows])
            kept, start, grain = (torch.from_numpy(array[full]).to(self.device) for array in (known, examples, noise))
            conditions = torch.tensor(np.array(indices)[full], device=self.device)
            timesteps = sampling_timesteps(self.config.strength, self.config.sampling_steps)
            predict = partial(self._velocity, kept, conditions)
            maps = sample(noise_scheduler(), predict, start, grain, timesteps)[: len(windows)]
            painted = space.decode(maps)
            if space.vae is None or not self.varies:
                return painted
            starts = zip(painted, windows, start[: len(windows)], strict=True)
            return [space.sharpened(pixels, window.pixels, example) for pixels, window, example in starts]

    def _velocity(self, known: "Tensor", conditions: "Tensor", image: "Tensor", timestep: "Tensor") -> "Tensor":
        """The predicted v ``[b, C, h, w]`` under guidance; both branches are computed as one batch."""
        import torch

        from actors.generators.diffusion.learner import guided

        inputs = torch.cat([image, known], dim=1)
        if self.config.guidance == 1.0:
            return self._denoise(inputs, timestep, conditions)
        none = torch.full_like(conditions, self.num_conditions)
        both = self._denoise(torch.cat([inputs, inputs]), timestep, torch.cat([conditions, none]))
        conditional, unconditional = both.chunk(2)
        return guided(conditional, unconditional, self.config.guidance)

    def _denoise(self, inputs: "Tensor", timestep: "Tensor", conditions: "Tensor") -> "Tensor":
        import torch

        with autocast(self.device):
            velocity = self.network(inputs.contiguous(memory_format=torch.channels_last), timestep, conditions).sample
        result: Tensor = velocity.float()
        return result
