"""Torchvision's detectors: detections and features."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from actors.checkpoint import Checkpoint
from actors.detectors.suppression import strongest
from actors.detectors.torchvision.config import TorchvisionSettings
from actors.detectors.torchvision.losses import is_dense
from actors.detectors.torchvision.weights import Network
from actors.images import Pixels
from actors.letterbox import CPU_BATCH, GPU_BATCH, Letterbox, picture_size, to_tensor
from actors.precision import reproducible
from actors.records import Detections

if TYPE_CHECKING:
    from torch import Tensor

STRIDE_PX = 32  # canvases are multiples of it


class TorchvisionDetector:
    """A trained network on one device; see ``actors.detectors.base.Detector``."""

    def __init__(self, config: TorchvisionSettings, checkpoint: Checkpoint, device: str | None = None) -> None:
        import torch

        self.config, self.checkpoint = config, checkpoint
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._network: Network
        self._network, self.classes = config.load_checkpoint(checkpoint)
        self._network.eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)
        self._micro_batch = CPU_BATCH if self.device.type == "cpu" else GPU_BATCH

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """The detections in each image ``[H, W, 3]`` uint8 RGB, boxes in its own px, by falling score."""
        found = {}
        places = [self._place(pixels) for pixels in images]
        with reproducible():
            for part, batch in self._micro_batch.batches(images, places):
                for index, seen in zip(part, see(self._network, to_tensor(batch, self.device)), strict=False):
                    found[index] = self._detections(seen, places[index])
        return [found[index] for index in range(len(images))]

    def features(self, images: Sequence[Pixels]) -> "Tensor":
        """Embeddings ``[n, d]`` float32 on the CPU: the coarsest of ``pyramid``, averaged over the canvas."""
        import torch

        rows: dict[int, Tensor] = {}
        with reproducible():
            for part, batch in self._micro_batch.batches(images, [self._place(pixels) for pixels in images]):
                coarsest = pyramid(self._network, to_tensor(batch, self.device))[-1]
                rows.update(zip(part, coarsest.mean(dim=(2, 3)), strict=False))
            return torch.stack([rows[index] for index in range(len(images))]).cpu() if rows else torch.empty(0, 0)

    def _place(self, pixels: Pixels) -> Letterbox:
        return Letterbox.fit(picture_size(pixels), self.config.image_size_px, STRIDE_PX)

    def _detections(self, seen: Mapping[str, "Tensor"], place: Letterbox) -> Detections:
        boxes, scores, labels = (seen[key].cpu().numpy() for key in ("boxes", "scores", "labels"))
        if not is_dense(self._network):
            labels = labels - 1  # 0 is background
        return strongest(place.to_source(boxes), scores, labels, self.config.max_detections)


def pyramid(network: Network, images: "Tensor") -> "list[Tensor]":
    """The pyramid's maps over those of the backbone, finest first, of ``images`` ``[n, 3, H, W]`` in [0, 1]."""
    levels = network.backbone(network.transform.normalize(images))
    return list(levels.values())[: len(network.backbone.strides_px)]


def see(network: Network, images: "Tensor") -> list[dict[str, "Tensor"]]:
    """Torchvision's detections in ``images`` ``[n, 3, H, W]`` in [0, 1]: boxes in px, scores, and labels of its own.

    The regions of each image go through the second stage alone: in products of matrices the place in a batch counts.
    """
    from torchvision.models.detection.image_list import ImageList

    if is_dense(network):
        found: list[dict[str, Tensor]] = network(list(images))
        return found
    pixels = network.transform.normalize(images)
    levels, sizes = network.backbone(pixels), [tuple(pixels.shape[-2:])] * len(pixels)
    proposals, _ = network.rpn(ImageList(pixels, sizes), levels)
    found = []
    for index, regions in enumerate(proposals):
        alone = {name: level[index : index + 1] for name, level in levels.items()}
        found += network.roi_heads(alone, [regions], sizes[:1])[0]
    return found
