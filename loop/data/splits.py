"""Seeded sampling of images. The result depends on the seed and the images' ids, not on their order or number."""

from collections.abc import Sequence

from actors.counted import counted
from actors.records import LabeledImage
from actors.seeds import derive_seed

Images = tuple[LabeledImage, ...]


def hold_out(images: Sequence[LabeledImage], val_frac: float, seed: int) -> tuple[Images, Images]:
    """Split images into training and validation: the fraction ``val_frac`` is held out; both get at least one.

    Raises ValueError for fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(
            f"{counted(len(images), 'image')} cannot be split into training and validation; give a validation set"
        )
    num_val = min(max(1, round(val_frac * len(images))), len(images) - 1)
    val = _drawn(images, num_val, "val", seed)
    return tuple(one for one in images if one.id not in val), tuple(one for one in images if one.id in val)


def subset(images: Sequence[LabeledImage], size: int, seed: int) -> Images:
    """``size`` of the images, in their order. A smaller subset with the same seed is part of every larger one.

    Raises ValueError if there are fewer images.
    """
    if size > len(images):
        raise ValueError(
            f"data.subset: {counted(size, 'image')} requested of only {counted(len(images), 'training image')}"
        )
    drawn = _drawn(images, size, "subset", seed)
    return tuple(one for one in images if one.id in drawn)


def _drawn(images: Sequence[LabeledImage], size: int, purpose: str, seed: int) -> set[str]:
    ids = sorted((image.id for image in images), key=lambda image_id: derive_seed(seed, purpose, image_id))
    return set(ids[:size])
