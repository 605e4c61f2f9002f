"""Pictures with boxes drawn on them. Boxes are visible on any background, and small ones are magnified."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from actors.images import Pixels

Colour = tuple[int, int, int]
Place = tuple[float, ...]  # xyxy px on the sheet

WHITE: Colour = (255, 255, 255)
FRAME: Colour = (205, 209, 214)
SMALL_PX = 40  # a focus shorter than this on the sheet is magnified
INSET_SHARE = 0.36  # of the picture's shorter side
INSET_CONTEXT = 2.4  # the magnifier shows this multiple of the box's longer side ...
MIN_REACH_PX = 24  # ... and at least this part of the picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mark:
    """A box to draw."""

    box: NDArray[np.float32]  # [4] xyxy px of the picture
    colour: Colour
    bold: bool = True
    label: str = ""


@lru_cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and covers most alphabets."""
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / name, size)


def marked(pixels: Pixels, marks: Sequence[Mark], side: int, focus: Mark | None = None) -> Image.Image:
    """The picture ``[H, W, 3]`` with its marks, its longer side ``side`` px, and a magnifier if the focus is small."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = (round(width * scale), round(height * scale))
    picture = outlined(pixels, marks, np.array([0, 0, width, height], np.float32), size)
    on_sheet = [replace(mark, box=mark.box * scale) for mark in marks]
    taken: list[Place] = []
    if focus is not None and (focus.box[2:] - focus.box[:2]).max() * scale < SMALL_PX:
        taken = [_magnify(picture, pixels, marks, focus, on_sheet)]
    drawing = ImageDraw.Draw(picture)
    for mark in on_sheet:
        if mark.label:
            taken.append(_label(drawing, mark, size, taken))
    drawing.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=FRAME)
    return picture


def outlined(pixels: Pixels, marks: Sequence[Mark], window: NDArray[np.float32], size: tuple[int, int]) -> Image.Image:
    """The ``window`` ``[4]`` xyxy px of a picture, resized to ``size``, with boxes but no labels; bold ones on top."""
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, box=tuple(window.tolist()))
    drawing = ImageDraw.Draw(picture)
    scale = size[0] / (window[2] - window[0])
    for mark in sorted(marks, key=lambda mark: mark.bold):
        _outline(drawing, (mark.box - np.tile(window[:2], 2)) * scale, mark)
    return picture


def _outline(drawing: ImageDraw.ImageDraw, box: NDArray[np.float32], mark: Mark) -> None:
    """Draw a coloured line. A bold one has a light rim, so that it is visible on dark and on bright pictures."""
    left, top, right, bottom = (round(value) for value in box.tolist())
    right, bottom = max(right, left + 2), max(bottom, top + 2)
    if mark.bold:
        drawing.rectangle((left - 2, top - 2, right + 2, bottom + 2), outline=WHITE)
        drawing.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=mark.colour, width=2)
    else:
        drawing.rectangle((left, top, right, bottom), outline=mark.colour)


def _label(drawing: ImageDraw.ImageDraw, mark: Mark, size: tuple[int, int], taken: Sequence[Place]) -> Place:
    """Write the mark's label above its box, or below it where it overlaps no other. Returns its place."""
    lettering, box = font(12), mark.box.tolist()
    width, height = drawing.textlength(mark.label, lettering) + 7, 16
    left = min(max(box[0] - 1, 0), size[0] - width)
    tops = [
        box[1] - height - 2,
        *(box[3] + 3 + height * step for step in range(6)),
        min(max(box[1], 0), size[1] - height),
    ]
    places = [(left, top, left + width, top + height) for top in tops if 0 <= top <= size[1] - height]
    place = next((place for place in places if not any(_overlap(place, one) for one in taken)), places[0])
    drawing.rectangle(place, fill=mark.colour)
    drawing.text((place[0] + 4, place[1] + 8), mark.label, WHITE, lettering, anchor="lm")
    return place


def _overlap(first: Place, second: Place) -> bool:
    apart = first[2] <= second[0] or second[2] <= first[0] or first[3] <= second[1] or second[3] <= first[1]
    return not apart


def _magnify(
    picture: Image.Image, pixels: Pixels, marks: Sequence[Mark], focus: Mark, on_sheet: Sequence[Mark]
) -> Place:
    """Paste the enlarged surroundings of the focus into the corner where they hide least. Returns their place."""
    height, width = pixels.shape[:2]
    side = round(min(picture.size) * INSET_SHARE)
    box_side = float((focus.box[2:] - focus.box[:2]).max())
    reach = min(max(box_side * INSET_CONTEXT, MIN_REACH_PX), width, height)
    start = np.clip((focus.box[:2] + focus.box[2:] - reach) / 2, 0, np.array([width, height]) - reach)
    window = np.concatenate([start, start + reach]).astype(np.float32)
    inset = outlined(pixels, marks, window, (side, side))
    place = _calm_corner(picture.size, side, on_sheet)
    picture.paste(inset, (round(place[0]), round(place[1])))
    drawing = ImageDraw.Draw(picture)
    drawing.rectangle((place[0] - 1, place[1] - 1, place[2], place[3]), outline=WHITE, width=3)
    drawing.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), outline=focus.colour)
    return place


def _calm_corner(size: tuple[int, int], side: int, marks: Sequence[Mark]) -> Place:
    """The corner of ``side`` px that covers the fewest boxes, bold ones counting most."""
    corners = [(left, top, left + side, top + side) for top in (size[1] - side, 0) for left in (size[0] - side, 0)]

    def hidden(corner: Place) -> int:
        return sum(10 if mark.bold else 1 for mark in marks if _overlap(corner, tuple(mark.box.tolist())))

    return min(corners, key=hidden)
