"""Low-rank adaptation (LoRA, arXiv 2106.09685, Sec. 4.1) of a diffusion model: W + alpha / rank * up down, W frozen.

Only the attention projections' up and down learn, and the embeddings of tokens that are new to the text encoder.
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
    """How much is added to a projection."""

    rank: int = Field(16, ge=1)
    """Inner side of the product that is added to a weight."""
    alpha: float = Field(16.0, gt=0.0)
    """The product counts alpha / rank: kept as it is, another rank needs no other learning rate."""


def adapt(config: LowRankConfig, unet: "nn.Module", text_encoder: "nn.Module", new_tokens: Sequence[int]) -> None:
    """Let nothing of the two learn but what is added here, in place; what they compute is still the same.

    What is frozen is in buffers from now on, so that parameters and states are of what learns alone.
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
    """Put what was added into the weights, in place: drawing then costs no more than without."""
    from peft.tuners.lora import LoraLayer
    from peft.utils.other import TrainableTokensWrapper

    for name, layer in list(network.named_modules()):
        adapter: Any = layer.token_adapter if isinstance(layer, TrainableTokensWrapper) else layer
        if isinstance(layer, TrainableTokensWrapper | LoraLayer):
            adapter.merge()
            network.set_submodule(name, adapter.get_base_layer())


def _freeze(network: "nn.Module") -> None:
    """Parameters that do not learn become buffers that states leave out."""
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if not weight.requires_grad:
                delattr(module, name)
                module.register_buffer(name, weight.detach(), persistent=False)
