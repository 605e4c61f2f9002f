"""What is seen in each training image by a detector that was not trained on it, and where a refiner moves its labels.

The images are cross-fitted (``loop.cross_fit``). A refiner is fitted for each fold too: on the other images, and on the
features of the detector that was trained on them. One that was fitted on all images would know the very labels that it
is asked about. Its fit reads the labels as they are, without the noise protocol: it is they that may be inaccurate.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from actors import images
from actors.checkpoint import Checkpoint
from actors.detectors.base import DetectorBase
from actors.plain import from_plain, to_plain
from actors.records import Annotation, Detections, LabeledImage, Refinement
from actors.refiners import RefinerConfig
from actors.rows import Row
from loop import stages
from loop.arms import Arm, Trainings, unmined
from loop.config import LoopConfig
from loop.cross_fit import Fold, fold_arms
from loop.data.importing import Dataset
from loop.hosting.engine import engine
from loop.progress import Reporter
from loop.reduce_images import reduce_images

NUM_FOLDS = 3
"""Folds where ``mining.cross_fit`` gives none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Looked:
    """A training image as it was imported, and what was seen in it. All boxes are in px of this image."""

    image: LabeledImage
    seen: Detections
    refinement: Refinement | None  # of its labels; None without a refiner


def with_folds(config: LoopConfig) -> LoopConfig:
    """The config with ``NUM_FOLDS`` folds, unless it has others."""
    mining = config.mining.model_copy(update={"cross_fit": config.mining.cross_fit or NUM_FOLDS})
    return config.model_copy(update={"mining": mining})


def look(config: LoopConfig, data: Dataset, reporter: Reporter) -> tuple[Looked, ...]:
    """What is seen in the training images of ``data``, in their order. Finished fits and folds are not repeated.

    Raises ValueError if there are fewer images than folds, a picture cannot be read, or the hosting cannot be placed.
    """
    with engine(config.hosting):
        reduced = reduce_images(data, config, reporter)
        trainings = Trainings(config=with_folds(config), data=reduced, reporter=reporter).for_mining()
        arms = fold_arms(trainings)
        refined = {image_id: one for arm in arms if config.refines for image_id, one in _refine(trainings, arm).items()}
    seen = {image_id: found for arm in arms for image_id, found in arm.seen.items()}
    pairs = zip(data.splits["train"], reduced.splits["train"], strict=True)
    return tuple(_looked(image, copy, seen[image.id], refined.get(image.id)) for image, copy in pairs)


def _looked(image: LabeledImage, copy: LabeledImage, seen: Detections, refinement: Refinement | None) -> Looked:
    """``image`` with what was seen in its reduced ``copy``."""
    factors = np.array([image.width / copy.width, image.height / copy.height] * 2, np.float32)
    moved = refinement and replace(refinement, boxes=refinement.boxes * factors)
    return Looked(image=image, seen=replace(seen, boxes=seen.boxes * factors), refinement=moved)


def _refine(trainings: Trainings, arm: Arm) -> Mapping[str, Refinement]:
    """The refinements of the labels in a fold, by image id, from a refiner that was fitted without it."""
    config = trainings.config
    fold = tuple(image for image in trainings.data.splits["train"] if image.id in arm.seen)
    apart = Fold.of(trainings, fold).trainings
    refiner, checkpoint = _as_given(config.refiner), None
    if refiner.learns:
        others = unmined(apart.data.splits["train"])
        checkpoint = apart.fit(refiner, others, number=0, detector=arm.checkpoint, what="refiner").checkpoint
    rows = tuple(
        {"id": one.id, "uri": one.uri, "labels": json.dumps(to_plain(one.annotation)), "error": ""} for one in fold
    )
    opener = partial(RefineLabels, refiner, config.detector, checkpoint)
    stage = stages.Stage(name="refine", open_component=opener, role=config.hosting.refine)
    with trainings.reporter.stage("refine labels", len(rows)) as progress:
        collected = stages.collect(stages.Stream(rows=rows).then(stage), config.hosting, progress.advance)
    stages.refuse_broken(collected)
    return {row["id"]: _read(row) for row in collected.rows}


def _as_given(refiner: RefinerConfig) -> RefinerConfig:
    """The refiner without the noise protocol, which is meant for exact labels."""
    has_noise = "noise" in type(refiner).model_fields
    return refiner.model_copy(update={"noise": 0.0}) if has_noise else refiner


class RefineLabels:
    """Refines the labels of the picture at a row's ``uri``."""

    def __init__(self, config: RefinerConfig, detector: DetectorBase, checkpoint: Checkpoint | None) -> None:
        self.refiner = config.build(detector, checkpoint)

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The columns of the refinements."""
        pictures = [images.read(row["uri"]) for row in batch]
        labels = [from_plain(Annotation, json.loads(row["labels"])) for row in batch]
        found = self.refiner.refine(pictures, labels)
        return [{"boxes": one.boxes, "confidence": one.confidence} for one in found]

    def blank(self) -> Row:
        """No boxes."""
        return {"boxes": np.zeros((0, 4), np.float32), "confidence": np.zeros(0, np.float32)}


def _read(row: Row) -> Refinement:
    boxes = np.asarray(row["boxes"], np.float32).reshape(-1, 4)
    return Refinement(boxes=boxes, confidence=np.asarray(row["confidence"], np.float32))
