"""Records as rows of plain columns, so that Arrow and not pickle carries them between actors.

A row always has ``lineage`` (JSON text) and ``error`` (empty, or why this candidate could not be drawn or judged; its
other columns are then blank). Later stages add their columns and leave the earlier ones as they are.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from actors.plain import from_plain, to_plain
from actors.records import Annotation, Candidate, Detections, Inspected, Lineage

Row = dict[str, Any]

BLANK = Candidate(
    pixels=np.zeros((1, 1, 3), np.uint8),
    annotation=Annotation.empty(),
    drawn=np.zeros(0, np.bool_),
    painted=np.full((1, 1), -1, np.int16),
    canvas="",
    lineage=Lineage(round=0, image_id="", box_indices=(), generator="", seed=0),
)


def lineage_row(lineage: Lineage) -> Row:
    """A candidate that is still to be drawn."""
    return {"id": lineage.id, "lineage": json.dumps(to_plain(lineage)), "error": ""}


def read_lineage(row: Mapping[str, Any]) -> Lineage:
    """The lineage that every row carries."""
    return from_plain(Lineage, json.loads(row["lineage"]))


def candidate_columns(candidate: Candidate) -> Row:
    """The columns that drawing adds."""
    return {
        "pixels": candidate.pixels,
        "drawn": candidate.drawn,
        "painted": candidate.painted,
        "canvas": candidate.canvas,
        "refused": candidate.refused,
        **_columns("annotation", candidate.annotation, ("boxes", "labels", "ignore")),
    }


def read_candidate(row: Mapping[str, Any]) -> Candidate:
    """The drawn candidate of a row."""
    annotation = Annotation(**_values(row, "annotation", ("boxes", "labels", "ignore")))
    return Candidate(
        pixels=row["pixels"],
        annotation=annotation,
        drawn=np.asarray(row["drawn"], np.bool_),
        painted=np.asarray(row["painted"], np.int16),
        canvas=row["canvas"],
        lineage=read_lineage(row),
        refused=row["refused"],
    )


def detections_columns(seen: Detections) -> Row:
    """The columns that inspection adds."""
    return _columns("seen", seen, ("boxes", "labels", "scores"))


def read_detections(row: Mapping[str, Any]) -> Detections:
    """What the detector saw."""
    return Detections(**_values(row, "seen", ("boxes", "labels", "scores")))


def read_inspected(row: Mapping[str, Any]) -> Inspected:
    """The candidate of a row and what the detector saw in it."""
    return Inspected(candidate=read_candidate(row), seen=read_detections(row))


_DTYPES = {"boxes": np.float32, "labels": np.int64, "ignore": np.bool_, "scores": np.float32}


def _columns(prefix: str, record: object, names: tuple[str, ...]) -> Row:
    return {f"{prefix}_{name}": getattr(record, name) for name in names}


def _values(row: Mapping[str, Any], prefix: str, names: tuple[str, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {name: np.asarray(row[f"{prefix}_{name}"], _DTYPES[name]) for name in names}
    values["boxes"] = values["boxes"].reshape(-1, 4)
    return values
