"""One training step of the detector, unrolled (DetectorGAN, Liu, Muelly, Deng, Pfister, Li, ICCV 2019).

The generator is to draw images from which the detector learns what it needs on real ones: the detector takes a step on
real and drawn images, and its loss on other real images after that step is the generator's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from actors.detector_loss import DetectorLoss
from actors.records import Annotation


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Pictures for the detector."""

    images: Tensor  # [n, 3, H, W] in [0, 1]
    annotations: tuple[Annotation, ...]  # boxes in px of the images

    def loss(self, detector: DetectorLoss) -> Tensor:
        """The detector's loss at its own parameters."""
        return detector(detector.parameters, self.images, self.annotations)


def slopes(detector: DetectorLoss, loss: Tensor, *, differentiable: bool, keep: bool = False) -> list[Tensor]:
    """The gradient of ``loss`` by the detector's chosen parameters; 0 for one that it does not reach.

    If ``differentiable``, it can be differentiated again. ``loss`` can be used afterwards if that or ``keep``.
    """
    values = list(detector.parameters.values())
    kept = keep or differentiable
    return list(
        torch.autograd.grad(loss, values, create_graph=differentiable, retain_graph=kept, materialize_grads=True)
    )


def unrolled_loss(
    detector: DetectorLoss, by_drawn: Sequence[Tensor], by_real: Sequence[Tensor], outer: Batch, eta: float
) -> Tensor:
    """L_unroll: the loss on ``outer`` after a step ``theta' = theta - eta * d(L_real + L_syn)/dtheta``.

    Its gradient reaches what L_syn depends on, such as a generator's weights:
    ``-eta * (dL_real/dtheta')^T * d/dG (dL_syn/dtheta)``. The real images do not depend on the generator, so
    ``dL_real/dtheta'`` is a constant vector, and second derivatives are computed for L_syn alone.

    Args:
        detector: The detector's loss; theta are its chosen parameters.
        by_drawn: dL_syn/dtheta, differentiable (see ``slopes``).
        by_real: dL_real/dtheta on the real images of the step.
        outer: Other real images, on which the stepped detector is judged.
        eta: Step size.

    Returns:
        A scalar. Its value is the loss on ``outer``.
    """
    with torch.no_grad():
        stepped = {
            name: (value - eta * (drawn + real)).requires_grad_()
            for (name, value), drawn, real in zip(detector.parameters.items(), by_drawn, by_real, strict=True)
        }
    loss = detector(stepped, outer.images, outer.annotations)
    after = torch.autograd.grad(loss, list(stepped.values()), materialize_grads=True)
    gain = torch.stack([(one * other).sum() for one, other in zip(after, by_drawn, strict=True)]).sum()
    with torch.no_grad():
        value = loss + eta * gain
    return value - eta * gain  # the loss; ``gain`` carries the gradient
