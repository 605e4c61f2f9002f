"""Batches of DetectorGAN: windows for the generators and discriminators, views for the detector."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from actors.generators.insertion_gan.config import InsertionGANSettings
from actors.generators.insertion_gan.scene import Scene, cut_view, view_annotation, view_frame, window_mask
from actors.generators.insertion_gan.unroll import Batch
from actors.images import scaled


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """The windows of a batch of scenes."""

    images: Tensor  # [b, 3, S, S] in [-1, 1]
    masks: Tensor  # [b, 1, S, S], weights of drawn pixels
    labels: Tensor  # [b]
    boxes: Tensor  # [b, 4] px of the window: the object with its margin, as the local discriminator is shown it

    @classmethod
    def of(cls, settings: InsertionGANSettings, scenes: Sequence[Scene], device: str) -> "Windows":
        """The windows of ``scenes``."""
        size_px = settings.size_px
        boxes = np.stack([scene.frame.to_window(scene.box, size_px) for scene in scenes])
        pad = settings.margin * (boxes[:, 2:] - boxes[:, :2])
        shown = np.concatenate([boxes[:, :2] - pad, boxes[:, 2:] + pad], axis=1)
        images = np.stack([scaled(scene.frame.cut(scene.pixels, size_px)) for scene in scenes])
        return cls(
            images=torch.from_numpy(images).to(device),
            masks=torch.from_numpy(np.stack([window_mask(settings, scene)[None] for scene in scenes])).to(device),
            labels=torch.tensor([scene.label for scene in scenes], device=device),
            boxes=torch.from_numpy(shown.astype(np.float32)).to(device),
        )


def real_views(scenes: Sequence[Scene], image_size_px: int, view_px: int, device: str) -> Batch:
    """Views of the pictures of ``scenes`` as they are, with their boxes."""
    return _views(scenes, None, image_size_px, view_px, device)


def drawn_views(scenes: Sequence[Scene], changes: Tensor, image_size_px: int, view_px: int) -> Batch:
    """Views of pictures into which windows were drawn, differentiable in the windows.

    Args:
        scenes: One for each window.
        changes: ``[b, 3, S, S]``, drawn windows less the pictures' own, on the scale of [-1, 1].
        image_size_px: Longer side at which the detector sees a picture.
        view_px: Side of the views.
    """
    return _views(scenes, changes, image_size_px, view_px, str(changes.device))


def _views(scenes: Sequence[Scene], changes: Tensor | None, image_size_px: int, view_px: int, device: str) -> Batch:
    images, annotations, side_px = [], [], min(view_px, image_size_px)
    for number, scene in enumerate(scenes):
        place = view_frame(scene.pixels, scene.box, image_size_px, view_px)
        view = torch.from_numpy(cut_view(scene.pixels, place)).to(device).permute(2, 0, 1)[None]
        view = view.to(torch.get_default_dtype() if changes is None else changes.dtype) / 255
        if changes is not None:
            view = view + _moved(changes[number : number + 1] / 2, scene, place.left, place.top, place.side)
        images.append(functional.interpolate(view, (side_px, side_px), mode="bilinear"))
        annotations.append(view_annotation(scene.annotation, place, side_px))
    return Batch(images=torch.cat(images), annotations=tuple(annotations))


def _moved(change: Tensor, scene: Scene, left: int, top: int, side: int) -> Tensor:
    """A change of a window ``[1, 3, S, S]`` at its place in a view ``[1, 3, side, side]``; 0 elsewhere."""
    window = scene.frame
    if change.shape[-1] != window.side:
        change = functional.interpolate(change, (window.side, window.side), mode="bilinear")
    x, y = window.left - left, window.top - top
    return functional.pad(change, (x, side - x - window.side, y, side - y - window.side))
