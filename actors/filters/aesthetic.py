"""Aesthetic score with the real images' mean as threshold: Gen2Det's image filter (arXiv 2312.04566, Sec. 3.2).

The score comes from the LAION aesthetic predictor: linear layers on a normalised CLIP embedding. The predictor was
trained on human ratings, which hardly cover domains such as blood smears and circuit boards. For these,
``head: fitted`` fits a head on the run's own images instead.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator
from typing_extensions import override

from actors.config import Need
from actors.counted import counted
from actors.filters.base import DetectorAccess, FilterBase, RealImages, State
from actors.filters.clip import Clip, ClipConfig, open_model
from actors.filters.discriminant import Floats
from actors.filters.quality_head import HOW_TO_GET, Head, degrade, fit_head, read_head
from actors.images import Pixels, read
from actors.records import WHOLE_IMAGE, Inspected, LabeledImage, Verdict
from actors.seeds import derive_seed

FITTED = "fitted"


class AestheticConfig(FilterBase):
    """Rejects images with a low aesthetic score, computed by a head on a CLIP embedding; higher is better."""

    runs_network: ClassVar = True

    kind: Literal["aesthetic"] = "aesthetic"
    head: str = ""
    """Path or URI of the published predictor (sac+logos+ava1-l14-linearMSE.pth), or ``fitted``: a linear head that
    separates the run's real images from blurred, noisy, compressed and shuffled versions of them."""
    clip: ClipConfig = ClipConfig()
    """The CLIP model. The published predictor needs ViT-L-14 with OpenAI's weights, the default."""
    quantile: float | None = Field(None, ge=0.0, le=1.0)
    """Quantile of the real images' scores to use as threshold. Null uses their mean, as in Gen2Det, which rejects
    about half of the images that are as good as the real ones."""
    max_images: int = Field(1000, ge=2)
    """Maximum number of real training images to score, chosen at random."""

    @field_validator("head")
    @classmethod
    def _is_named(cls, head: str) -> str:
        if not head:
            raise ValueError(f"the aesthetic filter needs a head: {HOW_TO_GET}")
        return head

    @override
    def needs(self) -> tuple[Need, ...]:
        head = () if self.head == FITTED else (Need(what="aesthetic head", place=self.head, is_release=False),)
        return head + self.clip.needs()

    @override
    def fit(self, real: RealImages) -> State:
        """Scores of the real training images by content hash, the threshold, and the head if it is fitted.

        With ``head: fitted``, each real image is scored by a head fitted without it. Raises ValueError for too few
        training images (fewer than two for a fitted head) and FileNotFoundError for missing weights or a missing head.
        """
        measured = real.some(self.max_images)
        if len(measured) < (2 if self.head == FITTED else 1):
            raise ValueError(f"aesthetic: {counted(len(measured), 'real training image')}: too few to measure")
        clip = open_model(self.clip)
        head, scores = _fit(clip, measured) if self.head == FITTED else _measure(clip, self.head, measured)
        threshold = scores.mean() if self.quantile is None else np.quantile(scores, self.quantile)
        keys = [content_hash(read(image.uri)) for image in measured]
        return {
            "threshold": float(threshold),
            "model": clip.identity + head.identity,
            "scores": dict(zip(keys, scores.tolist(), strict=True)),
            "head": head.plain() if self.head == FITTED else None,
        }

    @override
    def build(self, state: State, detectors: DetectorAccess | None = None) -> "Aesthetic":
        return Aesthetic(self, state)


class Aesthetic:
    """One verdict per image: ``unaesthetic`` if its score is below the threshold.

    Scores are cached by content, including those of the real images from ``fit``. The mean of the real images' scores
    therefore equals the threshold to the last bit. Scores of new images vary with the batch by less than 1e-4.
    """

    def __init__(self, config: AestheticConfig, state: State) -> None:
        self.config, self._state = config, state
        self.threshold = float(state["threshold"])
        self._known: dict[str, float] = dict(state["scores"])

    @cached_property
    def _model(self) -> tuple[Clip, Head]:
        clip, fitted = open_model(self.config.clip), self._state["head"]
        head = Head.from_plain(fitted) if fitted else read_head(self.config.head, clip.width)
        if clip.identity + head.identity != self._state["model"]:
            raise ValueError(
                f"aesthetic: {self.config.clip.weights} or {self.config.head} has changed since the run's real images "
                "were scored with it; restore the file, or start a run with another name"
            )
        return clip, head

    def judge(self, batch: Sequence[Inspected]) -> list[tuple[Verdict, ...]]:
        """One verdict on each whole image."""
        keys = [content_hash(inspected.candidate.pixels) for inspected in batch]
        new = {
            key: inspected.candidate.pixels
            for key, inspected in zip(keys, batch, strict=True)
            if key not in self._known
        }
        if new:
            clip, head = self._model
            scores = head.scores(clip.embed_images(new.values()))
            self._known.update(zip(new, scores.tolist(), strict=True))
        return [(self._verdict(self._known[key]),) for key in keys]

    def _verdict(self, score: float) -> Verdict:
        keep = score >= self.threshold
        reason = "" if keep else "unaesthetic"
        return Verdict(
            filter="aesthetic", box=WHOLE_IMAGE, keep=keep, score=score, threshold=self.threshold, reason=reason
        )


def content_hash(pixels: Pixels) -> str:
    """SHA-256 of the shape and values of ``[H, W, 3]`` uint8 pixels: equal for equal pixels in any file format."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def _measure(clip: Clip, uri: str, images: Sequence[LabeledImage]) -> tuple[Head, Floats]:
    """The head stored at ``uri`` and its scores ``[n]`` of the images."""
    head = read_head(uri, clip.width)
    return head, head.scores(clip.embed_images(read(image.uri) for image in images))


def _fit(clip: Clip, images: Sequence[LabeledImage]) -> tuple[Head, Floats]:
    embeddings = clip.embed_images(_with_degraded(images, clip.input_px)).reshape(len(images), -1, clip.width)
    return fit_head(embeddings[:, 0], embeddings[:, 1:])


def _with_degraded(images: Sequence[LabeledImage], input_px: int) -> Iterator[Pixels]:
    """Each image, followed by its degraded versions."""
    for image in images:
        pixels = read(image.uri)
        yield pixels
        yield from degrade(pixels, derive_seed("degrade", image.id), input_px)
