"""What is said about the data before a run: valid data that will not give what is expected of them."""

from collections.abc import Iterator, Mapping

import numpy as np

from actors.counted import counted
from loop.data.importing import Dataset
from loop.data.leaks import leaks

FEW_BOXES = 5
"""With fewer training boxes, a class is hardly learnt."""
TINY_PX = 2
"""Boxes with a shorter side, at the detector's image size, are hardly detected."""

_NAMED = 8  # classes that a sentence lists


def advise(data: Dataset, image_size_px: int) -> Iterator[str]:
    """Sentences on rare classes, tiny boxes at ``image_size_px``, and leaks between splits. Decodes pictures."""
    yield from _rare_classes(data)
    yield from _tiny_boxes(data, image_size_px)
    yield from leaks(data.splits["train"], {name: images for name, images in data.splits.items() if name != "train"})


def _rare_classes(data: Dataset) -> Iterator[str]:
    train, val = (_boxes_by_class(data, split) for split in ("train", "val"))
    if missing := {name: number for name, number in val.items() if number and not train[name]}:
        number = counted(len(missing), "class has", "classes have")
        yield (
            f"{number} validation boxes but no training box ({_listed(missing)}): not learnt, and counted with an AP "
            "of 0. Label some in training images, or leave them out"
        )
    if few := {name: number for name, number in train.items() if 0 < number < FEW_BOXES}:
        number = counted(len(few), "class has", "classes have")
        yield f"{number} fewer than {FEW_BOXES} training boxes ({_listed(few)}), too few to be learnt well"


def _boxes_by_class(data: Dataset, split: str) -> dict[str, int]:
    """Numbers of boxes that are not ignored."""
    labels = [image.annotation.labels[~image.annotation.ignore] for image in data.splits[split]]
    counts = np.bincount(np.concatenate(labels), minlength=len(data.classes))
    return dict(zip(data.classes, counts.tolist(), strict=True))


def _listed(numbers: Mapping[str, int]) -> str:
    names = ", ".join(f"{name} {number}" for name, number in list(numbers.items())[:_NAMED])
    return names + (", ..." if len(numbers) > _NAMED else "")


def _tiny_boxes(data: Dataset, image_size_px: int) -> Iterator[str]:
    for split in ("train", "val"):
        sides = []
        for image in data.splits[split]:
            boxes = image.annotation.boxes[~image.annotation.ignore]
            scale = image_size_px / max(image.width, image.height)
            sides.append((boxes[:, 2:] - boxes[:, :2]).min(axis=1) * scale)
        every = np.concatenate(sides)
        if num_tiny := int((every < TINY_PX).sum()):
            yield (
                f"{num_tiny} of {len(every)} {split} boxes have a side under {TINY_PX} px in images of {image_size_px} "
                "px: they are hardly detected. Raise detector.image_size_px, or cut the images into tiles"
            )
