"""Crops of real objects and of background, to compare generated objects with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.images import Pixels, read
from actors.records import LabeledImage
from actors.seeds import derive_id, derive_seed

Crop = Mapping[str, Any]
"""Location of a crop, as plain JSON values: ``image`` (id), ``uri``, ``box`` (xyxy px), ``label``."""

MAX_OBJECT_FRAC = 0.1  # fraction of a background crop's area that objects may cover
TRIES = 4  # places tried per background crop


def choose(train: Sequence[LabeledImage], num_classes: int, max_per_class: int) -> list[Crop]:
    """Up to ``max_per_class`` boxes of each class that are not ignored, and the same number of background boxes.

    Background boxes have the label ``num_classes``. They have the sizes of real boxes and are placed where (almost)
    nothing is annotated. The choice depends only on the images' ids and boxes. Crops are sorted by image.
    """
    images = sorted(train, key=lambda image: image.id)
    num_wanted = -(-max_per_class // max(len(images), 1))
    crops = [crop for image in images for crop in (*_objects(image), *_background(image, num_classes, num_wanted))]
    taken: list[Crop] = []
    for label in range(num_classes + 1):
        own = [crop for crop in crops if crop["label"] == label]
        taken += sorted(own, key=lambda crop: derive_id(crop["image"], repr(crop["box"])))[:max_per_class]
    return sorted(taken, key=lambda crop: (crop["image"], crop["label"], crop["box"]))


def cut(crops: Sequence[Crop], context_frac: float) -> Iterator[Pixels]:
    """The pixels of each crop, in order. An image is read once for consecutive crops of it."""
    uri, pixels = "", np.zeros((1, 1, 3), np.uint8)
    for crop in crops:
        if crop["uri"] != uri:
            uri, pixels = crop["uri"], read(crop["uri"])
        yield window(pixels, np.array(crop["box"], np.float32), context_frac)


def window(pixels: Pixels, box: NDArray[np.float32], context_frac: float) -> Pixels:
    """The square crop around a box ``[4]`` xyxy px: its longer side plus ``context_frac`` of it on either side.

    Near the border, the square is shifted into the image. If the image is smaller than the square, it is cut.
    """
    sides = np.array(pixels.shape[1::-1])  # width, height
    longer = float(np.maximum(box[2:] - box[:2], 1.0).max()) * (1 + 2 * context_frac)
    size = np.clip(round(longer), 1, sides).astype(int)
    left, top = np.clip(np.round((box[:2] + box[2:] - size) / 2), 0, sides - size).astype(int)
    return pixels[top : top + size[1], left : left + size[0]]


def _objects(image: LabeledImage) -> list[Crop]:
    annotation = image.annotation.take(~image.annotation.ignore)
    return [_crop(image, box, int(label)) for box, label in zip(annotation.boxes, annotation.labels, strict=True)]


def _background(image: LabeledImage, label: int, num_wanted: int) -> list[Crop]:
    annotated = image.annotation.boxes
    sizes = annotated[:, 2:] - annotated[:, :2]
    free = np.array([image.width, image.height]) - sizes
    sizes, free = sizes[(free > 0).all(axis=1)], free[(free > 0).all(axis=1)]
    if not len(sizes):
        return []
    rng = np.random.default_rng(derive_seed("background", image.id))
    picked = rng.integers(len(sizes), size=num_wanted * TRIES)
    corners = np.round(rng.uniform(0, free[picked]))
    boxes = np.concatenate([corners, corners + sizes[picked]], axis=1).astype(np.float32)
    covered = geometry.intersections(boxes, annotated).sum(axis=1) / np.maximum(geometry.areas(boxes), 1e-6)
    return [_crop(image, box, label) for box in boxes[covered <= MAX_OBJECT_FRAC][:num_wanted]]


def _crop(image: LabeledImage, box: NDArray[np.float32], label: int) -> Crop:
    return {"image": image.id, "uri": image.uri, "box": box.tolist(), "label": label}
