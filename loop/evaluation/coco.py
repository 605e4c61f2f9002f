"""COCO metrics of a detector on real images (pycocotools; metrics of Lin et al., arXiv 1405.0312).

All metrics are fractions in [0, 1]. The key of a size, class or subset without ground truth is left out. Sizes go by
``LabeledImage.areas``, the areas of objects where the annotation has them, else of their boxes.
"""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actors.boxes import Boxes
from actors.records import Detections, LabeledImage

if TYPE_CHECKING:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

Flags = Mapping[str, NDArray[np.bool_]]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
SIZES = ("all", "small", "medium", "large")  # below 32^2 px, below 96^2 px, above: the order of pycocotools
MAX_DETECTIONS = (1, 10, 100)  # per image and class, for average recall: the default of pycocotools
BEYOND_ALL_SIZES = 1e12  # px^2; pycocotools' widest range ends at 1e10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassMatches:
    """The matches of one class's detections, from which average precision is computed.

    m detections by falling score, from n images, at the t IoU thresholds 0.50, 0.55, ..., 0.95.
    """

    name: str
    image: NDArray[np.int64]  # [m] position of the detection's image
    hit: NDArray[np.bool_]  # [t, m] matched to ground truth that counts
    counted: NDArray[np.bool_]  # [t, m] a hit or a false alarm; the others match ignored ground truth
    positives: NDArray[np.int64]  # [n] ground-truth boxes that count


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """The metrics of a detector on real images."""

    metrics: dict[str, float]  # pycocotools' AP, AP50, AP75, AP_small, ..., AR1, ..., AR_large; AP_hard, AP/<class>
    curves: dict[str, NDArray[np.float64]]  # class -> [101] precision at RECALLS, at IoU 0.5
    image_ids: tuple[str, ...]
    matches: tuple[ClassMatches, ...]  # of the classes with ground truth


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Repeated:
    """The evaluations of trainings that differ in their seed alone; the first is that of the run's own seed."""

    each: tuple[Evaluation, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """The means of the metrics."""
        return {key: float(np.mean([one.metrics[key] for one in self.each])) for key in self.each[0].metrics}

    @property
    def curves(self) -> dict[str, NDArray[np.float64]]:
        """The means of the curves."""
        return {name: np.mean([one.curves[name] for one in self.each], axis=0) for name in self.each[0].curves}


def evaluate(
    truth: Sequence[LabeledImage],
    seen: Mapping[str, Detections],
    classes: Sequence[str],
    hard: Flags | None = None,
) -> Evaluation:
    """Evaluate detections (by image id; an entry for every image) against the ground truth.

    Ignored annotations are COCO crowds: any number of detections may match one (by intersection over the detection's
    area), and none of them counts. ``hard`` flags boxes ``[n]`` by image id. AP_hard counts the flagged boxes only; the
    others are ignored like boxes of other sizes in COCO (one detection per box, by IoU, does not count). Flags from
    only one of the compared detectors favour the others.

    Raises ValueError if detections or flags are missing, a label is not a class, or no box counts.
    """
    _check(truth, seen, len(classes), hard)
    with redirect_stdout(StringIO()):
        run = _run(truth, seen, classes, None)
        metrics = _metrics(run.eval["precision"], run.eval["recall"], classes)
        if hard is not None:
            of_hard = _mean(_run(truth, seen, classes, hard).eval["precision"][..., 0, -1])
            metrics |= {} if of_hard is None else {"AP_hard": of_hard}
    present = [label for label, name in enumerate(classes) if f"AP/{name}" in metrics]
    return Evaluation(
        metrics=metrics,
        curves={classes[label]: run.eval["precision"][0, :, label, 0, -1] for label in present},
        image_ids=tuple(image.id for image in truth),
        matches=tuple(_matches(run, label, classes[label]) for label in present),
    )


def _check(truth: Sequence[LabeledImage], seen: Mapping[str, Detections], num_classes: int, hard: Flags | None) -> None:
    if all(image.annotation.ignore.all() for image in truth):
        raise ValueError(f"nothing to evaluate against: none of the {len(truth)} images has a box that counts")
    for image in truth:
        if image.id not in seen:
            raise ValueError(f"no detections for image {image.id!r}; give an empty entry if there are none")
        if hard is not None and len(hard.get(image.id, ())) != len(image.annotation):
            raise ValueError(f"image {image.id!r} needs {len(image.annotation)} hard flags, one per box")
        labels = np.concatenate([image.annotation.labels, seen[image.id].labels])
        if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
            raise ValueError(f"image {image.id!r}: labels {labels.min()}..{labels.max()}, but {num_classes} classes")


def _run(
    truth: Sequence[LabeledImage], seen: Mapping[str, Detections], classes: Sequence[str], hard: Flags | None
) -> "COCOeval":
    from pycocotools.cocoeval import COCOeval

    run = COCOeval(_truth_table(truth, classes, hard), _seen_table(truth, seen, classes), "bbox")
    run.evaluate()
    run.accumulate()
    return run


def _truth_table(truth: Sequence[LabeledImage], classes: Sequence[str], hard: Flags | None) -> "COCO":
    rows: list[dict[str, Any]] = []
    for position, image in enumerate(truth):
        annotation = image.annotation
        of_boxes = _rows(position, annotation.boxes, annotation.labels)
        areas = image.areas or [row["area"] for row in of_boxes]
        for row, ignore, area in zip(of_boxes, annotation.ignore.tolist(), areas, strict=True):
            rows.append({**row, "iscrowd": int(ignore), "area": area})
    if hard is not None:
        # pycocotools uses the area of ground truth only for the size range: a box outside of all ranges is ignored.
        for row, flag in zip(rows, np.concatenate([hard[image.id] for image in truth]), strict=True):
            row["area"] = row["area"] if flag else BEYOND_ALL_SIZES
    return _table(len(truth), classes, rows)


def _seen_table(truth: Sequence[LabeledImage], seen: Mapping[str, Detections], classes: Sequence[str]) -> "COCO":
    """The detections as a table; pycocotools' own loadRes fails on an empty list."""
    rows: list[dict[str, Any]] = []
    for position, image in enumerate(truth):
        found = seen[image.id]
        for row, score in zip(_rows(position, found.boxes, found.labels), found.scores.tolist(), strict=True):
            rows.append({**row, "iscrowd": 0, "score": score})
    return _table(len(truth), classes, rows)


def _rows(position: int, boxes: Boxes, labels: NDArray[np.int64]) -> list[dict[str, Any]]:
    corners = boxes.astype(np.float64)
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return [
        {"image_id": position, "category_id": label, "bbox": box, "area": box[2] * box[3]}
        for box, label in zip(xywh.tolist(), labels.tolist(), strict=True)
    ]


def _table(num_images: int, classes: Sequence[str], rows: Sequence[dict[str, Any]]) -> "COCO":
    from pycocotools.coco import COCO

    table = COCO()
    table.dataset = {
        "images": [{"id": position} for position in range(num_images)],
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes)],
        "annotations": [{**row, "id": number} for number, row in enumerate(rows, start=1)],  # an id of 0 is "no match"
    }
    table.createIndex()
    return table


def _metrics(precision: NDArray[np.float64], recall: NDArray[np.float64], classes: Sequence[str]) -> dict[str, float]:
    """The metrics from precision ``[iou, recall, class, size, max detections]`` and recall ``[iou, class, size, max]``.

    Both are -1 without ground truth.
    """
    best, reached = precision[..., -1], recall[..., -1]
    figures = {
        "AP": _mean(best[..., 0]),
        "AP50": _mean(best[0, ..., 0]),
        "AP75": _mean(best[5, ..., 0]),
        **{f"AP_{size}": _mean(best[..., number]) for number, size in enumerate(SIZES) if number},
        **{f"AR{most}": _mean(recall[:, :, 0, number]) for number, most in enumerate(MAX_DETECTIONS)},
        **{f"AR_{size}": _mean(reached[..., number]) for number, size in enumerate(SIZES) if number},
        **{f"AP/{name}": _mean(best[:, :, label, 0]) for label, name in enumerate(classes)},
    }
    return {key: value for key, value in figures.items() if value is not None}


def _mean(precision: NDArray[np.float64]) -> float | None:
    known = precision[precision > -1]
    return float(known.mean()) if len(known) else None


def _matches(run: "COCOeval", label: int, name: str) -> ClassMatches:
    """The matches of a class, from pycocotools' per-image results in the order class, size, image."""
    num_images, num_sizes = len(run.params.imgIds), len(run.params.areaRng)
    start = label * num_sizes * num_images  # the first size is "all"
    results = list(enumerate(run.evalImgs[start : start + num_images]))
    positives = np.array([0 if one is None else np.sum(one["gtIgnore"] == 0) for _, one in results], np.int64)
    known = [(position, one) for position, one in results if one is not None]
    order = np.argsort(-np.concatenate([one["dtScores"] for _, one in known]), kind="stable")
    ignored = np.concatenate([one["dtIgnore"] for _, one in known], axis=1)[:, order]
    matched = np.concatenate([one["dtMatches"] for _, one in known], axis=1)[:, order] > 0
    image = np.repeat([position for position, _ in known], [len(one["dtScores"]) for _, one in known])
    counted = ~ignored.astype(bool)
    return ClassMatches(name=name, image=image[order], hit=matched & counted, counted=counted, positives=positives)
