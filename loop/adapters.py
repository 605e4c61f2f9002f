"""Rows in, records through a component, rows out: what the actors of each stage do.

An adapter is opened inside its actor from plain arguments: configs, and URIs of what lies in the run folder.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from upath import UPath

from actors import images, rows
from actors.detectors import DetectorConfig, load_detector
from actors.filters import FilterConfig
from actors.filters.chain import build_filters, judge
from actors.filters.crops import window
from actors.filters.rejected import RejectedBoxes, restore
from actors.generators import GeneratorConfig
from actors.records import Annotation, Detections, Judged, LabeledImage, Sample
from actors.rows import Row
from actors.storage import read_record, write_bytes, write_record
from loop.state import Fate

if TYPE_CHECKING:
    from actors.filters.base import Embed as Features
    from actors.filters.base import OpenEmbed, State

NUM_CANVASES: Final = 32  # real pictures that a judge keeps at hand; several candidates share one
NOTHING_SEEN = Detections(
    boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), scores=np.zeros(0, np.float32)
)


class Generate:
    """Draws the candidate of a row's lineage."""

    def __init__(self, config: GeneratorConfig, real: str, classes: tuple[str, ...], fitted: str | None) -> None:
        """``real`` is the URI of the real training images' records, ``fitted`` that of what was fitted on them."""
        self.generator = config.build(read_record(UPath(real), tuple[LabeledImage, ...]), classes, fitted)

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The columns of the drawn candidates."""
        candidates = self.generator.generate([rows.read_lineage(row) for row in batch])
        return [rows.candidate_columns(candidate) for candidate in candidates]

    def blank(self) -> Row:
        """A one-pixel picture of nothing."""
        return rows.candidate_columns(rows.BLANK)


class Inspect:
    """Adds what a detector sees in a row's pixels, or in the picture behind its ``uri``."""

    def __init__(self, config: DetectorConfig, checkpoint: str) -> None:
        self.detector = load_detector(config, checkpoint)

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The columns of what is seen."""
        pictures = [row["pixels"] if "pixels" in row else images.read(row["uri"]) for row in batch]
        return [rows.detections_columns(seen) for seen in self.detector.detect(pictures)]

    def blank(self) -> Row:
        """Nothing is seen."""
        return rows.detections_columns(NOTHING_SEEN)


def open_detector_embed(config: DetectorConfig, checkpoint: str, size_px: int) -> "Features":
    """A detector's features of pictures, each resized to ``size_px`` on its longer side."""
    detector = load_detector(config.model_copy(update={"image_size_px": size_px}), checkpoint)
    return lambda pictures: detector.features(pictures).numpy()


class Embed:
    """Adds the features of the picture behind a row's ``uri``; of its k boxes, where it has ``boxes`` (as JSON)."""

    def __init__(self, open_embed: "Callable[[], Features]") -> None:
        self.features = open_embed()

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """``features`` [k, d], with k = 1 for a whole picture."""
        pictures = [self._pictures(row) for row in batch]
        features = self.features([one for group in pictures for one in group])
        ends = np.cumsum([len(group) for group in pictures])
        return [{"features": part} for part in np.split(features, ends[:-1])]

    def _pictures(self, row: Row) -> list[images.Pixels]:
        pixels = images.read(row["uri"])
        if "boxes" not in row:
            return [pixels]
        return [window(pixels, np.array(box, np.float32), 0.0) for box in json.loads(row["boxes"])]

    def blank(self) -> Row:
        """No features."""
        return {"features": np.zeros((0, 0), np.float32)}


class Judge:
    """Judges an inspected candidate and writes it down: its picture, then its record, which makes it whole.

    Kept and dropped lie apart below the round's folder; a record names its picture from there, so a run can be moved.
    """

    def __init__(
        self,
        configs: Sequence[FilterConfig],
        rejected_boxes: RejectedBoxes,
        states: str,
        real: str,
        folder: str,
        open_embed: "OpenEmbed | None" = None,
    ) -> None:
        """``states`` is the URI of what the filters learnt from the real images, ``folder`` the round's.

        ``real`` is the URI of the real training images' records, the canvases among them; ``open_embed`` opens the
        current detector, for filters that look through its eyes.
        """
        learnt: dict[str, State] = read_record(UPath(states), dict)
        self.filters = build_filters(configs, learnt, open_embed)
        self.rejected_boxes: RejectedBoxes = rejected_boxes
        self.real = {image.id: image for image in read_record(UPath(real), tuple[LabeledImage, ...])}
        self.read = lru_cache(NUM_CANVASES)(images.read)
        self.folder = UPath(folder)

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """Why each was dropped; empty where it was kept."""
        judged = judge(self.filters, [rows.read_inspected(row) for row in batch], self.rejected_boxes)
        if self.rejected_boxes == "restore":
            judged = [self._restore(one) for one in judged]
        for one in judged:
            self._write(one)
        return [{"dropped": one.dropped} for one in judged]

    def blank(self) -> Row:
        """Dropped for the error that the row carries."""
        return {"dropped": "error"}

    def _restore(self, judged: Judged) -> Judged:
        canvas = self.real[judged.inspected.candidate.canvas]
        return restore(judged, canvas, self.read(canvas.uri))

    def _write(self, judged: Judged) -> None:
        candidate = judged.inspected.candidate
        place = Fate.DROPPED if judged.dropped else Fate.KEPT
        picture = images.encode_png(judged.pixels)
        sample = Sample(
            id=candidate.lineage.id,
            uri=f"{place}/{candidate.lineage.id}.png",
            sha256=hashlib.sha256(picture).hexdigest(),
            width=candidate.pixels.shape[1],
            height=candidate.pixels.shape[0],
            annotation=judged.annotation,
            proposed=candidate.annotation,
            drawn=candidate.drawn,
            restored=judged.restored,
            seen=judged.inspected.seen,
            verdicts=judged.verdicts,
            dropped=judged.dropped,
            lineage=candidate.lineage,
        )
        write_bytes(self.folder / sample.uri, picture)
        write_record(self.folder / place / f"{sample.id}.json", sample)


def failed_sample(row: Row) -> Sample:
    """The record of a candidate that could not be drawn or judged: no picture, dropped with the error as reason."""
    lineage = rows.read_lineage(row)
    return Sample(
        id=lineage.id,
        uri="",
        sha256="",
        width=0,
        height=0,
        annotation=Annotation.empty(),
        proposed=Annotation.empty(),
        drawn=np.zeros(0, np.bool_),
        restored=np.zeros(0, np.bool_),
        seen=NOTHING_SEEN,
        verdicts=(),
        dropped=row["error"],
        lineage=lineage,
    )
