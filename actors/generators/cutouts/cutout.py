"""Cutouts: a real instance with the pixels around it, and a mask of the object."""

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from actors.generators.cutouts.outline import Box, Mask, bounds, ellipse_distance, outline, rectangle
from actors.images import Pixels

Turnable = TypeVar("Turnable", Pixels, Mask)
Shape = Literal["object", "box"]

_SEGMENT_PX = 48  # objects are segmented at no more than this size: GrabCut's time grows with the area
_LARGE_SEGMENT_PX = 128  # the same for large objects, whose outlines would be visibly coarse
_LARGE_SHARE = 1 / 3  # of the image's longer side, for the box's longer side: above, an object is large
_LARGE_FADE_PX = 2.0  # widest edge over which a large object fades into the image

BORDER_PX = 2  # a side within this distance of the image's border counts as cut off


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Footprint:
    """The geometry of a cutout, without its pixels."""

    width: int  # px
    height: int  # px
    box: Box  # [4] xyxy px within the cutout
    at_border: Mask  # [3, 3], see ``Cutout``


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cutout:
    """An instance cut from its image, with a margin of its surroundings."""

    pixels: Pixels  # [h, w, 3] RGB
    core: Mask  # [h, w] the object itself
    box: Box  # [4] xyxy px within the cutout
    margin_px: float  # width of the surroundings
    at_border: Mask  # [3, 3], left, top, right, bottom at their positions: sides cut off by the image's border
    opacity: float = 1.0  # weight of the object over the pixels below it
    source: str = ""  # id of its image
    large: bool = False  # in its own image
    outlined: bool = True  # False if the core is an ellipse because no outline was found

    @property
    def width(self) -> int:
        """Width in px."""
        return int(self.core.shape[1])

    @property
    def height(self) -> int:
        """Height in px."""
        return int(self.core.shape[0])

    @property
    def shows_ground(self) -> bool:
        """True for a large object without an outline, whose ellipse visibly holds parts of its old background."""
        return self.large and not self.outlined

    def footprint(self, factor: float = 1.0) -> Footprint:
        """Its geometry, resized by ``factor``."""
        width, height = (max(round(side * factor), min(side, 3)) for side in (self.width, self.height))
        ratio = np.array([width / self.width, height / self.height] * 2, np.float32)
        return Footprint(width=width, height=height, box=self.box * ratio, at_border=self.at_border)

    def core_in_image(self, box: Box, shape: tuple[int, int]) -> Mask:
        """Mask ``[H, W]`` of the object in an image in which it fills ``box`` ``[4]``."""
        found = np.zeros(shape, np.bool_)
        x, y = (int(corner) for corner in np.rint(box[:2] - self.box[:2]))
        found[y : y + self.height, x : x + self.width] = self.core
        return found

    def alpha(self) -> NDArray[np.float32]:
        """Blending weight ``[h, w]``: ``opacity`` on the core, fading to 0 over half the margin.

        A large object fades over a few px: half of its margin would be a halo of its old background.
        """
        import cv2

        squares = cv2.distanceTransform((~self.core).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) ** 2
        distance = np.sqrt(np.rint(squares))  # squares are whole numbers; cv2's last bits vary between calls
        fade_px = min(self.margin_px / 2, _LARGE_FADE_PX) if self.large else self.margin_px / 2
        weight = np.clip(1.0 - distance / (fade_px + 1.0), 0.0, 1.0)
        return np.asarray(weight * self.opacity, dtype=np.float32)


def cut(pixels: Pixels, box: Box, shape: Shape) -> Cutout:
    """The instance in ``box`` ``[4]`` of an image, with a margin of 12 % of its longer side, at least 4 px.

    The core of an ``object`` without an outline is the ellipse in the box.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = _whole_pixels(box, width, height)
    margin = max(4, round(0.12 * max(right - left, bottom - top)))
    x, y = max(left - margin, 0), max(top - margin, 0)
    crop = pixels[y : min(bottom + margin, height), x : min(right + margin, width)].copy()  # frees the image
    inner = np.array([left - x, top - y, right - x, bottom - y])
    large = max(right - left, bottom - top) > _LARGE_SHARE * max(height, width)
    if shape == "box":
        core: Mask | None = rectangle(crop.shape[:2], inner)
    else:
        core = outline(crop, inner, _LARGE_SEGMENT_PX if large else _SEGMENT_PX)
    at_border = np.zeros((3, 3), np.bool_)
    at_border[[1, 0, 1, 2], [0, 1, 2, 1]] = (
        left <= BORDER_PX,
        top <= BORDER_PX,
        right >= width - BORDER_PX,
        bottom >= height - BORDER_PX,
    )
    origin = np.array([x, y, x, y], np.float32)
    return Cutout(
        pixels=crop,
        core=ellipse_distance(crop.shape[:2], inner) < 1.0 if core is None else core,
        box=box - origin,
        margin_px=margin,
        at_border=at_border,
        large=large,
        outlined=core is not None,
    )


def turned(cutout: Cutout, *, flip: bool, quarter_turns: int) -> Cutout:
    """The cutout mirrored left to right if ``flip``, then rotated anticlockwise by ``quarter_turns`` of 90 degrees."""
    box, (width, height) = cutout.box, (cutout.width, cutout.height)
    if flip:
        box = np.array([width - box[2], box[1], width - box[0], box[3]], np.float32)
    for _ in range(quarter_turns):
        box = np.array([box[1], width - box[2], box[3], width - box[0]], np.float32)
        width, height = height, width
    return replace(
        cutout,
        pixels=_turned(cutout.pixels, flip, quarter_turns),
        core=_turned(cutout.core, flip, quarter_turns),
        box=box,
        at_border=_turned(cutout.at_border, flip, quarter_turns),
    )


def rotated(cutout: Cutout, degrees: float) -> Cutout:
    """The cutout rotated anticlockwise by any angle; new corners repeat the border pixels.

    The box keeps the mean margin that the annotator left around the object.
    """
    import cv2

    angle = np.deg2rad(degrees)
    across, down = abs(np.cos(angle)), abs(np.sin(angle))
    width = int(np.ceil(cutout.width * across + cutout.height * down - 1e-6))
    height = int(np.ceil(cutout.width * down + cutout.height * across - 1e-6))
    matrix = cv2.getRotationMatrix2D(((cutout.width - 1) / 2, (cutout.height - 1) / 2), degrees, 1.0)
    matrix[:, 2] += (width - cutout.width) / 2, (height - cutout.height) / 2
    pixels = cv2.warpAffine(cutout.pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    core = cv2.warpAffine(cutout.core.astype(np.uint8) * 255, matrix, (width, height)) > 127
    if not core.any():  # an object of one or two pixels
        return cutout
    left = float(np.mean((bounds(cutout.core) - cutout.box) * np.array([1, 1, -1, -1], np.float32)))
    box = bounds(core) + left * np.array([-1, -1, 1, 1], np.float32)
    return replace(cutout, pixels=pixels, core=core, box=box.astype(np.float32))


def scaled(cutout: Cutout, factor: float) -> Cutout:
    """The cutout resized by ``factor``."""
    import cv2

    footprint = cutout.footprint(factor)
    size = (footprint.width, footprint.height)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    pixels = cv2.resize(cutout.pixels, size, interpolation=method)
    core = cv2.resize(cutout.core.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR) > 127
    return replace(cutout, pixels=pixels, core=core, box=footprint.box, margin_px=cutout.margin_px * factor)


def tight(cutout: Cutout) -> Cutout:
    """A large cutout with the box of its outline, which may lack a part of the object: the box shows what is drawn."""
    return replace(cutout, box=bounds(cutout.core)) if cutout.large and cutout.outlined else cutout


def blurred(cutout: Cutout, sigma_px: float) -> Cutout:
    """The cutout out of focus, by Gaussian blur."""
    import cv2

    return replace(cutout, pixels=cv2.GaussianBlur(cutout.pixels, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE))


def faded(cutout: Cutout, opacity: float) -> Cutout:
    """The cutout with less contrast: the pixels below show through the object."""
    return replace(cutout, opacity=opacity)


def _turned(array: Turnable, flip: bool, quarter_turns: int) -> Turnable:
    return np.ascontiguousarray(np.rot90(array[:, ::-1] if flip else array, quarter_turns)).astype(
        array.dtype, copy=False
    )


def _whole_pixels(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The box's corners as pixel positions within the image, at least one pixel apart."""
    left, top = min(max(round(float(box[0])), 0), width - 1), min(max(round(float(box[1])), 0), height - 1)
    right, bottom = min(round(float(box[2])), width), min(round(float(box[3])), height)
    return left, top, max(right, left + 1), max(bottom, top + 1)
