"""The tables of ``docs/evidence.md`` on the refiner, from the rows of ``ssddet.py``."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from evidence_tables import Rows, by_seed, cell, difference, mean, sentence, table

MARKS = "ssddet"
NAMES = {"bccd": "BCCD", "deeppcb": "DeepPCB", "world": "Rendered scenes"}
DETECTORS = {"yolo": "yolo11n from COCO weights", "fasterrcnn": "Faster R-CNN from an ImageNet backbone"}
HEADING = (
    *("arm", "seeds", "mean IoU", "mean IoU, gain on noisy", "AUROC", "AP", "AP50", "AP, gain on noisy"),
    "share of the lost AP",
)
METRICS = ("iou_after", "auroc", "ap", "ap50")
PAIRS = (("two_stage", "one_stage"), ("spsd", "two_stage"), ("sisd", "spsd"))


def section(rows: Rows, arms: Sequence[str]) -> str:
    """A table for each data set, detector and noise, with the arms in this order."""
    clean = [row for row in rows if row["arm"] == "clean"]
    noisy = sorted((row for row in rows if row["arm"] != "clean"), key=_table)
    return "\n\n".join(_one(key, [*clean, *some], arms) for key, some in groupby(noisy, _table))


def _table(row: Mapping[str, Any]) -> tuple[str, str, float]:
    return row["data"], row["detector"], -row["noise"]


def _one(key: tuple[str, str, float], rows: Iterable[Mapping[str, Any]], arms: Sequence[str]) -> str:
    data, detector, noise = key
    own = [dict.fromkeys(METRICS) | dict(row) for row in rows if (row["data"], row["detector"]) == (data, detector)]
    steps = ", ".join(sorted({str(row["steps"]) for row in own}))
    title = f"**{NAMES[data]}, r = {-noise:g}: {DETECTORS[detector]}, {steps} steps**"
    lines = table(HEADING, 1, [_line(own, arm) for arm in arms if by_seed(own, arm, "iou_after")])
    parts = [sentence(own, *pair, *named) for named in (("iou_after", "IoU"), ("ap", "AP")) for pair in PAIRS]
    return "\n\n".join(filter(None, (title, lines, "\n".join(filter(None, parts)))))


def _line(rows: Rows, arm: str) -> list[str]:
    seeds = len({row["seed"] for row in rows if row["arm"] == arm})
    return [
        *(f"`{arm}`", str(seeds), mean(rows, arm, "iou_after", _fraction)),
        *("" if arm == "clean" else _gain(rows, arm), mean(rows, arm, "auroc", _fraction)),
        *(mean(rows, arm), mean(rows, arm, "ap50"), cell(rows, arm, "noisy"), _regained(rows, arm)),
    ]


def _gain(rows: Rows, arm: str) -> str:
    found = difference(rows, arm, "noisy", "iou_after")
    return found.shown(lambda value: f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")) if found else ""


def _regained(rows: Rows, arm: str) -> str:
    """The gain on noisy as a share of the loss by noise, over the seeds of all three; empty if that may be zero."""
    lost = difference(rows, "clean", "noisy")
    if arm in {"clean", "noisy"} or lost is None or (lost.interval and lost.interval[0] <= 0):
        return ""
    clean, noisy, ours = (by_seed(rows, name) for name in ("clean", "noisy", arm))
    shared = clean.keys() & noisy.keys() & ours.keys()
    return f"{sum(ours[seed] - noisy[seed] for seed in shared) / sum(clean[seed] - noisy[seed] for seed in shared):.0%}"


def _fraction(value: float) -> str:
    return f"{value:.3f}"
