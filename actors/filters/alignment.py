"""Class check of generated boxes, by zero-shot CLIP (arXiv 2103.00020, Sec. 3.1) or by the detector's features.

A generator that is pushed towards hard instances drifts towards wrong ones: an object that the detector misses may be
hard, or may not belong to its class at all. This filter classifies the crop of each generated box. The threshold of a
class comes from the scores of its real objects, so generated hard objects pass about as often as real hard ones.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field
from typing_extensions import override

from actors.config import Need
from actors.filters.base import DetectorAccess, FilterBase, OpenEmbed, RealImages, State
from actors.filters.clip import ClipConfig, Embeddings, open_model
from actors.filters.crops import choose, cut, window
from actors.filters.discriminant import Discriminant, Floats, Labels, cross_fitted, margins
from actors.images import Pixels
from actors.records import Inspected, Verdict

Template = Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]
NUM_AT_ONCE = 64  # crops in memory at a time


class AlignmentConfig(FilterBase):
    """Keeps a generated box only if its crop resembles its own class more than other classes and the background."""

    runs_network: ClassVar = True
    judges_boxes: ClassVar = True

    kind: Literal["alignment"] = "alignment"
    features: Literal["clip", "detector"] = "detector"
    """Features of the crops: those of CLIP, which knows class names but perhaps not the domain, or those of the
    round's own detector."""
    margin: float = Field(0.0, ge=0.0)
    """Amount by which another class may score higher: a difference of cosines with clip, of log-likelihoods with
    detector."""
    real_quantile: float | None = Field(0.1, ge=0.0, le=1.0)
    """Lower the threshold of a class to this quantile of the scores of its real crops, where that is lower. At most
    about this fraction of them would then be rejected. Null uses the margin for every class."""
    context_frac: float = Field(0.0, ge=0.0, le=2.0)
    """Context around the box on each side of a crop, as a fraction of the box's longer side. Crops are square."""
    max_crops_per_class: int = Field(100, ge=2)
    """Maximum number of real crops of each class, and of background crops."""
    crop_px: int = Field(128, ge=32, multiple_of=32)
    """With detector: longer side in px that crops are resized to. Best near the objects' size in training."""
    clip: ClipConfig = ClipConfig()
    """With clip: the model."""
    templates: tuple[Template, ...] = Field(("a photo of a {}.", "a close-up photo of a {}."), min_length=1)
    """With clip: prompts of a class, with its name in place of the braces. Their embeddings are averaged."""
    background: tuple[str, ...] = Field(("a photo of nothing in particular.", "a blurry background."), min_length=1)
    """With clip: prompts of the background. Each is compared on its own."""

    @override
    def needs(self) -> tuple[Need, ...]:
        return self.clip.needs() if self.features == "clip" else ()

    @override
    def fit(self, real: RealImages) -> State:
        """The real crops to compare generated ones with, and with clip the thresholds of the classes.

        Raises ValueError without class names; with clip, FileNotFoundError without weights.
        """
        if not real.classes:
            raise ValueError("alignment: needs the names of the classes")
        crops = choose(real.train, len(real.classes), self.max_crops_per_class)
        judged = _comparable(crops, len(real.classes), self)
        remarks = [
            f"{name}: no real crops to compare with; its drawn boxes are not judged"
            for label, name in enumerate(real.classes)
            if label not in judged
        ]
        state = {"classes": list(real.classes), "crops": crops, "remarks": remarks}
        return {**state, "thresholds": _clip_thresholds(self, state)} if self.features == "clip" else state

    @override
    def build(self, state: State, detectors: DetectorAccess | None = None) -> "Alignment":
        return Alignment(self, state, detectors)


class _Scorer(Protocol):
    """Scores crops for each class."""

    thresholds: list[float]  # [num_classes]: minimum margin of the own class over the best other

    def scores(self, crops: Sequence[Pixels]) -> Floats:
        """Scores ``[n, num_classes + k]``; the last k columns are background."""
        ...


class Alignment:
    """One verdict per generated box that is not flagged ignore: ``wrong_class``, ``background``, or kept.

    The score is the margin of the crop's own class over the best other one. A box is kept if its score reaches the
    threshold of its class. A class without real crops, or without any alternative to compare it with, is not judged;
    the state's remarks say so. With clip, scores vary with the batch by less than 1e-5; with detector, not at all.
    """

    def __init__(self, config: AlignmentConfig, state: State, detectors: DetectorAccess | None = None) -> None:
        self.config = config
        self._open_scorer: Callable[[], _Scorer]
        if config.features == "clip":
            self._open_scorer = partial(_Prompts, config, state["classes"], state["thresholds"])
        elif detectors is None:
            raise ValueError("alignment: features: detector needs a detector; pass detectors to build")
        else:
            self._open_scorer = partial(_Detector, config, state, detectors.open_embed)
        self.num_classes = len(state["classes"])
        self._judged = _comparable(state["crops"], self.num_classes, config)

    @cached_property
    def _scorer(self) -> _Scorer:
        return self._open_scorer()

    def judge(self, batch: Sequence[Inspected]) -> list[tuple[Verdict, ...]]:
        """Verdicts on the generated boxes of each candidate, in the annotation's order."""
        judged = [(position, int(box)) for position, one in enumerate(batch) for box in self._boxes(one)]
        verdicts: list[list[Verdict]] = [[] for _ in batch]
        for start in range(0, len(judged), NUM_AT_ONCE):
            part = judged[start : start + NUM_AT_ONCE]
            candidates = [(batch[position].candidate, box) for position, box in part]
            crops = [window(c.pixels, c.annotation.boxes[box], self.config.context_frac) for c, box in candidates]
            labels = np.array([c.annotation.labels[box] for c, box in candidates])
            for (position, box), label, scores in zip(part, labels, self._scorer.scores(crops), strict=True):
                verdicts[position].append(self._verdict(box, int(label), scores))
        return [tuple(found) for found in verdicts]

    def _boxes(self, inspected: Inspected) -> Labels:
        """Indices of the boxes to judge."""
        annotation = inspected.candidate.annotation
        comparable = np.isin(annotation.labels, self._judged)
        return np.flatnonzero(inspected.candidate.drawn & ~annotation.ignore & comparable)

    def _verdict(self, box: int, label: int, scores: Floats) -> Verdict:
        score = float(margins(scores[None], np.array([label]))[0])
        threshold = float(self._scorer.thresholds[label])
        keep = score >= threshold
        others = np.where(np.arange(len(scores)) == label, -np.inf, scores)
        reason = "background" if others.argmax() >= self.num_classes else "wrong_class"
        return Verdict(
            filter="alignment",
            box=box,
            keep=keep,
            score=score,
            threshold=threshold,
            reason="" if keep else reason,
        )


class _Prompts:
    """Cosine similarity of a crop to the prompts of each class and of the background."""

    def __init__(self, config: AlignmentConfig, classes: Sequence[str], thresholds: list[float]) -> None:
        self.thresholds = thresholds
        self._clip = open_model(config.clip)
        names = [name.replace("_", " ") for name in classes]
        prompts = [self._mean([template.format(name) for template in config.templates]) for name in names]
        self._prompts = np.stack([*prompts, *self._clip.embed_texts(config.background)]).astype(np.float64)

    def _mean(self, texts: Sequence[str]) -> Embeddings:
        mean = self._clip.embed_texts(texts).mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)

    def scores(self, crops: Sequence[Pixels] | Iterator[Pixels]) -> Floats:
        return np.asarray(self._clip.embed_images(crops) @ self._prompts.T)


class _Detector:
    """Class-conditional Gaussians on a detector's features, fitted on the real crops and on background."""

    def __init__(self, config: AlignmentConfig, state: State, open_embed: OpenEmbed) -> None:
        self._embed = open_embed(config.crop_px)
        crops, num_classes = state["crops"], len(state["classes"])
        features = self._features(cut(crops, config.context_frac))
        labels = np.array([crop["label"] for crop in crops])
        self._discriminant = Discriminant.fitted(features, labels, num_classes + 1)
        own = cross_fitted(features, labels, [crop["image"] for crop in crops], num_classes + 1)
        self.thresholds = _thresholds(config, margins(own, labels), labels, num_classes)

    def scores(self, crops: Sequence[Pixels]) -> Floats:
        return self._discriminant.scores(self._features(iter(crops)))

    def _features(self, pictures: Iterator[Pixels]) -> Floats:
        parts = []
        while part := list(islice(pictures, NUM_AT_ONCE)):
            parts.append(self._embed(part).astype(np.float64))
        return np.concatenate(parts)


def _comparable(crops: Sequence[State], num_classes: int, config: AlignmentConfig) -> list[int]:
    """The classes that can be judged: those with real crops, if there are also crops or prompts of something else."""
    present = {int(crop["label"]) for crop in crops}
    if config.features == "detector" and len(present) < 2:
        return []
    return sorted(present - {num_classes})


def _clip_thresholds(config: AlignmentConfig, state: State) -> list[float]:
    num_classes = len(state["classes"])
    crops = [crop for crop in state["crops"] if crop["label"] < num_classes]
    if not crops:
        return [0.0 - config.margin] * num_classes
    labels = np.array([crop["label"] for crop in crops])
    scores = _Prompts(config, state["classes"], []).scores(cut(crops, config.context_frac))
    return _thresholds(config, margins(scores, labels), labels, num_classes)


def _thresholds(config: AlignmentConfig, own: Floats, labels: Labels, num_classes: int) -> list[float]:
    """The threshold of each class, from the margins ``[n]`` of real crops; non-finite margins are ignored."""
    thresholds = []
    for label in range(num_classes):
        measured = own[(labels == label) & np.isfinite(own)]
        threshold = 0.0 - config.margin  # and not -0.0
        if config.real_quantile is not None and len(measured):
            threshold = min(threshold, float(np.quantile(measured, config.real_quantile)))
        thresholds.append(threshold)
    return thresholds
