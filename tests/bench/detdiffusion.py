"""Measure difficulty conditioning: ``python tests/bench/detdiffusion.py world|layout|bccd [--root DIR] ...``

DetDiffusion (arXiv 2403.13304) on few images: its YOLO score (Table 1), the AP of a detector trained on the pictures
(Table 2), and the effect of the attribute and of the perception-aware loss on both. Each question is an ablation of
``configs/ablations/``. ``--data`` is the folder of BCCD. ``--rows-only`` runs nothing and collects the runs that are
finished below the root, also while an ablation is still running there. Rows go to ``results/detdiffusion.json``; the
tables of ``docs/evidence.md`` are written from that file (see ``evidence.py``). On rendered scenes a row also holds the
factors that ``drawn_factors.py`` measures; ``python tests/bench/drawn_factors.py RUN_EASY RUN_HARD`` compares two runs.
"""

import json
from typing import Any

from detdiffusion_tables import MARKS, section
from drawn_factors import FACTORS, means, of_run
from evidence import COPIES, Evidence, Question
from upath import UPath

from loop.state import RunFolder

QUESTIONS = {
    "world": Question(data="world", base="quickstart.yaml", ablation="detdiffusion_world.yaml", overrides=COPIES),
    "layout": Question(data="layout", base="quickstart.yaml", ablation="detdiffusion_layout.yaml", overrides=COPIES),
    "bccd": Question(data="bccd", base="bccd.yaml", ablation="detdiffusion_bccd.yaml"),
}
COLUMNS = {"ap": "AP", **{name: name for name in ("yolo_score", "yolo_score_unseen", *FACTORS)}}


def measure(folder: UPath) -> dict[str, float]:
    """Metrics of the pictures that a finished run drew; empty if it drew none.

    The YOLO score is that of the last round, taken by the detector that the round started from. With one round, this
    is the detector trained on the real images only, the same in all arms.
    """
    file = folder / "summary.json"
    summary: dict[str, Any] = json.loads(file.read_bytes()) if file.exists() else {"metrics": {}}
    drawn: dict[str, float] = summary["metrics"].get("drawn", {})
    on_the_world = bool(drawn) and RunFolder(folder).config().data.format == "world"
    return {**drawn, **(means(of_run(folder)) if on_the_world else {})}


EVIDENCE = Evidence(name=MARKS, questions=QUESTIONS, columns=COLUMNS, sections={MARKS: section}, measure=measure)


if __name__ == "__main__":
    EVIDENCE.main(__doc__ or "")
