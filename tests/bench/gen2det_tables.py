"""The README's tables of what the loop comes to, from the rows of ``results/gen2det.json`` and nothing else."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from loop.report.ablation import t_interval
from loop.report.summary import points

BEGIN, END = "<!-- gen2det:begin -->", "<!-- gen2det:end -->"
ARMS = {
    "real": "real images alone",
    "synth_only": "synthetic images alone, as they come",
    "naive": "real and synthetic images as they come, nothing filtered",
    "sampling": "naive, but drawn by the ratio p",
    "image_filter": "sampling and image filter",
    "box_filter": "sampling, image filter and detector filter",
    "background_ignore": "sampling, image filter and background ignore",
    "all": "Gen2Det whole: sampling, both filters, background ignore",
    "restore": "the loop: rejected boxes get their real pixels back, nothing is ignored",
    "copy_paste": "the loop, with copy-paste for a generator",
    "mined": "the loop with fewer instances: the hardest",
    "unmined": "the loop with as few instances, taken at random",
    "real_4x": "real images alone, four times as many",
}
"""What the arms are; others are known by their names."""
LOOPS = ("restore", "all")
SHARES, COPIES = "p=", "copies="
TITLES = {"world": "Rendered scenes", "bccd": "Blood cells (BCCD)"}
SEEDS = {"world": "All seeds share the scenes.", "bccd": "Each seed draws its own training images."}
NOTE = """\
AP and AP50 in points (x100) of the last round's detector on the real validation images. All arms of a table train for
as many optimiser steps. Differences are in AP and paired by seed; the interval in brackets is Student's t over the
seeds, 95 %."""

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean of one arm's AP less another's over the seeds that both have, and its 95 % interval; fractions."""

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
        """In points, with the interval."""
        bounds = [points(bound, sign=True) for bound in self.interval or ()]
        return points(self.mean, sign=True) + (f" [{', '.join(bounds)}]" if bounds else "")


def by_seed(rows: Rows, arm: str, metric: str = "ap") -> dict[int, float]:
    """An arm's metric, by seed."""
    return {row["seed"]: row[metric] for row in rows if row["arm"] == arm}


def difference(rows: Rows, arm: str, reference: str) -> Difference | None:
    """One arm less another; None where no seed has both."""
    ours, theirs = by_seed(rows, arm), by_seed(rows, reference)
    values = np.array([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])
    if arm == reference or not len(values):
        return None
    return Difference(seeds=len(values), mean=float(values.mean()), interval=t_interval(values))


def section(results: dict[str, Any]) -> str:
    """All that stands between the README's marks."""
    parts = [part for data in results["runs"] for part in _data_set(data, results)]
    return "\n\n".join([NOTE, *parts] if parts else ["No results yet."])


def _data_set(data: str, results: dict[str, Any]) -> list[str]:
    rows = [row for row in results["rows"] if row["data"] == data]
    run = results["runs"][data]
    arms = sorted({row["arm"] for row in rows}, key=[*ARMS, *(arm for arm in run["arms"] if arm not in ARMS)].index)
    shares = [arm for arm in arms if arm.startswith(SHARES)]
    copies = [arm for arm in arms if arm.startswith(COPIES)]
    main = [arm for arm in arms if arm not in {*shares, *copies}]
    parts = []
    if main:
        folder = " --data FOLDER" if data != "world" else ""
        parts += [
            _heading(data, run["config"]),
            _table(rows, main),
            _sentences(rows),
            _command(data + folder, SEEDS.get(data, "")),
        ]
    for name, what, some in (("p", "the share p of synthetic batches", shares), ("copies", "copies", copies)):
        if some:
            parts += [f"**{TITLES.get(data, data)}: {what}**", _small_table(rows, some), _command(name)]
    return [part for part in parts if part]


def _heading(data: str, config: dict[str, Any]) -> str:
    num_images = config["data"]["world"]["train"] if data == "world" else config["data"]["subset"] or "all"
    detector, training = config["detector"], config["training"]
    model, size = Path(detector["model"]).stem, detector["image_size_px"]
    schedule = f"{training['steps']} steps of {training['batch_size']} images"
    loop = f"p = {config['mixing']['p']}, {config['generation']['copies']} copies, rounds: {config['rounds']}"
    return f"**{TITLES.get(data, data)}: {num_images} real training images, {model} at {size} px, {schedule}, {loop}**"


def _table(rows: Rows, arms: Sequence[str]) -> str:
    heading = ["arm", "what it is", "seeds", "AP", "AP50", "less `real`", "less `copy_paste`"]
    lines = [
        [f"`{arm}`", ARMS.get(arm, arm), *_figures(rows, arm), _cell(rows, arm, "real"), _peer(rows, arm)]
        for arm in arms
    ]
    return _lines(heading, 2, lines)


def _small_table(rows: Rows, arms: Sequence[str]) -> str:
    lines = [[f"`{arm}`", *_figures(rows, arm), _cell(rows, arm, "real")] for arm in arms]
    return _lines(["arm", "seeds", "AP", "AP50", "less `real`"], 1, lines)


def _lines(heading: Sequence[str], num_words: int, lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * num_words + ["---:"] * (len(heading) - num_words)
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, rule, *lines))


def _figures(rows: Rows, arm: str) -> list[str]:
    of_ap, of_ap50 = by_seed(rows, arm), by_seed(rows, arm, "ap50")
    return [str(len(of_ap)), *(points(float(np.mean(list(one.values())))) for one in (of_ap, of_ap50))]


def _cell(rows: Rows, arm: str, reference: str) -> str:
    found = difference(rows, arm, reference)
    return found.text if found else ""


def _peer(rows: Rows, arm: str) -> str:
    return _cell(rows, arm, "copy_paste") if arm in LOOPS else ""


def _sentences(rows: Rows) -> str:
    """What the intervals say of the loop, against its control, its peer and four times the real images."""
    lines = [
        f"- `{arm}` less `{reference}`: {found.text} points AP, seeds: {found.seeds}; {found.verdict}."
        for arm in LOOPS
        for reference in ("real", "copy_paste", "real_4x")
        if (found := difference(rows, arm, reference))
    ]
    lines += [line for arm in LOOPS if (line := _efficiency(rows, arm))]
    return "\n".join(dict.fromkeys(lines))  # what holds for both is said once


def _efficiency(rows: Rows, arm: str) -> str:
    """Share of the gap from real to real_4x that an arm closes, over the seeds that all three have."""
    seeds = by_seed(rows, arm).keys() & by_seed(rows, "real").keys() & by_seed(rows, "real_4x").keys()
    shared = [row for row in rows if row["seed"] in seeds]
    gain, gap = difference(shared, arm, "real"), difference(shared, "real_4x", "real")
    if gain is None or gap is None:
        return ""
    if gap.verdict != "above zero":
        return f"- `real_4x` less `real`: {gap.text} points AP; {gap.verdict}. No share of it is given."
    share = f"{round(100 * gain.mean / gap.mean)}".replace("-", "\N{MINUS SIGN}")
    of = f"{points(gain.mean, sign=True)} of {points(gap.mean, sign=True)} points AP"
    return f"- Data efficiency: `{arm}` closes {share} % of the gap from `real` to `real_4x` ({of})."


def _command(words: str, more: str = "") -> str:
    return f"Made by `uv run python tests/bench/gen2det.py {words}`. {more}".strip()


def between_marks(text: str) -> str:
    """What stands between the marks of a README. Raises ValueError where it has no marks."""
    _, begin, rest = text.partition(BEGIN)
    inside, end, _ = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README has no {BEGIN} and {END}: put them where the tables belong")
    return inside.strip("\n")


def write_section(readme: Path, results: dict[str, Any]) -> None:
    """Put the tables between the README's marks."""
    text = readme.read_text()
    between_marks(text)
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n\n{section(results)}\n\n{END}{after}")
