"""Measure DetectorGAN's generators: ``python tests/bench/insertion.py RUN GENERATOR [--cost]``

RUN is the folder of a finished run with ``generator.kind: insertion_gan``, GENERATOR the checkpoint of its fit
(``fits/*/generator.safetensors`` below the run's root). Its control looks at pictures before and after:

* inserted: the share of the boxes drawn in round 1 that it finds, and of the same places in the canvases;
* removed: the share of real validation boxes that it finds, before G_Y redraws them and after;
* outside: the mean absolute change of pixels outside the masks, of 255, in both.

A box is found if a detection of its class with a score of 0.25 has an IoU of 0.5 with it. ``--cost`` measures CPU
seconds per step and peak memory of fits without the detector, with L_syn and with L_unroll, each in its own process.
Figures go to ``results/insertion.json``.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from upath import UPath

from actors.detectors.base import Detector
from actors.fitting import FitData, Worker
from actors.generators.cutouts.window import feathered
from actors.generators.diffusion.learner import to_pixels
from actors.generators.insertion_gan import checkpoint
from actors.generators.insertion_gan.batches import Windows
from actors.generators.insertion_gan.component import InsertionGANConfig
from actors.generators.insertion_gan.painting import paint
from actors.generators.insertion_gan.scene import Scene, mask_in_picture, window_frame
from actors.images import Pixels, read
from actors.records import Annotation, Difficulty, LabeledImage, Sample
from loop.arms import Trainings
from loop.data.importing import Dataset
from loop.driver import import_real
from loop.progress import Reporter
from loop.reduce_images import reduce_images
from loop.state import RunFolder

RESULTS = Path(__file__).parent / "results" / "insertion.json"
NUM_PICTURES = 40
MIN_SCORE, MIN_IOU = 0.25, 0.5
COSTS = {"gan": (0.0, 0.0), "gan_syn": (0.3, 0.0), "gan_unroll": (0.3, 0.3)}  # weights of L_syn and L_unroll
NUM_STEPS = 8


def found(detector: Detector, pixels: Pixels, annotation: Annotation) -> list[bool]:
    """Whether each box is found in the picture."""
    (seen,) = detector.detect([pixels])
    iou = seen.best_iou(annotation.boxes, annotation.labels, MIN_SCORE)
    return [bool(one >= MIN_IOU) for one in iou]


def share(flags: Sequence[bool]) -> float:
    """The share of true flags."""
    return round(float(np.mean(flags)), 3)


def inserted(detector: Detector, samples: Sequence[Sample], images: dict[str, LabeledImage]) -> dict[str, float]:
    """What the detector finds of the boxes of candidates."""
    before, after, outside = list[bool](), list[bool](), list[float]()
    for sample in samples:
        canvas, drawn = read(images[sample.canvas].uri), read(sample.as_drawn)
        annotation = sample.proposed.take(sample.drawn)
        before += found(detector, canvas, annotation)
        after += found(detector, drawn, annotation)
        free = np.ones(canvas.shape[:2], np.bool_)
        for left, top, right, bottom in np.round(_spread(annotation.boxes)).astype(int).clip(0):
            free[top:bottom, left:right] = False
        outside.append(_change(drawn, canvas, free))
    figures = {"found": share(after), "found_before": share(before), "outside": round(float(np.mean(outside)), 4)}
    return {"boxes": len(after), **figures}


def _spread(boxes: Any) -> Any:
    """The boxes with the largest margin that a mask has, 10 % and a pixel."""
    pad = 0.1 * (boxes[:, 2:] - boxes[:, :2]) + 1
    return np.concatenate([boxes[:, :2] - pad, boxes[:, 2:] + pad], axis=1)


def _change(one: Pixels, other: Pixels, where: Any) -> float:
    return float(np.abs(one.astype(np.float32) - other)[where].mean()) if where.any() else 0.0


def scenes(image: LabeledImage, pixels: Pixels, config: InsertionGANConfig) -> Iterator[Scene]:
    """Each object of an image."""
    annotation = image.annotation
    for index in np.flatnonzero(~annotation.ignore):
        box = annotation.boxes[index]
        yield Scene(
            pixels=pixels,
            others=annotation.take(np.arange(len(annotation)) != index),
            box=box,
            label=int(annotation.labels[index]),
            frame=window_frame(config, box),
        )


def removed(
    detector: Detector, painters: torch.nn.ModuleDict, images: Sequence[LabeledImage], config: InsertionGANConfig
) -> dict[str, float]:
    """What the detector finds of real objects before and after G_Y redraws all of them."""
    before, after, outside = list[bool](), list[bool](), list[float]()
    for image in images:
        pixels = read(image.uri)
        parts = list(scenes(image, pixels, config))
        windows = Windows.of(config, parts, "cpu")
        noise = torch.zeros(len(parts), config.noise_channels, config.size_px, config.size_px)
        with torch.inference_mode():
            painted = to_pixels(paint(painters, "remove", windows, noise))
        empty, free = pixels.copy(), np.ones(pixels.shape[:2], np.bool_)
        for scene, window in zip(parts, painted, strict=True):
            mask = mask_in_picture(config, pixels.shape[:2], scene.box, scene.others.boxes)
            scene.frame.paste(empty, window, feathered(mask, config.feather_px))
            free &= ~mask
        counted = image.annotation.take(~image.annotation.ignore)
        before += found(detector, pixels, counted)
        after += found(detector, empty, counted)
        outside.append(_change(empty, pixels, free))
    figures = {"found_before": share(before), "found": share(after), "outside": round(float(np.mean(outside)), 4)}
    return {"boxes": len(after), **figures}


def fit_cost(config: InsertionGANConfig, data: FitData, weights: tuple[float, float]) -> dict[str, float]:
    """CPU seconds per step and peak memory of a fit in which the detector takes part in every step."""
    torch.set_num_threads(1)
    syn, unroll = weights
    keys = {"syn_weight": syn, "unroll_weight": unroll, "warmup_steps": 0, "detector_every": 1}
    fit = config.model_copy(update={"fit": config.fit.model_copy(update=keys)}).open_fit(data, Worker(device="cpu"))
    for number in range(2):
        fit.step(number)
    began = time.process_time()
    for number in range(2, 2 + NUM_STEPS):
        fit.step(number)
    seconds = (time.process_time() - began) / NUM_STEPS
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"cpu_s_per_step": round(seconds, 2), "peak_mb": peak_mb}


def costs(trainings: Trainings, config: InsertionGANConfig) -> dict[str, dict[str, float]]:
    """``fit_cost`` of each arm of the paper, in a process of its own."""
    images = trainings.data.splits["train"]
    data = FitData(
        classes=trainings.data.classes,
        images=images,
        difficulties=tuple((Difficulty.HARD,) * len(image.annotation) for image in images),
        seed=0,
        detector=trainings.detector(trainings.control(0).checkpoint),
        clean=trainings.data.clean,
    )
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return {arm: pool.apply(fit_cost, (config, data, weights)) for arm, weights in COSTS.items()}


def opened(folder: RunFolder) -> tuple[Trainings, Dataset]:
    """The trainings and the data of a run."""
    config = folder.config()
    config = config.model_copy(update={"hosting": config.hosting.model_copy(update={"engine": "inline"})})
    reporter = Reporter()
    data = reduce_images(import_real(config), config, reporter)
    return Trainings(config=config, data=data, reporter=reporter), data


def main() -> None:
    """Write the figures of one run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="folder of a finished run with the generator insertion_gan")
    parser.add_argument("generator", help="checkpoint of its fit")
    parser.add_argument("--cost", action="store_true", help="also measure time and memory of fits")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = RunFolder(UPath(given.run))
    trainings, data = opened(folder)
    config = trainings.config.generator
    if not isinstance(config, InsertionGANConfig):
        raise SystemExit(f"{given.run}: its generator is {config.kind}, not insertion_gan")
    detector = trainings.config.detector.load(trainings.control(0).checkpoint, "cpu")
    painters = checkpoint.build_painters(config, len(data.classes))
    painters.load_state_dict(checkpoint.load(given.generator, config, data.classes)[0])
    painters.eval().requires_grad_(False)
    samples = [one for one in folder.judged(1) if one.uri and one.drawn.any()][:NUM_PICTURES]
    val = [image for image in data.splits["val"] if not image.annotation.ignore.all()][:NUM_PICTURES]
    figures: dict[str, Any] = {
        "inserted": inserted(detector, samples, {image.id: image for image in data.real}),
        "removed": removed(detector, painters, val, config),
    }
    figures["cost"] = costs(trainings, config) if given.cost else {}
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
