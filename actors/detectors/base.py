"""What the loop asks of a detector."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from actors.images import Pixels
from actors.records import Annotation, Detections

if TYPE_CHECKING:
    from torch import Tensor


class Detector(Protocol):
    """A trained detector on one device. Implementations are built from their config and a checkpoint's URI."""

    classes: tuple[str, ...]

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """What is in each image, boxes in that image's own pixels, by falling score.

        A picture's detections do not depend, to the last bit on one kind of hardware, on the pictures it is
        batched with.
        """
        ...

    def features(self, images: Sequence[Pixels]) -> "Tensor":
        """One embedding ``[n, d]`` float32 per image, from the deepest feature map, averaged over positions."""
        ...

    def loss(self, images: "Tensor", annotations: Sequence[Annotation]) -> "Tensor":
        """The training loss, a scalar, differentiable in images ``[n, 3, H, W]`` float32 in [0, 1].

        Boxes are in pixels of the given tensor. Ignored boxes are left out.
        """
        ...
