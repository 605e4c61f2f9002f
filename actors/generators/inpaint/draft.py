"""Drafts: what an inpainting candidate will hold, before it is painted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from actors import boxes as geometry
from actors.generators.cutouts.cutout import Cutout
from actors.generators.cutouts.window import Frame, Mask
from actors.images import Pixels
from actors.records import Annotation, Difficulty, LabeledImage, Lineage


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """A box to paint, and its place in the candidate."""

    example: Cutout  # the instance that the painter starts from
    box: geometry.Boxes  # [4]
    label: int
    difficulty: Difficulty  # requested
    index: int  # in the candidate's annotation
    mask: Mask  # [H, W]
    frame: Frame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draft:
    """A candidate before it is painted."""

    lineage: Lineage
    image: LabeledImage  # the canvas
    canvas: Pixels  # [H, W, 3]
    start: Pixels  # [H, W, 3]: the canvas; for a painter that varies, with the examples in its holes
    annotation: Annotation
    sites: tuple[Site, ...]
    seam: float = 0.0  # mean over new places in an image without objects, grey levels

    @property
    def rank(self) -> tuple[int, float]:
        """Sort key of attempts in images without objects; lower is better."""
        return -len(self.sites), self.seam


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NewPlace:
    """A place for an additional box."""

    box: geometry.Boxes  # [4]
    example: Cutout
    seam: float  # see ``positions.Place``


def painted_only(annotation: Annotation, num_own: int, sites: Sequence[Site]) -> tuple[Annotation, list[Site]]:
    """The annotation without added boxes (after the image's ``num_own``) that have no site, and the sites in it."""
    keep = np.arange(len(annotation)) < num_own
    keep[[site.index for site in sites]] = True
    position = np.cumsum(keep) - 1
    return annotation.take(keep), [replace(site, index=int(position[site.index])) for site in sites]
