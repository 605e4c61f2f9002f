"""The training loss of torchvision's detectors as a function of parameters and images; see ``DetectorLoss``."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.checkpoint import Checkpoint
from actors.detector_loss import DetectorLoss, Forward, check_sides
from actors.detectors.torchvision.config import TorchvisionSettings
from actors.detectors.torchvision.detector import STRIDE_PX, pyramid
from actors.detectors.torchvision.losses import is_dense, losses
from actors.detectors.torchvision.weights import Network
from actors.records import Annotation

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def open_loss(
    config: TorchvisionSettings, checkpoint: Checkpoint, prefixes: Sequence[str] | None, device: str | None
) -> DetectorLoss:
    """The sum of the training losses of a network; see ``DetectorBase.open_loss``.

    Images have sides that are multiples of 32. The loss takes its precision from torch's default dtype: set it to
    float64 before this call to check gradients.

    Constant, as in training: matching and sampling of anchors and regions, and the proposals of Faster R-CNN. Its
    sampling is random in training; here each call draws from the same seed, so that equal arguments give equal losses,
    and a small change of parameters may change which regions are sampled. Second derivatives exist but for those by
    what lies before Faster R-CNN's regions twice (backbone and pyramid): RoIAlign has none. Its head can be unrolled.
    """
    import torch

    network: Network
    network, _ = config.load_checkpoint(checkpoint)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network.eval().to(place, torch.get_default_dtype())
    if not is_dense(network):
        network.rpn.training = True  # as many proposals as in training
    network.forward = partial(_apply, network)
    return DetectorLoss(
        network,
        partial(_loss, place),
        prefixes or [config.head(network)],
        maps=partial(_maps, place),
        strides=network.backbone.strides_px,
    )


def _apply(network: Network, function: Callable[..., Any], *inputs: object) -> Any:  # noqa: ANN401 - of the function
    """``function`` of the network, with the parameters that are in it during a call."""
    return function(network, *inputs)


def _loss(place: "torch.device", forward: Forward, images: "Tensor", annotations: Sequence[Annotation]) -> "Tensor":
    import torch

    check_sides(images, STRIDE_PX)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(0)
        terms = forward(losses, images.to(place), annotations, [False] * len(images))
    return torch.stack(list(terms.values())).sum()


def _maps(place: "torch.device", forward: Forward, images: "Tensor") -> "list[Tensor]":
    check_sides(images, STRIDE_PX)
    maps: list[Tensor] = forward(pyramid, images.to(place))
    return maps
