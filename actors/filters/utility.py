"""Utility: how far a training step on a candidate lowers the loss on real images (TracIn, arXiv 2002.08484, Sec. 3.2).

This is the first order of the unrolled loss of DetectorGAN (ICCV 2019): a step of plain gradient descent on a candidate
x, from theta to theta - eta * grad l(x), lowers the loss L on real images by eta * <grad L, grad l(x)>. The real images
are training images that the detector was not trained on, so that L is not what it has learnt by heart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from actors.detector_loss import DetectorLoss, Parameters, prefixes_of
from actors.filters.base import DetectorAccess, FilterBase, HeldBack, State
from actors.images import Pixels, read
from actors.letterbox import GREY, Letterbox, picture_size, to_tensor
from actors.precision import reproducible
from actors.records import WHOLE_IMAGE, Annotation, Candidate, Inspected, Verdict

if TYPE_CHECKING:
    from torch import Tensor

_STRIDE_PX = 32  # of every family's canvas
_NUM_KEPT = 8  # gradients of real images: candidates that share images follow each other


class UtilityConfig(FilterBase):
    """Rejects candidates on which a training step would raise the loss on held-back real training images."""

    runs_network: ClassVar = True

    kind: Literal["utility"] = "utility"
    folds: int = Field(3, ge=2)
    """Number of folds of the training images. For each fold, a detector is trained on the others, and the loss on this
    fold is its real loss. With mining.cross_fit of the same number, both use the same detectors."""
    min_utility: float | None = 0.0
    """Candidates with a smaller utility are dropped. 0 means that a step on the candidate changes nothing, 1 that it
    lowers the real loss as much as a step on the held-back images themselves. Null drops none; the utility is then
    used by generation.select alone."""
    parameters: Parameters = "head"
    """Parameters of the step: those of the detector's head, all, or those whose names begin with one of these. The head
    needs a fraction of the time and memory."""

    @property
    @override
    def num_folds(self) -> int:
        return self.folds

    @property
    @override
    def parameter_prefixes(self) -> tuple[str, ...]:
        return () if isinstance(self.parameters, str) else self.parameters

    @override
    def build(self, state: State, detectors: DetectorAccess | None = None) -> "Utility":
        if detectors is None or not detectors.held_back:
            raise ValueError("utility: needs cross-fitted detectors; pass detectors with held_back to build")
        return Utility(self, detectors.held_back)


class Utility:
    """One verdict per candidate with drawn boxes, on the whole image: ``harmful`` if its utility is too small.

    The score is the mean over the folds of <g, h> / <g, g>: h is the gradient of the loss on the candidate, g that on
    the fold's real images, each image with equal weight. The images that the candidate was made from, its canvas, its
    source and its examples, do not count in g: a candidate is of no use for repeating them. The loss is the detector's
    training loss without augmentation, with normalisation frozen. Boxes that an earlier filter rejected give no loss,
    so put the filters of boxes before this one.
    """

    def __init__(self, config: UtilityConfig, held_back: Sequence[HeldBack]) -> None:
        self.config, self._held_back = config, held_back

    @cached_property
    def folds(self) -> list["RealLoss"]:
        """The folds' detectors, opened when they are first used."""
        return [RealLoss(one, self.config.parameters) for one in self._held_back]

    def judge(self, batch: Sequence[Inspected]) -> list[tuple[Verdict, ...]]:
        """One verdict on each whole image; none on an image without drawn boxes."""
        return [self._judge_one(inspected.candidate) for inspected in batch]

    def _judge_one(self, candidate: Candidate) -> tuple[Verdict, ...]:
        if not (candidate.drawn & ~candidate.annotation.ignore).any():
            return ()
        origins = frozenset((candidate.canvas, candidate.lineage.image_id, *candidate.examples))
        found = [fold.utility(candidate.pixels, candidate.annotation, origins) for fold in self.folds]
        score, least = float(np.mean(found)), self.config.min_utility
        keep = least is None or score >= least
        verdict = Verdict(
            filter="utility",
            box=WHOLE_IMAGE,
            keep=keep,
            score=score,
            threshold=least,
            reason="" if keep else "harmful",
        )
        return (verdict,)


class RealLoss:
    """The loss of one fold's detector on the real images that it was not trained on, and its gradient."""

    def __init__(self, held_back: HeldBack, parameters: Parameters = "head") -> None:
        """Raises ValueError if ``parameters`` choose none."""
        self.loss: DetectorLoss = held_back.detector.open_loss(prefixes_of(parameters))
        self.size_px = held_back.detector.config.image_size_px
        self.images = {image.id: image for image in held_back.images}
        self._of_real = lru_cache(_NUM_KEPT)(self._gradient_of)

    def utility(self, pixels: Pixels, annotation: Annotation, origins: frozenset[str] = frozenset()) -> float:
        """<g, h> / <g, g> of a picture ``[H, W, 3]``; the images ``origins`` do not count in g. 0 if g is zero."""
        own, real = self.gradient(pixels, annotation), self.real_gradient(origins)
        power = float(real @ real)
        return float(real @ own) / power if power else 0.0

    def real_gradient(self, origins: frozenset[str] = frozenset()) -> "Tensor":
        """The mean gradient g ``[d]`` over the fold's images without ``origins``; zero if none is left."""
        left_out = sorted(origins & self.images.keys())
        total = self._total.clone()
        for image_id in left_out:
            total -= self._of_real(image_id)
        num = len(self.images) - len(left_out)
        return total / num if num else total.zero_()

    def gradient(self, pixels: Pixels, annotation: Annotation) -> "Tensor":
        """The gradient h ``[d]`` of the loss on one picture by the chosen parameters, flattened."""
        import torch

        with reproducible(gradients=True):
            parameters = tuple(self.loss.parameters.values())
            slopes = torch.autograd.grad(self.value(pixels, annotation), parameters, materialize_grads=True)
        return torch.cat([slope.flatten() for slope in slopes])

    def value(
        self, pixels: Pixels, annotation: Annotation, parameters: "Mapping[str, Tensor] | None" = None
    ) -> "Tensor":
        """The loss on one picture, a scalar, at ``parameters`` (default: the detector's own)."""
        place = Letterbox.fit(picture_size(pixels), self.size_px, _STRIDE_PX)
        canvas = np.full((*place.canvas, 3), GREY, np.uint8)
        place.draw(pixels, canvas)
        moved = replace(annotation, boxes=place.to_canvas(annotation.boxes))
        return self.loss(parameters or self.loss.parameters, to_tensor(canvas[None]), [moved])

    @cached_property
    def _total(self) -> "Tensor":
        """The sum ``[d]`` of the gradients of all the fold's images."""
        first, *others = self.images
        total = self._gradient_of(first)
        for image_id in others:
            total += self._gradient_of(image_id)
        return total

    def _gradient_of(self, image_id: str) -> "Tensor":
        image = self.images[image_id]
        return self.gradient(read(image.uri), image.annotation)
