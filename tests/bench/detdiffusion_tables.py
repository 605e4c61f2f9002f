"""The README's tables of being told what is hard, from the rows of ``results/detdiffusion.json`` and nothing else."""

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

MARKS = "detdiffusion"
ARMS = {
    "real": "real images alone",
    "base": "examples of any difficulty, and no perception-aware loss",
    "origin": "each box told as it was found",
    "easy": "all boxes told easy",
    "hard": "all boxes told hard",
    "no_attribute": "`hard` with examples of any difficulty; the loss stays",
    "no_mask_loss": "`hard` without the perception-aware loss",
    "other_detector": "`hard`, but another detector says what is easy",
}
"""What the arms are; others are known by their names."""
LAYOUT_ARMS = ARMS | {
    "base": "no word for difficulty, and no perception-aware loss",
    "no_attribute": "no word for difficulty; the loss stays",
}
"""The same where the layout model draws: it starts from no examples, and the word is all that it is told."""
FIDELITY = (
    *(("easy", "origin"), ("origin", "hard"), ("easy", "hard")),
    *(("origin", "base"), ("origin", "no_attribute"), ("hard", "no_mask_loss"), ("hard", "other_detector")),
)
TRAINABILITY = tuple(("hard", arm) for arm in ("origin", "easy", "no_attribute", "no_mask_loss", "other_detector"))
"""What sentences hold against what: in the YOLO score, strategies, and else only what was drawn by one strategy; in AP,
what the table does not, whose columns have real and base."""
SCORES = {"yolo_score": "YOLO score", "yolo_score_unseen": "YOLO score, unseen"}
NOTE = """\
AP in points (x100) of the last round's detector on the real validation images. YOLO score: AP, in points, of the
detector trained on the real images alone, on all that was drawn, against the layouts that were asked for; unseen: of
the detectors of `mining.cross_fit`, each on what was drawn after images that it has not seen. All arms of a table train
for as many optimiser steps. Differences are paired by seed; the interval in brackets is Student's t over the seeds,
95 %. The paper has the YOLO score fall from `easy` over `origin` to `hard`, and AP rise."""
FACTORS_NOTE = """\
Whether they are harder to see, by their pixels and no detector: contrast to the ground around a box, the size of what
stands out of it, and the width of its edges, all estimated (`tests/bench/drawn_factors.py`). Occlusion cannot be
measured in a drawn picture."""


def section(results: dict[str, Any]) -> str:
    """All that stands between the README's marks."""
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
    columns = ["arm", "what it is", "seeds", "AP", "less `real`", "less `base`"]
    columns += [part for name in SCORES.values() for part in (name, "less `origin`")]
    lines = [
        [
            f"`{arm}`",
            described.get(arm, arm),
            str(len(by_seed(rows, arm))),
            mean(rows, arm),
            cell(rows, arm, "real"),
            cell(rows, arm, "base"),
            *(show for score in SCORES for show in (mean(rows, arm, score), cell(rows, arm, "origin", score))),
        ]
        for arm in arms
    ]
    return table(columns, 2, lines)


def _sentences(rows: Rows) -> str:
    """What the intervals say of fidelity, of trainability, and of what the parts do for either."""
    lines = [sentence(rows, *pair, score, f"of {name}") for score, name in SCORES.items() for pair in FIDELITY]
    lines += [sentence(rows, *pair) for pair in TRAINABILITY]
    return "\n".join(line for line in lines if line)


def _factors(data: str, rows: Rows) -> list[str]:
    """A table of the measured factors, if both strategies have them."""
    lines = [line for factor in FACTORS if (line := _factor(rows, factor))]
    if not lines:
        return []
    columns = ["factor", "hard is", "`easy`", "`origin`", "`hard`", "`hard` less `easy`", "verdict"]
    return [f"**{TITLES.get(data, data)}: what was drawn**", FACTORS_NOTE, table(columns, 2, lines)]


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
