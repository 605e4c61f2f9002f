"""The perception-aware loss of the crop painter's fit; see ``actors.perception.mask_loss``."""

from typing import TYPE_CHECKING, Any

from actors.precision import native_dtypes

if TYPE_CHECKING:
    from torch import Tensor, device
    from torch.nn import Parameter


class Perception:
    """The loss of a crop network while it is fitted; there is none of it in the checkpoint.

    A window has one instance, the object that is to be painted, and its box is its mask. What it is asked for with is
    the network's own embedding of its class and difficulty.
    """

    def __init__(self, network: Any, device: "device") -> None:  # noqa: ANN401 - of diffusers
        from actors.perception.mask_loss import FeatureTap, MaskHead

        self.embedding, self.tap = network.class_embedding, FeatureTap(network)
        self.head = MaskHead(self.tap.channels, self.embedding.embedding_dim).to(device)

    def parameters(self) -> "list[Parameter]":
        """Of the head."""
        return list(self.head.parameters())

    def loss(self, told: "Tensor", boxes: "Tensor", alphas_cumprod_t: "Tensor") -> "Tensor":
        """Of the last forward pass, given conditions ``[b]``, box masks ``[b, 1, S, S]`` and alphabar ``[b]``."""
        import torch

        from actors.perception.mask_loss import perception_loss

        with torch.autocast(told.device.type, native_dtypes(told.device)[0]):
            logits = self.head(self.tap.take(), self.embedding(told)[:, None])
        valid = torch.ones_like(told, dtype=torch.bool)[:, None]
        return perception_loss(logits, boxes, valid, alphas_cumprod_t)
