"""A pass through G_X or G_Y of DetectorGAN."""

from typing import Literal

from torch import Tensor, nn

from actors.generators.insertion_gan.batches import Windows
from actors.generators.insertion_gan.networks import coarse, hidden

SHOWN = {"insert": coarse, "remove": hidden}
"""What each generator is shown of a window."""


def paint(painters: nn.ModuleDict, name: Literal["insert", "remove"], windows: Windows, noise: Tensor) -> Tensor:
    """The redrawn windows ``[b, 3, S, S]`` before they are confined to their masks; noise as in ``Painter``."""
    shown = SHOWN[name](windows.images, windows.masks)
    painted: Tensor = painters[name](shown, windows.masks, windows.labels, noise)
    return painted
