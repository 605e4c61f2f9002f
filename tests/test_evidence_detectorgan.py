"""The evidence for canvases without objects, utility and DetectorGAN: its rows, and the table made from them."""

import json

import detectorgan
import pytest
from evidence import DOCUMENT, FILE, decisive
from evidence_tables import between_marks

EVIDENCE = detectorgan.EVIDENCE


def test_the_document_shows_the_stored_rows():
    (stored,) = EVIDENCE.documents().values()
    assert between_marks(DOCUMENT.read_text(), detectorgan.MARKS) == stored[detectorgan.MARKS](EVIDENCE.read_results())


@pytest.mark.parametrize("name", detectorgan.QUESTIONS)
def test_every_arm_is_described_and_differs_from_the_others_in_what_it_says(name):
    ablation = EVIDENCE.load(name, "runs")
    arms = ablation.config.rows()
    assert arms.keys() <= detectorgan.ARMS.keys()
    assert {arm for pair in detectorgan.PAIRS for arm in pair} <= detectorgan.ARMS.keys()
    sciences = [json.dumps(ablation.science()["arms"][arm], sort_keys=True) for arm in arms]
    assert len(set(sciences)) == len(arms)


def test_rows_do_not_depend_on_where_the_weights_lie():
    found = [EVIDENCE.load("deeppcb", "runs", weights=weights).base for weights in (None, "/elsewhere/w.safetensors")]
    assert [one.detector.weights for one in found] == ["yolo11n.pt", "/elsewhere/w.safetensors"]
    first, second = (decisive(one.science()) for one in found)
    assert first == second
    assert first["detector"]["weights"] == FILE


@pytest.mark.parametrize("name", detectorgan.QUESTIONS)
def test_the_arms_of_a_choice_keep_as_many_pictures(name):
    arms = EVIDENCE.load(name, "runs").science()["arms"]
    kept = {arm: tree["generation"] for arm, tree in arms.items() if tree["rounds"]}
    assert {(one["keep"], one["copies"]) for one in kept.values()} == {(100, 8)}
    assert {arm for arm, one in kept.items() if one["select"] == "utility"} == {"copy_paste_utility", "crop_utility"}
