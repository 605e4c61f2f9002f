"""Training pictures of the refiner, with inaccurate boxes only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from actors.counted import counted
from actors.fitting import FitData
from actors.images import Pixels, read
from actors.letterbox import Letterbox
from actors.records import Annotation, LabeledImage
from actors.refiners.ssddet.config import SSDDetFitConfig
from actors.refiners.ssddet.mirrors import MIRRORS, Mirror, mirrored_boxes, mirrored_canvas
from actors.refiners.ssddet.noise import noisy
from actors.seeds import derive_seed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """A picture with the boxes that the fit takes for true, which are inaccurate."""

    uri: str
    width: int  # px
    height: int  # px
    annotation: Annotation

    @classmethod
    def of(cls, image: LabeledImage, noise: float, seed: int) -> "Labelled":
        """An image, with ``noise`` in its boxes."""
        return cls(uri=image.uri, width=image.width, height=image.height, annotation=noisy(image, noise, seed))

    def mirrored(self, mirror: Mirror) -> Annotation:
        """The annotation of the mirrored picture."""
        size = self.height, self.width
        return replace(self.annotation, boxes=mirrored_boxes(self.annotation.boxes, size, mirror))

    def drawn(self, size_px: int, mirror: Mirror) -> Pixels:
        """The mirrored picture on a canvas ``[size_px, size_px, 3]``."""
        place = Letterbox.fit((self.height, self.width), size_px, size_px)
        return mirrored_canvas(read(self.uri), place, mirror)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """One picture of a step."""

    number: int  # position among the pictures
    mirror: Mirror
    annotation: Annotation  # px of the picture, mirrored with it; boxes that the step does not use are flagged ignore
    draws: Tensor  # [negatives, 4] in [0, 1]

    @property
    def used(self) -> Annotation:
        """The boxes that the step uses."""
        return self.annotation.take(~self.annotation.ignore)

    def with_boxes(self, boxes: Tensor, place: Letterbox) -> Annotation:
        """The annotation in px of the canvas, with ``boxes`` ``[n, 4]`` in the place of those used."""
        replaced = place.to_canvas(self.annotation.boxes)
        replaced[~self.annotation.ignore] = boxes.cpu().numpy()
        return replace(self.annotation, boxes=replaced)


class Examples:
    """Endless examples; the one at a place in a step depends on the seed, the step and the place alone."""

    def __init__(self, data: FitData, noise: float, settings: SSDDetFitConfig) -> None:
        """Raises ValueError if no picture has a box."""
        found = [Labelled.of(image, noise, data.seed) for image in data.images]
        self.pictures: Sequence[Labelled] = [one for one in found if not one.annotation.ignore.all()]
        self.settings, self.seed = settings, data.seed
        if not self.pictures:
            raise ValueError(f"nothing to fit on: {counted(len(found), 'training image')} without a box that counts")

    def example(self, step: int, place: int) -> Example:
        """The example at ``place`` in a step."""
        rng = np.random.default_rng(derive_seed(self.seed, "fit", step, place))
        number, mirror = int(rng.integers(len(self.pictures))), MIRRORS[rng.integers(len(MIRRORS))]
        annotation = self.pictures[number].mirrored(mirror)
        order = rng.permutation(np.flatnonzero(~annotation.ignore))
        unused = np.ones(len(annotation), np.bool_)
        unused[order[: self.settings.max_boxes]] = False
        draws = torch.from_numpy(rng.random((self.settings.negatives, 4), np.float32))
        return Example(number=number, mirror=mirror, annotation=replace(annotation, ignore=unused), draws=draws)
