"""Comparison of a round's candidates with the real images: YOLO scores and fidelity.

Features come from the detector that the loop starts from, trained on the real images alone. It is the same in every
round and in every run with the same training, so the results can be compared. But it was trained on the source images
of the candidates and may recognise them. The fold detectors of cross-fitted mining were not.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from actors.boxes import Boxes
from actors.records import Detections, LabeledImage, Sample
from actors.rows import Row
from actors.seeds import derive_seed
from loop import stages
from loop.adapters import open_detector_embed
from loop.context import Loop
from loop.cross_fit import fold_arms
from loop.evaluation import inception
from loop.evaluation.fidelity import MIN_PICTURES, Features, compare, frechet, layout, yolo_scores
from loop.state import once

if TYPE_CHECKING:
    from actors.filters.base import Embed

CROP_PX = 128  # longer side of resized crops
KINDS = ("real", "held out", "drawn")


def compare_drawn(loop: Loop, number: int, samples: Sequence[Sample]) -> dict[str, float]:
    """Metrics of all candidates of round ``number``, by name: YOLO scores, also by strategy, and fidelity."""
    strategies = {sample.id: sample.lineage.strategy for sample in samples}
    scores = yolo_scores(samples, loop.data.classes, strategies) | unseen_yolo_scores(loop, samples, strategies)
    return scores | _fidelity(loop, number, samples)


def _fidelity(loop: Loop, number: int, samples: Sequence[Sample]) -> dict[str, float]:
    """Fidelity metrics as set by ``evaluation.fidelity``; none if it is off.

    All candidates are compared, kept or dropped. Restored boxes are left out, since their pixels are real.
    """
    compared = loop.config.evaluation.fidelity
    if compared is None:
        return {}
    place = loop.folder.round(number) / f"fidelity_{compared}.json"
    figures = once(place, dict[str, float], lambda: _measure(loop, number, samples))
    return {f"fidelity_{compared}/{key}": value for key, value in figures.items()}


def unseen_yolo_scores(loop: Loop, samples: Sequence[Sample], groups: Mapping[str, str]) -> dict[str, float]:
    """``yolo_score_unseen``: YOLO scores from detectors that were not trained on the source image of a candidate.

    These are the folds' detectors (``mining.cross_fit``). There is no score without folds, or with folds of another
    detector. ``groups`` is as in ``yolo_scores``. Candidates with restored boxes are left out, since their pictures on
    disk are no longer as drawn.
    """
    if not loop.config.mining.cross_fit or loop.config.mining.detector:
        return {}
    shown = [sample for sample in samples if _is_as_drawn(sample)]
    seen: dict[str, Detections] = {}
    with loop.reporter.stage("inspect by folds", len(shown)) as progress:
        for fold in fold_arms(loop.trainings):
            pictures = [layout(sample) for sample in shown if sample.lineage.image_id in fold.seen]
            found = stages.detect(
                pictures, loop.config.detector, fold.checkpoint, loop.config.hosting, progress.advance
            )
            seen |= found[0]
    scores = yolo_scores([replace(sample, seen=seen[sample.id]) for sample in shown], loop.data.classes, groups)
    return {key.replace("yolo_score", "yolo_score_unseen"): score for key, score in scores.items()}


def _measure(loop: Loop, number: int, samples: Sequence[Sample]) -> dict[str, float]:
    config, splits = loop.config, loop.data.splits
    crops = config.evaluation.fidelity == "crops"
    pictures: tuple[Sequence[LabeledImage | Sample], ...] = (splits["train"], splits["val"], samples)
    rows = [row for kind, ones in zip(KINDS, pictures, strict=True) for row in _rows(kind, ones, crops=crops)]
    size_px = CROP_PX if crops else config.detector.image_size_px
    open_embed = partial(open_detector_embed, config.detector, loop.trainings.control(0).checkpoint, size_px)
    real, held_out, drawn = _embed(loop, "fidelity", rows, open_embed)
    if min(len(real), len(held_out), len(drawn)) < MIN_PICTURES:
        loop.reporter.warn(
            f"fidelity is not measured: it needs {MIN_PICTURES} {config.evaluation.fidelity} of each kind; there are "
            f"{len(real)} real, {len(held_out)} held-out and {len(drawn)} drawn"
        )
        return {}
    seed = derive_seed(config.seed, "fidelity", number)
    return compare(real, held_out, drawn, seed) | _fid(loop, rows, seed)


def _fid(loop: Loop, rows: Sequence[Row], seed: int) -> dict[str, float]:
    weights = loop.config.evaluation.inception
    if weights is None:
        return {}
    if lack := inception.missing(weights):
        loop.reporter.warn(f"FID is not measured: {lack}")
        return {}
    real, held_out, drawn = _embed(loop, "FID", rows, partial(inception.open_inception, weights))
    fid, fid_val = frechet(real, held_out, drawn, seed)
    return {"fid": fid, "fid_val": fid_val}


def _embed(loop: Loop, label: str, rows: Sequence[Row], open_embed: "Callable[[], Embed]") -> Iterator[Features]:
    """The features of all pictures of each of ``KINDS``, in the order of the rows."""
    with loop.reporter.stage(label, len(rows)) as progress:
        features = stages.embed(rows, open_embed, loop.config.hosting, progress.advance)
    for kind in KINDS:
        group = [features[row["id"]] for row in rows if row["kind"] == kind]
        yield np.concatenate(group) if group else np.zeros((0, 0))


def _rows(kind: str, pictures: Sequence[LabeledImage | Sample], *, crops: bool) -> Iterator[Row]:
    """Pictures as rows; with ``crops``, also the boxes to cut out."""
    for picture in pictures:
        boxes = _boxes(picture)
        row = {"id": f"{kind}/{picture.id}", "kind": kind, "uri": picture.uri, "error": ""}
        if crops and len(boxes):
            yield {**row, "boxes": json.dumps(boxes.tolist())}
        elif not crops and _is_as_drawn(picture):
            yield row


def _boxes(picture: LabeledImage | Sample) -> Boxes:
    """The boxes to compare: all of a real image; of a candidate, those that were drawn and not restored."""
    if isinstance(picture, LabeledImage):
        return picture.annotation.boxes[~picture.annotation.ignore]
    return picture.proposed.boxes[picture.drawn & ~picture.restored & ~picture.proposed.ignore]


def _is_as_drawn(picture: LabeledImage | Sample) -> bool:
    """True if there is a picture and no box in it was restored."""
    return isinstance(picture, LabeledImage) or (bool(picture.uri) and not picture.restored.any())
