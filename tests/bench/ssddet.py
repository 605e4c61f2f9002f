"""Measure the refiner: ``python tests/bench/ssddet.py DATA --root DIR [--detector yolo] [--noise 0.4] ...``

DATA is ``world``, ``bccd`` or ``deeppcb``; ``--data`` is the folder that holds the latter two. Detectors are ``yolo``
(yolo11n from the COCO weights in ``--weights``) and ``fasterrcnn`` (efficientnet_lite0 with the ImageNet weights of the
extra ``backbones``). The boxes of the training images are made inaccurate once, by the paper's noise protocol. A
detector is trained on them; the refiner of each arm is fitted on the same boxes with that detector's features, and
moves them; a detector is trained on the refined boxes from the same weights, for the same number of steps, and
evaluated on the clean validation images.

Rows of ``results/ssddet.json``, one for each data set, detector, noise, arm and seed, are written as they come:

* ``iou_before``, ``iou_after``: mean IoU of the training boxes with the clean ones, before and after refinement;
* ``fit_s``: seconds of the refiner's steps;
* ``auroc``: of the refiner's confidence, refined boxes with an IoU of 0.5 or more against the others;
* ``ap``, ``ap50``: of the detector on validation images, with ``--ap``.

The arm ``noisy`` trains on the inaccurate boxes, ``clean`` on the accurate ones. ``docs/evidence.md`` shows the rows.
Trainings and fits are stored below the root; the same command goes on where it stopped.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from evidence_tables import write_section
from mining import auc
from ssddet_tables import MARKS, section
from upath import UPath

from actors import boxes as geometry
from actors import images
from actors.fitting import Fitted
from actors.records import LabeledImage, Refinement
from actors.refiners.ssddet.component import SSDDetConfig
from actors.refiners.ssddet.noise import noisy
from actors.storage import read_record
from loop.arms import Arm, Trainings
from loop.config import LoopConfig
from loop.config_files import validate
from loop.data.importing import Dataset
from loop.driver import import_real
from loop.evaluation.coco import evaluate
from loop.progress import Reporter
from loop.training.fit import FitResult

RESULTS = Path(__file__).parent / "results" / "ssddet.json"
DOCUMENT = Path(__file__).parents[2] / "docs" / "evidence.md"
DATA: dict[str, dict[str, Any]] = {
    "world": {"data": {"format": "world", "world": {"train": 100, "val": 200}}, "size_px": 192},
    "bccd": {"data": {"format": "voc"}, "size_px": 320},
    "deeppcb": {"data": {"format": "coco", "subset": 100}, "size_px": 320},
}
ARMS: dict[str, dict[str, Any]] = {
    "one_stage": {"stages": 1, "spsd": False, "sisd": False},
    "two_stage": {"stages": 2, "spsd": False, "sisd": False},
    "spsd": {"stages": 2, "spsd": True, "sisd": False},
    "sisd": {"stages": 2, "spsd": True, "sisd": True},
}
DETECTORS: dict[str, dict[str, Any]] = {
    "yolo": {"kind": "ultralytics", "model": "yolo11n.yaml"},
    "fasterrcnn": {  # the rest as detloop init writes it
        "kind": "torchvision",
        "backbone": "efficientnet_lite0",
        "backbone_weights": "imagenet",
        "fpn_channels": 64,
        "anchor_px": 16,
        "roi_samples": 128,
    },
}
ORDER = ("noisy", *ARMS, "clean")
KEYS = ("data", "detector", "noise", "arm", "seed")
Row = dict[str, Any]


def loop_config(given: argparse.Namespace) -> LoopConfig:
    """The config of the trainings."""
    about = DATA[given.dataset]
    weights = {"weights": given.weights} if given.detector == "yolo" else {}
    place: dict[str, Any] = {"num_cpus": given.threads} | ({"num_gpus": 1} if given.gpu else {})
    root = {} if given.dataset == "world" else {"root": str(Path(given.data, given.dataset).absolute())}
    tree = {
        "name": f"ssddet-{given.dataset}-{given.detector}",
        "root": str(Path(given.root).absolute()),
        "data": {**about["data"], **root},
        "detector": DETECTORS[given.detector] | weights | {"image_size_px": about["size_px"]},
        "training": {"steps": given.steps, "epoch_steps": 50, "batch_size": 8, "start": "weights"},
        "hosting": {"engine": "inline", "train": place, "fit": place},
    }
    return validate(LoopConfig, tree, "the benchmark's config")


def with_noise(data: Dataset, noise: float, seed: int) -> Dataset:
    """The data set with inaccurate boxes in its training images."""
    train = (replace(one, annotation=noisy(one, noise, seed), masks=(), areas=()) for one in data.splits["train"])
    return replace(data, splits={**data.splits, "train": tuple(train)})


def refined(data: Dataset, refinements: Sequence[Refinement]) -> Dataset:
    """The data set with refined boxes in its training images."""
    pairs = zip(data.splits["train"], refinements, strict=True)
    train = (replace(one, annotation=replace(one.annotation, boxes=found.boxes)) for one, found in pairs)
    return replace(data, splits={**data.splits, "train": tuple(train)})


def ious(clean: Dataset, other: Dataset) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """IoU ``[n]`` of every training box that counts with the same box of another data set."""
    pairs = zip(clean.splits["train"], other.splits["train"], strict=True)
    found = [_paired(one, two)[~one.annotation.ignore] for one, two in pairs]
    return np.concatenate(found)


def _paired(one: LabeledImage, two: LabeledImage) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return np.diag(geometry.pairwise_iou(one.annotation.boxes, two.annotation.boxes))


def fitted(trainings: Trainings, learner: SSDDetConfig, weak: Arm) -> Fitted:
    """The refiner, fitted on the training boxes as they are."""
    difficulties = tuple(() for _ in trainings.data.splits["train"])
    return trainings.fit(learner, difficulties, number=0, detector=weak.checkpoint, what="refiner")


def place(config: LoopConfig, *parts: object) -> UPath:
    """The folder of a training."""
    return UPath(config.root) / config.name / "-".join(map(str, (config.training.steps, *parts)))


def rows(given: argparse.Namespace) -> Iterator[Row]:
    """The rows of a data set, each as soon as it is measured."""
    config = loop_config(given)
    clean = import_real(config)
    for seed in given.seeds:
        seeded = config.model_copy(update={"seed": seed})
        if given.ap and "clean" in given.arms:
            arm = Trainings(config=seeded, data=clean, reporter=Reporter()).arm(
                place(config, "clean", seed), 0, label="clean"
            )
            yield row(given, 0.0, "clean", seed, iou_before=1.0, iou_after=1.0, **precision(clean, arm))
        for noise in given.noise:
            yield from _noisy_rows(given, seeded, clean, noise)


def _noisy_rows(given: argparse.Namespace, config: LoopConfig, clean: Dataset, noise: float) -> Iterator[Row]:
    data, seed = with_noise(clean, noise, config.seed), config.seed
    trainings = Trainings(config=config, data=data, reporter=Reporter())
    weak = trainings.arm(place(config, noise, "noisy", seed), 0, label=f"noisy {noise}")
    before = ious(clean, data)
    same = {"iou_before": float(before.mean())}
    yield row(given, noise, "noisy", seed, **same, iou_after=same["iou_before"], **precision(clean, weak))
    for name, options in ARMS.items():
        if name not in given.arms:
            continue
        learner = validate(SSDDetConfig, {"noise": 0.0, **options, **given.options}, name)
        fit = fitted(trainings, learner, weak)
        seconds = read_record(UPath(fit.checkpoint).parent / "fit.json", FitResult).training_s
        refiner = learner.build(config.detector, fit.checkpoint)
        train = data.splits["train"]
        found = refiner.refine([images.read(one.uri) for one in train], [one.annotation for one in train])
        better = refined(data, found)
        after = ious(clean, better)
        sure = np.concatenate(
            [one.confidence[~image.annotation.ignore] for one, image in zip(found, train, strict=True)]
        )
        measured = {"iou_after": float(after.mean()), "auroc": auc(sure.astype(np.float64), after >= 0.5)}
        if given.ap:
            arm = replace(trainings, data=better).arm(
                place(config, noise, name, seed, fit.fingerprint), 0, label=f"{name} {noise}"
            )
            measured |= precision(clean, arm)
        yield row(given, noise, name, seed, **same, **measured, fit_s=round(seconds, 1))


def precision(clean: Dataset, arm: Arm) -> dict[str, float]:
    """AP on the validation images."""
    metrics = evaluate(clean.splits["val"], arm.seen, clean.classes).metrics
    return {"ap": metrics["AP"], "ap50": metrics["AP50"]}


def row(given: argparse.Namespace, noise: float, arm: str, seed: int, **measured: float | None) -> Row:
    """A row, rounded."""
    rounded = {key: None if one is None else round(one, 4) for key, one in measured.items()}
    about = {"data": given.dataset, "detector": given.detector, "noise": noise, "arm": arm, "seed": seed}
    device = torch.cuda.get_device_name() if given.gpu else "CPU"
    return {**about, "steps": given.steps, "options": given.options, "device": device, **rounded}


def store(new: Row, file: Path) -> None:
    """Put a row into the file, in the place of an older one with the same values of ``KEYS``; renew the document."""
    known = json.loads(file.read_text())["rows"] if file.exists() else []
    found = {tuple(one[key] for key in KEYS): one for one in known}
    key = tuple(new[key] for key in KEYS)
    found[key] = {**found.get(key, {}), **new}
    rows = [found[key] for key in sorted(found)]
    file.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    if file == RESULTS:
        write_section(DOCUMENT, MARKS, section(rows, ORDER))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("dataset", choices=DATA)
    parser.add_argument("--root", default="runs", help="storage root of trainings and fits")
    parser.add_argument("--data", help="folder with bccd/ and deeppcb/")
    parser.add_argument("--detector", choices=DETECTORS, default="yolo")
    parser.add_argument("--weights", help="COCO weights of yolo11n")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.2, 0.4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=["clean", *ARMS], choices=["clean", *ARMS])
    parser.add_argument("--steps", type=int, default=300, help="of each training of a detector")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpu", action="store_true", help="train and fit on the first GPU")
    parser.add_argument("--ap", action="store_true", help="also train detectors on the refined and the clean boxes")
    parser.add_argument("--options", type=json.loads, default={}, help="keys of the refiner, as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    given = _parse()
    for new in rows(given):
        store(new, given.out)
        print(json.dumps(new), flush=True)
