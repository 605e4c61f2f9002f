"""Comparison of a round's candidates with the real images: YOLO scores and fidelity.

Features come from the detector that the loop starts from, trained on the real images alone. It is the same in every
round and in every run with the same training, so the results can be compared. But it was trained on the source images
of the candidates and may recognise them. The fold detectors of cross-fitted mining were not.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
MIN_UNSEEN = 30  # pictures for ``yolo_score_unseen``


def compare_drawn(loop: Loop, number: int, samples: Sequence[Sample]) -> dict[str, float]:
    """Metrics of all candidates of round ``number``, by name: YOLO scores, also by strategy, and fidelity."""
    strategies = {sample.id: sample.lineage.strategy for sample in samples}
    scores = yolo_scores(samples, loop.data.classes, strategies) | unseen_yolo_scores(loop, samples, strategies)
    return scores | _fidelity(loop, number, samples)


def _fidelity(loop: Loop, number: int, samples: Sequence[Sample]) -> dict[str, float]:
    """Fidelity metrics as set by ``evaluation.fidelity``; none if it is off.

    All candidates are compared as they were drawn, kept or dropped.
    """
    compared = loop.config.evaluation.fidelity
    if compared is None:
        return {}
    place = loop.folder.round(number) / f"fidelity_{compared}.json"
    figures = once(place, dict[str, float], lambda: _measure(loop, number, samples))
    return {f"fidelity_{compared}/{key}": value for key, value in figures.items()}


def unseen_yolo_scores(loop: Loop, samples: Sequence[Sample], groups: Mapping[str, str]) -> dict[str, float]:
    """``yolo_score_unseen``: YOLO scores from detectors that were not trained on the real images behind a candidate.

    These are the folds' detectors (``mining.cross_fit``). They detect in the pictures as drawn, kept or dropped, whose
    source image and canvas are in the fold. A box counts if its example is in the fold too. The generator itself was
    fitted on all training images. There is no score without folds, with folds of another detector, or for fewer than
    ``MIN_UNSEEN`` pictures; their number is ``yolo_score_unseen_pictures``. ``groups`` is as in ``yolo_scores``.
    """
    if not loop.config.mining.cross_fit or loop.config.mining.detector:
        return {}
    arms = fold_arms(loop.trainings)
    shown = [[*filter(None, (of_fold(sample, arm.seen) for sample in samples))] for arm in arms]
    number = sum(map(len, shown))
    if number < MIN_UNSEEN:
        return {"yolo_score_unseen_pictures": number}
    seen: dict[str, Detections] = {}
    with loop.reporter.stage("inspect by folds", number) as progress:
        for arm, ones in zip(arms, shown, strict=True):
            pictures = [layout(sample) for sample in ones]
            seen |= stages.detect(
                pictures, loop.config.detector, arm.checkpoint, loop.config.hosting, progress.advance
            )[0]
    scored = [replace(sample, seen=seen[sample.id]) for ones in shown for sample in ones]
    scores = yolo_scores(scored, loop.data.classes, groups)
    unseen = {key.replace("yolo_score", "yolo_score_unseen"): score for key, score in scores.items()}
    return {**unseen, "yolo_score_unseen_pictures": number}


def of_fold(sample: Sample, fold: Collection[str]) -> Sample | None:
    """The sample with boxes ignored whose examples are not in the ``fold`` of image ids.

    None without a picture, without a drawn box that still counts, or if the source image or the canvas is not in it.
    Images without objects are in no fold: every fold's detector is trained on them.
    """
    canvas = sample.canvas or sample.lineage.image_id
    if not sample.uri or not {sample.lineage.image_id, canvas} <= set(fold):
        return None
    foreign = np.array([bool(one) and one not in fold for one in sample.examples], np.bool_)
    ignore = sample.proposed.ignore | foreign if sample.examples else sample.proposed.ignore
    kept = replace(sample, proposed=replace(sample.proposed, ignore=ignore))
    return kept if (sample.drawn & ~ignore).any() else None


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
        features = stages.embed(
            rows, open_embed, loop.config.detector.picture_px, loop.config.hosting, progress.advance
        )
    for kind in KINDS:
        group = [features[row["id"]] for row in rows if row["kind"] == kind]
        yield np.concatenate(group) if group else np.zeros((0, 0))


def _rows(kind: str, pictures: Sequence[LabeledImage | Sample], *, crops: bool) -> Iterator[Row]:
    """Pictures as rows; with ``crops``, also the boxes to cut out."""
    for picture in pictures:
        boxes = _boxes(picture)
        uri = picture.uri if isinstance(picture, LabeledImage) else picture.as_drawn
        row = {"id": f"{kind}/{picture.id}", "kind": kind, "uri": uri, "error": ""}
        if crops and len(boxes):
            yield {**row, "boxes": json.dumps(boxes.tolist())}
        elif not crops and uri:
            yield row


def _boxes(picture: LabeledImage | Sample) -> Boxes:
    """The boxes to compare: all of a real image, the drawn ones of a candidate."""
    if isinstance(picture, LabeledImage):
        return picture.annotation.boxes[~picture.annotation.ignore]
    return picture.proposed.boxes[picture.drawn & ~picture.proposed.ignore]
