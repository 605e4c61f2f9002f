"""Backbones by name: torchvision's ResNets and MobileNets, and any network of timm that gives feature maps.

Opened in workers alone: it subclasses torch's modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision.models import ResNet, get_model
from torchvision.models._utils import IntermediateLayerGetter

from actors.detectors.torchvision.config import LITE, TIMM

STRIDES_PX = (4, 8, 16, 32)
"""Of the maps that a backbone gives."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB, of pixels in [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Body:
    """A backbone without its classifier."""

    network: nn.Module  # images to maps by name, "0" (the finest) to "3"
    channels: tuple[int, ...]  # of the four maps
    ends: Mapping[int, str]  # by stride in px: the name of the module that gives the last map of this stride
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def body(name: str) -> Body:
    """A backbone with fresh weights, drawn from torch's global generator.

    Raises ValueError where timm has no such network, or it gives no maps of strides 4, 8, 16 and 32 px.
    """
    if name == LITE:
        return _timm_body("tf_efficientnet_lite0")
    if name.startswith(TIMM):
        return _timm_body(name.removeprefix(TIMM))
    network: Any = get_model(name, weights=None)
    if isinstance(network, ResNet):
        return _torchvision_body(network, ["maxpool", "layer1", "layer2", "layer3", "layer4"])
    strided = [str(index) for index, block in enumerate(network.features) if getattr(block, "_is_cn", False)]
    return _torchvision_body(network.features, ["0", *strided[:3], str(len(network.features) - 1)])


def _torchvision_body(network: nn.Module, ends: list[str]) -> Body:
    """``ends`` are children of ``network``, which gives maps of strides 2 to 32 px behind them."""
    getter: nn.Module = IntermediateLayerGetter(network, {name: str(index) for index, name in enumerate(ends[1:])})
    return Body(network=getter, channels=_channels(getter), ends=dict(zip((2, *STRIDES_PX), ends, strict=True)))


def _channels(network: nn.Module) -> tuple[int, ...]:
    """Channels of the four maps. Raises ValueError where a picture of 96x64 px does not give maps of these strides."""
    with torch.no_grad():
        maps = list(network.eval()(torch.zeros(1, 3, 64, 96)).values())
    network.train()
    if [tuple(one.shape[2:]) for one in maps] != [(64 // stride, 96 // stride) for stride in STRIDES_PX]:
        raise ValueError(f"its maps of a picture of 96x64 px are {[tuple(one.shape) for one in maps]}")
    return tuple(one.shape[1] for one in maps)


class TimmMaps(nn.Module):
    """The feature maps of a network of timm by name, as torchvision's pyramid takes them."""

    def __init__(self, network: nn.Module, indices: list[int]) -> None:
        super().__init__()
        self.network, self.indices = network, indices

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The four maps ``[n, C, H, W]`` of ``images``, the finest first."""
        maps = self.network(images)
        return {str(position): maps[index] for position, index in enumerate(self.indices)}


def _timm_body(name: str) -> Body:
    network: Any
    try:
        network = timm.create_model(name, pretrained=False, features_only=True)
        strides = list(network.feature_info.reduction())
        maps = TimmMaps(network, _indices(strides))
        channels = _channels(maps)
    except (RuntimeError, AttributeError, NotImplementedError, AssertionError, ValueError) as error:
        raise ValueError(
            f"detector.backbone: timm's {name!r} does not give feature maps at strides {list(STRIDES_PX)} of pictures "
            f"of any size: {error}"
        ) from error
    names = network.feature_info.module_name()
    about = timm.get_pretrained_cfg(name)
    return Body(
        network=maps,
        channels=channels,
        ends={stride: _module_name(network, end) for stride, end in zip(strides, names, strict=True)},
        mean=tuple(about.mean) if about else IMAGENET_MEAN,
        std=tuple(about.std) if about else IMAGENET_STD,
    )


def _indices(strides: list[int]) -> list[int]:
    """The positions of the four strides. Raises ValueError where one is missing."""
    if not set(STRIDES_PX) <= set(strides):
        raise ValueError(f"its maps have strides {strides}")
    return [strides.index(stride) for stride in STRIDES_PX]


def _module_name(network: nn.Module, name: str) -> str:
    """The name of timm's module below ``TimmMaps``; some of its networks flatten sequences of stages."""
    known = dict(network.named_modules())
    return f"network.{name if name in known else name.replace('.', '_')}"


def freeze(network: nn.Module, end: str) -> None:
    """Let parameters up to those of the module ``end``, in the order of definition, require no gradients."""
    reached = False
    for name, module in network.named_modules():
        inside = name == end or name.startswith(f"{end}.")
        if reached and not inside:
            return
        reached |= inside
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
