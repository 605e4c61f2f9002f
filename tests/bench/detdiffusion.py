"""Whether a generator should be told what is hard: ``python tests/bench/detdiffusion.py world|bccd [--root DIR] ...``

DetDiffusion (arXiv 2403.13304) on few images: its YOLO score (Table 1), what a detector makes of its pictures (Table
2), and what attribute and perception-aware loss do for either. Each question is an ablation of ``configs/ablations/``.
``--data`` is the folder of BCCD. ``--rows-only`` runs nothing and takes what is finished below the root, also while an
ablation is going on there. Rows go into ``results/detdiffusion.json``, and the README's tables are written from that
file; how, says ``evidence.py``. On the world, rows also have the factors that ``drawn_factors.py`` measures in what was
drawn; two runs are compared with ``python tests/bench/drawn_factors.py RUN_EASY RUN_HARD``.
"""

import json
from typing import Any

from detdiffusion_tables import MARKS, section
from drawn_factors import FACTORS, means, of_run
from evidence import Evidence, Question
from upath import UPath

from loop.state import RunFolder

QUESTIONS = {
    "world": Question(data="world", base="quickstart.yaml", ablation="detdiffusion_world.yaml"),
    "layout": Question(data="layout", base="quickstart.yaml", ablation="detdiffusion_layout.yaml"),
    "bccd": Question(data="bccd", base="bccd.yaml", ablation="detdiffusion_bccd.yaml"),
}
COLUMNS = {"ap": "AP", **{name: name for name in ("yolo_score", "yolo_score_unseen", *FACTORS)}}


def measure(folder: UPath) -> dict[str, float]:
    """What is known of the pictures that a finished run drew; nothing where it drew none.

    The YOLO score is of the last round, by the detector that the round started from. In one round that is the one
    trained on the real images alone, the same in all arms.
    """
    file = folder / "summary.json"
    summary: dict[str, Any] = json.loads(file.read_bytes()) if file.exists() else {"metrics": {}}
    drawn: dict[str, float] = summary["metrics"].get("drawn", {})
    on_the_world = bool(drawn) and RunFolder(folder).config().data.format == "world"
    return {**drawn, **(means(of_run(folder)) if on_the_world else {})}


EVIDENCE = Evidence(name=MARKS, questions=QUESTIONS, columns=COLUMNS, sections={MARKS: section}, measure=measure)


if __name__ == "__main__":
    EVIDENCE.main(__doc__ or "")
