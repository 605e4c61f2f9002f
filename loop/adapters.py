"""Adapters between rows and components: read records from rows, call the component, return its columns.

An adapter is opened inside its actor from plain arguments: configs and ``Sources``.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

import numpy as np
from upath import UPath

from actors import images, rows
from actors.checkpoint import Checkpoint
from actors.detectors.base import DetectorBase, Reducing
from actors.filters import FilterConfig
from actors.filters.base import DetectorAccess, HeldBack
from actors.filters.chain import build_filters, judge
from actors.filters.crops import window
from actors.filters.rejected import RejectedBoxes, restore
from actors.generators import GeneratorConfig
from actors.records import Candidate, Detections, Judged, LabeledImage
from actors.refiners import RefinerConfig
from actors.refiners.applied import apply, to_refine
from actors.rows import Row
from actors.storage import read_record

if TYPE_CHECKING:
    from actors.filters.base import Embed as Features
    from actors.filters.base import State

NUM_CANVASES: Final = 32  # real images that a judge caches; several candidates share one


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Files that the actors of a round open. Paths are local or fsspec URIs."""

    classes: tuple[str, ...]  # of the data set
    real: str  # file with the records of the real training images
    clean: str | None = None  # likewise of the images without objects; None if there are none
    filter_states: str  # file with the states of the filters
    detector: Checkpoint  # the current detector
    generator: Checkpoint | None  # the fitted generator; None if it does not learn
    refiner: Checkpoint | None = None  # likewise the refiner
    held_back: tuple[HeldBack, ...] = ()  # cross-fitted detectors, for filters that use them
    shared: str | None = None  # folder of shared candidates, see ``loop.cache``; None if they are not shared

    def read_real(self) -> tuple[LabeledImage, ...]:
        """The records of the real training images."""
        return read_record(UPath(self.real), tuple[LabeledImage, ...])

    def read_clean(self) -> tuple[LabeledImage, ...]:
        """The records of the images without objects."""
        return read_record(UPath(self.clean), tuple[LabeledImage, ...]) if self.clean else ()


class Generate:
    """Draws the candidate of each row's lineage."""

    def __init__(self, config: GeneratorConfig, sources: Sources) -> None:
        real, clean = sources.read_real(), sources.read_clean()
        self.generator = config.build(real, sources.classes, sources.generator, clean)

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The columns of the drawn candidates."""
        candidates = self.generator.generate([rows.read_lineage(row) for row in batch])
        return [rows.candidate_columns(candidate) for candidate in candidates]

    def blank(self) -> Row:
        """An empty picture of one pixel."""
        return rows.candidate_columns(rows.BLANK)


class Inspect:
    """Adds the detections in a row's pixels, or in the picture at its ``uri``."""

    def __init__(self, config: DetectorBase, checkpoint: Checkpoint) -> None:
        self.detector = Reducing(config.load(checkpoint), config.picture_px)

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The columns of the detections, in px of the row's own picture."""
        pictures = [row["pixels"] if "pixels" in row else images.read(row["uri"]) for row in batch]
        return [rows.detections_columns(seen) for seen in self.detector.detect(pictures)]

    def blank(self) -> Row:
        """No detections."""
        return rows.detections_columns(Detections.empty())


def detector_access(
    config: DetectorBase, checkpoint: Checkpoint, held_back: tuple[HeldBack, ...] = ()
) -> DetectorAccess:
    """The current detector, at ``checkpoint``, and cross-fitted ones, for filters."""
    return DetectorAccess(open_embed=partial(open_detector_embed, config, checkpoint), held_back=held_back)


def open_detector_embed(config: DetectorBase, checkpoint: Checkpoint, size_px: int) -> "Features":
    """A detector's features of pictures, whose longer side is resized to ``size_px``."""
    detector = config.model_copy(update={"image_size_px": size_px}).load(checkpoint)
    return lambda pictures: detector.features(pictures).numpy()


class Embed:
    """Adds the features of the picture at a row's ``uri``, or of its k crops if the row has ``boxes`` (as JSON)."""

    def __init__(self, open_embed: "Callable[[], Features]", max_side_px: int) -> None:
        """Pictures are reduced to ``max_side_px``, as all that are mined and drawn."""
        self.features, self.max_side_px = open_embed(), max_side_px

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The column ``features`` [k, d]; k = 1 for a whole picture."""
        pictures = [self._pictures(row) for row in batch]
        features = self.features([one for group in pictures for one in group])
        ends = np.cumsum([len(group) for group in pictures])
        return [{"features": part} for part in np.split(features, ends[:-1])]

    def _pictures(self, row: Row) -> list[images.Pixels]:
        pixels = images.read(row["uri"])
        reduced = images.reduced(pixels, self.max_side_px)
        if "boxes" not in row:
            return [reduced]
        boxes = np.array(json.loads(row["boxes"]), np.float32) / images.factors(reduced, pixels)
        return [window(reduced, box, 0.0) for box in boxes]

    def blank(self) -> Row:
        """No features."""
        return {"features": np.zeros((0, 0), np.float32)}


class Judge:
    """Adds the verdicts on an inspected candidate, and what the policy for rejected boxes leaves of it."""

    def __init__(
        self,
        configs: Sequence[FilterConfig],
        rejected_boxes: RejectedBoxes,
        sources: Sources,
        detectors: DetectorAccess | None = None,
    ) -> None:
        """``detectors`` are for filters that use them."""
        learnt: dict[str, State] = read_record(UPath(sources.filter_states), dict)
        self.filters = build_filters(configs, learnt, detectors)
        self.rejected_boxes: RejectedBoxes = rejected_boxes
        real = (*sources.read_real(), *sources.read_clean())
        self.real = {image.id: image for image in real}  # contains the canvases
        self.read = lru_cache(NUM_CANVASES)(images.read)

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The columns of the judged candidates."""
        inspected = [rows.read_inspected(row) for row in batch]
        judged = judge(self.filters, inspected, self.rejected_boxes)
        if self.rejected_boxes == "restore":
            judged = [self._restore(one, seen.candidate) for one, seen in zip(judged, inspected, strict=True)]
        return [rows.judged_columns(one) for one in judged]

    def blank(self) -> Row:
        """An empty picture of one pixel, dropped because of the row's error."""
        return rows.judged_columns(rows.BLANK_JUDGED)

    def _restore(self, judged: Judged, candidate: Candidate) -> Judged:
        canvas = self.real[candidate.canvas]
        return restore(judged, candidate, canvas, self.read(canvas.uri))


class Refine:
    """Moves the drawn boxes of judged candidates that the filters kept."""

    def __init__(self, config: RefinerConfig, detector: DetectorBase, sources: Sources) -> None:
        self.config, self.refiner = config, config.build(detector, sources.refiner)

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The columns of the refined candidates. Those without such a box stay as they are."""
        judged = [rows.read_judged(row) for row in batch]
        asked = {index: which for index, one in enumerate(judged) if len(which := to_refine(one))}
        pixels = [judged[index].pixels for index in asked]
        found = self.refiner.refine(pixels, [judged[index].proposed.take(which) for index, which in asked.items()])
        for (index, which), refinement in zip(asked.items(), found, strict=True):
            judged[index] = apply(judged[index], which, refinement, self.config)
        return [rows.refined_columns(one) for one in judged]

    def blank(self) -> Row:
        """Dropped because of the row's error."""
        return rows.refined_columns(rows.BLANK_JUDGED)
