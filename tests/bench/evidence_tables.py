"""Tables and sentences of the evidence: means over seeds, differences paired by seed, and the marks around them."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from loop.ablation.table import t_interval
from loop.report.summary import points

WORLDS = {"world", "fresh", "layout"}
"""Data sets that are rendered, and need no folder."""
TITLES = {
    "world": "Rendered scenes, first set",
    "fresh": "Rendered scenes, second set",
    "layout": "Rendered scenes, first set, layout model",
    "bccd": "Blood cells (BCCD)",
    "deeppcb": "Circuit boards (DeepPCB)",
    "raccoon": "Raccoons (photographs)",
    "cards": "Playing cards",
    "receipts": "Lines of receipts",
    "coco80": "COCO, 128 photographs",
}
SEEDS = {
    **dict.fromkeys(WORLDS, "All seeds use the same scenes."),
    **dict.fromkeys(("bccd", "deeppcb"), "Each seed draws its own training images."),
}

Rows = Sequence[Mapping[str, Any]]
Show = Callable[[float], str]


class MissingMarksError(ValueError):
    """A document has no marks for the tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean difference of a metric between two arms over the seeds that both have, with its 95 % interval."""

    seeds: int
    mean: float
    interval: tuple[float, float] | None  # None for a single seed

    @property
    def verdict(self) -> str:
        """The side of zero on which the interval lies."""
        if self.interval is None:
            return "undecided: a single seed has no interval"
        low, high = self.interval
        return "above zero" if low > 0 else "below zero" if high < 0 else "undecided: the interval contains zero"

    @property
    def text(self) -> str:
        """The difference of fractions, in points, with its interval."""
        return self.shown(lambda value: points(value, sign=True))

    def shown(self, show: Show) -> str:
        """The difference with its interval, each number formatted by ``show``."""
        bounds = [show(bound) for bound in self.interval or ()]
        return show(self.mean) + (f" [{', '.join(bounds)}]" if bounds else "")


def mean_of(values: Sequence[float]) -> Difference:
    """The mean of differences ``[n]``, n at least 1, with its interval by Student's t."""
    numbers = np.asarray(values, np.float64)
    return Difference(seeds=len(numbers), mean=float(numbers.mean()), interval=t_interval(numbers))


def by_seed(rows: Rows, arm: str, metric: str = "ap") -> dict[int, float]:
    """An arm's metric, by seed; runs without it are left out."""
    return {row["seed"]: row[metric] for row in rows if row["arm"] == arm and row[metric] is not None}


def difference(rows: Rows, arm: str, reference: str, metric: str = "ap") -> Difference | None:
    """The first arm minus the second; None if they share no seed."""
    ours, theirs = by_seed(rows, arm, metric), by_seed(rows, reference, metric)
    values = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    return mean_of(values) if values and arm != reference else None


def cell(rows: Rows, arm: str, reference: str, metric: str = "ap") -> str:
    """The difference as a cell of a table, empty where there is none."""
    found = difference(rows, arm, reference, metric)
    return found.text if found else ""


def mean(rows: Rows, arm: str, metric: str = "ap", show: Show = points) -> str:
    """The mean over an arm's seeds as a cell of a table, empty where no run has the metric."""
    values = list(by_seed(rows, arm, metric).values())
    return show(float(np.mean(values))) if values else ""


def sentence(rows: Rows, arm: str, reference: str, metric: str = "ap", name: str = "AP") -> str:
    """The difference of two arms and its verdict as a list item; empty if they share no seed."""
    found = difference(rows, arm, reference, metric)
    if found is None:
        return ""
    seeds = "1 seed" if found.seeds == 1 else f"{found.seeds} seeds"
    return f"- `{arm}` vs `{reference}`: {found.text} points {name}, {seeds}; {found.verdict}."


def table(heading: Sequence[str], num_words: int, lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; all but the first ``num_words`` columns are numbers."""
    rule = ["---"] * num_words + ["---:"] * (len(heading) - num_words)
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, rule, *lines))


def compared(rows: Rows, arms: Iterable[str], described: Mapping[str, str], references: Sequence[str]) -> str:
    """The table of arms with their AP, and the differences to each of ``references``."""
    columns = ["arm", "description", "seeds", "AP", "AP50", *(f"vs `{reference}`" for reference in references)]
    lines = [
        [
            *(f"`{arm}`", described[arm], str(len(by_seed(rows, arm)))),
            *(mean(rows, arm), mean(rows, arm, "ap50")),
            *(cell(rows, arm, reference) for reference in references),
        ]
        for arm in arms
    ]
    return table(columns, 2, lines)


def in_order(arms: Iterable[str], described: Iterable[str], others: Iterable[str]) -> list[str]:
    """The arms in the order of their descriptions, followed by those without one."""
    known = list(described)
    return sorted(set(arms), key=[*known, *(arm for arm in others if arm not in known)].index)


def sections(
    results: Mapping[str, Any],
    note: str,
    described: Iterable[str],
    of_data: Callable[[str, Mapping[str, Any], Rows, Sequence[str]], Sequence[str]],
) -> str:
    """The text between the marks: the note, then the parts that ``of_data`` returns for each data set with rows.

    ``of_data`` gets the data set's name, its run settings, its rows, and its arms in the order of ``described``.
    """
    parts = []
    for data, run in results["runs"].items():
        rows = [row for row in results["rows"] if row["data"] == data]
        if rows:
            parts += of_data(data, run, rows, in_order((row["arm"] for row in rows), described, run["arms"]))
    return "\n\n".join([note, *(part for part in parts if part)] if parts else ["No results yet."])


def folder_of(data: str) -> str:
    """The option that gives a command the folder of a data set; empty for rendered scenes."""
    return "" if data in WORLDS else " --data FOLDER"


def heading(data: str, config: Mapping[str, Any]) -> str:
    """The line above a data set's table: the settings that all arms share."""
    scenes = config["data"]["format"] == "world"
    num_images = config["data"]["world"]["train"] if scenes else config["data"]["subset"] or "all"
    detector, training = config["detector"], config["training"]
    model, size = Path(detector["model"]).stem, detector["image_size_px"]
    start = "from random weights, " if training["start"] == "scratch" else ""
    start = "from COCO weights, " if detector["weights"] and training["start"] == "weights" else start
    schedule = f"{start}{training['steps']} steps at batch size {training['batch_size']}"
    rounds = "1 round" if config["rounds"] == 1 else f"{config['rounds']} rounds"
    loop = f"p = {config['mixing']['p']}, {config['generation']['copies']} copies, {rounds}"
    title = TITLES.get(data.partition("-")[0], data)
    return f"**{title}: {num_images} real training images, {model} at {size} px, {schedule}, {loop}**"


def command(script: str, words: str, more: str = "", *, extra: str = "") -> str:
    """The line below a table: the command that makes it, with an extra of the project that it needs."""
    python = f"uv run --extra {extra} python" if extra else "uv run python"
    return f"Made by `{python} tests/bench/{script}.py {words}`. {more}".strip()


def marks(name: str) -> tuple[str, str]:
    """The two comments between which a script writes its text."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def between_marks(text: str, name: str) -> str:
    """The text between the marks. Raises MissingMarksError if they are missing."""
    return _parts(text, name, "the text")[1].strip("\n")


def write_section(document: Path, name: str, section: str) -> None:
    """Put ``section`` between the document's marks. Raises MissingMarksError if they are missing."""
    begin, end = marks(name)
    before, _, after = _parts(document.read_text(), name, document.name)
    document.write_text(f"{before}{begin}\n\n{section}\n\n{end}{after}")


def _parts(text: str, name: str, called: str) -> tuple[str, str, str]:
    """The text before, between and after the marks; an error refers to it as ``called``."""
    first, last = marks(name)
    before, begin, rest = text.partition(first)
    inside, end, after = rest.partition(last)
    if not begin or not end:
        raise MissingMarksError(
            f"{called} has no {first} followed by {last}, so its tables were not written. The rows are stored: add "
            "both marks and run the same command with --rows-only"
        )
    return before, inside, after
