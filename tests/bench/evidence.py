"""Shared by the evidence scripts: run ablations, collect finished runs, write the tables of the documentation.

A script names its questions. Each is an ablation of ``configs/ablations/`` and runs as under ``detloop ablate``: one
thread per run, as many runs at once as there are CPUs. The same command resumes an interrupted ablation. A finished run
becomes a row of ``results/<script>.json``, keyed by data set, arm and seed and stored beside the config that made it.
Rows of different configs are never mixed: if an arm changes, or a part of the config that it uses, its old rows are
deleted and the script says so.

The tables go to ``docs/evidence.md``, the summary to ``README.md``, each between its own pair of marks.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from evidence_tables import WORLDS, MissingMarksError, write_section
from upath import UPath

from actors.plain import differences
from actors.storage import read_record
from loop.ablation.config import Ablation, load_ablation
from loop.ablation.table import TrialResult
from loop.config import ConfigError, LoopConfig
from loop.config_files import validate

README = ROOT / "README.md"
DOCUMENT = ROOT / "docs" / "evidence.md"
CONFIGS = ROOT / "configs"
FOLDER = "FOLDER"  # placeholder for the folder of a data set, which does not affect results
FILE = "FILE"  # likewise for the file of the detector's weights
COPIES = ("generation.copies=20",)
"""Of the questions that are based on the quickstart: twice its own."""
OF_ROUNDS = ("mining.", "generator.", "fit.", "generation.", "filters", "rejected_boxes", "mixing.")
"""Keys that have no effect on a run without rounds."""
Results = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """An ablation, its base config, and the data set that its rows belong to."""

    data: str
    base: str
    ablation: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A script's questions and the tables made from the answers."""

    name: str  # of the script and of its results
    questions: Mapping[str, Question]
    columns: Mapping[str, str]  # of a row: the name of a stored metric, by column name
    sections: Mapping[str, Callable[[Results], str]]  # text in docs/evidence.md, by the name of its marks
    summaries: Mapping[str, Callable[[Results], str]] = field(default_factory=dict)  # the same for README.md
    measure: Callable[[UPath], Mapping[str, float]] = lambda _: {}  # further metrics of the run in this folder

    @property
    def results_file(self) -> Path:
        """The file of the rows."""
        return Path(__file__).parent / "results" / f"{self.name}.json"

    def read_results(self) -> Results:
        """The stored results."""
        file = self.results_file
        return json.loads(file.read_text()) if file.exists() else {"runs": {}, "rows": []}

    def load(
        self, name: str, root: str, data: str = FOLDER, seeds: Sequence[int] = (), weights: str | None = None
    ) -> Ablation:
        """The ablation of a question, with all its runs below ``root``; ``weights`` replace those of its base."""
        question = self.questions[name]
        overrides = [f"root={root}", "hosting.engine=inline", *question.overrides]
        if question.data not in WORLDS:
            overrides.append(f"data.root={data}")
        if weights:
            overrides.append(f"detector.weights={weights}")
        return load_ablation([CONFIGS / question.base, CONFIGS / "ablations" / question.ablation], overrides, seeds)

    def finished(self, ablation: Ablation, seeds: Sequence[int]) -> list[TrialResult]:
        """The finished runs of the ablation, with these seeds or, without any, all of them.

        Raises ConfigError if one was made with another config than the arm has now.
        """
        record = ablation.folder / "ablation.json"
        if not record.exists():
            raise ConfigError(f"{ablation.folder}: no ablation has begun here; give its root, or run it first")
        of_then, of_now = read_record(record, dict[str, Any])["arms"], ablation.science()["arms"]
        files = sorted((ablation.folder / "trials").glob("*.json"))
        found = {file.stem: read_record(file, TrialResult) for file in files}
        found = {run: one for run, one in found.items() if one.seed in seeds or not seeds}
        for arm in sorted({one.arm for one in found.values()} & of_now.keys()):
            if changed := differences(decisive(of_then[arm]), decisive(of_now[arm])):
                lines = "\n  ".join(changed)
                raise ConfigError(f"{ablation.folder}, arm {arm}, was run with another config:\n  {lines}")
        if gone := {one.arm for one in found.values()} - of_now.keys():
            print(f"left out: {', '.join(sorted(gone))}: no arms of {ablation.config.name} any more")
        return [self._measured(one, UPath(ablation.base.root) / run) for run, one in found.items() if one.arm in of_now]

    def _measured(self, one: TrialResult, folder: UPath) -> TrialResult:
        return replace(one, metrics={**self.measure(folder), **one.metrics})

    def settle(self, results: Results, name: str, ablation: Ablation, say: Callable[[str], None] = print) -> None:
        """Prepare ``results`` for rows of this ablation: delete rows that were made with another config.

        Raises ConfigError if this would leave rows of one data set with different configs. All questions of a data set
        share the config of the main one, which has the data set's name; it must be run first.
        """
        data = self.questions[name].data
        config = decisive(ablation.base.science())
        arms = {short(arm): json.loads(json.dumps(sets)) for arm, sets in ablation.config.rows().items()}
        known = results["runs"].setdefault(data, {"config": config, "arms": {}, "made_with": []})
        if changed := differences(decisive(known["config"]), config):
            lines = "\n  ".join(changed)
            if name != data and any(row["data"] == data for row in results["rows"]):
                raise ConfigError(
                    f"the rows of {data} were made with another config; make those anew first:\n  {lines}"
                )
            gone = [arm for arm in known["arms"] if not _stands(known["arms"][arm], changed)]
            say(f"{data}: {_take_out(results, data, gone)} old rows go, the config has changed:\n  {lines}")
            known["arms"] = {arm: sets for arm, sets in known["arms"].items() if arm not in gone}
            known["made_with"] = known["made_with"] if known["arms"] else []
        known["config"] = config
        for arm, sets in arms.items():
            if known["arms"].get(arm, sets) != sets:
                say(f"{data}, arm {arm}: {_take_out(results, data, [arm])} old rows go, the arm has changed")
            known["arms"][arm] = sets

    def merge(self, results: Results, data: str, found: Sequence[TrialResult], made_with: dict[str, str]) -> int:
        """Put the rows of ``found`` into ``results``, one per data set, arm and seed. Returns how many changed.

        A metric that a run does not have is None in its row.
        """
        rows = {(row["data"], row["arm"], row["seed"]): row for row in results["rows"]}
        num_new = 0
        for one in found:
            key = (data, short(one.arm), one.seed)
            metrics = {column: _rounded(one.metrics.get(metric)) for column, metric in self.columns.items()}
            row = {"data": data, "arm": key[1], "seed": one.seed, "steps": one.steps, **metrics}
            num_new += rows.get(key) != row
            rows[key] = row
        results["rows"] = [rows[key] for key in sorted(rows)]
        known = results["runs"][data]["made_with"]
        if num_new and all({**one, "date": ""} != {**made_with, "date": ""} for one in known):
            known.append(made_with)
        return num_new

    def answer(self, given: argparse.Namespace) -> bool:
        """Run, collect the rows, write them and the tables. Returns False if a run failed."""
        name = given.question
        ablation = self.load(name, given.root, given.data or FOLDER, given.seeds, given.weights)
        self.settle(self.read_results(), name, ablation, lambda _: None)  # a bad config fails before anything runs
        complete = given.rows_only or run(ablation)
        found, results = self.finished(ablation, given.seeds), self.read_results()
        self.settle(results, name, ablation)
        num_new = self.merge(results, self.questions[name].data, found, made_with())
        file = self.results_file
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{name}: {len(found)} finished runs, {num_new} of them new or changed: {file.name} has their rows")
        for file, sections in self.documents().items():
            for marks, section in sections.items():
                write_section(file, marks, section(results))
            print(f"tables written: {file.name}")
        return complete

    def documents(self) -> dict[Path, Mapping[str, Callable[[Results], str]]]:
        """The files that hold this script's tables, each with its sections by the name of their marks."""
        texts = {DOCUMENT: self.sections, README: self.summaries}
        return {file: sections for file, sections in texts.items() if sections}

    def main(self, description: str) -> None:
        """Read the command line; its first line describes the script."""
        given = self._parse(description)
        try:
            complete = self.answer(given)
        except (ConfigError, MissingMarksError) as error:
            raise SystemExit(str(error)) from None
        raise SystemExit(0 if complete else 1)

    def _parse(self, description: str) -> argparse.Namespace:
        parser = argparse.ArgumentParser(description=description.splitlines()[0])
        parser.add_argument("question", choices=self.questions)
        parser.add_argument("--root", default="runs", help="storage root of the runs")
        parser.add_argument("--data", help="folder of the data set")
        parser.add_argument("--weights", help="file of the weights that the detector starts from")
        parser.add_argument("--seeds", type=int, nargs="+", default=[], help="instead of those in the ablation file")
        parser.add_argument("--rows-only", action="store_true", help="run nothing, collect finished runs only")
        given = parser.parse_args()
        if self.questions[given.question].data.partition("-")[0] not in WORLDS and not (given.data or given.rows_only):
            parser.error(f"{given.question}: give the data set's folder with --data")
        return given


def short(arm: str) -> str:
    """``mixing.p=0.1`` as ``p=0.1``."""
    key, separator, value = arm.rpartition("=")
    return f"{key.rpartition('.')[2]}={value}" if separator else arm


def decisive(science: dict[str, Any]) -> dict[str, Any]:
    """A stored ``LoopConfig.science()`` as the current code reads it, without its seed, data folder and weight file.

    Keys that did not exist then have their defaults. Raises ConfigError if it has keys that no longer exist.
    """
    root = None if science["data"]["format"] == "world" else FOLDER
    weights = {"weights": FILE} if science["detector"].get("weights") else {}
    tree = {**science, "name": "stored", "seed": 0, "data": {**science["data"], "root": root}}
    tree["detector"] = {**science["detector"], **weights}
    return {**validate(LoopConfig, tree, "a stored config").science(), "seed": None}


def _stands(sets: Mapping[str, Any], changed: Sequence[str]) -> bool:
    """True if an arm's rows stay valid: an arm without rounds does not depend on the keys of rounds."""
    return sets.get("rounds") == 0 and all(line.startswith(OF_ROUNDS) for line in changed)


def _take_out(results: Results, data: str, arms: Collection[str]) -> int:
    """Drop the rows of these arms and return their number."""
    stay = [row for row in results["rows"] if row["data"] != data or row["arm"] not in arms]
    num_gone = len(results["rows"]) - len(stay)
    results["rows"] = stay
    return num_gone


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def run(ablation: Ablation) -> bool:
    """Run what is missing. Returns True if every run has a result."""
    from loop.ablation.run import ablate
    from loop.progress import Reporter

    return not ablate(ablation, Reporter()).failed


def made_with() -> dict[str, str]:
    """The current code versions, machine and date."""
    return {
        "detloop": _commit(),
        "torch": version("torch"),
        "ultralytics": version("ultralytics"),
        "cpu": _cpu(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _commit() -> str:
    """The current commit, with a plus if code or configs differ from it."""
    outputs = [
        subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603, S607
        for command in (
            ["rev-parse", "--short", "HEAD"],
            ["status", "--porcelain", "-uno", "actors", "loop", "configs"],
        )
    ]
    return (outputs[0] or version("detloop")) + ("+" if outputs[1] else "")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return f"{os.cpu_count()} CPUs"
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {models[0] if models else 'unknown'}"
