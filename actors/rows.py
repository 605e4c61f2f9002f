"""Records as rows of plain columns, so that Arrow and not pickle carries them between actors.

A row always has ``id``, ``lineage`` (JSON text) and ``error`` (empty, or the reason why this candidate failed; its
other columns are then blank). Each stage adds its columns. Judging replaces ``pixels`` and the annotation by the kept
ones, so that a row holds the pixels of its candidate once.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from actors.plain import from_plain, to_plain
from actors.records import Annotation, Candidate, Detections, Inspected, Judged, Lineage, Refined, Verdict

Row = dict[str, Any]

NO_LINEAGE = Lineage(round=0, image_id="", box_indices=(), generator="", seed=0)
BLANK = Candidate(
    pixels=np.zeros((1, 1, 3), np.uint8),
    annotation=Annotation.empty(),
    drawn=np.zeros(0, np.bool_),
    painted=np.full((1, 1), -1, np.int16),
    canvas="",
    lineage=NO_LINEAGE,
)
BLANK_JUDGED = Judged(
    pixels=BLANK.pixels,
    as_drawn=BLANK.pixels,
    annotation=Annotation.empty(),
    proposed=Annotation.empty(),
    drawn=BLANK.drawn,
    restored=np.zeros(0, np.bool_),
    seen=Detections.empty(),
    verdicts=(),
    dropped="error",
    lineage=NO_LINEAGE,
    canvas="",
    examples=(),
)


def lineage_row(lineage: Lineage) -> Row:
    """The row of a candidate that has not been generated yet."""
    return {"id": lineage.id, "lineage": json.dumps(to_plain(lineage)), "error": ""}


def read_lineage(row: Mapping[str, Any]) -> Lineage:
    """The lineage of a row."""
    return from_plain(Lineage, json.loads(row["lineage"]))


def candidate_columns(candidate: Candidate) -> Row:
    """The columns that generation adds."""
    return {
        "pixels": candidate.pixels,
        "drawn": candidate.drawn,
        "painted": candidate.painted,
        "canvas": candidate.canvas,
        "refused": candidate.refused,
        "examples": json.dumps(candidate.examples),
        **_annotation_columns("annotation", candidate.annotation),
    }


def read_candidate(row: Mapping[str, Any]) -> Candidate:
    """The candidate of a row."""
    return Candidate(
        pixels=row["pixels"],
        annotation=_read_annotation(row, "annotation"),
        drawn=np.asarray(row["drawn"], np.bool_),
        painted=np.asarray(row["painted"], np.int16),
        canvas=row["canvas"],
        lineage=read_lineage(row),
        refused=row["refused"],
        examples=tuple(json.loads(row["examples"])),
    )


def detections_columns(seen: Detections) -> Row:
    """The columns that inspection adds."""
    return _columns("seen", seen, ("boxes", "labels", "scores"))


def read_detections(row: Mapping[str, Any]) -> Detections:
    """The detections of a row."""
    return Detections(**_values(row, "seen", ("boxes", "labels", "scores")))


def read_inspected(row: Mapping[str, Any]) -> Inspected:
    """The candidate and detections of a row."""
    return Inspected(candidate=read_candidate(row), seen=read_detections(row))


def judged_columns(judged: Judged) -> Row:
    """The columns that judging adds; pixels and annotation replace those of the candidate.

    A second picture, as it was drawn, is there only if a box was restored.
    """
    return {
        "pixels": judged.pixels,
        "as_drawn": judged.as_drawn if judged.restored.any() else BLANK.pixels,
        "drawn": judged.drawn,
        "restored": judged.restored,
        "verdicts": json.dumps(to_plain(judged.verdicts)),
        "dropped": judged.dropped,
        "canvas": judged.canvas,
        "examples": json.dumps(judged.examples),
        **_annotation_columns("annotation", judged.annotation),
        **_annotation_columns("proposed", judged.proposed),
        **detections_columns(judged.seen),
    }


def refined_columns(judged: Judged) -> Row:
    """The columns that refinement adds or changes."""
    return {
        "refined": json.dumps(to_plain(judged.refined)),
        "dropped": judged.dropped,
        **_annotation_columns("annotation", judged.annotation),
    }


def read_judged(row: Mapping[str, Any]) -> Judged:
    """The judged candidate of a row, refined or not."""
    restored = np.asarray(row["restored"], np.bool_)
    return Judged(
        pixels=row["pixels"],
        as_drawn=row["as_drawn"] if restored.any() else row["pixels"],
        annotation=_read_annotation(row, "annotation"),
        proposed=_read_annotation(row, "proposed"),
        drawn=np.asarray(row["drawn"], np.bool_),
        restored=restored,
        seen=read_detections(row),
        verdicts=tuple(from_plain(Verdict, verdict) for verdict in json.loads(row["verdicts"])),
        dropped=row["dropped"],
        lineage=read_lineage(row),
        canvas=row["canvas"],
        examples=tuple(json.loads(row["examples"])),
        refined=tuple(from_plain(Refined, one) for one in json.loads(row.get("refined", "[]"))),
    )


def _annotation_columns(prefix: str, annotation: Annotation) -> Row:
    return _columns(prefix, annotation, ("boxes", "labels", "ignore"))


def _read_annotation(row: Mapping[str, Any], prefix: str) -> Annotation:
    return Annotation(**_values(row, prefix, ("boxes", "labels", "ignore")))


_DTYPES = {"boxes": np.float32, "labels": np.int64, "ignore": np.bool_, "scores": np.float32}


def _columns(prefix: str, record: object, names: tuple[str, ...]) -> Row:
    return {f"{prefix}_{name}": getattr(record, name) for name in names}


def _values(row: Mapping[str, Any], prefix: str, names: tuple[str, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {name: np.asarray(row[f"{prefix}_{name}"], _DTYPES[name]) for name in names}
    values["boxes"] = values["boxes"].reshape(-1, 4)
    return values
