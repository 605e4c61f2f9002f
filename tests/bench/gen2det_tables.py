"""Tables of the loop against its control and Gen2Det's components, from ``results/gen2det.json`` alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from evidence_tables import (
    SEEDS,
    TITLES,
    Rows,
    by_seed,
    cell,
    command,
    difference,
    folder_of,
    heading,
    mean,
    sections,
    sentence,
    table,
)

from loop.report.summary import points

MARKS = "gen2det"
ARMS = {
    "real": "control: real images only",
    "synth_only": "synthetic images only, unfiltered",
    "naive": "real and synthetic images pooled, unfiltered",
    "sampling": "`naive`, with batches sampled at ratio p",
    "image_filter": "`sampling` + image filter",
    "box_filter": "`image_filter` + detector filter",
    "background_ignore": "`image_filter` + background ignore",
    "all": "`image_filter` + detector filter + background ignore: Gen2Det's recipe",
    "restore": "the loop as configured: a rejected box gets its real pixels back",
    "ignore": "`restore`, but a rejected box loses its label and keeps its pixels; background ignore is on",
    "drop_image": "`restore`, but an image with a rejected box is dropped",
    "copy_paste": "the loop with copy-paste as generator; each mined instance is pasted once",
    "copy_paste_full": "`copy_paste`, with as many pasted instances as `restore` draws",
    "mined": "`restore` with a smaller budget, spent on the hardest instances",
    "unmined": "`restore` with the same smaller budget, spent on random instances",
    "real_longer": "real images only, twice the optimiser steps",
    "real_4x": "real images only, four times as many",
}
"""Descriptions of the arms. An arm without one is shown by its name."""
LOOPS = ("restore", "all")
SUMMED = ("real", "restore", "copy_paste", "real_4x")
"""The arms of the summary."""
COMPONENTS = {
    ("naive", "real"): -0.0154,
    ("sampling", "naive"): 0.0274,
    ("image_filter", "sampling"): 0.0029,
    ("box_filter", "image_filter"): -0.0002,
    ("background_ignore", "image_filter"): -0.0046,
    ("all", "image_filter"): 0.0064,
}
"""An arm, the arm without the component, and the paper's difference in box AP (Table 5: full LVIS, Mask R-CNN)."""
OURS = (
    *(("restore", "ignore"), ("restore", "drop_image"), ("restore", "all"), ("restore", "sampling")),
    *(("restore", "copy_paste_full"), ("mined", "unmined")),
)
"""The same pairs for components that are not in the paper."""
SHARES, COPIES = "p=", "copies="
NOTE = """\
AP and AP50 are those of the last round's detector on the real validation images, in points (x100). All arms of a table
train for the same number of optimiser steps, except `real_longer`. "vs" columns give the difference in AP, paired by
seed; brackets hold the 95 % interval (Student's t over the seeds). The image filter of these tables is the naturalness
score, not the paper's CLIP aesthetic score, which needs downloaded weights. Settings were chosen on the validation
images of the first set of scenes. None was chosen on the second set."""


def section(results: dict[str, Any]) -> str:
    """The text between the marks in ``docs/evidence.md``."""
    return sections(results, NOTE, ARMS, _data_set)


def summary(results: dict[str, Any]) -> str:
    """One line per data set, over the seeds that all arms of the line have."""
    gains = {
        "gain of the loop": ("restore", "real"),
        "gain of copy-paste": ("copy_paste", "real"),
        "gain of 4x real images": ("real_4x", "real"),
        "loop vs copy-paste": ("restore", "copy_paste"),
    }
    lines = []
    for data in results["runs"]:
        shared, num_seeds = _shared([row for row in results["rows"] if row["data"] == data], SUMMED)
        if shared:
            figures = [str(num_seeds), mean(shared, "real"), *(cell(shared, *pair) for pair in gains.values())]
            lines.append([TITLES.get(data, data), *figures])
    return table(["data", "seeds", "control AP", *gains], 1, lines)


def _data_set(data: str, run: Mapping[str, Any], rows: Rows, arms: Sequence[str]) -> list[str]:
    shares = [arm for arm in arms if arm.startswith(SHARES)]
    copies = [arm for arm in arms if arm.startswith(COPIES)]
    main = [arm for arm in arms if arm not in {*shares, *copies}]
    parts = []
    if main:
        parts += [
            heading(data, run["config"]),
            _table(rows, main),
            _sentences(rows),
            _components(rows),
            command(MARKS, data + folder_of(data), SEEDS.get(data, "")),
        ]
    config = run["config"]
    for question, what, some, own in (
        ("p", "share p of synthetic images", shares, config["mixing"]["p"]),
        ("copies", "candidates per image", copies, config["generation"]["copies"]),
    ):
        if some:
            title = f"**{TITLES.get(data, data)}: {what}**"
            parts += [title, _axis(rows, some, f"{question}=0", f"{question}={own:g}"), command(MARKS, question)]
    return parts


def _table(rows: Rows, arms: Sequence[str]) -> str:
    columns = ["arm", "description", "seeds", "AP", "AP50", "vs `real`", "vs `copy_paste`"]
    lines = [
        [f"`{arm}`", ARMS.get(arm, arm), *_figures(rows, arm), cell(rows, arm, "real"), _peer(rows, arm)]
        for arm in arms
    ]
    return table(columns, 2, lines)


def _axis(rows: Rows, arms: Sequence[str], none: str, own: str) -> str:
    """Arms along an axis, between the control and the loop as configured, which have more seeds."""
    between = {arm: f"`{arm}`" for arm in arms if arm not in {none, own}}
    names = {"real": f"{none}: `real`", **between, "restore": f"{own}: `restore`"}
    lines = [
        [name, *_figures(rows, arm), cell(rows, arm, "real"), cell(rows, "restore", arm)]
        for arm, name in names.items()
        if by_seed(rows, arm)
    ]
    return table(["arm", "seeds", "AP", "AP50", "vs `real`", "`restore` vs this"], 1, lines)


def _figures(rows: Rows, arm: str) -> list[str]:
    return [str(len(by_seed(rows, arm))), mean(rows, arm), mean(rows, arm, "ap50")]


def _peer(rows: Rows, arm: str) -> str:
    return cell(rows, arm, "copy_paste") if arm in LOOPS else ""


def _sentences(rows: Rows) -> str:
    """The loop against its control, against copy-paste, and against a control with more steps or more images."""
    pairs = [(arm, reference) for arm in LOOPS for reference in ("real", "copy_paste", "real_longer", "real_4x")]
    lines = [sentence(rows, *pair) for pair in [("real_longer", "real"), *pairs]]
    lines += [_efficiency(rows, arm) for arm in LOOPS]
    return "\n".join(dict.fromkeys(line for line in lines if line))  # without duplicates


def _components(rows: Rows) -> str:
    """The contribution of each component, paired by seed, beside the paper's."""
    columns = ["effect of one component", "seeds", "AP here", "box AP in Gen2Det, Table 5"]
    pairs = {**{pair: points(theirs, sign=True) for pair, theirs in COMPONENTS.items()}, **dict.fromkeys(OURS, "")}
    found = {pair: difference(rows, *pair) for pair in pairs}
    lines = [
        [f"`{arm}` vs `{reference}`", str(one.seeds), one.text, pairs[arm, reference]]
        for (arm, reference), one in found.items()
        if one
    ]
    return table(columns, 1, lines) if lines else ""


def _efficiency(rows: Rows, arm: str) -> str:
    """Share of the gap between real and real_4x that an arm closes, over the seeds that all three have."""
    shared, num_seeds = _shared(rows, (arm, "real", "real_4x"))
    gain, gap = difference(shared, arm, "real"), difference(shared, "real_4x", "real")
    if gain is None or gap is None:
        return ""
    if gap.verdict != "above zero":
        return f"- `real_4x` vs `real`: {gap.text} points AP; {gap.verdict}. No share of it is given."
    share = f"{round(100 * gain.mean / gap.mean)}".replace("-", "\N{MINUS SIGN}")
    of = f"{points(gain.mean, sign=True)} of {points(gap.mean, sign=True)} points AP, {num_seeds} seeds"
    return f"- Data efficiency: `{arm}` closes {share} % of the gap from `real` to `real_4x` ({of})."


def _shared(rows: Rows, arms: Sequence[str]) -> tuple[Rows, int]:
    """The rows of the seeds that all these arms have, and the number of these seeds."""
    seeds = set.intersection(*(set(by_seed(rows, arm)) for arm in arms))
    return [row for row in rows if row["seed"] in seeds], len(seeds)


SECTIONS = {MARKS: section}
SUMMARIES = {f"{MARKS}-summary": summary}
"""Tables of docs/evidence.md and of README.md, by the name of their marks."""
