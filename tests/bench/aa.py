"""How often the verdict of a run is wrong: control against control, the same method with other training seeds.

``python tests/bench/aa.py train SETTING [--num 12] [--root DIR] [--data DIR --weights FILE]`` trains controls and
stores their detections below the root; started again, it goes on. ``python tests/bench/aa.py judge SETTING ...`` draws
pairs of disjoint groups of controls, asks ``loop.evaluation.bootstrap`` for the verdict on each, and writes
``results/aa.json`` and the section of ``docs/evidence.md``.

``python tests/bench/aa.py prior`` prints the spread between training seeds that the constant
``loop.evaluation.luck.PRIOR`` holds. It reads the rows of ``gen2det.json`` and ``detdiffusion.json``, none of which
takes part in the judged pairs.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence import CONFIGS, DOCUMENT, made_with
from evidence_tables import write_section
from upath import UPath

from actors.storage import read_detections
from loop.arms import Trainings
from loop.config import LoopConfig
from loop.config_files import load
from loop.data.importing import Dataset
from loop.driver import anchored, import_real
from loop.evaluation.bootstrap import Gain, Measurement, average_precision, gain_of, resamplings
from loop.evaluation.coco import Evaluation, evaluate
from loop.evaluation.luck import PRIOR, Spread, estimate_prior, within
from loop.progress import Reporter
from loop.report.summary import points

RESULTS = Path(__file__).parent / "results"
FILE = RESULTS / "aa.json"
SETTINGS = {
    "world": ("quickstart.yaml", "training.steps=400"),
    "bccd": ("bccd.yaml", "training.start=weights", "training.steps=100", "training.batch_size=8"),
}
"""Config and overrides of the controls. ``world``: half of the quickstart's steps, with a rather larger spread than the
quickstart's. ``bccd``: a short fine-tuning from ``--weights``."""
NUM_PAIRS, SEEDS, DRAWS = 20, (1, 2, 3), 1000
IMAGES_ALONE = Spread(sd=1e-9, dof=1e9)
"""A prior without training luck: the interval then covers the choice of images alone."""


def load_setting(name: str, root: str, given: Sequence[str]) -> tuple[LoopConfig, Dataset]:
    """The config and the data of a setting. All its controls have the same images."""
    config, *overrides = SETTINGS[name]
    overrides += [f"root={root}", "hosting.engine=inline", *given]
    loaded = anchored(load([CONFIGS / config], overrides))
    return loaded, import_real(loaded)


def place(config: LoopConfig, name: str, seed: int) -> UPath:
    """The folder of a control."""
    return UPath(config.root) / "aa" / name / f"{seed:03d}"


def train(name: str, num_controls: int, root: str, given: Sequence[str]) -> None:
    """Train the controls of a setting that are missing."""
    config, data = load_setting(name, root, given)
    for seed in range(num_controls):
        if not (place(config, name, seed) / "val.npz").exists():
            seeded = config.model_copy(update={"seed": seed})
            trainings = Trainings(config=seeded, data=data, reporter=Reporter())
            trainings.arm(place(config, name, seed), 0, label=f"control {seed}")


def evaluations(name: str, root: str, given: Sequence[str]) -> dict[int, Evaluation]:
    """The evaluations of the finished controls of a setting, by seed."""
    config, data = load_setting(name, root, given)
    files = {seed: place(config, name, seed) / "val.npz" for seed in range(1000)}
    seen = {seed: read_detections(file) for seed, file in files.items() if file.exists()}
    return {seed: evaluate(data.splits["val"], found, data.classes) for seed, found in seen.items()}


def pairs(seeds: Sequence[int], num_seeds: int) -> Iterator[tuple[list[int], list[int]]]:
    """Pairs of disjoint groups of ``num_seeds`` controls. No control is used again before all others are."""
    rng, known = np.random.default_rng(0), set()
    for _ in range(10_000):
        order = rng.permutation(seeds).tolist()
        for first in range(0, len(order) - 2 * num_seeds + 1, 2 * num_seeds):
            both = order[first : first + 2 * num_seeds]
            pair = sorted(both[:num_seeds]), sorted(both[num_seeds:])
            if (key := frozenset(map(tuple, pair))) not in known:
                known.add(key)
                yield pair


def judge(name: str, root: str, given: Sequence[str]) -> None:
    """Judge pairs of the finished controls, and write rows and section."""
    controls = evaluations(name, root, given)
    times = resamplings(len(next(iter(controls.values())).image_ids), DRAWS, seed=0)
    known = {seed: (one.metrics["AP"], average_precision(one, times)) for seed, one in controls.items()}
    results = json.loads(FILE.read_text()) if FILE.exists() else {}
    rows = [_judged(known, pair, num) for num in SEEDS for pair in _first(pairs(list(known), num))]
    aps = {str(seed): round(ap, 5) for seed, (ap, _) in known.items()}
    results[name] = {"made_with": made_with(), "setting": SETTINGS[name], "controls": aps, "pairs": rows}
    FILE.write_text(json.dumps(results, indent=1) + "\n")
    write_section(DOCUMENT, "aa", section(results))


def _first(drawn: Iterator[tuple[list[int], list[int]]]) -> list[tuple[list[int], list[int]]]:
    return [pair for _, pair in zip(range(NUM_PAIRS), drawn, strict=False)]


def _judged(known: Mapping[int, Measurement], pair: tuple[list[int], list[int]], num_seeds: int) -> dict[str, Any]:
    arms = [[known[seed] for seed in group] for group in pair]
    found, images = gain_of(*arms), gain_of(*arms, IMAGES_ALONE)
    row = {"seeds": num_seeds, "pair": pair, "gain": round(found.value, 5)}
    return {**row, "ci95": _ends(found), "of_images": _ends(images)}


def _ends(found: Gain) -> list[float]:
    return [round(found.low, 5), round(found.high, 5)]


def section(results: Mapping[str, Any]) -> str:
    """The section of the document."""
    heading = (
        *("controls", "seeds of an arm", "pairs", "called a gain or a loss"),
        *("called by the images alone", "half of the interval, points"),
    )
    lines = [f"| {' | '.join(heading)} |", "|---|---:|---:|---:|---:|---:|"]
    for name, found in results.items():
        for num_seeds in SEEDS:
            rows = [row for row in found["pairs"] if row["seeds"] == num_seeds]
            if rows:
                half = np.mean([row["ci95"][1] - row["ci95"][0] for row in rows]) / 2
                called = [
                    sum(not low <= 0 <= high for low, high in (row[key] for row in rows))
                    for key in ("ci95", "of_images")
                ]
                cells = (name, num_seeds, len(rows), called[0], called[1], points(float(half)))
                lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", *(_made(name, found) for name, found in results.items())])


def _made(name: str, found: Mapping[str, Any]) -> str:
    """How the controls of a setting were made, and how much they differ."""
    aps, (config, *overrides) = list(found["controls"].values()), found["setting"]
    mean, sd = (points(float(value)) for value in (np.mean(aps), np.std(aps, ddof=1)))
    return (
        f"`{name}`: {len(aps)} controls of `configs/{config}` with {', '.join(overrides)}; AP {mean}, standard "
        f"deviation {sd}. Made by `uv run python tests/bench/aa.py train {name}` and `judge {name}`."
    )


def prior() -> None:
    """Print the prior, and the data sets that it comes from."""
    data_sets = recorded()
    for name, groups in data_sets.items():
        squares, dof = within(groups)
        print(f"{name}: standard deviation {points((squares / dof) ** 0.5)} points, {dof} degrees of freedom")
    found = estimate_prior(list(data_sets.values()))
    print(f"prior: {found}; in use: {PRIOR}")


def recorded() -> dict[str, list[list[float]]]:
    """The APs by seed of each arm, by data set, of the rows of other benchmarks; data sets with one seed are left out.

    On ``bccd`` each seed draws its own training images, so its spread is rather too large.
    """
    by_arm = defaultdict[tuple[str, str], dict[int, float]](dict)
    for name in ("gen2det", "detdiffusion"):
        for row in json.loads((RESULTS / f"{name}.json").read_text())["rows"]:
            by_arm[row["data"], row["arm"]][row["seed"]] = row["ap"]
    data_sets = defaultdict[str, list[list[float]]](list)
    for (data, _), by_seed in by_arm.items():
        if len(by_seed) > 1:
            data_sets[data].append(list(by_seed.values()))
    return dict(data_sets)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("train", "judge", "prior"))
    parser.add_argument("setting", nargs="?", choices=SETTINGS, default="world")
    parser.add_argument("--num", type=int, default=12, help="controls to train")
    parser.add_argument("--root", default="runs", help="storage root")
    parser.add_argument("--data", help="folder of BCCD")
    parser.add_argument("--weights", help="weights to start from")
    given = parser.parse_args()
    sets = [
        f"{key}={value}" for key, value in (("data.root", given.data), ("detector.weights", given.weights)) if value
    ]
    if given.what == "prior":
        prior()
    elif given.what == "train":
        train(given.setting, given.num, given.root, sets)
    else:
        judge(given.setting, given.root, sets)


if __name__ == "__main__":
    main()
