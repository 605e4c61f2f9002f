"""The evidence for difficulty conditioning: its arms, rows and tables, and the factors measured in drawn pictures."""

import argparse
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from upath import UPath

ROOT = Path(__file__).parents[1]

import detdiffusion
import detdiffusion_tables as tables
import drawn_factors
import evidence
from evidence_tables import MissingMarksError, between_marks, marks

from actors.records import Annotation, Detections, Difficulty, Instance, LabeledImage, Lineage, Sample
from actors.storage import write_record
from loop.ablation.run import claim
from loop.ablation.table import TrialResult
from loop.config import SCHEMA
from loop.data.world.scene import render_scene
from loop.report import fit_sheet
from loop.state import Cost, Mined

EVIDENCE = detdiffusion.EVIDENCE
HERE = {"detloop": "abc", "torch": "2", "ultralytics": "8", "cpu": "any", "date": "2026-01-01"}


def trial(arm, seed=0, **metrics):
    return TrialResult(arm=arm, seed=seed, steps=800, metrics={"AP": 0.3, **metrics})


def results(*trials, question="world"):
    """The stored results of these runs."""
    stored = {"runs": {}, "rows": []}
    EVIDENCE.settle(stored, question, EVIDENCE.load(question, "runs"), lambda _: None)
    EVIDENCE.merge(stored, question, trials, HERE)
    return stored


def test_the_document_shows_the_stored_rows():
    stored = json.loads(EVIDENCE.results_file.read_text())
    assert between_marks(evidence.DOCUMENT.read_text(), tables.MARKS) == tables.section(stored)


def is_told(generator):
    return generator.prompt.attribute if generator.kind == "layout" else generator.examples == "told"


def mask_loss(generator):
    return generator.fit.mask_loss if generator.kind == "layout" else generator.painter.mask_loss_weight


@pytest.mark.parametrize("name", detdiffusion.QUESTIONS)
def test_the_arms_differ_in_what_they_are_about_and_train_alike(name):
    of_arm = {one.arm: one.config for one in EVIDENCE.load(name, "runs", seeds=[0]).trials}
    asked = ["real", "base", "origin", "easy", "hard"]
    parts = ["no_attribute", "no_mask_loss", "other_detector"] if name != "bccd" else []
    assert sorted(of_arm) == sorted([*asked, *parts])
    assert set(of_arm) <= set(tables.ARMS)
    drawing = {arm: config.generator for arm, config in of_arm.items() if config.rounds}
    assert "real" not in drawing
    without_attribute = {arm for arm, one in drawing.items() if not is_told(one)}
    without_loss = {arm for arm, one in drawing.items() if not mask_loss(one)}
    assert without_attribute == {"base", "no_attribute"} & set(of_arm)
    assert without_loss == {"base", "no_mask_loss"} & set(of_arm)
    assert [drawing[arm].requested() for arm in asked[2:]] == ["origin", "easy", "hard"]
    assert [arm for arm, config in of_arm.items() if config.mining.detector] == parts[2:]
    alike = ("data", "detector", "mixing", "generation")
    assert len({(one.fingerprint(*alike), one.training.steps) for one in of_arm.values()}) == 1


def test_yolo_scores_are_compared_between_strategies_or_within_one():
    """It falls from easy to hard: of parts drawn by different strategies, it would say nothing."""
    of_arm = {one.arm: one.config.generator for one in EVIDENCE.load("world", "runs", seeds=[0]).trials}
    parts = [pair for pair in tables.FIDELITY if not set(pair) <= {"easy", "origin", "hard"}]
    assert {arm for pair in parts for arm in pair} - {"origin", "hard"} == set(of_arm) - {
        *("real", "easy", "origin", "hard")
    }
    drawn_as = {arm: one.requested() if is_told(one) else "origin" for arm, one in of_arm.items() if arm != "real"}
    assert all(drawn_as[first] == drawn_as[second] for first, second in parts)


def test_the_fit_is_one_for_all_strategies():
    of_arm = {one.arm: one.config.generator for one in EVIDENCE.load("world", "runs", seeds=[0]).trials}
    assert of_arm["easy"].fit_options() == of_arm["hard"].fit_options() == of_arm["origin"].fit_options()
    assert of_arm["hard"].fit_options() != of_arm["no_mask_loss"].fit_options()


def test_a_row_has_the_yolo_score_of_what_was_drawn_and_none_where_nothing_was():
    stored = results(trial("real"), trial("hard", yolo_score=0.123456, contrast=0.1))
    empty = dict.fromkeys(("yolo_score_unseen", "contrast", "seen_px", "edge_px"))
    row = {"data": "world", "seed": 0, "steps": 800, "ap": 0.3}
    assert stored["rows"] == [
        {**row, "arm": "hard", "yolo_score": 0.12346, **empty, "contrast": 0.1},
        {**row, "arm": "real", "yolo_score": None, **empty},
    ]


def begun(root, *trials):
    """An ablation on the world of which these runs are finished, with their summaries but without their pictures."""
    ablation = EVIDENCE.load("world", str(root))
    claim(ablation)
    for one in trials:
        run = f"{ablation.config.name}-{one.arm}-s{one.seed}"
        write_record(ablation.folder / "trials" / f"{run}.json", replace(one, metrics={"AP": one.metrics["AP"]}))
        science = next(other.config.science() for other in ablation.trials if other.arm == one.arm)
        write_record(UPath(root) / run / "config.json", {"schema": SCHEMA, **science})
        arms = {"loop": {"AP": 0.3}, "drawn": {"yolo_score": one.metrics["yolo_score"]}} if len(one.metrics) > 1 else {}
        write_record(UPath(root) / run / "summary.json", {"metrics": {"control": {"AP": 0.3}, **arms}})
    return ablation


def test_the_yolo_score_is_taken_from_the_runs_summary(tmp_path):
    ablation = begun(tmp_path, trial("real"), trial("hard", yolo_score=0.4))
    found = {one.arm: one.metrics for one in EVIDENCE.finished(ablation, [])}
    assert found == {"real": {"AP": 0.3}, "hard": {"AP": 0.3, "yolo_score": 0.4}}


def test_rows_are_stored_though_the_document_has_no_marks_and_the_script_says_so(tmp_path, monkeypatch, capsys):
    file, document = tmp_path / "rows.json", tmp_path / "evidence.md"
    document.write_text("# Evidence\n")
    monkeypatch.setattr(evidence.Evidence, "results_file", file)
    monkeypatch.setattr(evidence, "DOCUMENT", document)
    begun(tmp_path, trial("real"), trial("hard", yolo_score=0.4))
    given = argparse.Namespace(question="world", root=str(tmp_path), data=None, seeds=[], rows_only=True, weights=None)
    with pytest.raises(MissingMarksError, match=r"evidence.md has no <!-- detdiffusion:begin --> followed by <!-- det"):
        EVIDENCE.answer(given)
    assert [row["arm"] for row in json.loads(file.read_text())["rows"]] == ["hard", "real"]
    assert "2 finished runs, 2 of them new" in capsys.readouterr().out
    document.write_text("before\n{}\n{}\nafter\n".format(*marks("detdiffusion")))
    assert EVIDENCE.answer(given)
    assert "| `hard` | every box is requested as hard | 1 | 30.0 | 0.0 |" in document.read_text()


def scored():
    """Runs of three seeds with YOLO scores and a measured factor."""
    scores = {"base": [40, 41, 43], "easy": [52, 54, 56], "origin": [50, 51, 52], "hard": [40, 45, 44]}
    drawn = [
        trial(arm, seed, yolo_score=points / 100, yolo_score_unseen=0.7, contrast=points / 1000)
        for arm, by_seed in scores.items()
        for seed, points in enumerate(by_seed)
    ]
    return [*drawn, *(trial("real", seed) for seed in range(3))]


def test_the_tables_say_how_the_scores_fall_and_what_the_parts_do():
    said = tables.section(results(*scored()))
    gain = "+3.0 [+0.5, +5.5]"  # of 2, 3, 4: sd 1, three pairs: 4.303 * 1 / sqrt(3) = 2.48
    assert f"- `easy` vs `origin`: {gain} points YOLO score, 3 seeds; above zero." in said
    row = f"| `easy` | every box is requested as easy | 3 | 30.0 | 0.0 [0.0, 0.0] | 0.0 [0.0, 0.0] | 54.0 | {gain} |\n"
    assert row in said
    assert "| `real` | control: real images only | 3 | 30.0 |  | 0.0 [0.0, 0.0] |  |  |\n" in said
    assert "- `hard` vs `origin`: 0.0 [0.0, 0.0] points AP, 3 seeds; undecided" in said
    assert "no_mask_loss" not in said
    assert "Made by `uv run python tests/bench/detdiffusion.py world`." in said


def test_factors_are_shown_where_they_are_measured():
    shown = tables.section(results(*scored()))
    assert "| `contrast` | low | 0.054 | 0.051 | 0.043 | −0.011 [" in shown  # noqa: RUF001
    assert "contrast" not in tables.section(results(*(trial(arm, yolo_score=0.4) for arm in ("easy", "hard"))))


def test_without_rows_there_is_nothing_to_say():
    assert tables.section({"runs": {}, "rows": []}) == "No results yet."


BOXES = np.float32([[20, 20, 40, 40], [60, 20, 80, 40]])


def picture(*values, width=100):
    """Grey ground at 102 of 255, and in each of ``BOXES`` a square of another grey."""
    pixels = np.full((60, width, 3), 102, np.uint8)
    for (left, top, right, bottom), value in zip(BOXES.astype(int), values, strict=False):
        pixels[top:bottom, left:right] = value
    return pixels


def test_contrast_is_the_difference_to_the_ground_and_the_seen_size_that_of_what_stands_out():
    pixels = picture(153, 107)  # 51 and 5 of 255 above the ground
    pixels[30:40, 20:40] = 102  # the lower half of the first looks like the ground
    found = drawn_factors.measure(pixels, BOXES)
    assert found[:, 0] == pytest.approx([51 / 255, 5 / 255])
    assert found[:, 1] == pytest.approx([np.sqrt(200), 0])


def test_a_blurred_object_has_wider_edges():
    from scipy.ndimage import gaussian_filter

    sharp, box = picture(200), np.float32([[10, 10, 50, 50]])
    widths = [drawn_factors.measure(gaussian_filter(sharp, (sigma, sigma, 0)), box)[0, 2] for sigma in (0, 1.5, 3)]
    assert widths[0] < widths[1] < widths[2]


def test_a_box_that_hardly_shows_alone_is_not_measured():
    covered = np.float32([[20, 20, 40, 40], [10, 10, 50, 50]])
    found = drawn_factors.measure(picture(200), covered)
    assert np.isnan(found[0]).all()
    assert not np.isnan(found[1]).any()
    assert drawn_factors.measure(picture(), np.zeros((0, 4), np.float32)).shape == (0, 3)


def test_in_rendered_scenes_the_estimates_follow_the_truth():
    from scipy.stats import spearmanr

    scenes = [render_scene(seed) for seed in range(30)]
    found = np.concatenate([drawn_factors.measure(one.pixels, one.annotation.boxes) for one in scenes])
    truth = [factors for one in scenes for factors in one.factors]
    measured = ~np.isnan(found).any(axis=1)
    contrast, size_px, blurred = (
        np.array([getattr(one, name) for one in truth])[measured] for name in ("contrast", "size_px", "blur_px")
    )
    seen = found[measured]
    assert spearmanr(seen[:, 0], contrast).statistic > 0.8
    assert spearmanr(seen[:, 1], size_px).statistic > 0.5
    sharp, soft = seen[blurred == 0, 2], seen[blurred > 0, 2]
    assert len(soft) > 5
    assert (soft[:, None] > sharp[None, :]).mean() > 0.8


def drawn(image_id, *values, boxes=BOXES):
    return drawn_factors.Drawn(image_id=image_id, boxes=boxes, values=np.array(values, np.float64))


def test_copies_of_a_real_image_count_as_one():
    easy = {(1, "a", 1): drawn("a", [0.2, 10, 3], [0.2, 10, 3]), (1, "a", 2): drawn("a", [0.2, 10, 3], [0.2, 10, 3])}
    easy |= {(1, "b", 1): drawn("b", [0.4, 10, 3], [np.nan] * 3), (1, "c", 1): drawn("c", [0, 0, 0], [0, 0, 0])}
    hard = {(1, "a", 1): drawn("a", [0.1, 10, 4], [0.1, 10, 4]), (1, "a", 2): drawn("a", [0.2, 10, 3], [0.2, 10, 3])}
    hard |= {(1, "b", 1): drawn("b", [0.25, 10, 3], [0.9, 10, 3])}
    found = drawn_factors.compare(easy, hard)
    assert found["contrast"].seeds == 2  # a: -0.05 over its four boxes; b: -0.15, of the box that both have
    assert found["contrast"].mean == pytest.approx(-0.1)
    assert found["edge_px"].mean == pytest.approx(0.25)  # a: 0.5; b: 0
    assert drawn_factors.means(easy)["contrast"] == pytest.approx(1.2 / 7)


def test_runs_that_drew_other_layouts_are_not_compared():
    easy = {(1, "a", 1): drawn("a", [0.2, 10, 3], [0.2, 10, 3])}
    with pytest.raises(ValueError, match="no layout in common"):
        drawn_factors.compare(easy, {(1, "a", 2): easy[1, "a", 1]})
    with pytest.raises(ValueError, match="different boxes"):
        drawn_factors.compare(easy, {(1, "a", 1): drawn("a", [0.2, 10, 3], [0.2, 10, 3], boxes=BOXES + 1)})


def written(folder, strategy, value):
    """A run of one finished round, which drew one layout of two boxes, the second without tokens."""
    place, flags = folder / "rounds/001", np.zeros(2, np.bool_)
    layout = Annotation(boxes=BOXES, labels=np.zeros(2, np.int64), ignore=np.array([False, True]))
    lineage = Lineage(round=1, image_id="a.png", box_indices=(0,), generator="layout", seed=7, strategy=strategy)
    sample = Sample(
        id=lineage.id,
        uri="dropped/picture.png",
        sha256="",
        as_drawn="dropped/picture.png",
        width=100,
        height=60,
        annotation=Annotation.empty(),
        proposed=layout,
        drawn=~layout.ignore,
        restored=flags,
        seen=Detections(boxes=BOXES[:0], labels=np.zeros(0, np.int64), scores=np.zeros(0, np.float32)),
        verdicts=(),
        dropped="blank: flat",
        lineage=lineage,
    )
    real = LabeledImage(id="a.png", uri=str(folder / "a.png"), width=100, height=60, annotation=layout)
    found = Instance(image_id="a.png", index=0, label=0, difficulty=Difficulty.EASY, best_score=0.9, best_iou=0.9)
    cost = Cost(seconds={}, wall_s=0.0, engine_s=0.0, num_items=1)
    science = EVIDENCE.load("world", "runs", seeds=[0]).trials[3].config.science()
    write_record(folder / "config.json", {"schema": SCHEMA, **science})
    write_record(folder / "train.json", (real,))
    write_record(place / "mine.json", Mined(instances=(), found=(found,), shares=(), cost=cost))
    write_record(place / "dropped" / f"{sample.id}.json", sample)
    write_record(place / "round.json", {})
    Image.fromarray(picture(102, 102)).save(Path(folder / "a.png"))
    Image.fromarray(picture(value, value)).save(Path(place / "dropped/picture.png"))
    return folder


def test_a_run_is_measured_from_its_folder(tmp_path):
    found = drawn_factors.of_run(written(UPath(tmp_path) / "run", "hard", 153))
    assert list(found) == [(1, "a.png", 7)]  # what the filters said of it does not matter
    assert found[1, "a.png", 7].values[:, 0] == pytest.approx([51 / 255])  # the box without tokens is left out
    with pytest.raises(ValueError, match="holds no run"):
        drawn_factors.of_run(UPath(tmp_path))


def test_the_sheet_shows_a_layout_as_both_runs_drew_it(tmp_path):
    runs = [written(UPath(tmp_path) / asked, asked, value) for asked, value in (("easy", 250), ("hard", 110))]
    shown = np.asarray(Image.open(BytesIO(drawn_factors.sheet(*runs))).convert("L"))
    real, easy, hard = (shown[fit_sheet.HEADER :, left : left + fit_sheet.CELL] for left in (22, 272, 522))
    for cell, grey in ((real, 102), (easy, 250), (hard, 110)):
        assert np.count_nonzero(cell == grey) > 1000
    assert not (hard == 250).any()
