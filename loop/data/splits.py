"""Seeded choices of images. Each depends on the seed and on the images' ids, not on their order or number."""

from collections.abc import Sequence

from actors.records import LabeledImage
from actors.seeds import derive_seed

Images = tuple[LabeledImage, ...]


def hold_out(images: Sequence[LabeledImage], val_frac: float, seed: int) -> tuple[Images, Images]:
    """Training and validation images: the share ``val_frac`` is held out, at least one, and at least one is left."""
    if len(images) < 2:
        raise ValueError(f"{len(images)} image(s) cannot be split into training and validation; give a validation set")
    num_val = min(max(1, round(val_frac * len(images))), len(images) - 1)
    val = _drawn(images, num_val, "val", seed)
    return tuple(one for one in images if one.id not in val), tuple(one for one in images if one.id in val)


def subset(images: Sequence[LabeledImage], size: int, seed: int) -> Images:
    """``size`` of the images, in their order. A smaller subset of the same seed lies within every larger one."""
    if size > len(images):
        raise ValueError(f"data.subset: {size} images asked for, but there are only {len(images)} training images")
    drawn = _drawn(images, size, "subset", seed)
    return tuple(one for one in images if one.id in drawn)


def _drawn(images: Sequence[LabeledImage], size: int, purpose: str, seed: int) -> set[str]:
    ids = sorted((image.id for image in images), key=lambda image_id: derive_seed(seed, purpose, image_id))
    return set(ids[:size])
