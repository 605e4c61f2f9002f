"""Whether the loop helps: ``python tests/bench/gen2det.py world|bccd|p|copies [--root DIR] [--data DIR] [--seeds 0 1]``

Each question is an ablation of ``configs/ablations/``, run as ``detloop ablate`` runs it: one thread a run, as many at
once as there are CPUs; started again, it goes on where it stopped. ``--data`` is the folder of BCCD. ``--rows-only``
runs nothing and takes what is finished below the root, also while an ablation is going on there.

Finished runs become rows of ``results/gen2det.json``, one for each data set, arm and seed, beside the config that they
were made with; the README's tables are written from that file. Rows of different configs are never mixed: where an arm
has changed, or the config that all arms of a data set share, the rows made before it go, and the script says so.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from gen2det_tables import write_section

from actors.plain import differences
from actors.storage import read_record
from loop.ablation_config import Ablation, load_ablation
from loop.config import ConfigError, LoopConfig
from loop.config_files import validate
from loop.report.ablation import TrialResult

RESULTS = Path(__file__).parent / "results" / "gen2det.json"
README = ROOT / "README.md"
CONFIGS = ROOT / "configs"
FOLDER = "FOLDER"  # stands for the place of a data set, which decides nothing
Results = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """An ablation, the config below it, and the data set that its rows belong to."""

    data: str
    base: str
    ablation: str
    overrides: tuple[str, ...] = ()


FEW_CELLS = (
    *("rounds=1", "data.subset=30", "detector.image_size_px=160"),
    *("mining.budget=500", "generation.copies=5", "mixing.p=0.5", "training.steps=600"),
)
"""Of BCCD's 205 training images 30; at this size and with so many steps a run takes minutes on one core."""
QUESTIONS = {
    "world": Question(data="world", base="quickstart.yaml", ablation="gen2det_world.yaml"),
    "bccd": Question(data="bccd", base="bccd.yaml", ablation="gen2det_bccd.yaml", overrides=FEW_CELLS),
    "p": Question(data="world", base="quickstart.yaml", ablation="p.yaml"),
    "copies": Question(data="world", base="quickstart.yaml", ablation="copies.yaml"),
}


def load(name: str, root: str, data: str = FOLDER, seeds: Sequence[int] = ()) -> Ablation:
    """The ablation that a question is, with all it runs below ``root``."""
    question = QUESTIONS[name]
    overrides = [f"root={root}", "hosting.engine=inline", *question.overrides]
    if question.data != "world":
        overrides.append(f"data.root={data}")
    return load_ablation([CONFIGS / question.base, CONFIGS / "ablations" / question.ablation], overrides, seeds)


def short(arm: str) -> str:
    """``mixing.p=0.1`` as ``p=0.1``."""
    key, separator, value = arm.rpartition("=")
    return f"{key.rpartition('.')[2]}={value}" if separator else arm


def decisive(science: dict[str, Any]) -> dict[str, Any]:
    """A stored ``LoopConfig.science()`` as today's code reads it, without its seed, wherever its data lie.

    Keys that are newer than it have their defaults. Raises ConfigError where it has keys that are no more.
    """
    root = None if science["data"]["format"] == "world" else FOLDER
    tree = {**science, "name": "stored", "seed": 0, "data": {**science["data"], "root": root}}
    return {**validate(LoopConfig, tree, "a stored config").science(), "seed": None}


def finished(ablation: Ablation, seeds: Sequence[int]) -> list[TrialResult]:
    """The ablation's runs that have a result, of these seeds or of all.

    Raises ConfigError where one was made with another config than the arm has now.
    """
    record = ablation.folder / "ablation.json"
    if not record.exists():
        raise ConfigError(f"{ablation.folder}: no ablation has begun here; give its root, or run it first")
    of_then, of_now = read_record(record, dict[str, Any])["arms"], ablation.science()["arms"]
    found = [read_record(file, TrialResult) for file in sorted((ablation.folder / "trials").glob("*.json"))]
    found = [one for one in found if one.seed in seeds or not seeds]
    for arm in sorted({one.arm for one in found} & of_now.keys()):
        if changed := differences(decisive(of_then[arm]), decisive(of_now[arm])):
            raise ConfigError(f"{ablation.folder}, arm {arm}, was run with another config:\n  " + "\n  ".join(changed))
    if gone := {one.arm for one in found} - of_now.keys():
        print(f"left out: {', '.join(sorted(gone))}: no arms of {ablation.config.name} any more")
    return [one for one in found if one.arm in of_now]


def settle(results: Results, name: str, ablation: Ablation, say: Callable[[str], None] = print) -> None:
    """Make ``results`` ready for rows of this ablation: rows that were made with another config go.

    Raises ConfigError where only a part of a data set's rows could be made anew: what p and copies share with the
    main question must be the same.
    """
    data = QUESTIONS[name].data
    config = decisive(ablation.base.science())
    arms = {short(arm): json.loads(json.dumps(sets)) for arm, sets in ablation.config.rows().items()}
    known = results["runs"].setdefault(data, {"config": config, "arms": {}, "made_with": []})
    if changed := differences(decisive(known["config"]), config):
        lines = "\n  ".join(changed)
        if name != data and any(row["data"] == data for row in results["rows"]):
            raise ConfigError(f"the rows of {data} were made with another config; make those anew first:\n  {lines}")
        say(f"{data}: {_take_out(results, data, known['arms'])} old rows go, the config has changed:\n  {lines}")
        known |= {"arms": {}, "made_with": []}
    known["config"] = config
    for arm, sets in arms.items():
        if known["arms"].get(arm, sets) != sets:
            say(f"{data}, arm {arm}: {_take_out(results, data, [arm])} old rows go, the arm has changed")
        known["arms"][arm] = sets


def _take_out(results: Results, data: str, arms: Collection[str]) -> int:
    """Drop the rows of these arms; how many they were."""
    stay = [row for row in results["rows"] if row["data"] != data or row["arm"] not in arms]
    num_gone = len(results["rows"]) - len(stay)
    results["rows"] = stay
    return num_gone


def merge(results: Results, data: str, found: Sequence[TrialResult], made_with: dict[str, str]) -> int:
    """Put the rows of ``found`` into ``results``, one for each data set, arm and seed; how many are new or differ."""
    rows = {(row["data"], row["arm"], row["seed"]): row for row in results["rows"]}
    num_new = 0
    for one in found:
        metrics = {"ap": round(one.metrics["AP"], 5), "ap50": round(one.metrics["AP50"], 5)}
        row = {"data": data, "arm": short(one.arm), "seed": one.seed, "steps": one.steps, **metrics}
        key = (data, row["arm"], one.seed)
        num_new += rows.get(key) != row
        rows[key] = row
    results["rows"] = [rows[key] for key in sorted(rows)]
    known = results["runs"][data]["made_with"]
    if num_new and all({**one, "date": ""} != {**made_with, "date": ""} for one in known):
        known.append(made_with)
    return num_new


def made_with() -> dict[str, str]:
    """The code and the machine, now."""
    return {
        "detloop": _commit(),
        "torch": version("torch"),
        "ultralytics": version("ultralytics"),
        "cpu": _cpu(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _commit() -> str:
    """The commit at hand, with a plus where code or configs differ from it."""
    said = [
        subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603, S607
        for command in (
            ["rev-parse", "--short", "HEAD"],
            ["status", "--porcelain", "-uno", "actors", "loop", "configs"],
        )
    ]
    return (said[0] or version("detloop")) + ("+" if said[1] else "")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return f"{os.cpu_count()} CPUs"
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {models[0] if models else 'unknown'}"


def read_results() -> Results:
    """What ``results/gen2det.json`` holds."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}, "rows": []}


def run(ablation: Ablation) -> bool:
    """Run what is missing; whether all of it has a result now."""
    from loop.ablation import ablate
    from loop.progress import Reporter

    return not ablate(ablation, Reporter()).failed


def answer(given: argparse.Namespace) -> bool:
    """Run, take the rows, write them and the tables; False where a run failed."""
    ablation = load(given.question, given.root, given.data or FOLDER, given.seeds)
    settle(read_results(), given.question, ablation, lambda _: None)  # a config that is refused is refused at once
    complete = given.rows_only or run(ablation)
    found, results = finished(ablation, given.seeds), read_results()
    settle(results, given.question, ablation)
    num_new = merge(results, QUESTIONS[given.question].data, found, made_with())
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_section(README, results)
    print(f"{given.question}: {len(found)} finished runs, {num_new} of them new; {RESULTS.name} and the README say so")
    return complete


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("--root", default="runs", help="where the runs lie")
    parser.add_argument("--data", help="folder of BCCD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="in place of the ablation file's")
    parser.add_argument("--rows-only", action="store_true", help="run nothing, take what is finished")
    given = parser.parse_args()
    if given.question == "bccd" and not (given.data or given.rows_only):
        parser.error("bccd: give the data set's folder with --data")
    try:
        complete = answer(given)
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    raise SystemExit(0 if complete else 1)


if __name__ == "__main__":
    main()
