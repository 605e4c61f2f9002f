"""Peak memory of the steps whose arrays grow with the data set, at COCO's size: ``python tests/bench/memory.py``.

* bootstrap: 1000 resamplings of 5,000 images, for a class of 100,000 hits among 200,000 detections (one IoU threshold).
* duplicates: the search for training images that are near-copies of held-out ones, 118,000 by 5,000 images.

Each runs in a process of its own. The figures are peaks of resident memory in MB, before the step and after it.
"""

import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from actors.filters import duplicate
from actors.filters.base import RealImages
from loop.evaluation.bootstrap import average_precision
from loop.evaluation.coco import ClassMatches, Evaluation

NUM_TRAIN, NUM_VAL, NUM_DETECTIONS, NUM_DRAWS = 118_000, 5_000, 200_000, 1000


def bootstrap() -> None:
    """Resample the images of one class."""
    rng = np.random.default_rng(0)
    hit = (np.arange(NUM_DETECTIONS) % 2 == 0)[None]
    image = rng.integers(0, NUM_VAL, NUM_DETECTIONS)
    positives = np.bincount(image[hit[0]], minlength=NUM_VAL)
    matches = ClassMatches(name="person", image=image, hit=hit, counted=np.ones_like(hit), positives=positives)
    result = Evaluation(metrics={}, curves={}, image_ids=(), matches=(matches,))
    times = rng.multinomial(NUM_VAL, [1 / NUM_VAL] * NUM_VAL, size=NUM_DRAWS)
    run("bootstrap", lambda: average_precision(result, times).tobytes())


def duplicates() -> None:
    """Look for leaks between the splits, of which there are a hundred."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, NUM_TRAIN + NUM_VAL)
    hashes[:100] = hashes[-100:]
    entries = [{"id": str(n), "uri": "", "hash": f"{one:016x}"} for n, one in enumerate(hashes.tolist())]
    splits = iter((entries[:NUM_TRAIN], entries[NUM_TRAIN:]))
    duplicate._entries = lambda _: next(splits)  # the hashes of pictures are not what is measured
    real = RealImages(classes=("a",), train=(), held_out=())
    run("duplicates", lambda: json.dumps(duplicate.DuplicateConfig().fit(real)["remarks"]).encode())


def run(name: str, step: Callable[[], bytes]) -> None:
    """Run ``step`` and print its figures; the hash tells equal results."""
    before, start = peak_mb(), time.perf_counter()
    result = step()
    figures = {"before_mb": before, "peak_mb": peak_mb(), "seconds": round(time.perf_counter() - start, 1)}
    print(name, json.dumps(figures | {"result": sha256(result).hexdigest()[:12]}))


def peak_mb() -> int:
    """The peak of this process's resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    spawned = multiprocessing.get_context("spawn")
    for step in (bootstrap, duplicates):
        process = spawned.Process(target=step)
        process.start()
        process.join()
