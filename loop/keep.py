"""The last stage of a stream: writes judged candidates as samples."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

import numpy as np
from upath import UPath

from actors import images, rows
from actors.counted import counted
from actors.records import Annotation, Detections, Judged, Sample
from actors.rows import Row
from actors.storage import write_bytes, write_record


class Fate(StrEnum):
    """Kept or dropped; also the name of the folder that holds the sample."""

    KEPT = "kept"
    DROPPED = "dropped"


AS_DRAWN = "as_drawn"
"""Name of the folder with the pictures as drawn of samples with restored boxes."""


class TooManyFailuresError(ValueError):
    """Raised if more candidates fail than generation.max_failed_share allows."""


class Keep:
    """Writes a judged candidate: first its picture, then its record, which marks the sample as complete.

    Kept and dropped samples have separate folders in the round's folder. If boxes were restored, the picture as it was
    drawn is kept in a third. A record names its pictures relative to the round's folder, so that a run can be moved.
    """

    def __init__(self, folder: str) -> None:
        """``folder`` is the URI of the round's folder."""
        self.folder = UPath(folder)

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The column ``dropped``: the reason, empty for a kept candidate."""
        for row in batch:
            self._write(rows.read_judged(row))
        return [{"dropped": row["dropped"]} for row in batch]

    def blank(self) -> Row:
        """Dropped because of the row's error."""
        return {"dropped": rows.BLANK_JUDGED.dropped}

    def _write(self, judged: Judged) -> None:
        place, name = Fate.DROPPED if judged.dropped else Fate.KEPT, f"{judged.lineage.id}.png"
        picture = images.encode_png(judged.pixels)
        as_drawn = f"{AS_DRAWN}/{name}" if judged.restored.any() else f"{place}/{name}"
        sample = Sample(
            id=judged.lineage.id,
            uri=f"{place}/{name}",
            sha256=hashlib.sha256(picture).hexdigest(),
            as_drawn=as_drawn,
            width=judged.pixels.shape[1],
            height=judged.pixels.shape[0],
            annotation=judged.annotation,
            proposed=judged.proposed,
            drawn=judged.drawn,
            restored=judged.restored,
            seen=judged.seen,
            verdicts=judged.verdicts,
            dropped=judged.dropped,
            lineage=judged.lineage,
            canvas=judged.canvas,
            examples=judged.examples,
            refined=judged.refined,
        )
        if sample.as_drawn != sample.uri:
            write_bytes(self.folder / sample.as_drawn, images.encode_png(judged.as_drawn))
        write_bytes(self.folder / sample.uri, picture)
        write_record(self.folder / place / f"{sample.id}.json", sample)


def set_aside(sample: Sample, folder: UPath, reason: str) -> None:
    """Move a kept sample in the round's ``folder`` to the dropped ones, for ``reason``. Repeat it if interrupted."""
    name = f"{sample.id}.png"
    kept, dropped = folder / Fate.KEPT, folder / Fate.DROPPED
    uri = f"{Fate.DROPPED}/{name}"
    if (kept / name).exists():
        write_bytes(dropped / name, (kept / name).read_bytes())
    moved = uri if sample.as_drawn == sample.uri else f"{AS_DRAWN}/{name}"
    aside = replace(sample, uri=uri, as_drawn=moved, annotation=Annotation.empty(), dropped=reason)
    write_record(dropped / f"{sample.id}.json", aside)
    (kept / f"{sample.id}.json").unlink(missing_ok=True)
    (kept / name).unlink(missing_ok=True)


def keep_failed(collected: Sequence[Row], folder: UPath, max_failed: float) -> None:
    """Record the candidates that have an error as dropped, with the error as the reason, in the round's ``folder``.

    Raises TooManyFailuresError, and records nothing, if there are more than ``max_failed`` of them.
    """
    failed = [_failed_sample(row) for row in collected if row["error"]]
    if len(failed) > max_failed:
        raise TooManyFailuresError(
            f"{folder}: {counted(len(failed), 'candidate')} could not be drawn or judged, "
            f"generation.max_failed_share allows {max_failed:g}; first: {failed[0].dropped}"
        )
    for sample in failed:
        write_record(folder / Fate.DROPPED / f"{sample.id}.json", sample)


def _failed_sample(row: Row) -> Sample:
    """The record of a failed candidate: no picture, dropped with the error as the reason."""
    lineage = rows.read_lineage(row)
    return Sample(
        id=lineage.id,
        uri="",
        sha256="",
        as_drawn="",
        width=0,
        height=0,
        annotation=Annotation.empty(),
        proposed=Annotation.empty(),
        drawn=np.zeros(0, np.bool_),
        restored=np.zeros(0, np.bool_),
        seen=Detections.empty(),
        verdicts=(),
        dropped=row["error"],
        lineage=lineage,
    )
