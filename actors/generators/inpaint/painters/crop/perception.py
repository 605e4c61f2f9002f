"""The perception-aware loss of the crop painter's fit; see ``actors.generators.diffusion.mask_loss``."""

from typing import Any

import torch
from torch import Tensor

from actors.generators.diffusion.mask_loss import FeatureTap, MaskHead, perception_loss
from actors.precision import autocast


class Perception:
    """The loss of a crop network while it is fitted; there is none of it in the checkpoint.

    A window has one instance, the object that is to be painted. What it is asked for with is the network's own
    embedding of its class and difficulty.
    """

    def __init__(self, network: Any, device: torch.device) -> None:  # noqa: ANN401 - of diffusers
        self.embedding, self.tap = network.class_embedding, FeatureTap(network)
        self.head = MaskHead(self.tap.channels, self.embedding.embedding_dim).to(device)

    def loss(self, told: Tensor, masks: Tensor, alphas_cumprod_t: Tensor) -> Tensor:
        """Of the last forward pass, given conditions ``[b]``, objects' masks ``[b, 1, S, S]`` and alphabar ``[b]``."""
        with autocast(told.device):
            logits = self.head(self.tap.take(), self.embedding(told)[:, None])
        valid = torch.ones_like(told, dtype=torch.bool)[:, None]
        return perception_loss(logits, masks, valid, alphas_cumprod_t)
