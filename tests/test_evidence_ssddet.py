"""The evidence for the refiner, on inaccurate labels and in the loop: its rows, and the tables made from them."""

import json

import pytest
import refine
import ssddet
import ssddet_tables as tables
from evidence import DOCUMENT
from evidence_tables import between_marks


def row(arm, seed=0, noise=0.4, **measured):
    about = {"data": "bccd", "detector": "yolo", "noise": 0.0 if arm == "clean" else noise, "arm": arm, "seed": seed}
    return {**about, "steps": 300, "options": {}, "device": "CPU", **measured}


def test_the_document_shows_the_stored_rows():
    rows = json.loads(ssddet.RESULTS.read_text())["rows"]
    assert between_marks(DOCUMENT.read_text(), tables.MARKS) == tables.section(rows, ssddet.ORDER)


def test_the_document_shows_the_rows_of_the_loop():
    (stored,) = refine.EVIDENCE.documents().values()
    assert between_marks(DOCUMENT.read_text(), refine.MARKS) == stored[refine.MARKS](refine.EVIDENCE.read_results())


def test_the_share_of_the_lost_ap_counts_the_seeds_of_all_three_arms():
    rows = [
        *(row("clean", seed, iou_after=1.0, ap=0.6) for seed in (0, 1)),
        *(row("noisy", seed, iou_after=0.45, ap=0.2) for seed in (0, 1, 2)),
        *(row("sisd", seed, iou_after=0.7, auroc=0.8, ap=0.5) for seed in (1, 2)),
    ]
    text = tables.section(rows, ssddet.ORDER)
    assert "| `sisd` | 2 | 0.700 | +0.250 [+0.250, +0.250] | 0.800 | 50.0 |  | +30.0 [+30.0, +30.0] | 75% |" in text
    assert "| `clean` | 2 | 1.000 |  |  | 60.0 |  | +40.0 [+40.0, +40.0] |  |" in text
    assert text.index("`noisy`") < text.index("`sisd`") < text.index("`clean`")


def test_a_row_replaces_the_one_of_the_same_arm_and_seed(tmp_path):
    file = tmp_path / "rows.json"
    for new in (row("noisy", ap=0.1), row("noisy", ap=0.2), row("noisy", noise=0.2, ap=0.3)):
        ssddet.store(new, file)
    assert [one["ap"] for one in json.loads(file.read_text())["rows"]] == pytest.approx([0.3, 0.2])
