"""Perception-aware loss (DetDiffusion, arXiv 2403.13304, Sec. 3.3, Eqs. 3-5): the U-Net learns where objects are.

During the fit of a diffusion model, a small head predicts each object's mask from the features of the U-Net's decoder.
``FeatureTap`` collects the features, ``MaskHead`` predicts the masks, ``perception_loss`` is their loss. The U-Net
itself is not changed, and sampling uses neither tap nor head. The masks are the data's own instance masks (COCO's
``segmentation``, ``actors.generators.diffusion.instance_masks``). Our deviation: a box without one is its own mask
(``actors.generators.diffusion.box_masks``).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

MAX_LEVELS = 4


class FeatureTap:
    """The last features at each resolution of a diffusers U-Net's decoder, coarse to fine, after each forward pass.

    It takes a ``UNet2DModel`` or a ``UNet2DConditionModel``. The paper has four levels and does not say which; ours are
    the decoder's blocks before they upsample: 1/8, 1/4, 1/2 and 1/1 of the latent side for Stable Diffusion. A U-Net
    with fewer resolutions gives all of them, one with more its four finest. Copy the U-Net before attaching a tap, as
    copies of a module keep its hooks; ``remove`` detaches it.
    """

    def __init__(self, unet: nn.Module) -> None:
        decoder: Any = unet.get_submodule("up_blocks")
        blocks = list(decoder)[-MAX_LEVELS:]
        self.channels: tuple[int, ...] = tuple(block.resnets[-1].out_channels for block in blocks)
        self._maps: dict[int, Tensor] = {}
        self._handles = [self._attach(block, level) for level, block in enumerate(blocks)]

    def take(self) -> list[Tensor]:
        """The maps ``[B, C_n, h_n, w_n]`` of the last forward pass; they can be taken once.

        Raises ValueError if there was no forward pass since the last call.
        """
        if len(self._maps) < len(self.channels):
            raise ValueError(f"tap: {len(self._maps)} of {len(self.channels)} feature maps; run the U-Net first")
        maps = [self._maps[level] for level in range(len(self.channels))]
        self._maps.clear()
        return maps

    def remove(self) -> None:
        """Detach the tap from the U-Net."""
        for handle in self._handles:
            handle.remove()
        self._maps.clear()

    def _attach(self, block: nn.Module, level: int) -> RemovableHandle:
        def before_upsampling(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._maps[level] = inputs[0]

        def at_the_end(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            self._maps[level] = output

        upsamplers: Any = block.upsamplers
        if upsamplers:
            handle: RemovableHandle = upsamplers[0].register_forward_pre_hook(before_upsampling)
            return handle
        return block.register_forward_hook(at_the_end)


class MaskHead(nn.Module):
    """Predicts a mask for each object from a decoder's features (Eq. 3): F_1 = f_1, F_n = Conv(f_n, Upsample(F_{n-1})).

    Conv concatenates its inputs and applies normalisation, SiLU and a 3 x 3 convolution. The paper does not say how the
    finest map is divided into instances. Our reading: each pixel is an embedding, each object a query, and their dot
    product is the logit that the pixel belongs to the object. A query is a linear map of a vector that represents the
    object: the mean text state of its tokens, or its class embedding. F_n has ``width`` channels, by default 128 or
    twice the finest level's if that is less. The head is small: 4.5 M parameters for Stable Diffusion's 860 M.
    """

    def __init__(self, channels: Sequence[int], query_size: int, width: int | None = None) -> None:
        """``channels`` are those of the levels, coarse to fine; ``query_size`` is the length of an object's vector."""
        super().__init__()
        width = width or min(128, 2 * channels[-1])
        merged = [channels[0], *[width] * (len(channels) - 1)]
        self.fuse = nn.ModuleList(
            _convolution(own + above, width) for own, above in zip(channels[1:], merged, strict=False)
        )
        self.query = nn.Linear(query_size, merged[-1])

    def forward(self, levels: Sequence[Tensor], objects: Tensor) -> Tensor:
        """Logits ``[B, K, h, w]`` float32 at the finest level's size.

        ``levels`` are maps ``[B, C_n, h_n, w_n]``, coarse to fine, ``objects`` are vectors ``[B, K, query_size]``.
        """
        merged = levels[0]
        for level, convolution in zip(levels[1:], self.fuse, strict=True):
            above = functional.interpolate(merged, size=level.shape[-2:], mode="nearest")
            merged = convolution(torch.cat([level, above], dim=1))
        queries = self.query(objects).float() / math.sqrt(merged.shape[1])
        return torch.einsum("bkc,bchw->bkhw", queries, merged.float()).float()


def _convolution(num_inputs: int, num_outputs: int) -> nn.Sequential:
    norm = nn.GroupNorm(math.gcd(num_inputs, 32), num_inputs)
    return nn.Sequential(norm, nn.SiLU(), nn.Conv2d(num_inputs, num_outputs, 3, padding=1))


def perception_loss(logits: Tensor, masks: Tensor, valid: Tensor, alphas_cumprod_t: Tensor) -> Tensor:
    """Eq. 4: sqrt(alphabar_t) * (binary cross-entropy + dice), so that noisy steps count less; a scalar.

    ``logits`` and ``masks`` are ``[B, K, h, w]``, ``valid`` ``[B, K]`` marks the instances that exist, and
    ``alphas_cumprod_t`` ``[B]`` is alphabar at each image's timestep. The loss is the mean over an image's instances (0
    without any), then over the images, so that parts of a batch may be averaged. The caller applies Eq. 5's lambda.
    Raises ValueError if the shapes differ.
    """
    if logits.shape != masks.shape:
        raise ValueError(
            f"masks {tuple(masks.shape)} and logits {tuple(logits.shape)} differ; make masks at the logits' size"
        )
    logits, masks = logits.float(), masks.float()
    entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(dim=(2, 3))
    each = torch.where(valid, entropy + dice_loss(logits.sigmoid(), masks), 0.0)
    of_image = each.sum(dim=1) / valid.sum(dim=1).clamp(min=1)
    return (alphas_cumprod_t.float().sqrt() * of_image).mean()


def dice_loss(shares: Tensor, masks: Tensor) -> Tensor:
    """``1 - (2 |A B| + 1) / (|A| + |B| + 1)`` ``[B, K]`` of soft masks in [0, 1] and masks, both ``[B, K, h, w]``."""
    shared = (shares * masks).sum(dim=(2, 3))
    return 1 - (2 * shared + 1) / (shares.sum(dim=(2, 3)) + masks.sum(dim=(2, 3)) + 1)


def stack_masks(masks: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Masks ``[K_i, h, w]`` of several images as one ``[B, K, h, w]``, and which of them exist ``[B, K]`` bool.

    K is the largest number of any image, at least 1, as in ``actors.generators.layout.prompt.object_states``.
    """
    num_objects = max(1, *(len(one) for one in masks))
    stacked = np.zeros((len(masks), num_objects, *masks[0].shape[1:]), np.float32)
    for row, one in zip(stacked, masks, strict=True):
        row[: len(one)] = one
    counts = np.array([len(one) for one in masks])
    return torch.from_numpy(stacked), torch.from_numpy(np.arange(num_objects) < counts[:, None])
