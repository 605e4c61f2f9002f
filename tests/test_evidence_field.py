"""The evidence of first runs: its rows, and the tables made from them."""

import json

import field
import guard
from evidence import DOCUMENT
from evidence_tables import between_marks

EVIDENCE = field.EVIDENCE
ROW = {"data": "raccoon", "arm": "loop", "seed": 0, "steps": 400, "ap": 0.5, "ap50": 0.8}


def test_the_document_shows_the_stored_rows():
    (stored,) = EVIDENCE.documents().values()
    assert between_marks(DOCUMENT.read_text(), field.MARKS) == stored[field.MARKS](EVIDENCE.read_results())


def test_the_document_shows_the_stored_decisions_on_harmful_pools():
    rows = json.loads(guard.RESULTS.read_text())
    assert between_marks(DOCUMENT.read_text(), guard.MARKS) == guard.section(rows)


def test_a_guarded_run_gives_a_row_without_its_guard():
    found = field.unguarded({**ROW, "chosen_share": 0.5, "unguarded_ap": 0.4, "unguarded_ap50": 0.7})
    assert (found["arm"], found["ap"], found["ap50"]) == ("loop_unguarded", 0.4, 0.7)


def test_every_subset_is_of_a_known_data_set():
    assert {name.partition("-")[0] for name in field.QUESTIONS} == set(field.DATA)
    assert field.SUBSETS.keys() | field.SCENES.keys() <= set(field.DATA)


def test_what_the_guard_chose_is_told_by_seed():
    rows = [{**ROW, "seed": seed, "chosen_share": share} for seed, share in enumerate((0.0, 0.5, 1.0))]
    told = "The guard chose: control (seed 0), blend 0.5 (seed 1), loop (seed 2)."
    assert field.choices([*rows, {**ROW, "arm": "real", "chosen_share": None}]) == told
    assert field.choices([]) == ""
