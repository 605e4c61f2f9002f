"""The space in which the crop painter paints: pixels, or the latents of an autoencoder.

In latents, the known surroundings are the latents of the window with its hole filled by their mean colour, so that
nothing of what is in the hole reaches the network. The hole and the box are shares of each latent's square.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.generators.cutouts.window import Mask
from actors.generators.inpaint.painters.crop.config import PX_PER_LATENT, CropSettings
from actors.images import Pixels, scaled

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Maps = NDArray[np.float32]  # [C, h, w]


class Space:
    """The space of a painter; ``h`` and ``w`` are the sides of its maps, ``C`` their channels.

    Windows are encoded and decoded one at a time: it takes little memory, and none depends on the others.
    """

    def __init__(self, config: CropSettings, device: "torch.device") -> None:
        """Raises FileNotFoundError or ValueError if ``vae`` cannot be opened or has no latents of 8 x 8 px."""
        self.size_px, self.device = config.size_px, device
        self.vae = None
        if config.vae:
            from actors.generators.diffusion.autoencoder import open_autoencoder

            self.vae = open_autoencoder(config.vae, config.vae_revision, device)
            if self.vae.px != PX_PER_LATENT:
                raise ValueError(
                    f"painter.vae: a latent of {config.vae!r} stands for {self.vae.px} x {self.vae.px} px; give an "
                    f"autoencoder with {PX_PER_LATENT} x {PX_PER_LATENT} px, as those of Stable Diffusion"
                )
        self.shape = self.vae.shape(self.size_px) if self.vae else (3, self.size_px, self.size_px)

    def encode(self, pixels: Pixels) -> Maps:
        """A window ``[S, S, 3]`` as ``[C, h, w]``: in [-1, 1], or latents."""
        picture = scaled(pixels)
        if self.vae is None:
            return picture
        import torch

        latents: Maps = np.asarray(self.vae.encode(torch.from_numpy(picture)[None])[0].cpu(), np.float32)
        return latents

    def known(self, pixels: Pixels, mask: Mask, box: geometry.Boxes) -> Maps:
        """The network's input besides noise, ``[C + 2, h, w]``: the window without its hole, the hole, and the box."""
        if self.vae is None:
            return known_input(pixels, mask, box)
        around = self.encode(_filled(pixels, mask))
        return np.concatenate([around, self.shares(mask), self.shares(inside(mask.shape, box))])

    def shares(self, mask: NDArray[np.bool_] | NDArray[np.float32]) -> Maps:
        """A mask ``[S, S]`` as ``[1, h, w]``: the share of each square that it covers."""
        _, height, width = self.shape
        squares = mask.astype(np.float32).reshape(height, mask.shape[0] // height, width, mask.shape[1] // width)
        shares: Maps = squares.mean(axis=(1, 3), dtype=np.float32)[None]
        return shares

    def decode(self, maps: "Tensor") -> list[Pixels]:
        """Windows ``[S, S, 3]`` of maps ``[b, C, h, w]``."""
        from actors.generators.diffusion.learner import to_pixels

        if self.vae is None:
            return to_pixels(maps)
        return [pixels for one in maps for pixels in to_pixels(self.vae.decode(one[None]))]

    def sharpened(self, painted: Pixels, start: Pixels, maps: "Tensor") -> Pixels:
        """A painted window with the detail added that ``maps`` ``[C, h, w]``, those of its ``start``, have lost."""
        lost = start.astype(np.int16) - self.decode(maps[None])[0]
        return np.clip(painted + lost, 0, 255).astype(np.uint8)


def known_input(pixels: Pixels, mask: Mask, box: geometry.Boxes) -> Maps:
    """The input in pixels, ``[5, S, S]``: the window with its hole at 0, the hole, and the box."""
    around = scaled(pixels) * ~mask
    return np.concatenate([around, mask[None].astype(np.float32), inside(mask.shape, box)[None]])


def inside(shape: Sequence[int], box: geometry.Boxes) -> NDArray[np.float32]:
    """1 inside a box ``[4]`` and 0 elsewhere, of ``shape`` (h, w)."""
    found = np.zeros(shape, np.float32)
    left, top, right, bottom = np.rint(box).astype(int)
    found[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 1.0
    return found


def _filled(pixels: Pixels, mask: Mask) -> Pixels:
    """The window with the mean colour of its surroundings in the hole; grey if the hole is all of it."""
    colour = pixels[~mask].mean(axis=0) if not mask.all() else np.full(3, 127.5)
    return np.where(mask[..., None], np.rint(colour).astype(np.uint8), pixels)
