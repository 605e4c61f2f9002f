"""Measure how well badly drawn boxes are found: ``python tests/bench/labels.py --data DIR --weights FILE --root DIR``

``--data`` is the folder that holds bccd/ and deeppcb/. The boxes of a random half of the labels are made inaccurate by
the noise protocol of SSD-Det; the others stay as they are. Weak detectors are cross-fitted on these very labels from
``--weights``, for few steps at a small image size. Every method ranks the same labels by the same unseen detections.

Rows of ``results/labels.json``, one for each data set, noise, seed and method, are written as they come:

* ``auroc``: the inaccurate labels against the others;
* ``iou_before``, ``iou_after``: mean IoU of the inaccurate labels, and of the boxes proposed for them, with the exact
  boxes (ours alone); ``iou_others``: likewise of the boxes proposed for exact labels.

Methods: ``ours``, as ``detloop labels`` asks; ``refined``, the same with a refiner (``--refiner``); ``objectlab``,
cleanlab's ``compute_badloc_box_scores`` as it is; ``objectlab_0.1`` and ``objectlab_0.01``, the same with detections
from these scores on instead of 0.5, which weak detectors need. ``uv run --with cleanlab`` installs cleanlab for the
command.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from mining import auc
from numpy.typing import NDArray

from actors import boxes as geometry
from actors.records import LabeledImage
from actors.refiners.ssddet.noise import noisy
from loop.config import LoopConfig
from loop.config_files import validate
from loop.driver import import_real
from loop.labels.placement import badly_placed
from loop.labels.unseen import Looked, look
from loop.labels.votes import hit_rates
from loop.progress import Reporter

RESULTS = Path(__file__).parent / "results" / "labels.json"
DATA: dict[str, dict[str, Any]] = {
    "bccd": {"data": {"format": "voc", "subset": 80}, "size_px": 256},
    "deeppcb": {"data": {"format": "coco", "subset": 80}, "size_px": 320},
}
REFINER = {"kind": "ssddet", "fit": {"steps": 300}}
KEYS = ("data", "noise", "seed", "method")
Flags = NDArray[np.bool_]
Row = dict[str, Any]


def loop_config(given: argparse.Namespace, name: str, seed: int, *, refined: bool) -> LoopConfig:
    """The config of the check on one data set."""
    about = DATA[name]
    tree = {
        "name": f"labels-{name}",
        "root": str(Path(given.root).absolute()),
        "seed": seed,
        "data": {**about["data"], "root": str(Path(given.data, name).absolute())},
        "detector": {"model": "yolo11n.yaml", "weights": given.weights, "image_size_px": about["size_px"]},
        "mining": {"cross_fit": given.folds},
        "training": {
            "steps": given.steps,
            "epoch_steps": 50,
            "batch_size": 8,
            "start": "weights",
            "overrides": {"optimizer": "AdamW", "lr0": 0.002, "mosaic": 0.0, "close_mosaic": 0},
        },
        "hosting": {"engine": "inline"},
        **({"refiner": REFINER} if refined else {}),
    }
    return validate(LoopConfig, tree, "the benchmark's config")


def half_noisy(images: Sequence[LabeledImage], noise: float, seed: int) -> tuple[tuple[LabeledImage, ...], list[Flags]]:
    """The images with half of their boxes made inaccurate, and which these are."""
    rng, changed, flags = np.random.default_rng(seed), [], []
    for image in images:
        chosen = rng.random(len(image.annotation)) < 0.5
        boxes = np.where(chosen[:, None], noisy(image, noise, seed).boxes, image.annotation.boxes)
        changed.append(replace(image, annotation=replace(image.annotation, boxes=boxes), masks=()))
        flags.append(chosen)
    return tuple(changed), flags


def objectlab(looked: Sequence[Looked], num_classes: int, least_score: float | None) -> NDArray[np.float64]:
    """One minus cleanlab's scores of all labels."""
    from cleanlab.object_detection.rank import compute_badloc_box_scores

    labels = [
        {"bboxes": one.image.annotation.boxes.astype(np.float64), "labels": one.image.annotation.labels}
        for one in looked
    ]
    seen = [
        np.array([_of_class(one, label) for label in range(num_classes)] + [None], dtype=object)[:-1] for one in looked
    ]
    scores = compute_badloc_box_scores(labels=labels, predictions=seen, low_probability_threshold=least_score)
    return 1 - np.concatenate([np.asarray(one, np.float64) for one in scores])


def _of_class(one: Looked, label: int) -> NDArray[np.float64]:
    """The detections of a class as cleanlab reads them, ``[m, 5]``: box and score."""
    chosen = one.seen.labels == label
    return np.column_stack([one.seen.boxes[chosen], one.seen.scores[chosen]]).astype(np.float64)


def measured(
    looked: Sequence[Looked], exact: Sequence[LabeledImage], flags: Sequence[Flags], num_classes: int, *, refined: bool
) -> Iterator[Row]:
    """The rows of all methods, without their keys."""
    bad = np.concatenate(flags)
    placed = badly_placed(looked, hit_rates(looked))
    proposed, given, true = (
        np.concatenate(boxes)
        for boxes in (
            [one.boxes for one in placed],
            [one.image.annotation.boxes for one in looked],
            [image.annotation.boxes for image in exact],
        )
    )
    before, after = (paired_iou(boxes, true) for boxes in (given, proposed))
    yield {
        "method": "refined" if refined else "ours",
        "auroc": auc(np.concatenate([one.scores for one in placed]).astype(np.float64), bad),
        "iou_before": round(float(before[bad].mean()), 3),
        "iou_after": round(float(after[bad].mean()), 3),
        "iou_others": round(float(after[~bad].mean()), 3),
        "labels": len(bad),
    }
    for method, least in {} if refined else {"objectlab": None, "objectlab_0.1": 0.1, "objectlab_0.01": 0.01}.items():
        yield {"method": method, "auroc": auc(objectlab(looked, num_classes, least), bad), "labels": len(bad)}


def paired_iou(first: geometry.Boxes, second: geometry.Boxes) -> NDArray[np.float32]:
    """IoU ``[n]`` of each box of ``[n, 4]`` with the one at its place."""
    pairs = zip(first, second, strict=True)
    return np.array([geometry.pairwise_iou(one[None], other[None])[0, 0] for one, other in pairs])


def rows_of(given: argparse.Namespace, name: str, noise: float, seed: int, *, refined: bool) -> Iterator[Row]:
    """Cross-fit and measure; finished folds are not repeated."""
    start, config = time.perf_counter(), loop_config(given, name, seed, refined=refined)
    data = import_real(config)
    exact = data.splits["train"]
    images, flags = half_noisy(exact, noise, seed)
    looked = look(config, replace(data, splits={**data.splits, "train": images}), Reporter())
    for row in measured(looked, exact, flags, len(data.classes), refined=refined):
        seconds = round(time.perf_counter() - start)
        yield {"data": name, "noise": noise, "seed": seed, **row, "seconds": seconds}


def main() -> None:
    """Measure what is not measured yet, and write each row as it comes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True, help="folder with bccd/ and deeppcb/")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--root", required=True, help="where detectors are kept")
    parser.add_argument("--sets", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--noise", nargs="+", type=float, default=[0.2, 0.4])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--refiner", action="store_true", help="also with a refiner")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    known = json.loads(given.out.read_text()) if given.out.exists() else []
    done = {tuple(row[key] for key in KEYS) for row in known}
    for name, noise, seed, refined in [
        (name, noise, seed, refined)
        for seed in given.seeds
        for name in given.sets
        for noise in given.noise
        for refined in ((False, True) if given.refiner else (False,))
        if (name, noise, seed, "refined" if refined else "ours") not in done
    ]:
        known += rows_of(given, name, noise, seed, refined=refined)
        given.out.write_text(json.dumps(known, indent=1) + "\n")
        print(json.dumps(known[-1]), flush=True)


if __name__ == "__main__":
    main()
