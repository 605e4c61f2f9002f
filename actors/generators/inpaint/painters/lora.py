"""Low-rank weights for a frozen pipeline, added to its own once: W + scale * alpha / rank * up down."""

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
    """The file's name in the folder or repository, where there are several."""
    scale: float = 1.0
    """How much of them is added."""


def fuse_lora(pipeline: Pipeline, config: LoraConfig) -> None:
    """Add the weights to the pipeline's networks, in place; painting then costs no more than without them.

    The sum is what ``load_lora_weights`` and ``fuse_lora`` of diffusers make, which need PEFT. Raises
    FileNotFoundError where there are none, ValueError where one of them belongs to no layer.
    """
    weights, alphas = _read(pipeline, config)
    for layer in [key.removesuffix(DOWN) for key in weights if key.endswith(DOWN)]:
        down, up = weights.pop(layer + DOWN), weights.pop(layer + UP, None)
        if up is None:
            raise ValueError(f"LoRA {config.path!r}: {layer} has one half only")
        scale = config.scale * _alpha(alphas, layer, rank=len(down)) / len(down)
        _add(pipeline, layer, scale * _product(up.float(), down.float()))
    if weights:
        raise ValueError(f"LoRA {config.path!r}: {len(weights)} weights not understood, such as {min(weights)!r}")


def _read(pipeline: Pipeline, config: LoraConfig) -> tuple[dict[str, "Tensor"], dict[str, float]]:
    """The weights by layer and half, and the alphas of layers or whole networks where the file gives them."""
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
            f"folder, or a hub id which this machine can reach or has in its cache. It said: {error}"
        ) from error
    weights = {key.replace(".lora_linear_layer.", ".lora."): value for key, value in found[0].items()}
    of_layers = found[1] if len(found) == 3 else None  # not every pipeline's reader gives them
    alphas = _alphas(of_layers or {}, found[-1] or {})
    return library.utils.convert_unet_state_dict_to_peft(weights), alphas


def _alphas(of_layers: Mapping[str, float], metadata: Mapping[str, Any]) -> dict[str, float]:
    """Alphas by layer (kohya) and by network (what PEFT notes in the file's metadata)."""
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
    """``[out, in, ...]``: of linear layers, and of convolutions whose second half is one by one."""
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
        raise ValueError(f"LoRA: {layer} is {list(weight.shape)}, its change {list(change.shape)}: another model's?")
    weight.data += change.reshape(weight.shape).to(weight)
