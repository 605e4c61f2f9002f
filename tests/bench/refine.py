"""Measure the refiner in the loop: ``python tests/bench/refine.py bccd --data DIR [--root DIR] [--seeds 0 1]``

The drawn boxes are refined, left as they are, or deleted where no detection overlaps them well. The detector is Faster
R-CNN, which starts from the ImageNet weights of the extra ``backbones``. Rows go to ``results/refine.json``; the table
of ``docs/evidence.md`` is written from that file (see ``evidence.py``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from evidence import Evidence, Question
from evidence_tables import SEEDS, Rows, command, compared, folder_of, heading, sections, sentence

MARKS = "refine"
QUESTIONS = {"bccd": Question(data="bccd", base="fasterrcnn.yaml", ablation="refine_bccd.yaml")}
ARMS = {
    "real": "control: real images only",
    "identity": "drawn boxes stay as the generator was asked for them",
    "refined": "drawn boxes are moved by the refiner",
    "hard_deletion": "drawn boxes without a detection of IoU 0.5 or more are deleted, none is moved",
}
PAIRS = (("refined", "identity"), ("refined", "hard_deletion"), ("hard_deletion", "identity"))
NOTE = """\
AP and AP50 are those of the last round's detector on the real validation images, in points (x100). All arms train for
the same number of optimiser steps. "vs" columns are paired by seed; brackets hold the 95 % interval (Student's t over
the seeds)."""


def section(results: dict[str, Any]) -> str:
    """The text between the marks in ``docs/evidence.md``."""
    return sections(results, NOTE, ARMS, _data_set)


def _data_set(data: str, run: Mapping[str, Any], rows: Rows, arms: Sequence[str]) -> list[str]:
    return [
        heading(data, run["config"]),
        compared(rows, arms, ARMS, ("real", "identity")),
        "\n".join(line for pair in PAIRS if (line := sentence(rows, *pair))),
        command(MARKS, data + folder_of(data), SEEDS[data], extra="backbones"),
    ]


EVIDENCE = Evidence(name=MARKS, questions=QUESTIONS, columns={"ap": "AP", "ap50": "AP50"}, sections={MARKS: section})


if __name__ == "__main__":
    EVIDENCE.main(__doc__ or "")
