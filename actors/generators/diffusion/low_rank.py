"""Low-rank adaptation (LoRA, arXiv 2106.09685, Sec. 4.1) of a diffusion model: W + alpha / rank * up down, W frozen.

Only the up and down matrices of the attention projections and the embeddings of new tokens are trained.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from actors.config import Config

if TYPE_CHECKING:
    from torch import nn

PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0"]  # of diffusers' attention
TEXT_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "out_proj"]  # of CLIP's


class LowRankConfig(Config):
    """Rank and scale of the update of a projection."""

    rank: int = Field(16, ge=1)
    """Rank of the matrix product that is added to a weight."""
    alpha: float = Field(16.0, gt=0.0)
    """The product is scaled by alpha / rank, so that another rank needs no other learning rate."""


def adapt(config: LowRankConfig, unet: "nn.Module", text_encoder: "nn.Module", new_tokens: Sequence[int]) -> None:
    """Add low-rank matrices to both networks and freeze everything else, in place; their outputs do not change.

    Frozen weights become buffers, so that parameters and states hold trained weights only.
    """
    from peft import LoraConfig, inject_adapter_in_model

    scale: dict[str, Any] = {"r": config.rank, "lora_alpha": config.alpha}
    tokens = {"token_embedding": list(new_tokens)}
    inject_adapter_in_model(LoraConfig(target_modules=PROJECTIONS, **scale), unet)
    text = LoraConfig(target_modules=TEXT_PROJECTIONS, trainable_token_indices=tokens, **scale)
    inject_adapter_in_model(text, text_encoder)
    for network in (unet, text_encoder):
        _freeze(network)


def merge(network: "nn.Module") -> None:
    """Merge the added matrices into the weights, in place, so that sampling costs no extra time."""
    from peft.tuners.lora import LoraLayer
    from peft.utils.other import TrainableTokensWrapper

    for name, layer in list(network.named_modules()):
        adapter: Any = layer.token_adapter if isinstance(layer, TrainableTokensWrapper) else layer
        if isinstance(layer, TrainableTokensWrapper | LoraLayer):
            adapter.merge()
            network.set_submodule(name, adapter.get_base_layer())


def _freeze(network: "nn.Module") -> None:
    """Turn frozen parameters into buffers that are not part of the state."""
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if not weight.requires_grad:
                delattr(module, name)
                module.register_buffer(name, weight.detach(), persistent=False)
