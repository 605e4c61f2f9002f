"""Check the utility of candidates against training steps, and measure its cost: ``python tests/bench/utility.py RUN``

RUN is the folder of a finished run with the filter ``utility``. For 50 of its candidates, the first by id, one fold's
detector takes a step of plain gradient descent on the candidate, of LENGTH in its parameters, and the change of its
loss on the fold's real images is compared with the utility. Cost: candidates per CPU second of one fold's detector, and
of plain detection on the same pictures. Canvases: the share of the variance of all utilities that lies between the
images that were drawn into. Figures go to ``results/utility.json``.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from torch import Tensor
from upath import UPath

from actors.filters.base import HeldBack
from actors.filters.utility import RealLoss
from actors.images import read
from actors.records import Sample
from loop.arms import Trainings
from loop.config import LoopConfig
from loop.cross_fit import held_back
from loop.driver import import_real
from loop.progress import Reporter
from loop.reduce_images import reduce_images
from loop.selection import score
from loop.state import RunFolder

RESULTS = Path(__file__).parent / "results" / "utility.json"
NUM_CANDIDATES = 50
LENGTHS = (0.001, 0.01, 0.1)  # Euclidean, over the parameters of the head


def first_fold(config: LoopConfig) -> HeldBack:
    """The detector of the first fold, which the run has trained, and the fold's images."""
    reporter = Reporter()
    data = reduce_images(import_real(config), config, reporter)
    return held_back(Trainings(config=config, data=data, reporter=reporter))[0]


def real_loss(fold: RealLoss, parameters: dict[str, Tensor]) -> float:
    """The mean loss on the fold's images."""
    with torch.inference_mode():
        losses = [fold.value(read(image.uri), image.annotation, parameters) for image in fold.images.values()]
    return float(torch.stack(losses).double().mean())


def after_step(fold: RealLoss, slope: Tensor, size: float) -> dict[str, Tensor]:
    """The parameters after a step of ``size`` against ``slope`` [d]."""
    values = fold.loss.parameters
    parts = slope.split([value.numel() for value in values.values()])
    return {name: (value - size * part.view_as(value)).detach() for (name, value), part in zip(values.items(), parts)}  # noqa: B905


def check(fold: RealLoss, samples: Sequence[Sample]) -> dict[str, Any]:
    """Correlation and slope of predicted and observed fall of the real loss, for each length of the step."""
    real, before = fold.real_gradient(), real_loss(fold, {})
    predicted, observed = [], {length: list[float]() for length in LENGTHS}
    for sample in samples:
        own = fold.gradient(read(sample.as_drawn), sample.proposed)
        predicted.append(float(real @ own))
        for length, found in observed.items():
            size = length / float(own.norm())
            found.append((before - real_loss(fold, after_step(fold, own, size))) / size)
    return {
        str(length): {
            "correlation": round(float(np.corrcoef(predicted, found)[0, 1]), 3),
            "slope": round(float(np.polyfit(predicted, found, 1)[0]), 3),
        }
        for length, found in observed.items()
    }


def between_canvases(samples: Sequence[Sample]) -> float:
    """The share of the variance of the samples' utilities that lies between their canvases."""
    by_canvas = defaultdict[str, list[float]](list)
    for sample in samples:
        if (value := score(sample, "utility")) > -np.inf:
            by_canvas[sample.canvas].append(value)
    values = [value for found in by_canvas.values() for value in found]
    means = [np.mean(found) for found in by_canvas.values() for _ in found]
    return round(float(np.var(means) / np.var(values)), 3)


def per_cpu_s(work: Callable[[Sample], object], samples: Sequence[Sample]) -> float:
    """Samples per CPU second of this process."""
    work(samples[0])
    began = time.process_time()
    for sample in samples:
        work(sample)
    return len(samples) / (time.process_time() - began)


def cost(config: LoopConfig, held: HeldBack, samples: Sequence[Sample]) -> dict[str, float]:
    """Candidates per CPU second by kind of work."""
    folds = {kind: RealLoss(held, kind) for kind in ("head", "all")}
    detector = config.detector.load(held.detector.uri, "cpu")
    speeds = {"detection": per_cpu_s(lambda one: detector.detect([read(one.as_drawn)]), samples)}
    for kind, fold in folds.items():
        fold.real_gradient()  # once for a round
        speeds[kind] = per_cpu_s(lambda one, fold=fold: fold.utility(read(one.as_drawn), one.proposed), samples)
    return {kind: round(speed, 2) for kind, speed in speeds.items()}


def main() -> None:
    """Write the figures of one run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="folder of a finished run with the filter utility")
    torch.set_num_threads(1)
    folder = RunFolder(UPath(parser.parse_args().run))
    config = folder.config()
    config = config.model_copy(update={"hosting": config.hosting.model_copy(update={"engine": "inline"})})
    samples = sorted((one for one in folder.judged(1) if one.uri and one.drawn.any()), key=lambda one: one.id)
    held = first_fold(config)
    figures = {
        "detector": config.detector.model,
        "image_size_px": config.detector.image_size_px,
        "candidates": NUM_CANDIDATES,
        "steps": check(RealLoss(held), samples[:NUM_CANDIDATES]),
        "between_canvases": between_canvases(samples),
        "candidates_per_cpu_s": cost(config, held, samples[:NUM_CANDIDATES]),
    }
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
