"""The noise protocol of SSD-Det (arXiv 2307.12101, Sec. 4.1), which is that of OA-MIL (ECCV 2022)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.records import Annotation, LabeledImage
from actors.seeds import derive_seed


def noisy(image: LabeledImage, noise: float, seed: int) -> Annotation:
    """The annotation of ``image`` with every box moved and resized at random, except those flagged ignore.

    A box depends on the seed, the image's id and its position alone. A box that does not reach into the image after
    the move stays as it was.

    Args:
        image: An image with accurate boxes.
        noise: r of the protocol; with 0 the boxes stay as they are.
        seed: A seed.
    """
    annotation = image.annotation
    if not noise:  # to move by nothing would round
        return annotation
    draws = [_draws(seed, image.id, index) for index in range(len(annotation))]
    moved = geometry.clip(perturbed(annotation.boxes, noise, draws), image.width, image.height)
    stay = annotation.ignore | (geometry.areas(moved) <= 0)
    return replace(annotation, boxes=np.where(stay[:, None], annotation.boxes, moved).astype(np.float32))


def perturbed(boxes: geometry.Boxes, noise: float, draws: Sequence[NDArray[np.float64]]) -> geometry.Boxes:
    """Boxes ``[n, 4]`` of which centre and size change by ``noise`` times ``draws`` (n of ``[4]`` in [-1, 1])."""
    shares = noise * np.asarray(draws, np.float64).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + sides * shares[:, :2]
    halves = sides * (1 + shares[:, 2:]) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1).astype(np.float32)


def _draws(seed: int, image_id: str, index: int) -> NDArray[np.float64]:
    return np.random.default_rng(derive_seed(seed, "noise", image_id, index)).uniform(-1, 1, 4)
