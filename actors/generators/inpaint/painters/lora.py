"""Low-rank weights, merged into a frozen pipeline once: W + scale * alpha / rank * up down."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from actors.config import Config

if TYPE_CHECKING:
    from torch import Tensor

from actors.generators.diffusion.weights import Pipeline

DOWN, UP = ".lora_A.weight", ".lora_B.weight"


class LoraConfig(Config):
    """Low-rank weights in diffusers', PEFT's or kohya's layout, as safetensors."""

    path: str
    """Local file, local folder, or hub id."""
    weight_name: str | None = None
    """The file's name in the folder or repository, if there are several."""
    scale: float = 1.0
    """Factor of the added weights."""


def fuse_lora(pipeline: Pipeline, config: LoraConfig) -> None:
    """Add the weights to the pipeline's networks, in place, so that painting costs no extra time.

    The result is that of diffusers' ``load_lora_weights`` and ``fuse_lora``, which need PEFT. Raises FileNotFoundError
    if there are none, ValueError if one of them belongs to no layer.
    """
    weights, alphas = _read(pipeline, config)
    for layer in [key.removesuffix(DOWN) for key in weights if key.endswith(DOWN)]:
        down, up = weights.pop(layer + DOWN), weights.pop(layer + UP, None)
        if up is None:
            raise ValueError(f"LoRA {config.path!r}: {layer} has only one of its two matrices")
        scale = config.scale * _alpha(alphas, layer, rank=len(down)) / len(down)
        _add(pipeline, layer, scale * _product(up.float(), down.float()))
    if weights:
        raise ValueError(f"LoRA {config.path!r}: {len(weights)} unknown weights, such as {min(weights)!r}")


def _read(pipeline: Pipeline, config: LoraConfig) -> tuple[dict[str, "Tensor"], dict[str, float]]:
    """The weights by layer and half, and the alphas of layers or networks that the file gives."""
    import diffusers

    library: Pipeline = diffusers  # for the type checker
    reader = pipeline if hasattr(pipeline, "lora_state_dict") else library.loaders.StableDiffusionLoraLoaderMixin
    options: dict[str, Any] = {"weight_name": config.weight_name, "use_safetensors": True}
    if hasattr(pipeline, "unet"):
        options["unet_config"] = pipeline.unet.config
    try:
        found = reader.lora_state_dict(config.path, return_alphas=True, return_lora_metadata=True, **options)
    except OSError as error:
        raise FileNotFoundError(
            f"LoRA {config.path!r} (weight_name {config.weight_name}) cannot be read: give a safetensors file, its "
            f"folder, or a hub id which this machine can reach or has in its cache. Error: {error}"
        ) from error
    weights = {key.replace(".lora_linear_layer.", ".lora."): value for key, value in found[0].items()}
    of_layers = found[1] if len(found) == 3 else None  # not every pipeline's reader gives them
    alphas = _alphas(of_layers or {}, found[-1] or {})
    return library.utils.convert_unet_state_dict_to_peft(weights), alphas


def _alphas(of_layers: Mapping[str, float], metadata: Mapping[str, Any]) -> dict[str, float]:
    """Alphas by layer (kohya) and by network (PEFT, in the file's metadata)."""
    special = [key for key in metadata if key.endswith(("_pattern", "use_rslora", "use_dora")) and metadata[key]]
    if special:
        raise ValueError(f"LoRA with {special}: merge it into the model with PEFT, and give the merged model")
    of_networks = {key: value for key, value in metadata.items() if key.endswith(".lora_alpha")}
    given = {**of_networks, **of_layers}
    return {key.removesuffix(".alpha").removesuffix(".lora_alpha"): float(value) for key, value in given.items()}


def _alpha(alphas: Mapping[str, float], layer: str, *, rank: int) -> float:
    network = layer.partition(".")[0]
    return alphas.get(layer, alphas.get(network, rank))


def _product(up: "Tensor", down: "Tensor") -> "Tensor":
    """Product ``[out, in, ...]`` for linear layers, and for convolutions whose up matrix is 1 x 1."""
    import torch

    return torch.einsum("or,r...->o...", up.flatten(1), down)


def _add(pipeline: Pipeline, layer: str, change: "Tensor") -> None:
    network, _, place = layer.partition(".")
    module: Pipeline = getattr(pipeline, network, None)
    if not hasattr(module, "text_model"):
        place = place.removeprefix("text_model.")  # transformers 5 has dropped this level of CLIP's text encoder
    try:
        weight = module.get_submodule(place).weight
    except AttributeError:
        raise ValueError(f"LoRA: the pipeline has no layer {layer}; was it trained for another model?") from None
    if weight.numel() != change.numel():
        raise ValueError(
            f"LoRA: {layer} has shape {list(weight.shape)}, its update {list(change.shape)}; was it trained for "
            "another model?"
        )
    weight.data += change.reshape(weight.shape).to(weight)
