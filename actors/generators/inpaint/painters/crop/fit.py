"""Fitting the crop painter (DDPM, arXiv 2006.11239, Algorithm 1): real boxes in windows, with holes to fill.

The checkpoint is the exponential moving average of the weights. Workers share each batch and average their gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors import boxes as geometry
from actors.fitting import NUM_PREVIEWS, FitData, Preview, Worker
from actors.generators.base import one_box
from actors.generators.cutouts.window import Frame, Mask, frame, hole
from actors.generators.diffusion.instance_masks import decode
from actors.generators.diffusion.learner import Learner, last_timestep, noise_scheduler, target_of
from actors.generators.inpaint.painters.base import CropRule, Window
from actors.generators.inpaint.painters.crop.config import CropSettings
from actors.generators.inpaint.painters.crop.painter import (
    CropPainter,
    build_network,
    condition_index,
    known_input,
    read_network,
    save_network,
)
from actors.generators.inpaint.painters.crop.perception import Perception
from actors.images import Pixels, read, scaled
from actors.precision import autocast
from actors.records import Difficulty, LabeledImage
from actors.seeds import derive_seed

Turnable = TypeVar("Turnable", Pixels, Mask)

REACH = 1.25  # crops are larger than windows by this factor; windows are shifted and scaled within them
_OUTSIDE_WEIGHT = 0.1  # of the loss outside of the hole, where the target is in the input


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
class Example:
    """One fitting example, as the network takes it."""

    image: NDArray[np.float32]  # [3, S, S] in [-1, 1]
    known: NDArray[np.float32]  # [5, S, S]
    mask: NDArray[np.float32]  # [1, S, S]: the object, the target of the perception-aware loss
    condition: int
    timestep: int
    noise: NDArray[np.float32]  # [3, S, S]


class Examples:
    """Endless examples; the one at a place in a step depends on the seed, the step and the place alone."""

    def __init__(
        self, config: CropSettings, found: Sequence[Crop], num_classes: int, seed: int, *, flip: bool, rotate: bool
    ) -> None:
        if not found:
            raise ValueError("crop painter: no box to fit on; label at least one that is not ignored")
        self.config, self.seed, self.none = config, seed, num_classes * len(Difficulty)
        self.flip, self.rotate = flip, rotate
        self.last_timestep = last_timestep(config.strength)
        self.by_class = [group for label in range(num_classes) if (group := [c for c in found if c.label == label])]

    def batch(self, step: int, rank: int = 0, num_workers: int = 1) -> list[Example]:
        """The worker's examples in a step."""
        return [self.example(step, place) for place in range(rank, self.config.fit_batch_size, num_workers)]

    def example(self, step: int, place: int) -> Example:
        """A random example; all classes are equally likely, whatever their share of the boxes."""
        rng = np.random.default_rng(derive_seed(self.seed, "fit", step, place))
        group = self.by_class[rng.integers(len(self.by_class))]
        crop = group[rng.integers(len(group))]
        shown = _shifted(crop, self.config.size_px, rng)
        turns, mirrored = int(rng.integers(4)) * self.rotate, bool(rng.integers(2)) and self.flip
        shown = _turned(shown, turns, mirrored=mirrored)
        dropped = rng.random() < self.config.condition_dropout
        known = known_input(shown.pixels, shown.holes, shown.box)
        return Example(
            image=scaled(shown.pixels),
            known=known,
            mask=known[4:] if shown.instance is None else shown.instance[None].astype(np.float32),
            condition=self.none if dropped else condition_index(crop.label, crop.difficulty),
            timestep=int(rng.integers(self.last_timestep + 1)),
            noise=rng.standard_normal((3, *shown.holes.shape), np.float32),
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


class CropFit:
    """See ``actors.fitting.Fit``."""

    boxes_cut = 0  # each box has a window of its own

    def __init__(
        self,
        config: CropSettings,
        data: FitData,
        worker: Worker,
        rule: CropRule,
    ) -> None:
        self.config, self.classes, self.worker = config, data.classes, worker
        self.num_steps, self.batch_size = config.fit_steps, config.fit_batch_size
        if self.batch_size % worker.num_workers:
            raise ValueError(f"fit_batch_size ({self.batch_size}) is no multiple of {worker.num_workers} workers")
        self.attributes = data.attributes
        found = crops(config, data.images, data.difficulties, rule.context, rule.margin)
        self.examples = Examples(config, found, len(data.classes), data.seed, flip=rule.flip, rotate=rule.rotate)
        self.device, self.scheduler = torch.device(worker.device), noise_scheduler()
        torch.manual_seed(derive_seed(data.seed, "fit weights"))
        self.network = build_network(config, len(data.classes)).to(self.device)
        group = {"params": list(self.network.parameters()), "lr": config.learning_rate}
        self.learner = Learner(self.network, [group], self.num_steps, worker)
        self.perception = Perception(self.network, self.device) if config.mask_loss_weight else None
        if self.perception:
            self.learner.add(self.perception.head, config.learning_rate)

    def warm_start(self, uri: str) -> None:
        """Start from the weights at ``uri``."""
        self.learner.warm_start(read_network(self.config, self.classes, uri)[1])

    def step(self, number: int) -> float:
        """Forward, backward, update; the weighted loss over all workers' examples."""
        batch = self.examples.batch(number, self.worker.rank, self.worker.num_workers)
        return self.learner.update([lambda: self._loss(batch)])

    def state(self) -> dict[str, Any]:
        """Network, average, optimiser, and the perception-aware loss's head if there is one."""
        return self.learner.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from an earlier ``state``."""
        self.learner.restore(state)

    def preview(self) -> list[Preview]:
        """Windows of real boxes, painted easy and hard with the same noise by the averaged weights."""
        painter = CropPainter(self.config, self.learner.average, self.worker.device)
        return [_preview(painter, self.examples.window(place)) for place in range(NUM_PREVIEWS)]

    def save(self, uri: str) -> None:
        """Write the network's averaged weights to ``uri``, without the head, which painting does not need."""
        save_network(self.learner.average, self.config, self.classes, self.attributes, uri)

    def _loss(self, batch: Sequence[Example]) -> Tensor:
        """Mean squared error of the clean picture implied by v, which weights steps with little noise less.

        Pixels in the hole have weight 1, others 0.1. The perception-aware loss is added if it is on.
        """

        def stacked(name: str) -> Tensor:
            return torch.from_numpy(np.stack([getattr(one, name) for one in batch])).to(self.device)

        image, known, noise = stacked("image"), stacked("known"), stacked("noise")
        timesteps, conditions = stacked("timestep"), stacked("condition")
        noisy = self.scheduler.add_noise(image, noise, timesteps)
        target = target_of(self.scheduler, image, noise, timesteps)
        with autocast(self.device):
            predicted = self.network(torch.cat([noisy, known], dim=1), timesteps, conditions).sample.float()
        alphas = self.scheduler.alphas_cumprod.to(self.device)[timesteps]
        noise_power = 1 - alphas[:, None, None, None]
        weights = (known[:, 3:4] * (1 - _OUTSIDE_WEIGHT) + _OUTSIDE_WEIGHT) * noise_power
        loss: Tensor = ((predicted - target) ** 2 * weights).sum() / (3 * self.worker.mean(weights.sum()))
        if self.perception:
            loss = loss + self.config.mask_loss_weight * self.perception.loss(conditions, stacked("mask"), alphas)
        return loss


def _preview(painter: CropPainter, window: Window) -> Preview:
    variants = [replace(window, difficulty=requested) for requested in Difficulty]
    holes = window.mask[..., None]
    return Preview(
        real=window.pixels,
        annotation=one_box(window.box, np.int64(window.label)),
        difficulties=(window.difficulty,),
        drawn={
            str(variant.difficulty): np.where(holes, painted, window.pixels)
            for variant, painted in zip(variants, painter.paint(variants), strict=True)
        },
    )
