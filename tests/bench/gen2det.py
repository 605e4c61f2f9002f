"""Whether the loop helps: ``python tests/bench/gen2det.py world|fresh|bccd|p|copies [--root DIR] [--data DIR] ...``

Each question is an ablation of ``configs/ablations/``. ``--data`` is the folder of BCCD. ``--rows-only`` runs nothing
and takes what is finished below the root, also while an ablation is going on there. Rows go into
``results/gen2det.json``, and the README's tables are written from that file; how, says ``evidence.py``.
"""

from evidence import Evidence, Question
from gen2det_tables import MARKS, SECTIONS

FRESH = ("data.world.seed=1",)
"""Scenes by which no setting of the quickstart was chosen."""
QUESTIONS = {
    "world": Question(data="world", base="quickstart.yaml", ablation="gen2det_world.yaml"),
    "fresh": Question(data="fresh", base="quickstart.yaml", ablation="gen2det_fresh.yaml", overrides=FRESH),
    "bccd": Question(data="bccd", base="bccd.yaml", ablation="gen2det_bccd.yaml"),
    "p": Question(data="fresh", base="quickstart.yaml", ablation="p.yaml", overrides=FRESH),
    "copies": Question(data="fresh", base="quickstart.yaml", ablation="copies.yaml", overrides=FRESH),
}
EVIDENCE = Evidence(name=MARKS, questions=QUESTIONS, columns={"ap": "AP", "ap50": "AP50"}, sections=SECTIONS)


if __name__ == "__main__":
    EVIDENCE.main(__doc__ or "")
