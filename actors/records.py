"""The vocabulary of the loop: one frozen type per stage, composed, never filled in later.

Boxes are ``[n, 4]`` float32 xyxy in pixels, labels ``[n]`` int64 class indices, images ``[H, W, 3]`` uint8 RGB.
Arrays are set read-only: between actors they arrive read-only anyway, and in-process runs must behave the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.seeds import derive_id

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def _freeze(record: "DataclassInstance", lengths: tuple[str, ...] = ()) -> None:
    """Make every array of a record read-only, and check that the named ones have the same length."""
    for one in fields(record):
        value = getattr(record, one.name)
        if isinstance(value, np.ndarray) and value.flags.writeable:
            view = value.view()
            view.setflags(write=False)
            object.__setattr__(record, one.name, view)
    counts = {name: len(getattr(record, name)) for name in lengths}
    if len(set(counts.values())) > 1:
        raise ValueError(f"{type(record).__name__}: fields differ in length: {counts}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annotation:
    """The labels of an image. Boxes flagged ``ignore`` give no loss and count neither as hit nor as miss."""

    boxes: geometry.Boxes  # [n, 4] xyxy px
    labels: NDArray[np.int64]  # [n] class index
    ignore: NDArray[np.bool_]  # [n]

    def __post_init__(self) -> None:
        _freeze(self, ("boxes", "labels", "ignore"))

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def empty(cls) -> "Annotation":
        """No boxes."""
        return cls(boxes=geometry.empty(), labels=np.zeros(0, np.int64), ignore=np.zeros(0, np.bool_))

    def take(self, index: NDArray[Any]) -> "Annotation":
        """The boxes at ``index`` (integer positions or a ``[n]`` bool mask), in that order."""
        return Annotation(boxes=self.boxes[index], labels=self.labels[index], ignore=self.ignore[index])

    def join(self, other: "Annotation") -> "Annotation":
        """The boxes of both, this one's first."""
        return Annotation(
            boxes=np.concatenate([self.boxes, other.boxes]),
            labels=np.concatenate([self.labels, other.labels]),
            ignore=np.concatenate([self.ignore, other.ignore]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """A detector's detections in an image, by falling score."""

    boxes: geometry.Boxes  # [n, 4] xyxy px
    labels: NDArray[np.int64]  # [n] class index
    scores: NDArray[np.float32]  # [n] in [0, 1]

    def __post_init__(self) -> None:
        _freeze(self, ("boxes", "labels", "scores"))

    def __len__(self) -> int:
        return len(self.boxes)

    def best_iou(self, boxes: geometry.Boxes, labels: NDArray[np.int64], min_score: float) -> NDArray[np.float32]:
        """The highest IoU ``[n]`` of boxes ``[n, 4]`` of classes ``[n]`` with a detection of their class, else 0.

        Detections with a score below ``min_score`` do not count.
        """
        counts = (labels[:, None] == self.labels) & (self.scores >= min_score)
        iou = geometry.pairwise_iou(boxes, self.boxes)
        best: NDArray[np.float32] = np.where(counts, iou, 0.0).max(axis=1, initial=0.0)
        return best

    @classmethod
    def empty(cls) -> "Detections":
        """No detections."""
        return cls(boxes=geometry.empty(), labels=np.zeros(0, np.int64), scores=np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabeledImage:
    """A real image and its annotation. Pixels stay behind the URI until an actor reads them."""

    id: str  # unique in the data set, the same on every machine: the path below the image folder
    uri: str  # local path or fsspec URI
    width: int  # px
    height: int  # px
    annotation: Annotation
    # Instance masks of the boxes, as ``counts`` of COCO's compressed run-length encoding of [height, width] px; empty
    # for a box without one. () if no box has one.
    masks: tuple[str, ...] = field(default=(), metadata={"omit_default": True})
    # Areas of the objects in px^2, as COCO's ``area``, by which metrics tell small from large; () if they are those of
    # the boxes.
    areas: tuple[float, ...] = field(default=(), metadata={"omit_default": True})

    def __post_init__(self) -> None:
        for name in ("masks", "areas"):
            values = getattr(self, name)
            if values and len(values) != len(self.annotation):
                raise ValueError(f"LabeledImage: {len(values)} {name} for {len(self.annotation)} boxes")


CLEAN_PREFIX = "clean/"
"""Ids of images without objects begin with it: none equals that of a labelled image in a folder of the same names."""


class Difficulty(StrEnum):
    """The perception-aware attribute of DetDiffusion (arXiv 2403.13304, Eq. 2)."""

    EASY = "easy"
    HARD = "hard"


Attributes = Mapping[str, tuple[Difficulty, ...]]
"""The difficulty of each box of each real image, by image id."""
Strategy = Literal["origin", "easy", "hard"]
"""The requested difficulty (Fig. 3): as mined, or the same for all boxes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One ground-truth box and how well the current detector finds it."""

    image_id: str
    index: int  # position in the image's annotation
    label: int  # class index
    difficulty: Difficulty
    best_score: float  # highest score among detections with IoU > beta, 0 without any
    best_iou: float  # highest IoU among detections with score > gamma, 0 without any


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The origin of a candidate. Its id is derived from it alone."""

    round: int
    image_id: str  # the real image that holds the mined instances
    box_indices: tuple[int, ...]  # their positions in that image's annotation
    generator: str  # kind of the generator
    seed: int  # the candidate's own seed; all its randomness comes from here
    strategy: str = "origin"  # requested difficulty: as mined, or the generator's own word for another
    # Requested hard mode of all its instances, of the generator's ``hard_modes``; empty: the generator draws them.
    mode: str = field(default="", metadata={"omit_default": True})

    @property
    def id(self) -> str:
        """16 hex digits; equal lineage gives equal ids on every machine."""
        strategy = () if self.strategy == "origin" else (self.strategy,)  # a default is left out, as in fingerprints
        mode = (f"mode {self.mode}",) if self.mode else ()
        return derive_id(self.round, self.image_id, repr(self.box_indices), self.generator, self.seed, *strategy, *mode)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A generated image before judgement: a real image, the canvas, in which some boxes were drawn.

    A whole new image has no canvas: all its pixels were drawn, ``painted`` assigns them to boxes, and the annotation is
    the requested layout, in which boxes that were not drawn are flagged ignore.
    """

    pixels: NDArray[np.uint8]  # [H, W, 3] RGB; the canvas's wherever ``painted`` is -1
    annotation: Annotation  # n boxes: the canvas's own, in their order, then those that were added
    drawn: NDArray[np.bool_]  # [n]: the generator drew the pixels of this box, and did not leave them as in the canvas
    painted: NDArray[np.int16]  # [H, W]: the last box whose drawing changed a pixel, -1 for none
    canvas: str  # id of the real image that was drawn into, empty for a whole new image
    lineage: Lineage
    refused: str = ""  # why the generator itself refuses the candidate, e.g. "generator: safety_checker"
    examples: tuple[str, ...] = ()  # [n] id of the real image that a box's object was cut from, "" for none; () for all

    def __post_init__(self) -> None:
        _freeze(self)
        if self.painted.shape != self.pixels.shape[:2]:
            raise ValueError(f"Candidate: painted is {self.painted.shape}, pixels are {self.pixels.shape}")
        if len(self.drawn) != len(self.annotation):
            raise ValueError(f"Candidate: {len(self.drawn)} drawn flags for {len(self.annotation)} boxes")
        if self.examples and len(self.examples) != len(self.annotation):
            raise ValueError(f"Candidate: {len(self.examples)} examples for {len(self.annotation)} boxes")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inspected:
    """A candidate and the current detector's detections in it."""

    candidate: Candidate
    seen: Detections


WHOLE_IMAGE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One filter's judgement of an image or of one of its boxes."""

    filter: str  # kind of the filter
    box: int  # position in the candidate's annotation, or WHOLE_IMAGE
    keep: bool
    score: float  # the measured value
    threshold: float | None  # the limit that the score is compared with; None if it is only measured
    reason: str  # short and countable, e.g. "not_detected"; empty if kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """What refinement did with a drawn box."""

    box: int  # position in the proposed labels
    corners: tuple[float, float, float, float]  # of the refined box, xyxy px
    prompt_iou: float  # IoU of the refined box with the proposed one
    seen_before: float  # IoU of the proposed box with the best detection of its class, 0 without any
    seen_after: float  # likewise of the refined box
    confidence: float  # of the refiner, in [0, 1]
    fate: Literal["moved", "kept", "ignored"]  # the label has the refined box; the proposed one; that, flagged ignore


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A candidate after all filters, as it will be kept: rejected boxes are restored, and others moved by a refiner."""

    pixels: NDArray[np.uint8]  # [H, W, 3] RGB: the candidate's, except in restored boxes
    as_drawn: NDArray[np.uint8]  # [H, W, 3] RGB: the candidate's
    annotation: Annotation  # the remaining labels; empty if the image is dropped
    proposed: Annotation  # the labels before judgement
    drawn: NDArray[np.bool_]  # [proposed]: drawn by the generator, whether kept or not
    restored: NDArray[np.bool_]  # [proposed]: drawn, rejected, and undone: the canvas's pixels are back
    seen: Detections  # in the candidate as it was generated
    verdicts: tuple[Verdict, ...]
    dropped: str  # why the image is dropped, as "filter: reason"; empty if it is kept
    lineage: Lineage
    canvas: str  # as in ``Candidate``
    examples: tuple[str, ...]  # as in ``Candidate``
    refined: tuple[Refined, ...] = ()  # one for each drawn box that the filters kept; () without a refiner

    def __post_init__(self) -> None:
        _freeze(self, ("proposed", "drawn", "restored"))

    @property
    def rejected(self) -> NDArray[np.bool_]:
        """Flags ``[proposed]`` of the boxes that a verdict rejects."""
        rejected = np.zeros(len(self.proposed), np.bool_)
        rejected[[one.box for one in self.verdicts if not one.keep and one.box != WHOLE_IMAGE]] = True
        return rejected


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refinement:
    """A refiner's answer for the boxes of one annotation, in their order."""

    boxes: geometry.Boxes  # [n, 4] xyxy px of the picture, inside it; those flagged ignore are as they were
    confidence: NDArray[np.float32]  # [n] in [0, 1]: how sure the refiner is of each box; 0 where flagged ignore

    def __post_init__(self) -> None:
        _freeze(self, ("boxes", "confidence"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A judged candidate on disk: in the pool if ``dropped`` is empty, else kept aside with its reason."""

    id: str
    uri: str  # the lossless picture; relative to the round's folder in the record on disk; empty if none was drawn
    sha256: str  # of the picture's file
    as_drawn: str  # the picture before boxes were restored, relative likewise; ``uri`` if none was
    width: int  # px
    height: int  # px
    annotation: Annotation  # the remaining labels
    proposed: Annotation  # the labels before judgement
    drawn: NDArray[np.bool_]  # [proposed]: drawn by the generator, whether kept or not
    restored: NDArray[np.bool_]  # [proposed]: drawn, rejected, and undone: the canvas's pixels are back
    seen: Detections  # in the candidate as it was generated, before boxes were restored
    verdicts: tuple[Verdict, ...]
    dropped: str  # empty if kept
    lineage: Lineage
    canvas: str = ""  # as in ``Candidate``
    examples: tuple[str, ...] = ()  # as in ``Candidate``
    refined: tuple[Refined, ...] = field(default=(), metadata={"omit_default": True})  # as in ``Judged``
