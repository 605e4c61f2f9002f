"""Examples: real instances to start from (SDEdit, arXiv 2108.01073), as hard as is told (DetDiffusion, 2403.13304).

One is set into the hole; a painter whose ``strength`` is below 1 takes it back towards noise, varies it and makes it
fit in.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.generators.cutouts.cutout import BORDER_PX, Cutout, Shape, cut, turned
from actors.generators.cutouts.window import Mask, hole
from actors.generators.inpaint.clearing import CUT_SHARE, Floats, Ground, Part, ground, light, meet
from actors.images import Pixels, read
from actors.records import Attributes, Difficulty, LabeledImage
from actors.seeds import derive_seed

Key = tuple[str, int]  # of an instance: its image's id, and its position there
Kind = tuple[int, Difficulty | None]  # a class, and how hard the detector found it; None where that does not count

_LEAST_FREE = 0.85  # of a box must be its own: what neighbours cover is theirs, and stays
_MAX_SHIFT = 20.0  # grey levels
_LIKE = 1.5  # an example's sides and shape may differ from the box's by this factor
_NUM_BOXES = 12  # whole boxes tried as an example
_NUM_TOLD = 4  # outlines tried where all are hard: one that could not be found brings the ground it lies on along
_LANES = 16  # numbers that a processor's vector holds at most: cv2 rounds those of a row that fill no vector otherwise


class Instances:
    """The instances of real images: which are whole, what they look like, and what is to be there without them."""

    def __init__(
        self,
        real: Sequence[LabeledImage],
        shape: Shape,
        margin: float,
        attributes: Attributes | None,
        *,
        flip: bool,
        rotate: bool,
    ) -> None:
        """They are cut out as ``shape`` says, and taken away with ``margin`` (share of a box's sides) at most.

        Examples may be mirrored (``flip``) and turned by quarters (``rotate``). Where there are ``attributes``, an
        easy one is no example for a hard one.
        """
        self.images = {image.id: image for image in real}
        self.whole = {image.id: whole(image) for image in real}
        self.attributes = attributes
        self.by_kind = by_kind(real, self.whole, attributes)
        self.shape, self.margin, self.flip, self.rotate = shape, margin, flip, rotate
        self.read = lru_cache(maxsize=64)(read)
        self.cut = lru_cache(maxsize=1024)(self._cut)
        self.ground = lru_cache(maxsize=1024)(self._ground)

    def _cut(self, image_id: str, index: int) -> Cutout:
        image = self.images[image_id]
        return cut(self.read(image.uri), image.annotation.boxes[index], self.shape)

    def _ground(self, image_id: str, index: int) -> Ground | None:
        image, chance = self.images[image_id], np.random.default_rng(derive_seed("ground", image_id, index))
        pixels, boxes = self.read(image.uri), image.annotation.boxes
        free = hole(pixels.shape[:2], boxes[index], self.margin, np.delete(boxes, index, axis=0))
        there = silhouette(self.cut(image_id, index), boxes[index], pixels.shape[:2])
        return ground(pixels, free & there, boxes, chance)

    def itself_or_alike(self, canvas: Pixels, key: Key, told: Difficulty, rng: np.random.Generator) -> Cutout:
        """The instance if it is whole and, where that counts, as hard as ``told``; else one alike."""
        image_id, index = key
        as_told = self.attributes is None or self.attributes[image_id][index] is told
        return self.cut(*key) if as_told and self.whole[image_id][index] else self.alike(canvas, key, told, rng)

    def alike(self, canvas: Pixels, key: Key, told: Difficulty, rng: np.random.Generator) -> Cutout:
        """A whole instance of the same class, of about the same size and shape; the instance itself where none is.

        One that comes with its whole box, or is told how hard to be, is the best of a few: its surroundings are to be
        those of the box.
        """
        annotation, index = self.images[key[0]].annotation, key[1]
        box, label = annotation.boxes[index], int(annotation.labels[index])
        names, boxes = self.by_kind.get((label, told if self.attributes else None), ([], geometry.empty()))
        found = alike(box, boxes, turn=self.rotate)
        tries = _NUM_BOXES if self.shape == "box" else _NUM_TOLD if self.attributes else 1
        drawn = []
        for _ in range(tries):
            cutout = self.cut(*(names[found[int(rng.integers(len(found)))]] if found else key))
            turns = quarter_turns(box, cutout.box, rng) if self.rotate else 0
            drawn.append(turned(cutout, flip=bool(rng.integers(2)) and self.flip, quarter_turns=turns))
        return drawn[0] if tries == 1 else min(drawn, key=lambda one: seam(canvas, one, box))


def check_known(attributes: Attributes, images: Sequence[LabeledImage]) -> None:
    """Raise ValueError where a painter's ``attributes`` do not say how hard an image's instances were found."""
    if unknown := [image.id for image in images if image.id not in attributes]:
        raise ValueError(
            f"the painter does not know how hard the instances of {unknown[0]!r} were found: an earlier detloop has "
            "fitted it; remove it from fits/ below the root, and it is fitted anew"
        )


def whole(image: LabeledImage) -> Mask:
    """Which instances ``[n]`` are whole: neither cut off by the image's border nor mixed up with a neighbour."""
    boxes = image.annotation.boxes
    limits = np.array([image.width, image.height], np.float32) - BORDER_PX
    inside = (boxes[:, :2] >= BORDER_PX).all(axis=1) & (boxes[:, 2:] <= limits).all(axis=1)
    shared = geometry.intersections(boxes, boxes)
    np.fill_diagonal(shared, 0.0)
    free = shared.sum(axis=1) <= (1 - _LEAST_FREE) * geometry.areas(boxes)
    return np.asarray(inside & free & ~image.annotation.ignore)


def is_free(mask: Mask, box: geometry.Boxes) -> bool:
    """Whether enough of a box ``[4]`` is its own to be painted, whose hole in the image is ``mask`` ``[H, W]``."""
    left, top, right, bottom = np.maximum(np.rint(box), 0).astype(int)
    free = mask[top:bottom, left:right]
    return bool(free.size and free.mean() >= _LEAST_FREE)


def by_kind(
    images: Sequence[LabeledImage], is_whole: Mapping[str, Mask], attributes: Attributes | None
) -> dict[Kind, tuple[list[Key], geometry.Boxes]]:
    """Every whole instance, and its box ``[n, 4]``, by kind."""
    found: dict[Kind, list[Key]] = {}
    for image in images:
        for index in map(int, np.flatnonzero(is_whole[image.id])):
            kind = int(image.annotation.labels[index]), attributes[image.id][index] if attributes else None
            found.setdefault(kind, []).append((image.id, index))
    boxes = {image.id: image.annotation.boxes for image in images}
    return {kind: (names, np.stack([boxes[name][index] for name, index in names])) for kind, names in found.items()}


def alike(box: geometry.Boxes, others: geometry.Boxes, *, turn: bool) -> Sequence[int]:
    """Which of the boxes ``[n, 4]`` are of about the size and shape of ``box`` ``[4]``, where allowed after a turn."""
    size = np.log(np.maximum(box[2:] - box[:2], 1.0))
    sizes = np.log(np.maximum(others[:, 2:] - others[:, :2], 1.0))
    fits = (np.abs(sizes - size) <= np.log(_LIKE)).all(axis=1)
    if turn:
        fits |= (np.abs(sizes[:, ::-1] - size) <= np.log(_LIKE)).all(axis=1)
    return [int(index) for index in np.flatnonzero(fits)]


def quarter_turns(box: geometry.Boxes, example: geometry.Boxes, rng: np.random.Generator) -> int:
    """Quarter turns after which a box ``example`` ``[4]`` lies the way ``box`` does; one of the two, by chance."""
    wide, example_wide = (sides[2] - sides[0] > sides[3] - sides[1] for sides in (box, example))
    return int(rng.integers(2)) * 2 + int(wide != example_wide)


def silhouette(cutout: Cutout, box: geometry.Boxes, shape: tuple[int, int]) -> Mask:
    """``[H, W]``: where an instance cut from ``box`` ``[4]`` of an image is in it, with half its margin around it."""
    import cv2

    there = cutout.core_in_image(box, shape).astype(np.uint8)
    side = 2 * round(cutout.margin_px / 2) + 1
    return np.asarray(cv2.dilate(there, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))) > 0)


def seam(canvas: Pixels, cutout: Cutout, box: geometry.Boxes) -> float:
    """Root mean square difference, grey levels, of a cutout's surroundings and the canvas's around ``box`` ``[4]``."""
    import cv2

    part, matrix = _placed(canvas, cutout, box)
    region = canvas[part]
    matrix[:, 2] -= part[1].start, part[0].start  # other last bits than when it is set in, in a fraction of the time

    def warp(array: Pixels | Floats, beyond: int) -> Floats:
        return np.asarray(cv2.warpAffine(array, matrix, region.shape[1::-1], borderMode=beyond), np.float32)

    pixels, around = _surroundings(cutout, warp)
    return float(np.sqrt(np.mean((region[around] - pixels[around]) ** 2))) if around.any() else np.inf


def goes_on(canvas: Pixels, cutout: Cutout, box: geometry.Boxes) -> bool:
    """Whether a cutout of a whole box goes on in the canvas's pixels around ``box`` ``[4]``."""
    part, pixels, alpha, around = _warped(canvas, cutout, box)
    pixels += light(canvas[part] - pixels, around)
    return meet(canvas[part], pixels, alpha >= cutout.opacity, around, CUT_SHARE["box"])


def compose(canvas: Pixels, cutout: Cutout, box: geometry.Boxes, mask: Mask) -> None:
    """Set a cutout into the hole ``mask`` ``[H, W]`` so that its object fills ``box`` ``[4]``, in place.

    Its colours are moved by the median difference of the surroundings, a little at most: light differs from image to
    image, but an object on a darker ground is not itself darker.
    """
    part, pixels, alpha, around = _warped(canvas, cutout, box)
    region = canvas[part]
    if around.any():
        shift = np.median(region[around].astype(np.float32) - pixels[around], axis=0)
        pixels += np.clip(shift, -_MAX_SHIFT, _MAX_SHIFT)
    weight = (alpha * mask[part])[..., None]
    region[:] = np.clip(np.rint(region * (1 - weight) + pixels * weight), 0, 255).astype(np.uint8)


def _warped(canvas: Pixels, cutout: Cutout, box: geometry.Boxes) -> tuple[Part, Floats, Floats, Mask]:
    """A cutout on the canvas's grid, its object filling ``box``.

    The part of the canvas that it covers, and there: its pixels, weights, and where its surroundings are.
    """
    import cv2

    part, matrix = _placed(canvas, cutout, box)
    size = (min(-(-part[1].stop // _LANES) * _LANES, canvas.shape[1]), part[0].stop)

    def warp(array: Pixels | Floats, beyond: int) -> Floats:
        return np.asarray(cv2.warpAffine(array, matrix, size, borderMode=beyond)[part], np.float32)

    pixels, around = _surroundings(cutout, warp)
    return part, pixels, warp(cutout.alpha(), cv2.BORDER_CONSTANT), around


def _placed(canvas: Pixels, cutout: Cutout, box: geometry.Boxes) -> tuple[Part, NDArray[np.float64]]:
    """The part of the canvas that a cutout covers whose object fills ``box``, and the way there: ``[2, 3]``, affine."""
    factors = (box[2:] - box[:2]) / np.maximum(cutout.box[2:] - cutout.box[:2], 1.0)
    offset = box[:2] - factors * cutout.box[:2]
    matrix = np.array([[factors[0], 0, offset[0]], [0, factors[1], offset[1]]], np.float64)
    left, top = np.maximum(np.floor(offset - factors), 0).astype(int)
    ends = np.ceil(offset + factors * (cutout.width, cutout.height)).astype(int)
    right, bottom = np.minimum(ends, canvas.shape[1::-1])
    return (slice(top, bottom), slice(left, right)), matrix


def _surroundings(cutout: Cutout, warp: Callable[[Pixels | Floats, int], Floats]) -> tuple[Floats, Mask]:
    """A cutout's pixels, and which of them are around its object, on the grid that ``warp`` brings them to."""
    import cv2

    pixels = warp(np.ascontiguousarray(cutout.pixels), cv2.BORDER_REPLICATE)
    shown = warp(np.ones(cutout.core.shape, np.float32), cv2.BORDER_CONSTANT) > 0.99
    return pixels, shown & ~(warp(cutout.core.astype(np.float32), cv2.BORDER_CONSTANT) > 0)
