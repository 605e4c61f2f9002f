"""Training pictures by their URIs, resized once and kept in memory up to a limit."""

import math
from collections.abc import Sequence

import numpy as np

from actors import images
from actors.images import Pixels
from actors.records import LabeledImage, Sample

Record = LabeledImage | Sample

PICTURES_BYTES = 2 << 30  # of decoded pictures that a training process and its loaders keep in memory


class Pictures:
    """Reads the pictures of ``records``; what fits into ``limit_bytes`` is read once."""

    def __init__(self, records: Sequence[Record], size_px: int, limit_bytes: int) -> None:
        self.records, self.size_px = records, size_px
        self._kept: dict[tuple[int, bool], Pixels] = {}
        self._room_bytes = limit_bytes

    def load(self, index: int, *, stretch: bool = False) -> Pixels:
        """Pixels ``[h, w, 3]`` uint8 BGR, read-only: the longer side is ``size_px``, or both are where stretched.

        Raises FileNotFoundError or ValueError, naming the URI.
        """
        key = (index, stretch)
        if key in self._kept:
            return self._kept[key]
        pixels = self._resized(self.records[index], stretch=stretch)
        pixels.setflags(write=False)
        if pixels.nbytes <= self._room_bytes:
            self._room_bytes -= pixels.nbytes
            self._kept[key] = pixels
        return pixels

    def _resized(self, record: Record, *, stretch: bool) -> Pixels:
        import cv2

        pixels = images.read(record.uri)[..., ::-1]
        height, width = pixels.shape[:2]
        if (width, height) != (record.width, record.height):
            recorded = f"{record.width}x{record.height}"
            raise ValueError(f"{record.uri}: {width}x{height} px, recorded as {recorded}; import the data set again")
        ratio = self.size_px / max(height, width)
        size = (min(math.ceil(width * ratio), self.size_px), min(math.ceil(height * ratio), self.size_px))
        size = (self.size_px, self.size_px) if stretch else size
        if size == (width, height):
            return np.ascontiguousarray(pixels)
        resized = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, dtype=np.uint8)
