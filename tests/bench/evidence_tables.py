"""Tables and sentences of evidence: means over seeds, differences paired by seed, and where in the README they go."""

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
    "world": "Rendered scenes",
    "fresh": "Rendered scenes by which no setting was chosen",
    "layout": "Rendered scenes, drawn whole by the layout model",
    "bccd": "Blood cells (BCCD)",
}
SEEDS = {**dict.fromkeys(WORLDS, "All seeds share the scenes."), "bccd": "Each seed draws its own training images."}

Rows = Sequence[Mapping[str, Any]]
Show = Callable[[float], str]


class MissingMarksError(ValueError):
    """A README has no place for the tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean of one arm's metric less another's over the seeds that both have, and its 95 % interval."""

    seeds: int
    mean: float
    interval: tuple[float, float] | None  # None of a single seed

    @property
    def verdict(self) -> str:
        """What the interval says."""
        if self.interval is None:
            return "undecided: one seed has no interval"
        low, high = self.interval
        return "above zero" if low > 0 else "below zero" if high < 0 else "undecided: the interval holds zero"

    @property
    def text(self) -> str:
        """In points, with the interval; for fractions."""
        return self.shown(lambda value: points(value, sign=True))

    def shown(self, show: Show) -> str:
        """With the interval, each number as ``show`` has it."""
        bounds = [show(bound) for bound in self.interval or ()]
        return show(self.mean) + (f" [{', '.join(bounds)}]" if bounds else "")


def mean_of(values: Sequence[float]) -> Difference:
    """The mean of differences ``[n]``, n at least 1, with its interval by Student's t."""
    numbers = np.asarray(values, np.float64)
    return Difference(seeds=len(numbers), mean=float(numbers.mean()), interval=t_interval(numbers))


def by_seed(rows: Rows, arm: str, metric: str = "ap") -> dict[int, float]:
    """An arm's metric, by seed; runs that do not have it are left out."""
    return {row["seed"]: row[metric] for row in rows if row["arm"] == arm and row[metric] is not None}


def difference(rows: Rows, arm: str, reference: str, metric: str = "ap") -> Difference | None:
    """One arm less another; None where no seed has both."""
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
    """What the interval says of one arm against another, as a line of a list; empty where no seed has both."""
    found = difference(rows, arm, reference, metric)
    if found is None:
        return ""
    return f"- `{arm}` less `{reference}`: {found.text} points {name}, seeds: {found.seeds}; {found.verdict}."


def table(heading: Sequence[str], num_words: int, lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; all but the first ``num_words`` columns are numbers."""
    rule = ["---"] * num_words + ["---:"] * (len(heading) - num_words)
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, rule, *lines))


def in_order(arms: Iterable[str], described: Iterable[str], others: Iterable[str]) -> list[str]:
    """The arms as they are described, and after them those that are not."""
    known = list(described)
    return sorted(set(arms), key=[*known, *(arm for arm in others if arm not in known)].index)


def sections(
    results: Mapping[str, Any],
    note: str,
    described: Iterable[str],
    of_data: Callable[[str, Mapping[str, Any], Rows, Sequence[str]], Sequence[str]],
) -> str:
    """All that stands between the README's marks: the note, then what ``of_data`` says of each data set with rows.

    It is given the data set's name, how it was run, its rows, and its arms as they are ``described``.
    """
    parts = []
    for data, run in results["runs"].items():
        rows = [row for row in results["rows"] if row["data"] == data]
        if rows:
            parts += of_data(data, run, rows, in_order((row["arm"] for row in rows), described, run["arms"]))
    return "\n\n".join([note, *(part for part in parts if part)] if parts else ["No results yet."])


def folder_of(data: str) -> str:
    """What a command line is told of where a data set lies."""
    return "" if data in WORLDS else " --data FOLDER"


def heading(data: str, config: Mapping[str, Any]) -> str:
    """The line over a data set's table: what all arms share."""
    num_images = config["data"]["world"]["train"] if data in WORLDS else config["data"]["subset"] or "all"
    detector, training = config["detector"], config["training"]
    model, size = Path(detector["model"]).stem, detector["image_size_px"]
    start = "from random weights, " if training["start"] == "scratch" else ""
    schedule = f"{start}{training['steps']} steps of {training['batch_size']} images"
    loop = f"p = {config['mixing']['p']}, {config['generation']['copies']} copies, rounds: {config['rounds']}"
    return f"**{TITLES.get(data, data)}: {num_images} real training images, {model} at {size} px, {schedule}, {loop}**"


def command(script: str, words: str, more: str = "") -> str:
    """The line below a table: how it is made anew."""
    return f"Made by `uv run python tests/bench/{script}.py {words}`. {more}".strip()


def marks(name: str) -> tuple[str, str]:
    """Between which a script writes in the README."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def between_marks(text: str, name: str) -> str:
    """What stands between the marks of a README. Raises MissingMarksError where it has none."""
    return _parts(text, name)[1].strip("\n")


def write_section(readme: Path, name: str, section: str) -> None:
    """Put ``section`` between the README's marks. Raises MissingMarksError where there are none."""
    begin, end = marks(name)
    before, _, after = _parts(readme.read_text(), name)
    readme.write_text(f"{before}{begin}\n\n{section}\n\n{end}{after}")


def _parts(text: str, name: str) -> tuple[str, str, str]:
    """What stands before, between and after the marks."""
    first, last = marks(name)
    before, begin, rest = text.partition(first)
    inside, end, after = rest.partition(last)
    if not begin or not end:
        raise MissingMarksError(
            f"the README has no {first} and, after it, {last}: its tables are not written. Put both marks where they "
            "belong and run this again with --rows-only; the rows are stored"
        )
    return before, inside, after
