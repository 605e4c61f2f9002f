"""Measure the guard on harmful pools: ``python tests/bench/guard.py NAME --weights FILE [--data DIR] [--root DIR]``.

NAME is a data set of ``field.py``, whose runs with a guard are taken, or made where they are missing. For each of them
the guard decides once more, on its pool made harmful on purpose: classes are shuffled over all boxes of the pool, and
each box is moved by half of its size. It should take the control every time. Rows go to ``results/guard.json``, and a
seed that is there is not run again; the table of ``docs/evidence.md`` is written from that file.
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

import field
import numpy as np
from evidence import DOCUMENT
from evidence_tables import write_section

from actors.records import Annotation, Sample
from loop.arms import Trainings
from loop.config import LoopConfig
from loop.driver import import_real, run
from loop.guard.decide import Decision, decide
from loop.keep import Fate
from loop.progress import Reporter
from loop.reduce_images import reduce_images
from loop.state import RunFolder

RESULTS = Path(__file__).parent / "results" / "guard.json"
MARKS = "guard"
Row = dict[str, Any]


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


def row(data: str, seed: int, decision: Decision) -> Row:
    """A decision as a row of the results, in points."""
    tried = {one.name: round(100 * one.ap, 1) for one in decision.tried}
    return {"data": data, "seed": seed, "chosen": decision.chosen, "ap": tried, "pools": list(decision.pools)}


def spoilt(config: LoopConfig) -> Decision:
    """The guard's decision on the pool of a run, made harmful. Runs the loop first if it has not finished."""
    folder = RunFolder(run(config, Reporter()))
    data = reduce_images(import_real(config), config, Reporter())
    trainings = Trainings(config=config, data=data, reporter=Reporter())
    return decide(trainings, folder.path / "harmful", harmful(folder.samples(1, Fate.KEPT), config.seed))


def section(rows: Sequence[Row]) -> str:
    """The text between the marks in ``docs/evidence.md``."""
    tried = tuple(dict.fromkeys(name for one in rows for name in one["ap"]))
    lines = [f"| data | seed | samples per fold | {' | '.join(tried)} | chosen |", "|---" * (len(tried) + 4) + "|"]
    for one in rows:
        aps = " | ".join(f"{one['ap'][name]:.1f}" if one["ap"] else "" for name in tried)
        sizes = ", ".join(map(str, one["pools"]))
        lines.append(f"| {one['data']} | {one['seed']} | {sizes} | {aps} | {one['chosen']} |")
    kept = sum(one["chosen"] == "control" for one in rows)
    return "\n".join([*lines, "", f"The guard kept the control {kept} of {len(rows)} times."])


def main() -> None:
    """Run the missing seeds, then write rows and table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=field.QUESTIONS)
    parser.add_argument("--data", default="")
    parser.add_argument("--weights")
    parser.add_argument("--root", default="runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[])
    given = parser.parse_args()
    ablation = field.EVIDENCE.load(given.name, given.root, given.data, given.seeds, given.weights)
    rows: list[Row] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for trial in ablation.trials:
        if trial.arm == "loop" and all((one["data"], one["seed"]) != (given.name, trial.seed) for one in rows):
            rows.append(row(given.name, trial.seed, spoilt(trial.config)))
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    write_section(DOCUMENT, MARKS, section(rows))
    print(section(rows))


if __name__ == "__main__":
    main()
