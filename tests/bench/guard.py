"""What the guard makes of a harmful pool: ``python tests/bench/guard.py CONFIG [--set key=value] [--seeds 5]``.

For each seed the run of the config is made with a guard. Then the guard decides once more on the same pool made harmful
on purpose: classes are shuffled over all boxes of the pool, and each box is moved by half of its size. It should take
the control every time. Rows are written to ``results/guard.json`` as they come, and a seed that is there is not run
again.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from actors.records import Annotation, Sample
from loop.arms import Trainings
from loop.config_files import load
from loop.driver import anchored, import_real, run
from loop.guard.decide import Decision, decide
from loop.keep import Fate
from loop.progress import Reporter
from loop.reduce_images import reduce_images
from loop.state import RunFolder

RESULTS = Path(__file__).parent / "results" / "guard.json"


def harmful(pool: Sequence[Sample], seed: int) -> tuple[Sample, ...]:
    """The pool with its classes shuffled over all boxes, and each box moved by half of its size."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.concatenate([sample.annotation.labels for sample in pool]))
    ends = np.cumsum([len(sample.annotation) for sample in pool])[:-1]
    return tuple(
        replace(sample, annotation=_moved(sample, own, rng))
        for sample, own in zip(pool, np.split(labels, ends), strict=True)
    )


def _moved(sample: Sample, labels: np.ndarray, rng: np.random.Generator) -> Annotation:
    boxes = sample.annotation.boxes
    sides = boxes[:, 2:] - boxes[:, :2]
    shift = rng.choice([-0.5, 0.5], sides.shape) * sides
    limit = np.array([sample.width, sample.height]) - sides
    corner = np.clip(boxes[:, :2] + shift, 0, limit)
    moved = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
    return replace(sample.annotation, boxes=moved, labels=labels)


def row(name: str, seed: int, decision: Decision) -> dict[str, Any]:
    """A decision as a row of the results, in points."""
    tried = {one.name: round(100 * one.ap, 1) for one in decision.tried}
    return {"pool": name, "seed": seed, "chosen": decision.chosen, "ap": tried, "pools": decision.pools}


def decisions(files: Sequence[str], overrides: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """The guard's decisions on the pool of a run with this seed, as drawn and made harmful."""
    config = load(files, [*overrides, f"seed={seed}"])
    config = anchored(config.model_copy(update={"name": f"{config.name}-guard-s{seed}"}))
    reporter, folder = Reporter(), RunFolder(run(config, Reporter()))
    data = reduce_images(import_real(config), config, reporter)
    trainings = Trainings(config=config, data=data, reporter=reporter)
    pool = folder.samples(1, Fate.KEPT)
    drawn = decide(trainings, folder.round(1), pool)
    spoilt = decide(trainings, folder.path / "harmful", harmful(pool, seed))
    return [row("drawn", seed, drawn), row("harmful", seed, spoilt)]


def main() -> None:
    """Run the missing seeds and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = json.loads(given.out.read_text()) if given.out.exists() else []
    fixed = ["guard.folds=3", "rounds=1", "hosting.engine=inline"]
    for seed in range(given.seeds):
        if all(one["seed"] != seed for one in rows):
            rows += decisions(given.configs, [*fixed, *given.overrides], seed)
            given.out.write_text(json.dumps(rows, indent=1) + "\n")
    spoilt = [one["chosen"] for one in rows if one["pool"] == "harmful"]
    print(json.dumps(rows, indent=1))
    print(f"harmful pools: the control was taken {spoilt.count('control')} of {len(spoilt)} times")


if __name__ == "__main__":
    main()
