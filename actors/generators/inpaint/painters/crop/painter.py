"""Crop painter: diffusion (DDPM, arXiv 2006.11239; v, 2202.00512; guidance, 2207.12598) told what is hard (2403.13304).

A small inpainter in pixel space, fitted on the run's own real crops. It downloads nothing and needs no foundation model
that knows the domain, which boards, smears and X-rays rarely have.
"""

from collections.abc import Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from actors import boxes as geometry
from actors.checkpoint import Header, write_checkpoint
from actors.fitting import read_fitted
from actors.generators.cutouts.window import Mask
from actors.generators.inpaint.painters.base import Window
from actors.generators.inpaint.painters.crop.config import CropSettings
from actors.images import Pixels, scaled
from actors.precision import autocast, reproducible
from actors.records import Attributes, Difficulty

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

DIFFICULTIES = tuple(Difficulty)
FAMILY = "crop"


def build_network(config: CropSettings, num_classes: int) -> "nn.Module":
    """The denoiser: ``(noisy, known, condition, timestep)`` to v; see ``known_input`` for what is known.

    ``condition`` ``[b]`` is ``condition_index``; the last one stands for none.
    """
    from diffusers import UNet2DModel

    levels = len(config.channels)
    network: Any = UNet2DModel(  # type: ignore[no-untyped-call]
        sample_size=config.size_px,
        in_channels=8,
        out_channels=3,
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


def known_input(pixels: Pixels, mask: Mask, box: geometry.Boxes) -> "NDArray[np.float32]":
    """What the network is shown besides noise, ``[5, S, S]``: the window with its hole at 0, the hole, and the box."""
    inside = np.zeros(mask.shape, np.float32)
    left, top, right, bottom = np.rint(box).astype(int)
    inside[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 1.0
    seen = scaled(pixels) * ~mask
    return np.concatenate([seen, mask[None].astype(np.float32), inside[None]])


def save_network(
    network: "nn.Module", config: CropSettings, classes: tuple[str, ...], attributes: Attributes, uri: str
) -> None:
    """Put the weights of ``network`` at ``uri`` as one of our checkpoints, atomically."""
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
    network = build_network(config, len(classes))
    network.load_state_dict(weights)
    return CropPainter(config, network, attributes=header.attributes or {})


def read_network(config: CropSettings, classes: tuple[str, ...], uri: str | None) -> "tuple[Header, dict[str, Tensor]]":
    """What was saved at ``uri``. Raises ValueError or FileNotFoundError where it is not of this network."""
    return read_fitted(uri, FAMILY, _architecture(config), classes)


def _architecture(config: CropSettings) -> str:
    return f"unet-{'-'.join(map(str, config.channels))}"


class CropPainter:
    """A fitted network that fills windows; see ``actors.generators.inpaint.painters.base.Painter``."""

    max_zoom = 1.0

    def __init__(
        self,
        config: CropSettings,
        network: Any,  # noqa: ANN401 - of diffusers
        device: str | None = None,
        attributes: Attributes = MappingProxyType({}),
    ) -> None:
        import torch

        self.config, self.size_px, self.attributes = config, config.size_px, attributes
        self.varies = config.strength < 1.0
        self.num_conditions = network.config.num_class_embeds - 1
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.network.to(memory_format=torch.channels_last)

    def paint(self, windows: Sequence[Window]) -> list[Pixels]:
        """Each window painted, ``[S, S, 3]``; this painter refuses none."""
        painted: list[Pixels] = []
        size = self.config.batch_size
        for start in range(0, len(windows), size):
            batch = windows[start : start + size]
            full = [*batch, *[batch[-1]] * (size - len(batch))]  # batches of another size have other last bits
            painted += self._paint_batch(full)[: len(batch)]
        return painted

    def _paint_batch(self, windows: Sequence[Window]) -> list[Pixels]:
        import torch

        from actors.generators.diffusion.learner import noise_of, noise_scheduler, sample, sampling_timesteps, to_pixels

        known = np.stack([known_input(window.pixels, window.mask, window.box) for window in windows])
        examples = np.stack([scaled(window.pixels) for window in windows])
        noise = np.stack([noise_of(window.seed, (3, self.size_px, self.size_px)) for window in windows])
        conditions = [condition_index(window.label, window.difficulty) for window in windows]
        with reproducible():
            kept, example, grain = (torch.from_numpy(array).to(self.device) for array in (known, examples, noise))
            told = torch.tensor(conditions, device=self.device)
            timesteps = sampling_timesteps(self.config.strength, self.config.sampling_steps)
            predict = partial(self._velocity, kept, told)
            return to_pixels(sample(noise_scheduler(), predict, example, grain, timesteps))

    def _velocity(self, known: "Tensor", told: "Tensor", image: "Tensor", timestep: "Tensor") -> "Tensor":
        """V ``[b, 3, S, S]`` under guidance; both branches go through the network as one batch."""
        import torch

        from actors.generators.diffusion.learner import guided

        inputs = torch.cat([image, known], dim=1)
        if self.config.guidance == 1.0:
            return self._denoise(inputs, timestep, told)
        untold = torch.full_like(told, self.num_conditions)
        both = self._denoise(torch.cat([inputs, inputs]), timestep, torch.cat([told, untold]))
        with_condition, without = both.chunk(2)
        return guided(with_condition, without, self.config.guidance)

    def _denoise(self, inputs: "Tensor", timestep: "Tensor", told: "Tensor") -> "Tensor":
        import torch

        with autocast(self.device):
            velocity = self.network(inputs.contiguous(memory_format=torch.channels_last), timestep, told).sample
        result: Tensor = velocity.float()
        return result
