"""Examples: real instances to start from (SDEdit, arXiv 2108.01073), of a difficulty (DetDiffusion, arXiv 2403.13304).

An example is pasted into the hole. A painter with a ``strength`` below 1 adds noise to it and removes the noise, which
varies it and blends it in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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

Key = tuple[str, int]  # of an instance: the id of its image, and its position there
Kind = tuple[int, Difficulty | None]  # class and difficulty; None if difficulty does not matter

_LEAST_FREE = 0.85  # of a box must be free of neighbours, whose pixels stay
_MAX_SHIFT = 20.0  # grey levels
_LIKE = 1.5  # an example's sides may differ from the box's by this factor
_NUM_BOXES = 12  # whole boxes tried as an example
_NUM_OUTLINES = 4  # outlines tried if difficulty matters: one that is badly found includes its background
_LANES = 16  # of the widest SIMD vector: cv2 rounds the rest of a row, which fills no vector, differently


class Instances:
    """The instances of real images: which are whole, their cutouts, and the background in their place."""

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
        """``shape`` is that of cutouts, ``margin`` (share of a box's sides) limits the area around a removed instance.

        Examples may be mirrored (``flip``) and rotated by quarter turns (``rotate``). With ``attributes``, they are of
        the requested difficulty.
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
        return replace(cut(self.read(image.uri), image.annotation.boxes[index], self.shape), source=image_id)

    def _ground(self, image_id: str, index: int) -> Ground | None:
        image, chance = self.images[image_id], np.random.default_rng(derive_seed("ground", image_id, index))
        pixels, boxes = self.read(image.uri), image.annotation.boxes
        free = hole(pixels.shape[:2], boxes[index], self.margin, np.delete(boxes, index, axis=0))
        there = silhouette(self.cut(image_id, index), boxes[index], pixels.shape[:2])
        return ground(pixels, free & there, boxes, chance)

    def itself_or_alike(self, canvas: Pixels, key: Key, difficulty: Difficulty, rng: np.random.Generator) -> Cutout:
        """The instance if it is whole and, with ``attributes``, of this ``difficulty``; else a similar one.

        A large one without an outline is replaced, too.
        """
        image_id, index = key
        fits = self.attributes is None or self.attributes[image_id][index] is difficulty
        if fits and self.whole[image_id][index] and not self.cut(*key).shows_ground:
            return self.cut(*key)
        return self.alike(canvas, key, difficulty, rng)

    def alike(self, canvas: Pixels, key: Key, difficulty: Difficulty, rng: np.random.Generator) -> Cutout:
        """A whole instance of the same class and about the same size and shape; the instance itself if there is none.

        If whole boxes are cut out, or difficulty matters, it is the one of a few whose surroundings match best. Large
        ones without an outline are passed over as far as a few tries find others.
        """
        annotation, index = self.images[key[0]].annotation, key[1]
        box, label = annotation.boxes[index], int(annotation.labels[index])
        names, boxes = self.by_kind.get((label, difficulty if self.attributes else None), ([], geometry.empty()))
        found = alike(box, boxes, turn=self.rotate)
        tries = _NUM_BOXES if self.shape == "box" else _NUM_OUTLINES if self.attributes else 1
        drawn = []
        for _ in range(tries):
            cutout = self._drawn([names[place] for place in found] or [key], rng)
            turns = quarter_turns(box, cutout.box, rng) if self.rotate else 0
            drawn.append(turned(cutout, flip=bool(rng.integers(2)) and self.flip, quarter_turns=turns))
        return drawn[0] if tries == 1 else min(drawn, key=lambda one: seam(canvas, one, box))

    def _drawn(self, keys: Sequence[Key], rng: np.random.Generator) -> Cutout:
        """A random one of the instances; a large one has an outline unless a few tries find none that has."""
        for _ in range(_NUM_BOXES):
            cutout = self.cut(*keys[int(rng.integers(len(keys)))])
            if not cutout.shows_ground:
                break
        return cutout


def check_known(attributes: Attributes, images: Sequence[LabeledImage]) -> None:
    """Raise ValueError if a painter's ``attributes`` lack the difficulties of an image's instances."""
    if unknown := [image.id for image in images if image.id not in attributes]:
        raise ValueError(
            f"the painter lacks the difficulties of the instances of {unknown[0]!r}: an earlier version of detloop "
            "fitted it; remove it from fits/ below the root to fit it again"
        )


def whole(image: LabeledImage) -> Mask:
    """Mask ``[n]`` of the whole instances: neither cut off by the image's border nor covered by a neighbour."""
    boxes = image.annotation.boxes
    limits = np.array([image.width, image.height], np.float32) - BORDER_PX
    inside = (boxes[:, :2] >= BORDER_PX).all(axis=1) & (boxes[:, 2:] <= limits).all(axis=1)
    shared = geometry.intersections(boxes, boxes)
    np.fill_diagonal(shared, 0.0)
    free = shared.sum(axis=1) <= (1 - _LEAST_FREE) * geometry.areas(boxes)
    return np.asarray(inside & free & ~image.annotation.ignore)


def is_free(mask: Mask, box: geometry.Boxes) -> bool:
    """True if enough of a box ``[4]`` is free of neighbours to paint it; ``mask`` ``[H, W]`` is its hole."""
    left, top, right, bottom = np.maximum(np.rint(box), 0).astype(int)
    free = mask[top:bottom, left:right]
    return bool(free.size and free.mean() >= _LEAST_FREE)


def by_kind(
    images: Sequence[LabeledImage], is_whole: Mapping[str, Mask], attributes: Attributes | None
) -> dict[Kind, tuple[list[Key], geometry.Boxes]]:
    """The whole instances and their boxes ``[n, 4]``, by kind."""
    found: dict[Kind, list[Key]] = {}
    for image in images:
        for index in map(int, np.flatnonzero(is_whole[image.id])):
            kind = int(image.annotation.labels[index]), attributes[image.id][index] if attributes else None
            found.setdefault(kind, []).append((image.id, index))
    boxes = {image.id: image.annotation.boxes for image in images}
    return {kind: (names, np.stack([boxes[name][index] for name, index in names])) for kind, names in found.items()}


def alike(box: geometry.Boxes, others: geometry.Boxes, *, turn: bool) -> Sequence[int]:
    """Positions of the boxes ``[n, 4]`` of about the size and shape of ``box`` ``[4]``; if ``turn``, also rotated."""
    size = np.log(np.maximum(box[2:] - box[:2], 1.0))
    sizes = np.log(np.maximum(others[:, 2:] - others[:, :2], 1.0))
    fits = (np.abs(sizes - size) <= np.log(_LIKE)).all(axis=1)
    if turn:
        fits |= (np.abs(sizes[:, ::-1] - size) <= np.log(_LIKE)).all(axis=1)
    return [int(index) for index in np.flatnonzero(fits)]


def quarter_turns(box: geometry.Boxes, example: geometry.Boxes, rng: np.random.Generator) -> int:
    """Quarter turns that give ``example`` ``[4]`` the orientation of ``box`` ``[4]``; one of the two at random."""
    wide, example_wide = (sides[2] - sides[0] > sides[3] - sides[1] for sides in (box, example))
    return int(rng.integers(2)) * 2 + int(wide != example_wide)


def silhouette(cutout: Cutout, box: geometry.Boxes, shape: tuple[int, int]) -> Mask:
    """Mask ``[H, W]`` of an instance cut from ``box`` ``[4]`` of an image, with half its margin around it."""
    import cv2

    there = cutout.core_in_image(box, shape).astype(np.uint8)
    side = 2 * round(cutout.margin_px / 2) + 1
    return np.asarray(cv2.dilate(there, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))) > 0)


def seam(canvas: Pixels, cutout: Cutout, box: geometry.Boxes) -> float:
    """RMS difference, in grey levels, between a cutout's surroundings and the canvas around ``box`` ``[4]``."""
    import cv2

    part, matrix = _placed(canvas, cutout, box)
    region = canvas[part]
    matrix[:, 2] -= part[1].start, part[0].start  # other last bits than in ``compose``, in a fraction of the time

    def warp(array: Pixels | Floats, beyond: int) -> Floats:
        return np.asarray(cv2.warpAffine(array, matrix, region.shape[1::-1], borderMode=beyond), np.float32)

    pixels, around = _surroundings(cutout, warp)
    return float(np.sqrt(np.mean((region[around] - pixels[around]) ** 2))) if around.any() else np.inf


def goes_on(canvas: Pixels, cutout: Cutout, box: geometry.Boxes) -> bool:
    """True if a cutout of a whole box continues in the canvas's pixels around ``box`` ``[4]``."""
    part, pixels, alpha, around = _warped(canvas, cutout, box)
    pixels += light(canvas[part] - pixels, around)
    return meet(canvas[part], pixels, alpha >= cutout.opacity, around, CUT_SHARE["box"])


def compose(canvas: Pixels, cutout: Cutout, box: geometry.Boxes, mask: Mask) -> None:
    """Paste a cutout into the hole ``mask`` ``[H, W]``, in place, so that its object fills ``box`` ``[4]``.

    Its colours are shifted by the median difference of the surroundings, within a limit: light differs between images,
    but an object on a darker background is not darker itself.
    """
    part, pixels, alpha, around = _warped(canvas, cutout, box)
    region = canvas[part]
    if around.any():
        shift = np.median(region[around].astype(np.float32) - pixels[around], axis=0)
        pixels += np.clip(shift, -_MAX_SHIFT, _MAX_SHIFT)
    weight = (alpha * mask[part])[..., None]
    region[:] = np.clip(np.rint(region * (1 - weight) + pixels * weight), 0, 255).astype(np.uint8)


def _warped(canvas: Pixels, cutout: Cutout, box: geometry.Boxes) -> tuple[Part, Floats, Floats, Mask]:
    """A cutout resampled to the canvas, so that its object fills ``box``.

    Returns the part of the canvas that it covers, and its pixels, weights and surroundings there.
    """
    import cv2

    part, matrix = _placed(canvas, cutout, box)
    size = (min(-(-part[1].stop // _LANES) * _LANES, canvas.shape[1]), part[0].stop)

    def warp(array: Pixels | Floats, beyond: int) -> Floats:
        return np.asarray(cv2.warpAffine(array, matrix, size, borderMode=beyond)[part], np.float32)

    pixels, around = _surroundings(cutout, warp)
    return part, pixels, warp(cutout.alpha(), cv2.BORDER_CONSTANT), around


def _placed(canvas: Pixels, cutout: Cutout, box: geometry.Boxes) -> tuple[Part, NDArray[np.float64]]:
    """The part of the canvas that a cutout covers if its object fills ``box``, and its affine map ``[2, 3]``."""
    factors = (box[2:] - box[:2]) / np.maximum(cutout.box[2:] - cutout.box[:2], 1.0)
    offset = box[:2] - factors * cutout.box[:2]
    centre = offset + (factors - 1) / 2  # cv2 counts from the centre of the first pixel, boxes from its corner
    matrix = np.array([[factors[0], 0, centre[0]], [0, factors[1], centre[1]]], np.float64)
    left, top = np.maximum(np.floor(offset - factors), 0).astype(int)
    ends = np.ceil(offset + factors * (cutout.width, cutout.height)).astype(int)
    right, bottom = np.minimum(ends, canvas.shape[1::-1])
    return (slice(top, bottom), slice(left, right)), matrix


def _surroundings(cutout: Cutout, warp: Callable[[Pixels | Floats, int], Floats]) -> tuple[Floats, Mask]:
    """A cutout's pixels and the mask of those around its object, both resampled by ``warp``."""
    import cv2

    pixels = warp(np.ascontiguousarray(cutout.pixels), cv2.BORDER_REPLICATE)
    shown = warp(np.ones(cutout.core.shape, np.float32), cv2.BORDER_CONSTANT) > 0.99
    return pixels, shown & ~(warp(cutout.core.astype(np.float32), cv2.BORDER_CONSTANT) > 0)
