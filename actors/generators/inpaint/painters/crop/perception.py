"""The perception-aware loss of the crop painter's fit; see ``actors.generators.diffusion.mask_loss``."""

from typing import Any

import torch
from torch import Tensor, nn

from actors.generators.diffusion.mask_loss import FeatureTap, MaskHead, perception_loss
from actors.precision import autocast


class Perception:
    """The loss of a crop network while it is fitted; its head is not part of the checkpoint.

    A window has one instance, the object to paint. Its query is the network's own embedding of its class and
    difficulty.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        embedding: Any = network.class_embedding
        self.embedding, self.tap = embedding, FeatureTap(network)
        self.head = MaskHead(self.tap.channels, self.embedding.embedding_dim).to(device)

    def loss(self, conditions: Tensor, masks: Tensor, alphas_cumprod_t: Tensor) -> Tensor:
        """The loss of the last forward pass; conditions ``[b]``, objects' masks ``[b, 1, S, S]``, alphabar ``[b]``."""
        with autocast(conditions.device):
            logits = self.head(self.tap.take(), self.embedding(conditions)[:, None])
        valid = torch.ones_like(conditions, dtype=torch.bool)[:, None]
        return perception_loss(logits, masks, valid, alphas_cumprod_t)
