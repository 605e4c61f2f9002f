"""The examples of the crop painter's fit: windows around real boxes, shifted, scaled, turned, with holes to fill."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.generators.cutouts.window import Frame, Mask, frame, hole
from actors.generators.diffusion.instance_masks import decode
from actors.generators.diffusion.learner import last_timestep
from actors.generators.inpaint.painters.base import CropRule, Window
from actors.generators.inpaint.painters.crop.config import CropSettings
from actors.generators.inpaint.painters.crop.painter import condition_index
from actors.generators.inpaint.painters.crop.space import Space
from actors.images import Pixels, read
from actors.records import Difficulty, LabeledImage
from actors.seeds import derive_seed

Turnable = TypeVar("Turnable", Pixels, Mask)

REACH = 1.25  # crops are larger than windows by this factor; windows are shifted and scaled within them
_REUSED = 16  # steps in which a view in latents is used
_CACHE_BYTES = 2**30  # of such views in memory; beyond, they are encoded again each time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crop:
    """A real object with its surroundings."""

    pixels: Pixels  # [R, R, 3], R = REACH * S
    holes: Mask  # [R, R]: the pixels to paint
    box: geometry.Boxes  # [4] px of the crop
    instance: Mask | None  # [R, R]: the object's own pixels; None if it has no mask
    label: int
    difficulty: Difficulty


def crops(
    config: CropSettings,
    images: Sequence[LabeledImage],
    difficulties: Sequence[tuple[Difficulty, ...]],
    context: float,
    margin: float,
) -> list[Crop]:
    """One crop for every real training box that is not ignored; ``difficulties`` has one for each box of each image."""
    found = []
    for image, hardness in zip(images, difficulties, strict=True):
        pixels, annotation = read(image.uri), image.annotation
        for index in np.flatnonzero(~annotation.ignore):
            box, others = annotation.boxes[index], np.delete(annotation.boxes, index, axis=0)
            place = frame(box, REACH * context, round(REACH * config.size_px))
            size_px = round(REACH * config.size_px)
            mask = hole(pixels.shape[:2], box, margin, others)
            found.append(
                Crop(
                    pixels=place.cut(pixels, size_px),
                    holes=place.cut_mask(mask, size_px),
                    box=place.to_window(box, size_px),
                    instance=_instance(image, int(index), place, size_px),
                    label=int(annotation.labels[index]),
                    difficulty=hardness[int(index)],
                )
            )
    return found


def _instance(image: LabeledImage, index: int, place: Frame, size_px: int) -> Mask | None:
    """The mask of a box in its window; None if it has none, or an empty one there."""
    if not image.masks or not image.masks[index]:
        return None
    visible = place.cut_mask(decode(image.masks[index], image.width, image.height), size_px, share=0.5)
    return visible if visible.any() else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """A crop as the network sees it, shifted and turned; ``C, h, w`` are those of the painter's space."""

    image: NDArray[np.float32]  # [C, h, w]
    known: NDArray[np.float32]  # [C + 2, h, w]
    mask: NDArray[np.float32]  # [1, h, w]: the object, the target of the perception-aware loss
    condition: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example(View):
    """One fitting example: a view and the noise that is added to it; ``condition`` may be that of no condition."""

    timestep: int
    noise: NDArray[np.float32]  # [C, h, w]


class Examples:
    """Endless examples; the one at a place in a step depends on the seed, the step and the place alone.

    In pixels, each has a view of its own. In latents, each view is encoded once and used in ``_REUSED`` steps of the
    fit, with new noise in each, because encoding takes longer than learning.
    """

    def __init__(
        self, config: CropSettings, found: Sequence[Crop], space: Space, num_classes: int, seed: int, rule: CropRule
    ) -> None:
        if not found:
            raise ValueError("crop painter: no box to fit on; label at least one that is not ignored")
        self.config, self.space, self.seed, self.rule = config, space, seed, rule
        self.none = num_classes * len(Difficulty)
        self.last_timestep = last_timestep(config.strength)
        self.by_class = [group for label in range(num_classes) if (group := [c for c in found if c.label == label])]
        self.num_views = math.ceil(config.fit_steps / _REUSED) if config.vae else None  # of a place
        view_bytes = 4 * math.prod(space.shape[1:]) * (2 * space.shape[0] + 3)
        self.encoded = lru_cache(_CACHE_BYTES // view_bytes)(self._encoded)

    def batch(self, step: int, rank: int = 0, num_workers: int = 1) -> list[Example]:
        """The worker's examples in a step."""
        return [self.example(step, place) for place in range(rank, self.config.fit_batch_size, num_workers)]

    def example(self, step: int, place: int) -> Example:
        """A random example; all classes are equally likely, whatever their share of the boxes."""
        if self.num_views:
            view = self.encoded(step % self.num_views, place)
            rng = np.random.default_rng(derive_seed(self.seed, "noise", step, place))
        else:
            rng = np.random.default_rng(derive_seed(self.seed, "fit", step, place))
            view = self._view(rng)
        dropped = rng.random() < self.config.condition_dropout
        return Example(
            image=view.image,
            known=view.known,
            mask=view.mask,
            condition=self.none if dropped else view.condition,
            timestep=int(rng.integers(self.last_timestep + 1)),
            noise=rng.standard_normal(self.space.shape, np.float32),
        )

    def _encoded(self, number: int, place: int) -> View:
        return self._view(np.random.default_rng(derive_seed(self.seed, "fit", number, place)))

    def _view(self, rng: np.random.Generator) -> View:
        group = self.by_class[rng.integers(len(self.by_class))]
        crop = group[rng.integers(len(group))]
        shown = _shifted(crop, self.config.size_px, rng)
        turns, mirrored = int(rng.integers(4)) * self.rule.rotate, bool(rng.integers(2)) and self.rule.flip
        shown = _turned(shown, turns, mirrored=mirrored)
        known = self.space.known(shown.pixels, shown.holes, shown.box)
        return View(
            image=self.space.encode(shown.pixels),
            known=known,
            mask=_covered(known[-1:] if shown.instance is None else self.space.shares(shown.instance)),
            condition=condition_index(crop.label, crop.difficulty),
        )

    def window(self, place: int) -> Window:
        """A window for previews, as given to a painter: the middle of a crop; classes take turns."""
        rng = np.random.default_rng(derive_seed(self.seed, "preview", place))
        group = self.by_class[place % len(self.by_class)]
        crop = group[rng.integers(len(group))]
        size_px = self.config.size_px
        edge = (len(crop.pixels) - size_px) // 2
        middle = slice(edge, edge + size_px)
        return Window(
            pixels=crop.pixels[middle, middle],
            mask=crop.holes[middle, middle],
            box=crop.box - np.float32(edge),
            label=crop.label,
            difficulty=crop.difficulty,
            seed=int(rng.integers(2**62)),
        )


def _covered(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 where half or more of a square is covered, or most of all, so that an object smaller than a square has one."""
    return ((shares > 0) & (shares >= min(0.5, float(shares.max())))).astype(np.float32)


def _shifted(crop: Crop, size_px: int, rng: np.random.Generator) -> Crop:
    """A random window of the crop, slightly larger or smaller than in painting, and off centre."""
    import cv2

    side = rng.uniform(0.85, 1.15) * size_px
    x, y = rng.uniform(0, len(crop.pixels) - side, 2)
    factor = size_px / side
    half = (factor - 1) / 2  # cv2 counts from the centre of the first pixel, boxes from its corner
    matrix = np.array([[factor, 0, half - x * factor], [0, factor, half - y * factor]])

    def warped(pixels: NDArray[np.uint8], method: int) -> NDArray[np.uint8]:
        shown = cv2.warpAffine(pixels, matrix, (size_px, size_px), flags=method, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(shown, np.uint8)

    def shifted(mask: Mask) -> Mask:
        return warped(mask.astype(np.uint8), cv2.INTER_NEAREST) > 0

    return replace(
        crop,
        pixels=warped(crop.pixels, cv2.INTER_LINEAR),
        holes=shifted(crop.holes),
        box=(crop.box - np.array([x, y] * 2, np.float32)) * np.float32(factor),
        instance=None if crop.instance is None else shifted(crop.instance),
    )


def _turned(crop: Crop, quarter_turns: int, *, mirrored: bool) -> Crop:
    """The crop and its box, rotated anticlockwise, then mirrored."""
    size_px, box = len(crop.holes), crop.box
    for _ in range(quarter_turns):  # (x, y) goes to (y, S - x)
        box = np.array([box[1], size_px - box[2], box[3], size_px - box[0]], np.float32)
    if mirrored:
        box = np.array([size_px - box[2], box[1], size_px - box[0], box[3]], np.float32)

    def turned(array: Turnable) -> Turnable:
        rotated = np.rot90(array, quarter_turns)
        return cast("Turnable", np.ascontiguousarray(rotated[:, ::-1] if mirrored else rotated))

    return replace(
        crop,
        pixels=turned(crop.pixels),
        holes=turned(crop.holes),
        box=box,
        instance=None if crop.instance is None else turned(crop.instance),
    )
