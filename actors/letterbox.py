"""Pictures on the canvas that a detector takes, their boxes back in their own pixels, and their batches."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from actors import boxes as geometry
from actors.images import Pixels

if TYPE_CHECKING:
    import torch
    from torch import Tensor

GREY = 114  # YOLO's padding, in training as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterbox:
    """A picture of ``source`` px, resized to ``inner`` px, at ``offset`` px on a canvas of ``canvas`` px."""

    source: tuple[int, int]  # height, width
    canvas: tuple[int, int]  # height, width
    inner: tuple[int, int]  # height, width
    offset: tuple[int, int]  # top, left

    @classmethod
    def fit(cls, source: tuple[int, int], size_px: int, stride_px: int) -> "Letterbox":
        """The longer side becomes ``size_px``; the shorter is padded evenly to the next multiple of ``stride_px``.

        It depends on this picture alone, not on its batch. Rounding is that of YOLO's training, so that a picture lies
        where it lies there. ``size_px`` is a multiple of ``stride_px``.
        """
        ratio = size_px / max(source)
        height, width = (max(round(side * ratio), 1) for side in source)
        bottom, right = ((size_px - side) % stride_px for side in (height, width))
        offset = round(bottom / 2 - 0.1), round(right / 2 - 0.1)
        return cls(source=source, canvas=(height + bottom, width + right), inner=(height, width), offset=offset)

    @classmethod
    def stretch(cls, source: tuple[int, int], size_px: int) -> "Letterbox":
        """A square of ``size_px`` filled whole, whatever the picture's shape."""
        side = (size_px, size_px)
        return cls(source=source, canvas=side, inner=side, offset=(0, 0))

    def draw(self, pixels: Pixels, canvas: Pixels) -> None:
        """Put ``pixels`` on a grey ``canvas``, in place."""
        import cv2

        (top, left), (height, width) = self.offset, self.inner
        if self.source != self.inner:
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        canvas[top : top + height, left : left + width] = pixels

    def to_canvas(self, boxes: geometry.Boxes) -> geometry.Boxes:
        """Boxes ``[n, 4]`` in px of the picture, as px of the canvas."""
        height, width = self.source
        scale = np.array([self.inner[1] / width, self.inner[0] / height] * 2, np.float32)
        return np.asarray(boxes * scale + np.array(self.offset[::-1] * 2, np.float32), np.float32)

    @property
    def bounds(self) -> geometry.Boxes:
        """The part of the canvas that the picture fills: ``[4]`` xyxy px."""
        (top, left), (height, width) = self.offset, self.inner
        return np.array([left, top, left + width, top + height], np.float32)

    def to_source(self, boxes: geometry.Boxes) -> geometry.Boxes:
        """Boxes ``[n, 4]`` in px of the canvas, as px of the picture, cut at its borders."""
        height, width = self.source
        scale = np.array([width / self.inner[1], height / self.inner[0]] * 2, np.float32)
        offset = np.array(self.offset[::-1] * 2, np.float32)
        return geometry.clip((boxes - offset) * scale, width, height)


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """The number of pictures that a device takes at once, which depends on the canvas and on nothing else.

    Libraries choose an algorithm by the shape of the whole batch, so the last bits of a picture's output depend on how
    many pictures go with it (measured with oneDNN: 1 to 8 against 16). For convolutions they do not depend on its
    place in the batch or on its neighbours' pixels. Hence batches are full, the last one with blank canvases: hand
    over many pictures at once where their shapes differ.
    """

    max_images: int
    max_px: int  # of all canvases together

    def size(self, canvas: tuple[int, int]) -> int:
        """Pictures in a batch of ``canvas`` (height, width) px: a power of two, as callers' batches are."""
        fitting = max(1, min(self.max_images, self.max_px // (canvas[0] * canvas[1])))
        return 1 << (int(fitting).bit_length() - 1)

    def batches(self, images: Sequence[Pixels], places: Sequence[Letterbox]) -> Iterator[tuple[list[int], Pixels]]:
        """Positions in ``images``, and their canvases ``[m, H, W, 3]`` with blank ones after them up to the fixed m."""
        groups = defaultdict(list)
        for index, place in enumerate(places):
            groups[place.canvas].append(index)
        for canvas, indices in groups.items():
            size = self.size(canvas)
            for start in range(0, len(indices), size):
                part = indices[start : start + size]
                batch = np.full((size, *canvas, 3), GREY, np.uint8)
                for row, index in zip(batch, part, strict=False):
                    places[index].draw(images[index], row)
                yield part, batch


CPU_BATCH = MicroBatch(max_images=8, max_px=640 * 640)
GPU_BATCH = MicroBatch(max_images=16, max_px=16 * 640 * 640)


def picture_size(pixels: Pixels) -> tuple[int, int]:
    """Height and width of a picture in px. Raises ValueError unless it is ``[H, W, 3]`` uint8."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"an image must be [H, W, 3] uint8 RGB, not {pixels.shape} {pixels.dtype}")
    height, width, _ = pixels.shape
    return height, width


def to_tensor(canvases: Pixels, device: "str | torch.device" = "cpu") -> "Tensor":
    """Canvases ``[m, H, W, 3]`` uint8 as ``[m, 3, H, W]`` float32 in [0, 1], channels last in memory."""
    import torch

    return torch.from_numpy(canvases).to(device).permute(0, 3, 1, 2).float().div_(255)
