"""The four mirrorings of a picture, in which the refiner is fitted and asked. They are ours, not SSD-Det's.

A network that learns positions from a few hundred inaccurate boxes comes out a few pixels off, in one direction for all
objects. In a mirrored picture it is off in the opposite direction, so the mean over the four is not.
"""

import numpy as np

from actors.boxes import Boxes
from actors.images import Pixels
from actors.letterbox import GREY, Letterbox

Mirror = tuple[bool, bool]
"""Whether left and right change places, and top and bottom."""

MIRRORS: tuple[Mirror, ...] = ((False, False), (False, True), (True, False), (True, True))


def mirrored_pixels(pixels: Pixels, mirror: Mirror) -> Pixels:
    """A mirrored picture ``[H, W, 3]``."""
    horizontal, vertical = mirror
    return np.ascontiguousarray(pixels[:: -1 if vertical else 1, :: -1 if horizontal else 1])


def mirrored_canvas(pixels: Pixels, place: Letterbox, mirror: Mirror) -> Pixels:
    """A mirrored picture at its place on a grey canvas ``[h, w, 3]``."""
    canvas = np.full((*place.canvas, 3), GREY, np.uint8)
    place.draw(mirrored_pixels(pixels, mirror), canvas)
    return canvas


def mirrored_boxes(boxes: Boxes, size: tuple[int, int], mirror: Mirror) -> Boxes:
    """Boxes ``[n, 4]`` in a mirrored picture of ``size`` (height, width) px; applied twice, they are as before."""
    (left, top, right, bottom), (height, width) = boxes.T, size
    horizontal, vertical = mirror
    if horizontal:
        left, right = width - right, width - left
    if vertical:
        top, bottom = height - bottom, height - top
    return np.stack([left, top, right, bottom], axis=1)
