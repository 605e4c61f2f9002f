"""Tables of difficulty conditioning (DetDiffusion), from ``results/detdiffusion.json`` alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from drawn_factors import FACTORS, number
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

MARKS, SCORE = "detdiffusion", "yolo_score"
ARMS = {
    "real": "control: real images only",
    "base": "unconditioned: examples of any difficulty, no perception-aware loss",
    "origin": "each box is requested with the difficulty that mining found",
    "easy": "every box is requested as easy",
    "hard": "every box is requested as hard",
    "no_attribute": "`hard`, but starting from examples of any difficulty",
    "no_mask_loss": "`hard` without the perception-aware loss",
    "other_detector": "`hard`, with difficulties from another detector",
}
"""Descriptions of the arms. An arm without one is shown by its name."""
LAYOUT_ARMS = ARMS | {
    "base": "no difficulty token, no perception-aware loss",
    "no_attribute": "no difficulty token",
}
"""The same for the layout model, which starts from no examples: the token is its only condition on difficulty."""
FIDELITY = (
    *(("easy", "origin"), ("origin", "hard"), ("easy", "hard")),
    *(("origin", "base"), ("origin", "no_attribute"), ("hard", "no_mask_loss"), ("hard", "other_detector")),
)
TRAINABILITY = tuple(("hard", arm) for arm in ("origin", "easy", "no_attribute", "no_mask_loss", "other_detector"))
"""Pairs of arms that are compared in sentences. YOLO scores are compared between strategies, or between arms of one
strategy; AP in the pairs that the table does not show, whose columns compare with real and base."""
NOTE = """\
AP is that of the last round's detector on the real validation images, in points (x100). The YOLO score is the AP, in
points, of the detector trained on the real images only, measured on all candidates as drawn, against the requested
boxes. That detector was trained on the images that the candidates derive from. All arms of a table train for the same
number of optimiser steps. "vs" columns are paired by seed; brackets hold the 95 % interval (Student's t over the
seeds). In the paper the YOLO score falls from `easy` over `origin` to `hard`, and AP rises."""
FACTORS_NOTE = """\
Difficulty measured in the pixels, without a detector: contrast to the background around a box, size of the visible
object, and width of its edges (estimates of `tests/bench/drawn_factors.py`). Occlusion cannot be measured in a drawn
picture."""


def section(results: dict[str, Any]) -> str:
    """The text between the marks in ``docs/evidence.md``."""
    return sections(results, NOTE, ARMS, _data_set)


def _data_set(data: str, run: Mapping[str, Any], rows: Rows, arms: Sequence[str]) -> list[str]:
    return [
        heading(data, run["config"]),
        _table(rows, arms, LAYOUT_ARMS if data == "layout" else ARMS),
        _sentences(rows),
        *_factors(data, rows),
        command(MARKS, data + folder_of(data), SEEDS.get(data, "")),
    ]


def _table(rows: Rows, arms: Sequence[str], described: Mapping[str, str]) -> str:
    columns = ["arm", "description", "seeds", "AP", "vs `real`", "vs `base`", "YOLO score", "vs `origin`"]
    lines = [
        [
            f"`{arm}`",
            described.get(arm, arm),
            str(len(by_seed(rows, arm))),
            mean(rows, arm),
            cell(rows, arm, "real"),
            cell(rows, arm, "base"),
            mean(rows, arm, SCORE),
            cell(rows, arm, "origin", SCORE),
        ]
        for arm in arms
    ]
    return table(columns, 2, lines)


def _sentences(rows: Rows) -> str:
    """The differences in YOLO score and in AP between strategies and between their parts."""
    lines = [sentence(rows, *pair, SCORE, "YOLO score") for pair in FIDELITY]
    lines += [sentence(rows, *pair) for pair in TRAINABILITY]
    return "\n".join(line for line in lines if line)


def _factors(data: str, rows: Rows) -> list[str]:
    """A table of the measured factors, if both strategies have them."""
    lines = [line for factor in FACTORS if (line := _factor(rows, factor))]
    if not lines:
        return []
    columns = ["factor", "hard means", "`easy`", "`origin`", "`hard`", "`hard` vs `easy`", "verdict"]
    return [f"**{TITLES.get(data, data)}: measured in the pictures**", FACTORS_NOTE, table(columns, 2, lines)]


def _factor(rows: Sequence[Mapping[str, Any]], factor: str) -> list[str]:
    found = difference(rows, "hard", "easy", factor)
    if found is None:
        return []
    figures = [mean(rows, arm, factor, number) for arm in ("easy", "origin", "hard")]
    return [
        f"`{factor}`",
        FACTORS[factor],
        *figures,
        found.shown(lambda value: number(value, sign=True)),
        found.verdict,
    ]
