"""Questions as a table, and the summary of them for the terminal."""

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import StringIO
from typing import Any

from actors.counted import counted
from actors.records import LabeledImage
from loop.labels.questions import KINDS, Question

COLUMNS = (
    *("image", "box", "question", "class", "new_class", "score", "applied"),
    *("x0", "y0", "x1", "y1", "new_x0", "new_y0", "new_x1", "new_y1", "uri"),
)
_NO_BOX = (None,) * 4


def table(
    questions: Sequence[Question], applied: Collection[Question], uris: Mapping[str, str], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each question, in their order, by the names in ``COLUMNS``. Boxes are in px of the upright picture."""
    return [
        dict(zip(COLUMNS, (*_cells(one, classes), one in applied, *_corners(one), uris[one.image]), strict=True))
        for one in questions
    ]


def _cells(one: Question, classes: Sequence[str]) -> tuple[Any, ...]:
    names = (None if label is None else classes[label] for label in (one.label, one.new_label))
    return (one.image, one.index, one.kind, *names, round(one.score, 4))


def _corners(one: Question) -> Iterator[float | None]:
    for box in (one.box, one.new_box):
        yield from _NO_BOX if box is None else (round(value, 2) for value in box)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The table as CSV with a header, in UTF-8."""
    text = StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def share_found(num_found: int, images: Sequence[LabeledImage]) -> float:
    """The share in [0, 1] of the images' labels that were found again."""
    return num_found / max(_num_labels(images), 1)


def _num_labels(images: Sequence[LabeledImage]) -> int:
    return sum(int((~image.annotation.ignore).sum()) for image in images)


def too_weak(share: float) -> str:
    """The warning that detectors which found this share of the labels again are too weak, and what to do."""
    return (
        f"these detectors found only {share:.0%} of the labels again: too weak to say much about the labels. Raise "
        "training.steps, start from weights (detector.weights with training.start: weights), or enlarge the images "
        "(detector.image_size_px)"
    )


def summary(questions: Sequence[Question], images: Sequence[LabeledImage], share: float) -> str:
    """The numbers of questions of each kind and the surest of them; ``share`` of the labels were found again."""
    sizes = f"{counted(len(images), 'training image')} with {counted(_num_labels(images), 'label')}"
    lines = [
        f"{sizes}, each image seen by a detector that was not trained on it",
        f"{share:.0%} of the labels were found again, in place and class",
    ]
    for kind, words in KINDS.items():
        of_kind = [one for one in questions if one.kind == kind]
        surest = f"   surest {of_kind[0].score:.2f}: {_named(of_kind[0])}" if of_kind else ""
        lines.append(f"  {kind:<8}{len(of_kind):>6}  {words}{surest}")
    return "\n".join(lines)


def _named(one: Question) -> str:
    return one.image if one.index is None else f"{one.image}, box {one.index}"
