"""Findings of an import: every box or image that was dropped or changed, with its file and the reason."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from actors.records import LabeledImage

What = Literal["image", "box"]

EXAMPLES = 5  # findings per reason that the text report lists

ADVICE: Mapping[str, str] = {
    "not a number": "correct the box",
    "unknown class": "correct the box, or add its class to the list of classes",
    "unknown image": "correct its image id, or delete the box",
    "negative size": "correct the order of its corners",
    "zero area": "draw the box anew, or delete it",
    "outside the image": "draw the box anew, or delete it",
    "exact duplicate": "one copy is used",
    "faulty boxes": "left out, since their objects would be trained as background; correct or delete the boxes",
    "no box left": "left out, since it is not known to be empty; correct or delete the boxes",
    "missing image": "add the file, or correct its name",
    "label file elsewhere": "left out; give the label file the name of the picture, in the folder of its labels",
    "missing annotation": "label the image, or add an empty annotation",
    "ambiguous file name": "give paths that lie below the root, or rename the files",
    "unreadable file": "save the image anew, or remove it",
    "unreadable annotation": "export the annotation again, or repair it",
    "malformed entry": "export the annotations again",
    "too many pixels": "make the image smaller, or cut it into tiles",
    "listed twice": "delete one of the entries",
    "labelled objects": "data.clean is for pictures without objects",
    "tiny picture": "objects hardly fit into it; give pictures as large as the images of the data set",
    "repeated picture": "one copy is used",
    "near-copy of a held-out image": "left out, since figures on the held-out image would be too high",
    "synthetic image held out": "only training data may be synthetic",
    "size mismatch": "make the annotated size that of the image",
    "boxes moved into the image": "look at some of them, or annotate upright images of their final size",
    "names another picture": "look at it: the picture of the annotation's own name is used",
    "shared label file": "remove the picture that is none, such as a mask",
    "orientation": "look at some of them, or save the images upright",
    "clipped at the image border": "nothing, if objects are cut by the border",
    "segmentation not usable": "correct it, or delete it",
}
"""What can be done about a finding, by its reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A fault of one image or box."""

    file: str  # below the data root
    what: What
    reason: str  # short and countable, e.g. "zero area"
    detail: str = ""  # which box, and the values seen
    dropped: bool = True  # False: kept, but changed or worth knowing


@dataclass(slots=True)
class Ledger:
    """Collects findings while a data set is read."""

    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # about the data set as a whole

    def drop(self, file: str, what: What, reason: str, detail: str = "") -> None:
        """Record a box or an image that is left out."""
        self.findings.append(Finding(file=file, what=what, reason=reason, detail=detail))

    def note(self, file: str, what: What, reason: str, detail: str = "") -> None:
        """Record a box or an image that is kept, but changed."""
        self.findings.append(Finding(file=file, what=what, reason=reason, detail=detail, dropped=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCounts:
    """Numbers of images and boxes in a split."""

    images: int
    empty: int  # images without any box
    boxes: int
    ignored: int  # boxes flagged ignore
    boxes_by_class: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """The result of an import: what was read, what was left out and why. ``str`` gives a readable text."""

    format: str
    root: str
    splits: Mapping[str, SplitCounts]
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]

    @property
    def dropped(self) -> tuple[Finding, ...]:
        """The boxes and images that were left out."""
        return tuple(finding for finding in self.findings if finding.dropped)

    @property
    def noted(self) -> tuple[Finding, ...]:
        """The boxes and images that were kept, but changed or worth knowing."""
        return tuple(finding for finding in self.findings if not finding.dropped)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values: counts, every drop, and the number of notes by reason."""
        return {
            "format": self.format,
            "root": self.root,
            "splits": {name: _plain(counts) for name, counts in self.splits.items()},
            "dropped": _tally(self.dropped),
            "noted": _tally(self.noted),
            "drops": [
                {"file": one.file, "what": one.what, "reason": one.reason, "detail": one.detail} for one in self.dropped
            ],
            "remarks": list(self.remarks),
        }

    def told(self) -> list[str]:
        """All that was left out or changed, in lines of text; empty if that is nothing."""
        lines = _listing("Dropped", self.dropped) + _listing("Kept, but", self.noted)
        return lines + [f"Note: {remark}" for remark in self.remarks]

    def __str__(self) -> str:
        lines = [f"{self.format.upper()} data in {self.root}", *_table(self.splits)]
        lines += [] if self.dropped else ["Dropped: nothing"]
        return "\n".join(lines + self.told())


def count(images: Sequence[LabeledImage], classes: Sequence[str]) -> SplitCounts:
    """The counts of one split. A class without boxes has the count 0."""
    labels = np.concatenate([image.annotation.labels for image in images] or [np.zeros(0, np.int64)])
    by_class = np.bincount(labels, minlength=len(classes))
    return SplitCounts(
        images=len(images),
        empty=sum(len(image.annotation) == 0 for image in images),
        boxes=len(labels),
        ignored=sum(int(image.annotation.ignore.sum()) for image in images),
        boxes_by_class={name: int(by_class[index]) for index, name in enumerate(classes)},
    )


def _plain(counts: SplitCounts) -> dict[str, Any]:
    return {
        "images": counts.images,
        "empty": counts.empty,
        "boxes": counts.boxes,
        "ignored": counts.ignored,
        "boxes_by_class": dict(counts.boxes_by_class),
    }


def _tally(findings: Sequence[Finding]) -> dict[str, int]:
    counts = Counter(f"{finding.what}: {finding.reason}" for finding in findings)
    return dict(counts.most_common())


def _table(splits: Mapping[str, SplitCounts]) -> Iterator[str]:
    """A table with one line per split and one column per count, then a table of the classes."""
    rows = [["split", "images", "empty", "boxes", "ignored"]]
    rows += [[name, *map(str, (c.images, c.empty, c.boxes, c.ignored))] for name, c in splits.items()]
    yield from _aligned(rows)
    yield ""
    classes = next(iter(splits.values())).boxes_by_class if splits else {}
    rows = [["class", *splits]]
    rows += [[name, *(str(counts.boxes_by_class[name]) for counts in splits.values())] for name in classes]
    yield from _aligned(rows)
    yield ""


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        yield "  " + "  ".join(cells)


def _listing(title: str, findings: Sequence[Finding]) -> list[str]:
    """The findings by reason, most frequent first, each with a few examples."""
    lines = []
    for kind, number in _tally(findings).items():
        advice = ADVICE.get(kind.partition(": ")[2], "")
        lines.append(f"{title}: {number} x {kind}" + (f" ({advice})" if advice else ""))
        alike = [one for one in findings if f"{one.what}: {one.reason}" == kind]
        lines += [f"    {one.file}" + (f": {one.detail}" if one.detail else "") for one in alike[:EXAMPLES]]
        if number > EXAMPLES:
            lines.append(f"    ... and {number - EXAMPLES} more")
    return lines
