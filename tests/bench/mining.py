"""Measure how well mining finds hard objects: ``python tests/bench/mining.py [--steps 400] [--scenes 200]``.

A detector is trained on a few scenes of the embedded data set and mines other scenes. Every part of a scene has factors
that were measured when it was rendered, so the result of mining can be compared with the truth. Results are written to
``results/mining.json``:

* ``auc``: parts past a limit against all others, ranked by mining's best score (lowest first);
* ``auc_of_tag``: the same for the tag alone, hard or easy;
* ``auc_of_factors``: the reverse, the tag predicted by a logistic regression on the factors, in 5 folds;
* ``by_factor``: parts past one limit against those past none;
* ``training_scenes``: the same for the training scenes, mined by the detector itself and by cross-fitting
  (``mining.cross_fit``), with one detector per fold, each mining the scenes that it was not trained on.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from actors.attributes import attributes
from actors.records import Detections, Difficulty, Instance, LabeledImage
from loop import stages
from loop.arms import Trainings
from loop.config import LoopConfig, MixingConfig
from loop.cross_fit import detect_unseen
from loop.data.importing import Dataset, import_data
from loop.data.world import HARD, Factors, write_world
from loop.hosting.config import HostingConfig
from loop.progress import Reporter
from loop.training.job import TrainJob
from loop.training.train import train

RESULTS = Path(__file__).parent / "results" / "mining.json"
INLINE = HostingConfig(engine="inline")
NUM_FOLDS = 5
PAST: dict[str, Any] = {
    "occlusion": lambda part: part.occlusion >= HARD.occlusion,
    "contrast": lambda part: part.contrast <= HARD.contrast,
    "blur": lambda part: part.blur_px >= HARD.blur_px,
    "size": lambda part: part.size_px <= HARD.size_px,
    "tilt": lambda part: part.tilt_deg >= HARD.tilt_deg,
}
"""Tests of a part against the limit of each factor."""


def auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve of scores ``[n]`` for labels ``[n]``; ties count half. None unless both labels occur."""
    above, below = scores[positive], scores[~positive]
    if not len(above) or not len(below):
        return None
    wins = (above[:, None] > below[None, :]).mean() + 0.5 * (above[:, None] == below[None, :]).mean()
    return round(float(wins), 3)


def logistic(features: NDArray[np.float64], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Cross-validated scores ``[n]`` of a ridge logistic regression on standardised features ``[n, k]``."""
    scaled = (features - features.mean(0)) / features.std(0)
    design = np.hstack([scaled, np.ones((len(scaled), 1))])
    fold = np.random.default_rng(0).permutation(len(design)) % NUM_FOLDS
    scores = np.empty(len(design))
    for number in range(NUM_FOLDS):
        scores[fold == number] = design[fold == number] @ _fit(design[fold != number], target[fold != number])
    return scores


def _fit(design: NDArray[np.float64], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Fit the weights by Newton's method; 20 steps suffice for a few weights."""
    weights, ridge = np.zeros(design.shape[1]), np.eye(design.shape[1])
    for _ in range(20):
        chance = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (chance - target) + weights
        hessian = (design * (chance * (1 - chance))[:, None]).T @ design + ridge
        weights = weights - np.linalg.solve(hessian, gradient)
    return weights


def features(parts: Sequence[Factors]) -> NDArray[np.float64]:
    """Features ``[n, 8]``: the factors, and logarithms or squares of those with a non-linear effect."""
    plain = np.array([[p.occlusion, p.contrast, p.blur_px, p.size_px, p.tilt_deg] for p in parts])
    bent = np.array([[np.log(p.contrast + 0.01), np.log(p.size_px), p.tilt_deg**2] for p in parts])
    return np.hstack([plain, bent])


def measure(instances: Sequence[Instance], parts: Sequence[Factors]) -> dict[str, Any]:
    """Compare mining's scores and tags with the true factors of the same parts."""
    hardness = np.array([-one.best_score for one in instances])
    tagged = np.array([one.difficulty is Difficulty.HARD for one in instances])
    hard = np.array([part.hard for part in parts])
    by_factor = {}
    for name, is_past in PAST.items():
        past = np.array([is_past(part) for part in parts])
        among = past | ~hard
        by_factor[name] = {
            "parts": int(past.sum()),
            "tagged_hard": _share(tagged, past),
            "auc": auc(hardness[among], past[among]),
        }
    return {
        "auc": auc(hardness, hard),
        "auc_of_tag": auc(tagged.astype(np.float64), hard),
        "auc_of_factors": auc(logistic(features(parts), tagged), tagged),
        "parts": len(parts),
        "parts_past_a_limit": int(hard.sum()),
        "easy_share": _share(~tagged, np.ones_like(tagged)),
        "tagged_hard": {"past_a_limit": _share(tagged, hard), "others": _share(tagged, ~hard)},
        "by_factor": by_factor,
    }


def _share(flags: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return round(float(flags[among].mean()), 3) if among.any() else None


def factors(annotations: Path) -> dict[str, list[Factors]]:
    """Every part's factors by image file name, in the order of the boxes."""
    content = json.loads(annotations.read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    found: dict[str, list[Factors]] = {name: [] for name in names.values()}
    for entry in content["annotations"]:
        found[names[entry["image_id"]]].append(Factors(**entry["factors"]))
    return found


def mined(scenes: Sequence[LabeledImage], config: LoopConfig, checkpoint: str) -> list[Instance]:
    """The detector's result for every part of the scenes."""
    detections, _ = stages.detect(scenes, config.detector, checkpoint, INLINE, lambda _: None)
    return judged(scenes, detections, config)


def judged(scenes: Sequence[LabeledImage], detections: Mapping[str, Detections], config: LoopConfig) -> list[Instance]:
    """The instances of all scenes, easy or hard, from the detections by scene id."""
    return [one for image in scenes for one in attributes(image, detections[image.id], **config.mining.attribute())]


def truth(scenes: Sequence[LabeledImage], instances: Sequence[Instance], annotations: Path) -> list[Factors]:
    """The factors of each instance's part."""
    known = factors(annotations)
    for scene in scenes:
        assert len(scene.annotation) == len(known[Path(scene.id).name]), f"{scene.id}: boxes were left out"
    return [known[Path(one.image_id).name][one.index] for one in instances]


def cross_fitted(data: Dataset, config: LoopConfig, num_folds: int, folder: str) -> list[Instance]:
    """The result for every part of the training scenes, from detectors that were not trained on its scene."""
    mining = config.mining.model_copy(update={"cross_fit": num_folds})
    apart = config.model_copy(update={"mining": mining, "hosting": INLINE, "root": folder})
    detections, _ = detect_unseen(Trainings(config=apart, data=data, reporter=Reporter()))
    return judged(data.splits["train"], detections, config)


def trained(data: Dataset, config: LoopConfig, folder: str) -> str:
    """Train a detector on the real training images only; returns its checkpoint."""
    job = TrainJob(
        name="mining",
        detector=config.detector,
        training=config.training,
        mixing=MixingConfig(p=0.0),
        classes=data.classes,
        real=data.splits["train"],
        pool=(),
        seed=config.seed,
        start=None,
        checkpoint=f"{folder}/detector.safetensors",
        storage=f"{folder}/train",
    )
    train(job, INLINE, lambda now: print(f"step {now.step} of {now.steps}, {now.images_per_s:.0f} images/s"))
    return job.checkpoint


def main() -> None:
    """Train, mine, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, default in {"train": 40, "scenes": 200, "steps": 400, "size": 224, "seed": 0, "folds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    config = LoopConfig.model_validate(
        {
            "name": "mining",
            "seed": given.seed,
            "data": {"format": "world", "world": {"train": given.train, "val": given.scenes, "seed": given.seed}},
            "detector": {"model": "yolo11n.yaml", "image_size_px": given.size},
            "training": {"steps": given.steps, "epoch_steps": max(given.steps // 10, 1)},
        }
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write_world(UPath(folder), config.data.world)
        data = import_data(config.data, UPath(folder), config.seed)
        detector = trained(data, config, folder)
        measured = {}
        for name, split, instances in (
            ("unseen", "val", mined(data.splits["val"], config, detector)),
            ("own", "train", mined(data.splits["train"], config, detector)),
            ("cross_fitted", "train", cross_fitted(data, config, given.folds, folder)),
        ):
            parts = truth(data.splits[split], instances, Path(folder, "annotations", f"{split}.json"))
            measured[name] = measure(instances, parts)
    setting = {**vars(given), "model": config.detector.model, **config.mining.attribute(), "host": platform.machine()}
    del setting["out"]
    training = {name: measured[name] for name in ("own", "cross_fitted")}
    seconds = round(time.perf_counter() - start)
    result = {**measured["unseen"], "training_scenes": training, "setting": setting, "seconds": seconds}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
