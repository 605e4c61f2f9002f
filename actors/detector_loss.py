"""The training loss of a detector as a function of its parameters and of the images, and its feature maps likewise.

Unrolled training steps (DetectorGAN, ICCV 2019) and the utility of a sample (TracIn, arXiv 2002.08484) need the loss,
refiners need the maps. Generators, filters and refiners are handed one, and so need not know the detector's family.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from actors.records import Annotation

if TYPE_CHECKING:
    from torch import Tensor, nn

Parameters = Literal["head", "all"] | tuple[str, ...]
"""A choice of a detector's parameters: those of its head, all, or those whose names begin with one of these."""


def prefixes_of(parameters: Parameters) -> list[str] | None:
    """``parameters`` as ``DetectorBase.open_loss`` takes them: prefixes of names, None for the head."""
    if isinstance(parameters, tuple):
        return list(parameters)
    return None if parameters == "head" else [""]


Forward = Callable[..., Any]
"""The forward pass of a network with the parameters that were given."""

Compute = Callable[[Forward, "Tensor", Sequence[Annotation]], "Tensor"]
"""From the forward pass, images and annotations to the loss, a scalar."""

ReadMaps = Callable[[Forward, "Tensor"], Sequence["Tensor"]]
"""From the forward pass and images to the maps of the feature pyramid, finest first."""


class DetectorLoss:
    """The training loss of one detector as a function of chosen parameters. Families make it in ``open_loss``.

    The loss is differentiable in the parameters and in the images, twice where the network is, so that a training
    step can be unrolled::

        loss = config.open_loss(checkpoint)
        names, values = zip(*loss.parameters.items())
        slopes = torch.autograd.grad(loss(loss.parameters, images, annotations), values, create_graph=True)
        stepped = {name: value - eta * slope for name, value, slope in zip(names, values, slopes)}
        loss(stepped, real_images, real_annotations).backward()  # reaches images

    All other parameters are constants, and so are the statistics of batch normalisation, which stay as they are.
    Dropout is off and nothing is random: equal arguments give equal losses.

    A gradient is the one that training steps along. What training holds constant is constant here: the assignment of
    boxes to predictions with its soft targets, and what the family detaches (see its ``open_loss``).

    Attributes:
        network: The network itself, of which no parameter requires gradients.
        parameters: The detector's own values of the chosen parameters, leaves that require gradients.
        strides: The strides in px of the feature pyramid, finest first; empty for a detector without one.
    """

    def __init__(
        self,
        network: "nn.Module",
        compute: Compute,
        prefixes: Sequence[str],
        *,
        maps: ReadMaps,
        strides: tuple[int, ...],
    ) -> None:
        """Choose the parameters whose names begin with one of ``prefixes``; an empty prefix chooses all.

        ``network`` belongs to the loss from here on. Its modes (training or evaluation) are the caller's choice.
        Raises ValueError where no parameter is chosen.
        """
        self.network, self._compute = network.requires_grad_(False), compute
        self._maps, self.strides = maps, strides
        self.parameters: dict[str, Tensor] = {
            name: value.detach().clone().requires_grad_()
            for name, value in network.named_parameters()
            if name.startswith(tuple(prefixes))
        }
        if not self.parameters:
            known = sorted({name.rpartition(".")[0] for name, _ in network.named_parameters()})
            raise ValueError(f"no parameter's name begins with one of {list(prefixes)}; there are: {', '.join(known)}")

    def __call__(
        self, parameters: "Mapping[str, Tensor]", images: "Tensor", annotations: Sequence[Annotation]
    ) -> "Tensor":
        """The loss, a scalar: the mean over images or boxes, as the family normalises it.

        Args:
            parameters: Values by name, of chosen parameters. Those that are left out keep the detector's own values.
            images: ``[n, 3, H, W]`` in [0, 1], RGB.
            annotations: One for each image, boxes in px of the given tensor. Predictions inside a box that is flagged
                ignore are neither object nor background.

        Raises:
            ValueError: Where a parameter was not chosen, or the sizes do not fit.
        """
        if len(annotations) != len(images):
            raise ValueError(f"{len(annotations)} annotations for {len(images)} images; give one for each")
        return self._compute(self._forward(parameters), images, annotations)

    def maps(self, parameters: "Mapping[str, Tensor]", images: "Tensor") -> "list[Tensor]":
        """The maps ``[n, c, H / s, W / s]`` of the feature pyramid, one for each of ``strides``.

        ``parameters`` and ``images`` as in a call; the maps are differentiable in both. Raises ValueError where the
        detector has no pyramid, a parameter was not chosen, or the sizes do not fit.
        """
        return list(self._maps(self._forward(parameters), images))

    def _forward(self, parameters: "Mapping[str, Tensor]") -> Forward:
        from torch.func import functional_call

        if unknown := parameters.keys() - self.parameters.keys():
            raise ValueError(f"not among the chosen parameters: {', '.join(sorted(unknown))}")

        def forward(*inputs: object) -> Any:  # noqa: ANN401 - the network's own type
            return functional_call(self.network, dict(parameters), inputs)

        return forward


def check_sides(images: "Tensor", stride_px: int) -> None:
    """Raise ValueError unless the sides of images ``[n, 3, H, W]`` are multiples of a network's coarsest stride."""
    height, width = images.shape[-2:]
    if height % stride_px or width % stride_px:
        raise ValueError(f"images of {width}x{height} px: sides must be multiples of {stride_px}")
