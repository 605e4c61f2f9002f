"""Networks of DetectorGAN (Liu, Muelly, Deng, Pfister, Li, ICCV 2019): a pair inserts and removes objects, three judge.

The base is CycleGAN (arXiv 1703.10593, Sec. 4): PatchGAN discriminators, here with spectral normalisation (arXiv
1802.05957). All networks are told the class and the mask.
"""

import itertools
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from actors.generators.insertion_gan.config import InsertionGANSettings

_CLASS_CHANNELS = 8  # planes that tell the networks the class
_COARSE_PX = 4  # pixels of which G_X is shown the average, in each direction
_BODY_BLOCKS = 3  # residual blocks at the coarsest level of a generator


class ClassPlanes(nn.Module):
    """The class, as planes that are 0 outside the mask."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, _CLASS_CHANNELS)

    def forward(self, masks: Tensor, labels: Tensor) -> Tensor:
        """Planes ``[b, 8, S, S]`` of classes ``[b]`` in masks ``[b, 1, S, S]``."""
        planes: Tensor = self.embedding(labels)[:, :, None, None] * masks
        return planes


class Painter(nn.Module):
    """G_X or G_Y: redraws a window inside its mask.

    A U-Net predicts a colour and its opacity for each pixel, so that an untrained network can leave pixels as they are.
    """

    def __init__(self, settings: InsertionGANSettings, num_classes: int) -> None:
        super().__init__()
        channels = settings.channels
        self.noise_channels = settings.noise_channels
        self.planes = ClassPlanes(num_classes)
        self.enter = _convolved(3 + 1 + _CLASS_CHANNELS + self.noise_channels, channels[0])
        pairs = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(_convolved(fine, coarse, stride=2) for fine, coarse in pairs)
        self.body = nn.Sequential(*(_Residual(channels[-1]) for _ in range(_BODY_BLOCKS)))
        self.up = nn.ModuleList(_convolved(fine + coarse, fine) for fine, coarse in reversed(pairs))
        self.leave = nn.Conv2d(channels[0], 4, 3, padding=1)

    def forward(self, images: Tensor, masks: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
        """The redrawn windows ``[b, 3, S, S]`` in [-1, 1] before they are confined to the mask; see ``composed``.

        Args:
            images: ``[b, 3, S, S]`` in [-1, 1].
            masks: ``[b, 1, S, S]``, weights in [0, 1].
            labels: ``[b]`` classes.
            noise: ``[b, noise_channels, S, S]``.
        """
        features = self.enter(torch.cat([images, masks, self.planes(masks, labels), noise], dim=1))
        kept = []
        for layer in self.down:
            kept.append(features)
            features = layer(features)
        features = self.body(features)
        for layer, fine in zip(self.up, reversed(kept), strict=True):
            raised = nn.functional.interpolate(features, scale_factor=2.0)
            features = layer(torch.cat([raised, fine], dim=1))
        drawn = self.leave(features)
        colour, opacity = drawn[:, :3].tanh(), drawn[:, 3:].sigmoid()
        return cast("Tensor", opacity * colour + (1 - opacity) * images)


def composed(raw: Tensor, images: Tensor, masks: Tensor) -> Tensor:
    """A painter's output ``raw`` inside the mask, the given images elsewhere: ``m * raw + (1 - m) * x``.

    All ``[b, 3, S, S]``; masks ``[b, 1, S, S]``. Where the mask is 0, the image's own numbers are returned.
    """
    return images + masks * (raw - images)


def hidden(images: Tensor, masks: Tensor) -> Tensor:
    """What G_Y is shown: images ``[b, 3, S, S]`` that are grey wherever the masks ``[b, 1, S, S]`` are above 0.

    It can neither keep the object nor hide it in its drawing for G_X to find.
    """
    return images * (masks <= 0)


def coarse(images: Tensor, masks: Tensor) -> Tensor:
    """What G_X is shown: images ``[b, 3, S, S]`` without detail wherever the masks ``[b, 1, S, S]`` are above 0.

    It can follow what is there, but has to draw it anew: to leave it as it is is no solution, and sharp pictures and
    G_Y's are alike to it.
    """
    averages = nn.functional.avg_pool2d(images, _COARSE_PX)
    raised = nn.functional.interpolate(averages, scale_factor=float(_COARSE_PX), mode="bilinear")
    return torch.where(masks > 0, raised, images)


class Judge(nn.Module):
    """A PatchGAN discriminator with spectral normalisation, except in its last layer."""

    def __init__(self, settings: InsertionGANSettings, num_classes: int) -> None:
        super().__init__()
        self.planes = ClassPlanes(num_classes)
        widths = (3 + 1 + _CLASS_CHANNELS, *settings.judge_channels)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(widths[-1], 1, 3, padding=1))  # normalised, it could hardly tell windows apart
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor, masks: Tensor, labels: Tensor) -> Tensor:
        """A value for each patch ``[b, 1, s, s]``, near 1 where it looks real; arguments as those of ``Painter``."""
        values: Tensor = self.layers(torch.cat([images, masks, self.planes(masks, labels)], dim=1))
        return values


def local_crops(images: Tensor, masks: Tensor, boxes: Tensor, size_px: int) -> tuple[Tensor, Tensor]:
    """The part of each window around its object, resized to ``size_px``: what the local discriminator is shown.

    Args:
        images: ``[b, 3, S, S]``.
        masks: ``[b, 1, S, S]``.
        boxes: ``[b, 4]`` xyxy in px of the window: the parts to show.
        size_px: Side of the crops.

    Returns:
        Crops ``[b, 3, size_px, size_px]`` and their masks ``[b, 1, size_px, size_px]``.
    """
    from torchvision.ops import roi_align

    places = torch.cat([torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)[:, None], boxes], dim=1)
    found = roi_align(torch.cat([images, masks], dim=1), places, size_px, sampling_ratio=2, aligned=True)
    return found[:, :3], found[:, 3:]


def _convolved(before: int, after: int, stride: int = 1) -> nn.Sequential:
    size = 4 if stride == 2 else 3
    return nn.Sequential(nn.Conv2d(before, after, size, stride=stride, padding=1), nn.GroupNorm(8, after), nn.SiLU())


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_convolved(channels, channels), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        return features + cast("Tensor", self.layers(features))
