"""The README's tables of what the loop comes to, from the rows of ``results/gen2det.json`` and nothing else."""

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
    "real": "real images alone",
    "synth_only": "synthetic images alone, as they come",
    "naive": "real and synthetic images as they come, nothing filtered",
    "sampling": "naive, but drawn by the ratio p",
    "image_filter": "sampling and image filter",
    "box_filter": "sampling, image filter and detector filter",
    "background_ignore": "sampling, image filter and background ignore",
    "all": "sampling, both filters and background ignore: all that Gen2Det does to our images",
    "restore": "the loop: rejected boxes get their real pixels back, nothing is ignored",
    "ignore": "`restore`, but rejected labels go, pixels stay, background is ignored",
    "drop_image": "`restore`, but a rejected box costs the image",
    "copy_paste": "the loop, with copy-paste for a generator: each instance once",
    "copy_paste_full": "as many instances pasted as `restore` paints",
    "mined": "the loop with fewer instances: the hardest",
    "unmined": "the loop with as few instances, taken at random",
    "real_longer": "real images alone, for twice as many steps: have they more to give?",
    "real_4x": "real images alone, four times as many",
}
"""What the arms are; others are known by their names."""
LOOPS = ("restore", "all")
SUMMED = ("real", "restore", "copy_paste", "real_4x")
"""The arms that the summary is of."""
COMPONENTS = {
    ("naive", "real"): -0.0154,
    ("sampling", "naive"): 0.0274,
    ("image_filter", "sampling"): 0.0029,
    ("box_filter", "image_filter"): -0.0002,
    ("background_ignore", "image_filter"): -0.0046,
    ("all", "image_filter"): 0.0064,
}
"""What a component adds to an arm, and what it adds to box AP in the paper (Table 5: LVIS whole, Mask R-CNN)."""
OURS = (
    *(("restore", "ignore"), ("restore", "drop_image"), ("restore", "all"), ("restore", "sampling")),
    *(("restore", "copy_paste_full"), ("mined", "unmined")),
)
"""The same of what is not the paper's."""
SHARES, COPIES = "p=", "copies="
NOTE = """\
AP and AP50 in points (x100) of the last round's detector on the real validation images. All arms of a table train for
as many optimiser steps, but for `real_longer`. Differences are in AP and paired by seed; the interval in brackets is
Student's t over the seeds, 95 %."""


def section(results: dict[str, Any]) -> str:
    """All that stands between the README's marks."""
    return sections(results, NOTE, ARMS, _data_set)


def summary(results: dict[str, Any]) -> str:
    """The loop on each data set, a line each, over the seeds that all arms of the line have."""
    gains = [*((arm, "real") for arm in SUMMED[1:]), ("restore", "copy_paste")]
    lines = []
    for data in results["runs"]:
        shared, num_seeds = _shared([row for row in results["rows"] if row["data"] == data], SUMMED)
        if shared:
            figures = [str(num_seeds), mean(shared, "real"), *(cell(shared, *pair) for pair in gains)]
            lines.append([TITLES.get(data, data), *figures])
    return table(["", "seeds", "`real`", *(f"`{arm}` less `{reference}`" for arm, reference in gains)], 1, lines)


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
        ("p", "the share p of synthetic batches", shares, config["mixing"]["p"]),
        ("copies", "copies", copies, config["generation"]["copies"]),
    ):
        if some:
            title = f"**{TITLES.get(data, data)}: {what}**"
            parts += [title, _axis(rows, some, f"{question}=0", f"{question}={own:g}"), command(MARKS, question)]
    return parts


def _table(rows: Rows, arms: Sequence[str]) -> str:
    columns = ["arm", "what it is", "seeds", "AP", "AP50", "less `real`", "less `copy_paste`"]
    lines = [
        [f"`{arm}`", ARMS.get(arm, arm), *_figures(rows, arm), cell(rows, arm, "real"), _peer(rows, arm)]
        for arm in arms
    ]
    return table(columns, 2, lines)


def _axis(rows: Rows, arms: Sequence[str], none: str, own: str) -> str:
    """Arms along an axis, between the real images alone and the loop as it is, which have more seeds."""
    between = {arm: f"`{arm}`" for arm in arms if arm not in {none, own}}
    names = {"real": f"{none}: `real`", **between, "restore": f"{own}: `restore`"}
    lines = [[name, *_figures(rows, arm), cell(rows, arm, "real")] for arm, name in names.items() if by_seed(rows, arm)]
    return table(["arm", "seeds", "AP", "AP50", "less `real`"], 1, lines)


def _figures(rows: Rows, arm: str) -> list[str]:
    return [str(len(by_seed(rows, arm))), mean(rows, arm), mean(rows, arm, "ap50")]


def _peer(rows: Rows, arm: str) -> str:
    return cell(rows, arm, "copy_paste") if arm in LOOPS else ""


def _sentences(rows: Rows) -> str:
    """What the intervals say of the loop, against its control, its peer, and more steps or images of the control's."""
    pairs = [(arm, reference) for arm in LOOPS for reference in ("real", "copy_paste", "real_longer", "real_4x")]
    lines = [sentence(rows, *pair) for pair in [("real_longer", "real"), *pairs]]
    lines += [_efficiency(rows, arm) for arm in LOOPS]
    return "\n".join(dict.fromkeys(line for line in lines if line))  # what holds for both is said once


def _components(rows: Rows) -> str:
    """What each component adds, paired by seed, beside what it adds in the paper."""
    columns = ["what a component adds", "seeds", "AP here", "box AP in Gen2Det, Table 5"]
    pairs = {**{pair: points(theirs, sign=True) for pair, theirs in COMPONENTS.items()}, **dict.fromkeys(OURS, "")}
    found = {pair: difference(rows, *pair) for pair in pairs}
    lines = [
        [f"`{arm}` less `{reference}`", str(one.seeds), one.text, pairs[arm, reference]]
        for (arm, reference), one in found.items()
        if one
    ]
    return table(columns, 1, lines) if lines else ""


def _efficiency(rows: Rows, arm: str) -> str:
    """Share of the gap from real to real_4x that an arm closes, over the seeds that all three have."""
    shared, num_seeds = _shared(rows, (arm, "real", "real_4x"))
    gain, gap = difference(shared, arm, "real"), difference(shared, "real_4x", "real")
    if gain is None or gap is None:
        return ""
    if gap.verdict != "above zero":
        return f"- `real_4x` less `real`: {gap.text} points AP; {gap.verdict}. No share of it is given."
    share = f"{round(100 * gain.mean / gap.mean)}".replace("-", "\N{MINUS SIGN}")
    of = f"{points(gain.mean, sign=True)} of {points(gap.mean, sign=True)} points AP, seeds: {num_seeds}"
    return f"- Data efficiency: `{arm}` closes {share} % of the gap from `real` to `real_4x` ({of})."


def _shared(rows: Rows, arms: Sequence[str]) -> tuple[Rows, int]:
    """The rows of the seeds that all these arms have, and how many seeds these are."""
    seeds = set.intersection(*(set(by_seed(rows, arm)) for arm in arms))
    return [row for row in rows if row["seed"] in seeds], len(seeds)


SECTIONS = {MARKS: section, f"{MARKS}-summary": summary}
"""By the marks in the README that they stand between."""
