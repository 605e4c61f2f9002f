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
    """What is known to be in an image. Boxes flagged ``ignore`` give no loss and count neither as hit nor as miss."""

    boxes: geometry.Boxes  # [n, 4] xyxy px
    labels: NDArray[np.int64]  # [n] class index
    ignore: NDArray[np.bool_]  # [n]

    def __post_init__(self) -> None:
        _freeze(self, ("boxes", "labels", "ignore"))

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def empty(cls) -> "Annotation":
        """Nothing is in the image."""
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
    """What a detector saw in an image, by falling score."""

    boxes: geometry.Boxes  # [n, 4] xyxy px
    labels: NDArray[np.int64]  # [n] class index
    scores: NDArray[np.float32]  # [n] in [0, 1]

    def __post_init__(self) -> None:
        _freeze(self, ("boxes", "labels", "scores"))

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def empty(cls) -> "Detections":
        """Nothing was seen."""
        return cls(boxes=geometry.empty(), labels=np.zeros(0, np.int64), scores=np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabeledImage:
    """A real image and its annotation. Pixels stay behind the URI until an actor reads them."""

    id: str  # unique in the data set, stable over machines: the path below the image folder
    uri: str  # local path or fsspec URI
    width: int  # px
    height: int  # px
    annotation: Annotation
    # The boxes' instance masks: each the ``counts`` of COCO's compressed run-length encoding of [height, width] px,
    # empty where a box has none. () where no box has one.
    masks: tuple[str, ...] = field(default=(), metadata={"omit_default": True})

    def __post_init__(self) -> None:
        if self.masks and len(self.masks) != len(self.annotation):
            raise ValueError(f"LabeledImage: {len(self.masks)} masks for {len(self.annotation)} boxes")


class Difficulty(StrEnum):
    """The perception-aware attribute of DetDiffusion (arXiv 2403.13304, Eq. 2)."""

    EASY = "easy"
    HARD = "hard"


Attributes = Mapping[str, tuple[Difficulty, ...]]
"""That of each box of each real image, by image id."""
Strategy = Literal["origin", "easy", "hard"]
"""The attribute that is asked for (Fig. 3): as it was found, or the same for all boxes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One ground-truth box and what the current detector makes of it."""

    image_id: str
    index: int  # position in the image's annotation
    label: int  # class index
    difficulty: Difficulty
    best_score: float  # highest score among detections with IoU > beta, 0 without any
    best_iou: float  # highest IoU among detections with score > gamma, 0 without any


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a candidate comes from. Its id is derived from this and nothing else."""

    round: int
    image_id: str  # the real image that holds the mined instances
    box_indices: tuple[int, ...]  # their positions in that image's annotation
    generator: str  # kind of the generator
    seed: int  # the candidate's own seed; all its randomness comes from here
    strategy: str = "origin"  # the difficulty asked for: as mined, or the generator's own word for another

    @property
    def id(self) -> str:
        """16 hex digits; equal lineage gives equal ids on every machine."""
        strategy = () if self.strategy == "origin" else (self.strategy,)  # a default is left out, as in fingerprints
        return derive_id(self.round, self.image_id, repr(self.box_indices), self.generator, self.seed, *strategy)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A generated image before judgement: a real image, the canvas, in which some boxes were drawn.

    A whole new image has no canvas: all its pixels were drawn, ``painted`` says which of them lie in which box, and the
    annotation is the layout that was asked for, in which boxes that were not drawn are flagged ignore.
    """

    pixels: NDArray[np.uint8]  # [H, W, 3] RGB; the canvas's wherever ``painted`` is -1
    annotation: Annotation  # n boxes: the canvas's own, in their order, then those that were added
    drawn: NDArray[np.bool_]  # [n]: this box's pixels were drawn by the generator (not simply left as in the canvas)
    painted: NDArray[np.int16]  # [H, W]: which box's drawing touched a pixel last, -1 for none
    canvas: str  # id of the real image that was drawn into, empty for a whole new image
    lineage: Lineage
    refused: str = ""  # why the generator itself refuses what it drew, e.g. "generator: safety_checker"

    def __post_init__(self) -> None:
        _freeze(self)
        if self.painted.shape != self.pixels.shape[:2]:
            raise ValueError(f"Candidate: painted is {self.painted.shape}, pixels are {self.pixels.shape}")
        if len(self.drawn) != len(self.annotation):
            raise ValueError(f"Candidate: {len(self.drawn)} drawn flags for {len(self.annotation)} boxes")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inspected:
    """A candidate and what the current detector saw in it."""

    candidate: Candidate
    seen: Detections


WHOLE_IMAGE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One filter's judgement of an image or of one of its boxes."""

    filter: str  # kind of the filter
    box: int  # position in the candidate's annotation, or WHOLE_IMAGE
    keep: bool
    score: float  # what was measured
    threshold: float  # what it was held against
    reason: str  # short and countable, e.g. "not_detected"; empty where kept


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A candidate after every filter has spoken, as it is to be kept; the pixels that were restored are gone."""

    pixels: NDArray[np.uint8]  # [H, W, 3] RGB: the candidate's, but for what was restored
    annotation: Annotation  # what is left of the labels; empty where the image is dropped
    proposed: Annotation  # the labels before judgement
    drawn: NDArray[np.bool_]  # [proposed]: drawn by the generator, whatever became of it
    restored: NDArray[np.bool_]  # [proposed]: drawn, rejected, and undone: the canvas's pixels are back
    seen: Detections  # in the candidate as it was drawn
    verdicts: tuple[Verdict, ...]
    dropped: str  # why the image is dropped, as "filter: reason"; empty where it is kept
    lineage: Lineage

    def __post_init__(self) -> None:
        _freeze(self, ("proposed", "drawn", "restored"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A judged candidate on disk: in the pool where ``dropped`` is empty, else kept aside with its reason."""

    id: str
    uri: str  # the picture, lossless; in its record on disk, from the round's folder on; empty where none was drawn
    sha256: str  # of the picture's file
    width: int  # px
    height: int  # px
    annotation: Annotation  # what is left of the labels
    proposed: Annotation  # the labels before judgement
    drawn: NDArray[np.bool_]  # [proposed]: drawn by the generator, whatever became of it
    restored: NDArray[np.bool_]  # [proposed]: drawn, rejected, and undone: the canvas's pixels are back
    seen: Detections  # in the candidate as it was drawn, before anything was restored
    verdicts: tuple[Verdict, ...]
    dropped: str  # empty where kept
    lineage: Lineage
