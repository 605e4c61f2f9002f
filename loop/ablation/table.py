"""The table of an ablation: for each arm the number of seeds, the mean, and the paired difference to the first arm.

Metrics are fractions in [0, 1] wherever they are stored, CSV and JSON included, and points (x100) wherever they are
shown.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np

from actors.plain import to_plain
from loop.hosting.platform import unlike
from loop.hosting.records import Platform
from loop.report.curves import CONTROL, INK, LOOP, blank_figure, png_bytes
from loop.report.summary import points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """The result of one run."""

    arm: str
    seed: int
    steps: int  # of the optimiser, in each training
    metrics: Mapping[str, float]  # of the last round's detector; of the control in a run without rounds
    trained_on: tuple[Platform, ...] = field(default=(), metadata={"omit_default": True})  # the different ones


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSummary:
    """A row of the table. The fields are the columns of the CSV; None if there are too few seeds."""

    arm: str
    seeds: int  # runs that have the metric
    mean: float | None
    sd: float | None  # over the seeds, with n - 1
    pairs: int  # seeds that the reference has as well
    difference: float | None  # mean over the pairs, this arm minus the reference
    low: float | None  # 95 % interval of the difference, Student's t over the pairs
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationTable:
    """The results of an ablation in one metric."""

    name: str
    metric: str
    arms: tuple[str, ...]  # the first is the reference
    results: tuple[TrialResult, ...]  # by arm and seed, in the order of the ablation
    failed: Mapping[str, str]  # "arm, seed 0" -> reason

    def of_arm(self, arm: str) -> dict[int, float]:
        """The metric by seed."""
        mine = [one for one in self.results if one.arm == arm and self.metric in one.metrics]
        return {one.seed: one.metrics[self.metric] for one in mine}

    def differences(self, arm: str) -> dict[int, float]:
        """The metric minus that of the reference, by seed, for the seeds that both have."""
        reference = self.of_arm(self.arms[0])
        return {seed: value - reference[seed] for seed, value in self.of_arm(arm).items() if seed in reference}

    def rows(self) -> list[ArmSummary]:
        """The rows of the table, one per arm, in order."""
        return [self._row(arm) for arm in self.arms]

    def _row(self, arm: str) -> ArmSummary:
        values = np.array(list(self.of_arm(arm).values()))
        differences = np.array([] if arm == self.arms[0] else list(self.differences(arm).values()))
        low, high = t_interval(differences) or (None, None)
        return ArmSummary(
            arm=arm,
            seeds=len(values),
            mean=float(values.mean()) if len(values) else None,
            sd=float(values.std(ddof=1)) if len(values) > 1 else None,
            pairs=len(differences),
            difference=float(differences.mean()) if len(differences) else None,
            low=low,
            high=high,
        )


def t_interval(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, float] | None:
    """95 % interval of the mean of ``values`` ``[n]`` by Student's t, n - 1 degrees of freedom; None below two values.

    It covers the choice of seeds, both of training and of drawing, but not that of validation images.
    """
    if len(values) < 2:
        return None
    from scipy.stats import t

    half = t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half), float(values.mean() + half)


def markdown(table: AblationTable) -> str:
    """The table as Markdown, in points, with the failed runs below it."""
    heading = ("arm", "seeds", table.metric, "sd", f"difference to {table.arms[0]}", "95 % interval")
    lines = [heading, ("---", *["---:"] * (len(heading) - 1)), *(_cells(row) for row in table.rows())]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    note = (
        f"{table.metric} in points (x100) on the real validation images; differences are paired by seed, "
        "the interval is Student's t over the pairs."
    )
    apart = unlike([one for result in table.results for one in result.trained_on])
    parts = [text, note]
    if apart:
        parts.append(f"Warning: the runs were not trained alike, which adds to their differences ({'; '.join(apart)}).")
    if failed := [f"- {trial}: {reason}" for trial, reason in table.failed.items()]:
        parts.append("Failed:\n\n" + "\n".join(failed))
    return "\n\n".join(parts) + "\n"


def _cells(row: ArmSummary) -> tuple[str, ...]:
    interval = "" if row.low is None else f"[{_points(row.low, sign=True)}, {_points(row.high, sign=True)}]"
    arm = row.arm.replace("|", "\\|")
    return arm, str(row.seeds), _points(row.mean), _points(row.sd), _points(row.difference, sign=True), interval


def _points(value: float | None, *, sign: bool = False) -> str:
    return "" if value is None else points(value, sign=sign)


def csv_table(table: AblationTable) -> str:
    """The table as CSV, in fractions at full precision."""
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [field.name for field in fields(ArmSummary)]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in table.rows())
    return buffer.getvalue()


def json_rows(table: AblationTable) -> str:
    """All runs as JSON: arm, seed, steps and all metrics."""
    return json.dumps(to_plain(list(table.results)), indent=1) + "\n"


def picture(table: AblationTable) -> bytes:
    """The table as a PNG: runs and mean of each arm on the left; paired differences, mean and interval on the right."""
    rows = table.rows()
    figure, (left, right) = blank_figure(1, 2, width_in=4.2, height_in=1.0 + 0.34 * len(rows))
    for place, row in enumerate(rows):
        _runs(left, place, list(table.of_arm(row.arm).values()), row.mean)
        if place:
            _runs(right, place, list(table.differences(row.arm).values()), row.difference)
        if row.low is not None and row.high is not None:
            right.hlines(place, 100 * row.low, 100 * row.high, color=LOOP, lw=5, alpha=0.25, zorder=2)
    right.axvline(0, color=CONTROL, lw=1.2, zorder=1)
    for axes in (left, right):
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.grid(visible=False, axis="y")
    left.set_yticks(range(len(rows)), [row.arm for row in rows], fontsize=9)
    right.set_yticks(range(len(rows)), [""] * len(rows))
    left.set_title(f"{table.metric}, points: runs and mean", fontsize=9, color=INK, loc="left")
    title = f"Difference to {table.arms[0]}, paired by seed; 95 % interval"
    right.set_title(title, fontsize=9, color=INK, loc="left")
    return png_bytes(figure)


def _runs(axes: "Axes", place: int, values: Sequence[float], mean: float | None) -> None:
    """Draw a dot per run and a bar at their mean, at height ``place``."""
    points = 100 * np.array(values)
    axes.plot(points, [place] * len(points), "o", color=CONTROL, ms=4.5, alpha=0.7, mew=0, zorder=3)
    if mean is not None:
        axes.plot([100 * mean], [place], "|", color=LOOP, ms=14, mew=2.4, zorder=4)


def figures(table: AblationTable) -> dict[str, float]:
    """The table as metrics by name, for MLflow."""
    found = dict[str, float]()
    for row in table.rows():
        for name in ("mean", "sd", "difference", "low", "high"):
            value = getattr(row, name)
            if value is not None:
                found[f"{table.metric}/{name}/{row.arm}"] = value
    return found
