"""Ultralytics models as detectors: detections and features.

A YOLO with two heads (YOLO26, YOLOv10) detects through its one-to-many head, with suppression, like every other YOLO.
That is ultralytics' default, it is the head that the body learns from, and it gives ``nms_iou`` one meaning. RT-DETR
needs no suppression and ignores ``nms_iou``.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from actors.checkpoint import Checkpoint
from actors.detectors.suppression import strongest, suppress
from actors.detectors.ultralytics.config import UltralyticsSettings
from actors.detectors.ultralytics.onednn import pack_convolutions
from actors.detectors.ultralytics.weights import Model, is_detr, stride_px
from actors.images import Pixels
from actors.letterbox import CPU_BATCH, GPU_BATCH, Letterbox, MicroBatch, picture_size, to_tensor
from actors.precision import reproducible
from actors.records import Detections

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

ALONE = MicroBatch(max_images=1, max_px=1)  # in a transformer's products of matrices the place in the batch does count


class UltralyticsDetector:
    """A trained model on one device; see ``actors.detectors.base.Detector``.

    A class is reported once a place: the best of a YOLO's location. Suppression is within a class.
    """

    def __init__(self, config: UltralyticsSettings, checkpoint: Checkpoint, device: str | None = None) -> None:
        import torch

        self.config, self.checkpoint = config, checkpoint
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model: Model
        model, self.classes = config.load_checkpoint(checkpoint)
        model.eval().requires_grad_(False).to(self.device)
        self._stride_px, self._is_detr = stride_px(model), is_detr(model)
        self._micro_batch = self._choose_batch()
        model.end2end = False  # see the top of this file
        self._fused = model.fuse(verbose=False).to(memory_format=torch.channels_last)
        self._fused.model[-1].xyxy = True
        if self.device.type == "cpu":
            pack_convolutions(self._fused)
            attend_one_by_one(self._fused)

    def _choose_batch(self) -> MicroBatch:
        if self.device.type != "cpu":
            return GPU_BATCH
        return ALONE if self._is_detr else CPU_BATCH

    def detect(self, images: Sequence[Pixels]) -> list[Detections]:
        """The detections in each image ``[H, W, 3]`` uint8 RGB, boxes in its own px, by falling score."""
        found = {}
        places = [self._place(pixels) for pixels in images]
        with reproducible():
            for part, batch in self._micro_batch.batches(images, places):
                candidates = self._candidates(self._fused(to_tensor(batch, self.device))[0], places[part[0]].canvas)
                for index, boxes, scores, labels in zip(part, *candidates, strict=False):
                    found[index] = self._detections(boxes, scores, labels, places[index])
        return [found[index] for index in range(len(images))]

    def features(self, images: Sequence[Pixels]) -> "Tensor":
        """Embeddings ``[n, d]`` float32 on the CPU: the head's deepest input, averaged over the canvas."""
        import torch

        rows: dict[int, Tensor] = {}
        deepest = [self._fused.model[-1].f[-1]]
        with reproducible():
            for part, batch in self._micro_batch.batches(images, [self._place(pixels) for pixels in images]):
                rows.update(zip(part, self._fused.predict(to_tensor(batch, self.device), embed=deepest), strict=False))
            return torch.stack([rows[index] for index in range(len(images))]).cpu() if rows else torch.empty(0, 0)

    def _place(self, pixels: Pixels) -> Letterbox:
        source, size_px = picture_size(pixels), self.config.image_size_px
        if self._is_detr:  # trained on stretched pictures, so shown stretched pictures
            return Letterbox.stretch(source, size_px)
        return Letterbox.fit(source, size_px, self._stride_px)

    def _candidates(self, output: "Tensor", canvas: tuple[int, int]) -> tuple["Tensor", "Tensor", "Tensor"]:
        """Boxes ``[m, k, 4]`` xyxy in px of the canvas, scores ``[m, k]`` and labels ``[m, k]`` of a raw output."""
        import torch

        if not self._is_detr:
            scores, labels = output[:, 4:].max(dim=1)
            return output[:, :4].transpose(1, 2), scores, labels
        middle, size = output[..., :2], output[..., 2:4]
        sides = output.new_tensor([canvas[1], canvas[0]]).repeat(2)
        boxes = torch.cat([middle - size / 2, middle + size / 2], dim=-1) * sides
        return boxes, output[..., 4], output[..., 5].long()

    def _detections(self, boxes: "Tensor", scores: "Tensor", labels: "Tensor", place: Letterbox) -> Detections:
        kept = scores >= self.config.min_score
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        if not self._is_detr:
            kept = suppress(boxes, scores, labels, self.config.nms_iou)
            boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        in_source = place.to_source(boxes.cpu().numpy())
        return strongest(in_source, scores.cpu().numpy(), labels.cpu().numpy(), self.config.max_detections)


def attend_one_by_one(model: Model) -> None:
    """Let attention take one image at a time: in batched products of matrices the place counts, on some processors."""
    import torch
    from ultralytics.nn.modules.block import AAttn, Attention

    def alone(forward: "Callable[[Tensor], Tensor]", images: "Tensor") -> "Tensor":
        return torch.cat([forward(image) for image in torch.split(images, 1)])

    for module in model.modules():
        if isinstance(module, Attention | AAttn):
            module.forward = partial(alone, module.forward)
