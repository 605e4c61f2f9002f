"""A pass through G_X or G_Y of DetectorGAN, and windows turned for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from actors.generators.insertion_gan.batches import Windows
from actors.generators.insertion_gan.config import InsertionGANSettings
from actors.generators.insertion_gan.networks import coarse, hidden

SHOWN = {"insert": coarse, "remove": hidden}
"""What each generator is shown of a window."""


def paint(painters: nn.ModuleDict, name: Literal["insert", "remove"], windows: Windows, noise: Tensor) -> Tensor:
    """The redrawn windows ``[b, 3, S, S]`` before they are confined to their masks; noise as in ``Painter``."""
    shown = SHOWN[name](windows.images, windows.masks)
    painted: Tensor = painters[name](shown, windows.masks, windows.labels, noise)
    return painted


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """How a window is turned: rotated anticlockwise, then mirrored left to right."""

    quarters: int
    mirrored: bool

    @classmethod
    def of(cls, settings: InsertionGANSettings, seed: int) -> "Turn":
        """A random one of those that the fit uses."""
        rng = np.random.default_rng(seed)
        quarters, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        return cls(quarters=quarters * settings.rotate, mirrored=mirrored and settings.flip)


def turned(windows: Tensor, turns: Sequence[Turn]) -> Tensor:
    """Windows ``[b, c, S, S]``, each turned."""
    rotated = [one.rot90(turn.quarters, (1, 2)) for one, turn in zip(windows, turns, strict=True)]
    return torch.stack([one.flip(2) if turn.mirrored else one for one, turn in zip(rotated, turns, strict=True)])


def turned_back(windows: Tensor, turns: Sequence[Turn]) -> Tensor:
    """The windows that ``turned`` was given."""
    upright = [one.flip(2) if turn.mirrored else one for one, turn in zip(windows, turns, strict=True)]
    return torch.stack([one.rot90(-turn.quarters, (1, 2)) for one, turn in zip(upright, turns, strict=True)])
