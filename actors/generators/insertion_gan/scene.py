"""Scenes: an object in a picture, there or to be inserted; its window for the GAN, its view for the detector."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.generators.base import one_box
from actors.generators.cutouts.window import Frame, Mask, feathered, frame, hole
from actors.generators.insertion_gan.config import InsertionGANSettings
from actors.images import Pixels
from actors.letterbox import GREY
from actors.records import Annotation

_LEAST_VISIBLE = 0.5  # of a box in a view; a box with less is ignored there
_SHIFT = 0.125  # of a window's side: largest shift of a window from its object, in the fit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """An object in a picture."""

    pixels: Pixels  # [H, W, 3]
    others: Annotation  # the picture's other boxes
    box: geometry.Boxes  # [4] of the object, px of the picture
    label: int
    frame: Frame  # of the window

    @property
    def annotation(self) -> Annotation:
        """All boxes of the picture, the object's last."""
        return self.others.join(one_box(self.box, np.int64(self.label)))


def mask_in_picture(
    settings: InsertionGANSettings, shape: tuple[int, int], box: geometry.Boxes, others: geometry.Boxes
) -> Mask:
    """Mask ``[H, W]`` of the pixels to draw for the object in ``box`` ``[4]``; ``others`` ``[n, 4]`` keep theirs."""
    mask = hole(shape, box, settings.margin, others)
    if settings.mask == "ellipse":
        radii = (0.5 + settings.margin) * np.maximum(box[2:] - box[:2], 1.0)
        (x, y), (height, width) = (box[:2] + box[2:]) / 2, shape
        across = ((np.arange(width) + 0.5 - x) / radii[0]) ** 2
        down = ((np.arange(height) + 0.5 - y) / radii[1]) ** 2
        mask &= down[:, None] + across[None, :] <= 1.0
    return mask


def window_mask(settings: InsertionGANSettings, scene: Scene) -> NDArray[np.float32]:
    """The weights ``[S, S]`` of drawn pixels in a scene's window."""
    size_px = settings.size_px
    whole = mask_in_picture(settings, _shape(scene.pixels), scene.box, scene.others.boxes)
    return feathered(scene.frame.cut_mask(whole, size_px, share=0.5), settings.feather_px * size_px / scene.frame.side)


def window_frame(settings: InsertionGANSettings, box: geometry.Boxes, rng: np.random.Generator | None = None) -> Frame:
    """The window of an object in ``box`` ``[4]``; with ``rng`` shifted at random, as far as the mask stays inside."""
    place = frame(box, settings.context, settings.size_px)
    if rng is None:
        return place
    slack = (place.side - (1 + 2 * settings.margin) * float((box[2:] - box[:2]).max())) / 2
    most = int(max(min(slack, _SHIFT * place.side), 0))
    x, y = rng.integers(-most, most + 1, 2)
    return Frame(left=place.left + int(x), top=place.top + int(y), side=place.side)


def turned_picture(
    pixels: Pixels, boxes: geometry.Boxes, quarter_turns: int, *, mirrored: bool
) -> tuple[Pixels, geometry.Boxes]:
    """A picture ``[H, W, 3]`` and its boxes ``[n, 4]``, rotated anticlockwise, then mirrored left to right.

    The pixels are a view of the given ones.
    """
    for _ in range(quarter_turns):  # (x, y) goes to (y, W - x)
        width = pixels.shape[1]
        pixels = np.rot90(pixels)
        boxes = np.stack([boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]], axis=1)
    if mirrored:
        width, pixels = pixels.shape[1], pixels[:, ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    return pixels, boxes


def view_frame(pixels: Pixels, box: geometry.Boxes, image_size_px: int, view_px: int) -> Frame:
    """The square view around ``box`` ``[4]`` that is ``view_px`` wide where the picture is ``image_size_px`` long.

    It lies inside the picture as far as there is room; see ``cut_view`` for where there is none.
    """
    sides = np.array(pixels.shape[1::-1])
    side = round(min(view_px / image_size_px, 1.0) * int(sides.max()))
    corner = np.clip(np.round((box[:2] + box[2:] - side) / 2), 0, np.maximum(sides - side, 0)).astype(int)
    return Frame(left=int(corner[0]), top=int(corner[1]), side=side)


def cut_view(pixels: Pixels, place: Frame) -> Pixels:
    """The view ``[side, side, 3]`` of a picture, grey beyond its right and lower borders."""
    view = np.full((place.side, place.side, 3), GREY, np.uint8)
    part = pixels[place.top : place.top + place.side, place.left : place.left + place.side]
    view[: part.shape[0], : part.shape[1]] = part
    return view


def view_annotation(annotation: Annotation, place: Frame, view_px: int) -> Annotation:
    """The boxes in a view, in px of the view at ``view_px``; those of which little is visible are flagged ignore."""
    boxes = place.to_window(annotation.boxes, view_px)
    inside = geometry.clip(boxes, view_px, view_px)
    visible = geometry.areas(inside) / np.maximum(geometry.areas(boxes), 1e-6)
    ignore = annotation.ignore | (visible < _LEAST_VISIBLE)
    return Annotation(boxes=inside, labels=annotation.labels, ignore=ignore).take(visible > 0)


def _shape(pixels: Pixels) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]
