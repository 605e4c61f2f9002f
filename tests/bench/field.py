"""Measure the first run of a user: ``python tests/bench/field.py NAME --weights FILE [--data FOLDER] [--root DIR] ...``

NAME is a data set, or a data set and the number of training images to use (``bccd-20``). The config is what
``detloop init`` writes for the folder. ``--rows-only`` runs nothing and collects the finished runs. Rows go to
``results/field.json``; the table of ``docs/evidence.md`` is written from that file (see ``evidence.py``).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from evidence import CONFIGS, Evidence, Question
from evidence_tables import Rows, command, compared, folder_of, heading, sections, sentence
from typing_extensions import override
from upath import UPath

from actors.detectors.ultralytics.component import UltralyticsConfig
from loop.ablation.config import Ablation, load_ablation
from loop.config import LoopConfig
from loop.config_files import load
from loop.data.config import WorldConfig
from loop.data.init_config import render
from loop.data.survey import describe
from loop.data.world import write_world
from loop.guard.choice import CONTROL

MARKS = "field"
SCENES = {
    "world": WorldConfig(train=80, val=200, clean=100),
    "fresh": WorldConfig(train=80, val=200, clean=100, seed=1),
}
DATA = ("raccoon", "bccd", "deeppcb", "world", "cards", "receipts", "coco80", "fresh")
"""Settings are chosen on the first four. The others are measured once, with all settings frozen."""
SUBSETS = {"raccoon": (40,), "bccd": (20, 40), "deeppcb": (20, 40), "world": (20,), "fresh": (20,)}
ABLATION = "field.yaml"
NAMES = [name for data in DATA for name in (data, *(f"{data}-{size}" for size in SUBSETS.get(data, ())))]
QUESTIONS = {name: Question(data=name, base="", ablation=ABLATION) for name in NAMES}
ARMS = {
    "real": "control: real images only",
    "real_longer": "the control with twice the steps",
    "real_4x": "the control with four times the images",
    "loop": "the loop with its guard, as `init` writes it",
    "loop_unguarded": "the loop's detector, whatever the guard chose",
    "copy_paste": "copy-paste without a guard",
}
PAIRS = (("loop", "real"), ("loop_unguarded", "real"), ("loop", "copy_paste"))
NOTE = """\
AP and AP50 are those of the last round's detector on the real validation images, in points (x100). The detectors of all
arms train for the same number of optimiser steps; the guard trains further ones, on folds of the training images. "vs"
columns are paired by seed; brackets hold the 95 % interval (Student's t over the seeds)."""


def measure(folder: UPath) -> dict[str, float]:
    """What the guard of the run in ``folder`` chose, as the loop's share in the weights, and what it chose from."""
    summary = json.loads((folder / "summary.json").read_bytes())
    rounds, metrics = summary["rounds"], summary["metrics"]
    if not rounds or "guard" not in rounds[-1]:
        return {}
    guard = rounds[-1]["guard"]
    chosen = next((one["share"] for one in guard["tried"] if one["name"] == guard["chosen"]), CONTROL)  # no comparison
    return {"chosen_share": chosen, **{f"unguarded_{key}": value for key, value in metrics["unguarded"].items()}}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldTest(Evidence):
    """Evidence whose base configs are those that ``detloop init`` writes."""

    @override
    def load(
        self, name: str, root: str, data: str = "", seeds: Sequence[int] = (), weights: str | None = None
    ) -> Ablation:
        question, (kind, _, subset), place = self.questions[name], name.partition("-"), Path(root) / name
        folder = UPath(place / "scenes" if kind in SCENES else data)
        if kind in SCENES:
            write_world(folder, SCENES[kind])
        found = describe(folder, keys={"subset": int(subset)} if subset else {})
        base = place / "init.yaml"
        base.parent.mkdir(parents=True, exist_ok=True)
        base.write_text(render(found, base.name, UltralyticsConfig.starter(weights)))
        arms = place / question.ablation
        arms.write_text(with_controls(CONFIGS / "ablations" / question.ablation, load([base]), int(subset or 0)))
        sets = [f"root={place}", "hosting.engine=inline", "hosting.train.num_cpus=1"]
        return load_ablation([base, arms], sets, seeds)


def with_controls(ablation: Path, base: LoopConfig, subset: int) -> str:
    """The ablation file with further controls: twice the steps, and four times the images of a subset."""
    tree = yaml.safe_load(ablation.read_text())
    tree["arms"]["real_longer"] = {"rounds": 0, "training.steps": 2 * base.training.steps}
    if subset:
        tree["arms"]["real_4x"] = {"rounds": 0, "data.subset": 4 * subset}
    return yaml.safe_dump(tree, sort_keys=False)


def section(results: dict[str, Any]) -> str:
    """The text between the marks in ``docs/evidence.md``."""
    rows = [*results["rows"], *(unguarded(row) for row in results["rows"] if row["chosen_share"] is not None)]
    return sections({**results, "rows": rows}, NOTE, ARMS, _data_set)


def unguarded(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of the detector that a guarded run would have had without its guard."""
    return {**row, "arm": "loop_unguarded", "ap": row["unguarded_ap"], "ap50": row["unguarded_ap50"]}


def _data_set(data: str, run: Mapping[str, Any], rows: Rows, arms: Sequence[str]) -> list[str]:
    kind = data.partition("-")[0]
    return [
        heading(data, run["config"]),
        compared(rows, arms, ARMS, ("real", "copy_paste")),
        "\n".join(line for pair in PAIRS if (line := sentence(rows, *pair))),
        choices(rows),
        command(MARKS, f"{data}{folder_of(kind)} --weights FILE"),
    ]


def choices(rows: Rows) -> str:
    """What the guard chose, by seed."""
    shares = {row["seed"]: row["chosen_share"] for row in rows if row["arm"] == "loop"}
    told = ", ".join(f"{CHOICES.get(share, f'blend {share:g}')} (seed {seed})" for seed, share in shares.items())
    return f"The guard chose: {told}." if told else ""


COLUMNS = {
    "ap": "AP",
    "ap50": "AP50",
    "chosen_share": "chosen_share",
    "unguarded_ap": "unguarded_AP",
    "unguarded_ap50": "unguarded_AP50",
}
CHOICES = {0.0: "control", 1.0: "loop"}
EVIDENCE = FieldTest(name=MARKS, questions=QUESTIONS, columns=COLUMNS, sections={MARKS: section}, measure=measure)


if __name__ == "__main__":
    EVIDENCE.main(__doc__ or "")
