"""Layouts to draw: those of real training images (DetDiffusion, arXiv 2403.13304, Sec. 4.3), and variations of them.

Flips and shifted boxes are from GeoDiffusion (arXiv 2306.04607, Sec. 4.1). Recombination is ours: some boxes of one
image, and the boxes of another that have room beside them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from actors import boxes as geometry
from actors.config import Config, Share
from actors.generators.layout.prompt import flipped
from actors.records import Annotation, Difficulty, LabeledImage

_MOST_SHARED = 0.2  # largest overlap of two recombined boxes, as a share of the smaller


class ArrangementConfig(Config):
    """Differences between the requested layouts and those of the real images."""

    not_in_fit: ClassVar = frozenset({"jitter", "recombine"})

    flip: bool = True
    """Half of the layouts are mirrored left to right."""
    jitter: Share = 0.0
    """Each box is moved by up to this share of its sides, within the image."""
    recombine: Share = 0.0
    """Share of the layouts that combine two images: half of one image's boxes, mined ones first, and those of another
    that have room."""

    @property
    def moves(self) -> bool:
        """Whether boxes may end up where the real image has none."""
        return self.jitter > 0 or self.recombine > 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """The objects of a picture to draw, and their boxes."""

    annotation: Annotation
    difficulties: tuple[Difficulty, ...]  # [n], as measured in the real images
    mirrored: bool  # left to right, relative to the image it is taken from


class Arranger:
    """Makes layouts from those of real images; ``difficulties`` are those of each image's boxes, by image id."""

    def __init__(
        self,
        config: ArrangementConfig,
        real: Sequence[LabeledImage],
        difficulties: Mapping[str, tuple[Difficulty, ...]],
    ) -> None:
        self.config, self.real, self.difficulties = config, tuple(real), difficulties

    def arrange(self, image: LabeledImage, mined: Sequence[int], rng: np.random.Generator) -> Layout:
        """A layout derived from that of ``image``, whose boxes at positions ``mined`` were mined."""
        layout = Layout(annotation=image.annotation, difficulties=self.difficulties[image.id], mirrored=False)
        if rng.random() < self.config.recombine:
            layout = self._joined(self._half(layout, mined, rng), image, self.real[rng.integers(len(self.real))])
        if self.config.jitter:
            layout = replace(layout, annotation=jittered(layout.annotation, image, self.config.jitter, rng))
        if rng.random() < 0.5 and self.config.flip:
            layout = replace(layout, annotation=flipped(layout.annotation, image.width), mirrored=True)
        return layout

    def _half(self, layout: Layout, mined: Sequence[int], rng: np.random.Generator) -> Layout:
        """A random half of the boxes; mined ones come first."""
        order = rng.permutation(len(layout.annotation))
        order = order[np.argsort(~np.isin(order, mined), kind="stable")]
        half = np.sort(order[: (len(order) + 1) // 2])
        difficulties = tuple(layout.difficulties[index] for index in half)
        return replace(layout, annotation=layout.annotation.take(half), difficulties=difficulties)

    def _joined(self, layout: Layout, image: LabeledImage, other: LabeledImage) -> Layout:
        """The layout with those boxes of the other image that hardly overlap with its own and each other."""
        annotation, difficulties = layout.annotation, list(layout.difficulties)
        scale = np.array([image.width / other.width, image.height / other.height] * 2, np.float32)
        theirs = replace(other.annotation, boxes=other.annotation.boxes * scale)
        for index in np.flatnonzero(~theirs.ignore):
            box = theirs.take(np.array([index]))
            smaller = np.minimum(geometry.areas(annotation.boxes), geometry.areas(box.boxes))
            shared = geometry.intersections(annotation.boxes, box.boxes)[:, 0]
            if (shared <= _MOST_SHARED * smaller).all():
                annotation = annotation.join(box)
                difficulties.append(self.difficulties[other.id][index])
        return replace(layout, annotation=annotation, difficulties=tuple(difficulties))


def jittered(annotation: Annotation, image: LabeledImage, share: float, rng: np.random.Generator) -> Annotation:
    """Each box moved uniformly by up to ``share`` of its sides, within the image; sizes do not change."""
    boxes = annotation.boxes
    sides = boxes[:, 2:] - boxes[:, :2]
    shift = rng.uniform(-share, share, sides.shape).astype(np.float32) * sides
    room = np.array([image.width, image.height], np.float32) - boxes[:, 2:]
    shift = np.clip(shift, np.minimum(-boxes[:, :2], 0), np.maximum(room, 0))
    return replace(annotation, boxes=boxes + np.tile(shift, 2))
