"""Examples of the fit of DetectorGAN: scenes with an object, scenes with room for one, and real views."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from actors import boxes as geometry
from actors.fitting import FitData
from actors.generators.insertion_gan.config import InsertionGANSettings
from actors.generators.insertion_gan.places import Places, instances_by_class, spread
from actors.generators.insertion_gan.scene import Scene, turned_picture, window_frame
from actors.records import Annotation, LabeledImage
from actors.seeds import derive_seed

_NUM_PLACES = 512  # places for objects that a fit knows; a place is searched for once
_NUM_CANVASES = 8  # images searched for a place
_OTHER_PLACES = {  # what else helps where no place is found
    "context": ", or set generator.places: uniform, which asks for no surroundings",
    "uniform": "",
    "masks": ", or paint more of the masks white",
}
Spot = tuple[str, geometry.Boxes, int]  # the id of an image, a box [4] there, and the class of an object to insert


def check_labelled(settings: InsertionGANSettings, images: Sequence[LabeledImage]) -> list[LabeledImage]:
    """The images with boxes that count. Raises ValueError if they are too few for a fit."""
    labelled = [image for image in images if (~image.annotation.ignore).any()]
    if not labelled:
        raise ValueError("insertion_gan: no box to fit on; label at least one that is not ignored")
    if settings.has_detector_terms and len(labelled) < 2:
        raise ValueError(
            "insertion_gan: the unrolled step takes two images with boxes at least, and there is one; label another "
            "one, or set generator.fit.syn_weight and unroll_weight to 0"
        )
    return labelled


class Examples:
    """Endless scenes; the one at a place in a step depends on the seed, the step and the place alone.

    Images without objects are those given as such, else the training images at places beside their objects. Classes
    are equally likely, whatever their share of the boxes.
    """

    def __init__(self, settings: InsertionGANSettings, data: FitData) -> None:
        self.settings, self.seed = settings, data.seed
        self.canvases, self.has_clean = data.clean or data.images, bool(data.clean)
        self.by_class = instances_by_class(data.images, len(data.classes))
        self.labelled = check_labelled(settings, data.images)
        self.images = {image.id: image for image in (*self.canvases, *data.images)}
        self.places = Places(settings, self.images)
        self.spot = lru_cache(maxsize=_NUM_PLACES)(self._spot)

    def with_object(self, *at: int | str) -> Scene:
        """A real object in its image; ``at`` are the step and the place in it."""
        rng = self._rng("with", *at)
        image_id, index = self._instance(rng)
        return self._real(self.images[image_id], index, rng)

    def without_object(self, *at: int | str) -> Scene:
        """A place for an object; the box and the class are those to insert."""
        rng = self._rng("without", *at)
        return self._empty(self.spot(int(rng.integers(_NUM_PLACES))), rng)

    def pair(self, number: int) -> tuple[Scene, Scene]:
        """For previews: a real object, and a place of its size and class, both upright and in the middle."""
        rng = self._rng("preview", number)
        group = self.by_class[number % len(self.by_class)]
        image_id, index = group[int(rng.integers(len(group)))]
        spot = self._search((image_id, index), rng) or self.spot(number % _NUM_PLACES)
        return self._real(self.images[image_id], index, None), self._empty(spot, None)

    def real_pairs(self, step: int, number: int) -> list[tuple[Scene, Scene]]:
        """``number`` pairs of real scenes; no image is on both sides of the pairs of a step."""
        order = self._rng("views", step).permutation(len(self.labelled))
        sides = order[: len(order) // 2], order[len(order) // 2 :]
        return [
            (self._any_object(int(sides[0][place % len(sides[0])]), step, place, 0),
             self._any_object(int(sides[1][place % len(sides[1])]), step, place, 1))
            for place in range(number)
        ]  # fmt: skip

    def _any_object(self, number: int, *at: int) -> Scene:
        rng, image = self._rng("view", *at), self.labelled[number]
        return self._real(image, int(rng.choice(np.flatnonzero(~image.annotation.ignore))), rng)

    def _instance(self, rng: np.random.Generator) -> tuple[str, int]:
        group = self.by_class[int(rng.integers(len(self.by_class)))]
        return group[int(rng.integers(len(group)))]

    def _spot(self, number: int) -> Spot:
        rng = self._rng("place", number)
        for _ in range(_NUM_CANVASES):
            spot = self._search(self._instance(rng), rng)
            if spot:
                return spot
        raise ValueError(f"insertion_gan: no place for an object was found in {self._searched()}")

    def _searched(self) -> str:
        """The images that were searched in vain, with the sizes that matter, and what to do."""
        other = _OTHER_PLACES[self.settings.places]
        if not self.has_clean:
            return f"the training images; give images without objects (data.clean){other}"
        boxes = [self.images[image_id].annotation.boxes[index] for group in self.by_class for image_id, index in group]
        sizes = [(image.width, image.height) for image in self.canvases]
        objects, images = np.sort([box[2:] - box[:2] for box in boxes]), np.sort(sizes)
        least, most = objects[objects.prod(axis=1).argmin()], images[images.prod(axis=1).argmax()]
        are_small = bool((least > most).any())
        return (
            f"the images without objects (data.clean){', which are smaller than the objects' * are_small}: images of "
            f"{most[1]}x{most[0]} px at most, objects of {least[1]:.0f}x{least[0]:.0f} px at least; give larger images"
            f"{'' if are_small else other}"
        )

    def _search(self, instance: tuple[str, int], rng: np.random.Generator) -> Spot | None:
        """A place for an object like ``instance``, whose window shows no other object if there is one."""
        annotation = self.images[instance[0]].annotation
        box, label = annotation.boxes[instance[1]], int(annotation.labels[instance[1]])
        around = (window_frame(self.settings, box).side - float((box[2:] - box[:2]).max())) / 2
        for number in rng.permutation(len(self.canvases))[:_NUM_CANVASES]:
            canvas = self.canvases[int(number)]
            for by_px in (around, 0.0):
                place = self.places.find(canvas, spread(canvas.annotation.boxes, by_px), instance, rng)
                if place:
                    return canvas.id, place.box, label
        return None

    def _scene(
        self, image: LabeledImage, others: Annotation, box: geometry.Boxes, label: int, rng: np.random.Generator | None
    ) -> Scene:
        """The scene of the object in ``box`` ``[4]``; with ``rng``, turned and shifted at random."""
        pixels, place = self.places.read(image.uri), window_frame(self.settings, box)
        scene = Scene(pixels=pixels, others=others, box=box, label=label, frame=place)
        return scene if rng is None else self._turned(scene, rng)

    def _real(self, image: LabeledImage, index: int, rng: np.random.Generator | None) -> Scene:
        annotation = image.annotation
        others = annotation.take(np.arange(len(annotation)) != index)
        return self._scene(image, others, annotation.boxes[index], int(annotation.labels[index]), rng)

    def _empty(self, spot: Spot, rng: np.random.Generator | None) -> Scene:
        image_id, box, label = spot
        image = self.images[image_id]
        return self._scene(image, image.annotation, box, label, rng)

    def _turned(self, scene: Scene, rng: np.random.Generator) -> Scene:
        turns, mirrored = int(rng.integers(4)) * self.settings.rotate, bool(rng.integers(2)) and self.settings.flip
        boxes = np.concatenate([scene.others.boxes, scene.box[None]])
        pixels, boxes = turned_picture(scene.pixels, boxes, turns, mirrored=mirrored)
        return Scene(
            pixels=pixels,
            others=replace(scene.others, boxes=boxes[:-1]),
            box=boxes[-1],
            label=scene.label,
            frame=window_frame(self.settings, boxes[-1], rng),
        )

    def _rng(self, *parts: int | str) -> np.random.Generator:
        return np.random.default_rng(derive_seed(self.seed, "insertion_gan", *parts))
