"""Windows: square parts of an image around a box, cut out for a painter and pasted back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.images import Pixels

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The position of a window in its image: a square of whole pixels, which may extend beyond the image."""

    left: int  # px
    top: int  # px
    side: int  # px

    def cut(self, pixels: Pixels, size_px: int) -> Pixels:
        """The window ``[size_px, size_px, 3]`` of an image ``[H, W, 3]``, mirrored at the image's borders."""
        import cv2

        height, width = pixels.shape[:2]
        rows = _mirrored(np.arange(self.top, self.top + self.side), height)
        columns = _mirrored(np.arange(self.left, self.left + self.side), width)
        window = pixels[rows[:, None], columns[None, :]]
        method = cv2.INTER_AREA if size_px < self.side else cv2.INTER_CUBIC
        resized = window if size_px == self.side else cv2.resize(window, (size_px, size_px), interpolation=method)
        return np.asarray(resized, dtype=np.uint8)

    def cut_mask(self, mask: Mask, size_px: int, share: float = 0.0) -> Mask:
        """The window ``[size_px, size_px]`` of a mask ``[H, W]``; false outside the image.

        A pixel is true if more than ``share`` of the mask's pixels in it are true; by default, if any is.
        """
        import cv2

        window = np.zeros((self.side, self.side), np.float32)
        inside, target = self._inside(mask.shape[0], mask.shape[1])
        window[target] = mask[inside]
        method = cv2.INTER_AREA if size_px < self.side else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(window, (size_px, size_px), interpolation=method) > share)

    def to_window(self, boxes: geometry.Boxes, size_px: int) -> geometry.Boxes:
        """Boxes ``[..., 4]`` of the image in px of the window."""
        corner = np.array([self.left, self.top] * 2, np.float32)
        return np.asarray((boxes - corner) * np.float32(size_px / self.side), dtype=np.float32)

    def paste(self, canvas: Pixels, painted: Pixels, alpha: NDArray[np.float32]) -> None:
        """Blend a painted window ``[S, S, 3]`` into the image ``[H, W, 3]`` by ``alpha`` ``[H, W]``, in place.

        Pixels with alpha 0 do not change.
        """
        inside, source = self._inside(canvas.shape[0], canvas.shape[1])
        region, weight = canvas[inside], alpha[inside][..., None]
        mixed = np.rint(region * (1 - weight) + self._resized(painted)[source] * weight)
        region[:] = np.where(weight > 0, np.clip(mixed, 0, 255), region).astype(np.uint8)

    def sharpened(self, painted: Pixels, start: Pixels) -> Pixels:
        """A painted window ``[S, S, 3]`` at the image's resolution, ``[side, side, 3]``.

        The detail that the window lost when it was cut from ``start`` ``[H, W, 3]`` and shrunk is added back.
        """
        whole = self.cut(start, self.side).astype(np.float32)
        lost = whole - self._resized(self.cut(start, len(painted)))
        return np.clip(np.rint(self._resized(painted) + lost), 0, 255).astype(np.uint8)

    def _resized(self, window: Pixels) -> NDArray[np.float32]:
        """A window ``[S, S, 3]`` at the image's resolution, ``[side, side, 3]``."""
        import cv2

        method = cv2.INTER_AREA if self.side < len(window) else cv2.INTER_CUBIC
        resized = cv2.resize(window.astype(np.float32), (self.side, self.side), interpolation=method)
        return np.asarray(resized, dtype=np.float32)

    def _inside(self, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part of the image that the window covers, as slices of the image and of the window."""
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.top + self.side, height), min(self.left + self.side, width)
        return (
            (slice(top, bottom), slice(left, right)),
            (slice(top - self.top, bottom - self.top), slice(left - self.left, right - self.left)),
        )


def frame(box: geometry.Boxes, context: float, least_px: int) -> Frame:
    """The frame centred on a box ``[4]``, ``context`` times its longer side wide.

    It is at least ``least_px`` wide, so that a small object is not enlarged too much for its painter.
    """
    width, height = float(box[2] - box[0]), float(box[3] - box[1])
    side = max(round(context * max(width, height)), least_px)
    left, top = (float(box[i] + box[i + 2]) / 2 - side / 2 for i in (0, 1))
    return Frame(left=round(left), top=round(top), side=side)


def hole(shape: tuple[int, int], box: geometry.Boxes, margin: float, others: geometry.Boxes) -> Mask:
    """Mask ``[H, W]`` to paint: the box ``[4]`` and ``margin`` (share of its sides) around it, without ``others``.

    The neighbours ``others`` ``[n, 4]`` keep their pixels, as they keep their labels.
    """
    pad = margin * (box[2:] - box[:2])
    mask = np.zeros(shape, np.bool_)
    _fill(mask, np.concatenate([box[:2] - pad, box[2:] + pad]), value=True)
    for other in others:
        _fill(mask, other, value=False)
    return mask


def feathered(mask: Mask, width_px: float) -> NDArray[np.float32]:
    """Weights ``[H, W]``: 0 outside the mask, rising from its edge to 1 within ``width_px`` inside it."""
    import cv2

    if width_px <= 0:
        return mask.astype(np.float32)
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.asarray(np.minimum(distance / np.float32(width_px), 1.0), dtype=np.float32)


def _fill(mask: Mask, box: geometry.Boxes, *, value: bool) -> None:
    left, top = np.maximum(np.floor(box[:2]), 0).astype(int)
    right, bottom = np.maximum(np.ceil(box[2:]), 0).astype(int)
    mask[top:bottom, left:right] = value


def _mirrored(positions: NDArray[np.int_], length: int) -> NDArray[np.int_]:
    """Positions reflected into [0, length), without repeating the border pixel."""
    if length == 1:
        return np.zeros_like(positions)
    folded = np.abs(positions) % (2 * length - 2)
    return np.where(folded >= length, 2 * length - 2 - folded, folded)
