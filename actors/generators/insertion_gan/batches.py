"""Batches of DetectorGAN: windows for the generators and discriminators, views for the detector."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from actors.generators.cutouts.window import Frame
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

    def take(self, first: int, last: int) -> "Windows":
        """The windows from ``first`` to before ``last``."""
        return Windows(**{one.name: getattr(self, one.name)[first:last] for one in fields(self)})

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


def drawn_views(scenes: Sequence[Scene], drawn: Windows, image_size_px: int, view_px: int) -> Batch:
    """Views of pictures into which windows were drawn, differentiable in the windows' images.

    Args:
        scenes: One for each window.
        drawn: The windows, confined to their masks.
        image_size_px: Longer side at which the detector sees a picture.
        view_px: Side of the views.
    """
    return _views(scenes, drawn, image_size_px, view_px, str(drawn.images.device))


def _views(scenes: Sequence[Scene], drawn: Windows | None, image_size_px: int, view_px: int, device: str) -> Batch:
    images, annotations, side_px = [], [], min(view_px, image_size_px)
    for number, scene in enumerate(scenes):
        place = view_frame(scene.pixels, scene.box, image_size_px, view_px)
        view = torch.from_numpy(cut_view(scene.pixels, place)).to(device).permute(2, 0, 1)[None]
        view = view.to(torch.get_default_dtype()) / 255
        if drawn:
            view = _put_back(view, drawn.take(number, number + 1), scene.frame, place)
        images.append(functional.interpolate(view, (side_px, side_px), mode="bilinear"))
        annotations.append(view_annotation(scene.annotation, place, side_px))
    return Batch(images=torch.cat(images), annotations=tuple(annotations))


def _put_back(view: Tensor, drawn: Windows, window: Frame, place: Frame) -> Tensor:
    """A view ``[1, 3, side, side]`` in [0, 1] at ``place``, with a drawn window where its mask is above 0."""
    both = torch.cat([(drawn.images + 1) / 2, (drawn.masks > 0).to(drawn.images)], dim=1)
    if both.shape[-1] != window.side:
        both = functional.interpolate(both, (window.side, window.side), mode="bilinear")
    x, y = window.left - place.left, window.top - place.top
    both = functional.pad(both, (x, place.side - x - window.side, y, place.side - y - window.side))
    return view + both[:, 3:] * (both[:, :3] - view)
