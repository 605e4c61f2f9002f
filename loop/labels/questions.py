"""The questions about labels: which sit badly, are missing, have the wrong class, or are there twice. Ours.

Each has a score in [0, 1], how sure it is. All of them follow from detections in images that the detector was not
trained on. A detection's raw score says little, since weak detectors have low ones. It is replaced by its hit rate: the
share of the unseen detections of about this score that lie on a label of their class (``hit_rates``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.records import Annotation
from loop.labels.placement import badly_placed
from loop.labels.unseen import Looked
from loop.labels.votes import LIES_ON_IOU, hit_rates, on_labels

Kind = Literal["box", "missing", "class", "doubled"]
KINDS: dict[Kind, str] = {
    "box": "boxes that sit badly: the object is seen elsewhere",
    "missing": "objects without a label",
    "class": "labels of the wrong class",
    "doubled": "labels on an object that has one already",
}
"""The kinds of questions, in words."""

LEAST, LEAST_OF_BOX = 0.5, 0.8  # questions with a lower score are not asked
SAME_IOU = 0.85  # a box that would hardly move is not asked about
DOUBLED_IOU = 0.7  # of two labels that may be of one object
INSIDE = 0.7  # share of a detection in one label, from which it is part of that object


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question about a label, or about an object that has none. Boxes are xyxy px."""

    image: str  # id
    kind: Kind
    score: float  # in [0, 1], how sure it is
    index: int | None = None  # position of the label in the image's annotation
    label: int | None = None  # its class
    box: tuple[float, ...] | None = None  # its box
    new_label: int | None = None  # the class proposed; None: no label
    new_box: tuple[float, ...] | None = None  # the box proposed


def ask(looked: Sequence[Looked]) -> tuple[Question, ...]:
    """All questions about the labels of some images, the surest first."""
    rates = hit_rates(looked)
    found = [*badly_placed_labels(looked, rates)]
    for one, rate in zip(looked, rates, strict=True):
        found += [*_missing(one, rate), *_wrong_class(one, rate), *_doubled(one, rate)]
    return tuple(sorted(found, key=lambda each: (-each.score, each.image, each.kind, each.index or 0)))


def num_found(looked: Sequence[Looked]) -> int:
    """The number of labels on which a detection of their class lies that is more likely right than not."""
    pairs = zip(looked, hit_rates(looked), strict=True)
    return sum(int((on_labels(one.image.annotation, one.seen, rates) >= LEAST).sum()) for one, rates in pairs)


def badly_placed_labels(looked: Sequence[Looked], rates: Sequence[NDArray[np.float32]]) -> Iterator[Question]:
    """The questions about boxes; ``rates`` are those of the detections."""
    for one, placed in zip(looked, badly_placed(looked, rates), strict=True):
        overlap = geometry.paired_iou(one.image.annotation.boxes, placed.boxes)
        for index in np.flatnonzero((placed.scores >= LEAST_OF_BOX) & (overlap < SAME_IOU)):
            label = int(one.image.annotation.labels[index])
            yield Question(
                image=one.image.id,
                kind="box",
                score=float(placed.scores[index]),
                index=int(index),
                label=label,
                box=_corners(one.image.annotation, int(index)),
                new_label=label,
                new_box=tuple(placed.boxes[index].tolist()),
            )


def _missing(one: Looked, rates: NDArray[np.float32]) -> Iterator[Question]:
    """Sure detections on no label, neither whole nor in part. Of several on one place the surest is taken."""
    labels, seen = one.image.annotation, one.seen
    shared = geometry.intersections(seen.boxes, labels.boxes) / np.maximum(geometry.areas(seen.boxes), 1e-6)[:, None]
    own = (seen.labels[:, None] == labels.labels) | labels.ignore
    part = (shared >= INSIDE) & own
    free = (geometry.pairwise_iou(seen.boxes, labels.boxes) < np.where(own, LIES_ON_IOU / 2, LIES_ON_IOU)) & ~part
    taken: list[int] = []
    for index in np.argsort(-rates, kind="stable"):
        if rates[index] < LEAST or not free[index].all():
            continue
        if geometry.pairwise_iou(seen.boxes[taken], seen.boxes[index : index + 1]).max(initial=0.0) < LIES_ON_IOU / 2:
            taken.append(int(index))
            yield Question(
                image=one.image.id,
                kind="missing",
                score=float(rates[index]),
                new_label=int(seen.labels[index]),
                new_box=tuple(seen.boxes[index].tolist()),
            )


def _wrong_class(one: Looked, rates: NDArray[np.float32]) -> Iterator[Question]:
    """Labels on which a sure detection of another class lies, and none of their own."""
    labels, seen = one.image.annotation, one.seen
    on = geometry.pairwise_iou(labels.boxes, seen.boxes) >= LIES_ON_IOU
    same = labels.labels[:, None] == seen.labels
    own = np.where(on & same, rates, 0.0).max(axis=1, initial=0.0)
    other = np.where(on & ~same, rates, 0.0) * (1 - own[:, None])
    for index in np.flatnonzero(~labels.ignore & (other.max(axis=1, initial=0.0) >= LEAST)):
        best = int(other[index].argmax())
        yield Question(
            image=one.image.id,
            kind="class",
            score=float(other[index, best]),
            index=int(index),
            label=int(labels.labels[index]),
            box=_corners(labels, int(index)),
            new_label=int(seen.labels[best]),
            new_box=_corners(labels, int(index)),
        )


def _doubled(one: Looked, rates: NDArray[np.float32]) -> Iterator[Question]:
    """Labels without a detection of their own that overlap a label of their class, which has a sure one, like a copy.

    Labels of two classes on one object are no copies: which class is wrong is asked by ``_wrong_class``.
    """
    labels = one.image.annotation
    overlap = geometry.pairwise_iou(labels.boxes, labels.boxes)
    support = on_labels(labels, one.seen, rates)
    better = (support >= LEAST) & (support > support[:, None]) & ~labels.ignore  # [label, other]
    copies = (overlap >= DOUBLED_IOU) & (labels.labels[:, None] == labels.labels) & better
    scores = np.where(copies, overlap, 0.0).max(axis=1, initial=0.0) * (1 - support)
    for index in map(int, np.flatnonzero(~labels.ignore & (scores >= LEAST))):
        label, box = int(labels.labels[index]), _corners(labels, index)
        yield Question(
            image=one.image.id, kind="doubled", score=float(scores[index]), index=index, label=label, box=box
        )


def _corners(labels: Annotation, index: int) -> tuple[float, ...]:
    return tuple(labels.boxes[index].tolist())
