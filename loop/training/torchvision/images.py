"""Training images on the detector's canvas, augmented by torchvision.transforms.v2."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from actors.letterbox import GREY, Letterbox
from actors.records import Annotation
from loop.training.batches import Labels
from loop.training.image_cache import Pictures
from loop.training.torchvision.settings import Settings

COLOR_TO_HUE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A worker's images of one step."""

    images: Tensor  # [n, 3, S, S] uint8 RGB
    annotations: Sequence[Annotation]  # boxes in px of the canvas
    synthetic: Sequence[bool]

    def pin_memory(self) -> "Batch":
        """The batch with its images in pinned memory, for the data loader."""
        return Batch(images=self.images.pin_memory(), annotations=self.annotations, synthetic=self.synthetic)


def collate(samples: Sequence[Labels]) -> Batch:
    """The samples as a batch."""
    return Batch(
        images=torch.stack([sample["image"] for sample in samples]),
        annotations=[sample["annotation"] for sample in samples],
        synthetic=[sample["synthetic"] for sample in samples],
    )


class Images:
    """One kind of training images, augmented by torch's global random numbers.

    Boxes flagged ignore go along and stay flagged.
    """

    def __init__(self, pictures: Pictures, settings: Settings) -> None:
        self.pictures = pictures
        self.color, self.geometry = color_transform(settings), geometry_transform(settings, pictures.size_px)

    def __getitem__(self, index: int) -> Labels:
        known, pixels = self.pictures.records[index], self.pictures.load(index)
        height, width = pixels.shape[:2]
        place = Letterbox.fit((height, width), self.pictures.size_px, self.pictures.size_px)
        picture = torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1])).permute(2, 0, 1)
        scale = np.array([width / known.width, height / known.height] * 2, np.float32)
        offset = np.array(place.offset[::-1] * 2, np.float32)
        moved = self.geometry(
            {
                "image": tv_tensors.Image(on_canvas(self.color(picture), place)),
                "boxes": tv_tensors.BoundingBoxes(
                    torch.from_numpy(known.annotation.boxes * scale + offset), format="XYXY", canvas_size=place.canvas
                ),
                "labels": torch.tensor(known.annotation.labels),
                "ignore": torch.tensor(known.annotation.ignore),
            }
        )
        boxes, labels, ignore = (moved[name].numpy() for name in ("boxes", "labels", "ignore"))
        return {"image": moved["image"], "annotation": Annotation(boxes=boxes, labels=labels, ignore=ignore)}


def on_canvas(picture: Tensor, place: Letterbox) -> Tensor:
    """A picture ``[3, h, w]`` on a grey canvas ``[3, S, S]``, where detection puts it."""
    (top, left), (height, width) = place.offset, place.inner
    canvas = torch.full((*place.canvas, 3), GREY, dtype=torch.uint8).permute(2, 0, 1)
    canvas[:, top : top + height, left : left + width] = picture
    return canvas


def color_transform(settings: Settings) -> v2.Transform:
    """Random changes of the colours."""
    share = settings.color
    return v2.ColorJitter(share, share, share, share * COLOR_TO_HUE)


def geometry_transform(settings: Settings, size_px: int) -> v2.Transform:
    """Random changes of size, place and direction on a canvas ``[3, size_px, size_px]``, of image and boxes."""
    canvas, scales = (size_px, size_px), (1 - settings.scale, 1 + settings.scale)
    moves = [v2.ScaleJitter(canvas, scales), v2.RandomCrop(canvas, pad_if_needed=True, fill=GREY)]
    return v2.Compose(
        [
            *(moves if settings.scale else []),
            v2.RandomHorizontalFlip(settings.flip),
            v2.RandomVerticalFlip(settings.flip_vertical),
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(labels_getter=_per_box),
        ]
    )


def _per_box(sample: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return sample["labels"], sample["ignore"]
