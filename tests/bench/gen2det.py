"""Measure the loop's gain: ``python tests/bench/gen2det.py world|fresh|bccd|p|copies [--root DIR] [--data DIR] ...``

Each question is an ablation of ``configs/ablations/``. ``--data`` is the folder of BCCD. ``--rows-only`` runs nothing
and collects the runs that are finished below the root, also while an ablation is still running there. Rows go to
``results/gen2det.json``; the tables of ``docs/evidence.md`` and the summary of ``README.md`` are written from that
file (see ``evidence.py``).
"""

from evidence import COPIES, Evidence, Question
from gen2det_tables import MARKS, SECTIONS, SUMMARIES

FRESH = (*COPIES, "data.world.seed=1")
"""Other scenes than the quickstart's, on which no setting was chosen."""
QUESTIONS = {
    "world": Question(data="world", base="quickstart.yaml", ablation="gen2det_world.yaml", overrides=COPIES),
    "fresh": Question(data="fresh", base="quickstart.yaml", ablation="gen2det_fresh.yaml", overrides=FRESH),
    "bccd": Question(data="bccd", base="bccd.yaml", ablation="gen2det_bccd.yaml"),
    "p": Question(data="fresh", base="quickstart.yaml", ablation="p.yaml", overrides=FRESH),
    "copies": Question(data="fresh", base="quickstart.yaml", ablation="copies.yaml", overrides=FRESH),
}
COLUMNS = {"ap": "AP", "ap50": "AP50"}
EVIDENCE = Evidence(name=MARKS, questions=QUESTIONS, columns=COLUMNS, sections=SECTIONS, summaries=SUMMARIES)


if __name__ == "__main__":
    EVIDENCE.main(__doc__ or "")
