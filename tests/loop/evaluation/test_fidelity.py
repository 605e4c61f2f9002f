"""Fidelity against figures worked out by hand: boxes on a grid, Gaussians of known moments, points on a line."""

import json
import os
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from actors.records import Annotation, Detections, Lineage, Sample
from loop.config import EvaluationConfig, LoopConfig
from loop.driver import run
from loop.evaluation import fidelity, inception
from loop.evaluation.fidelity import (
    compare,
    frechet_distance,
    nearness,
    precision_recall,
    some,
    yolo_score,
    yolo_scores,
)
from loop.progress import Reporter

pytestmark = pytest.mark.slow

CLASSES = ("bolt", "nut")
LEFT, RIGHT = [10, 10, 50, 50], [200, 200, 240, 240]


def sample(name, found, *, labels=(0, 1), drawn=(True, True), ignore=(False, False), dropped="", uri="x.png") -> Sample:
    """A candidate with a box on the left and one on the right, of which the detector ``found`` some (box, label)."""
    asked = Annotation(boxes=np.array([LEFT, RIGHT], np.float32), labels=np.array(labels), ignore=np.array(ignore))
    seen = Detections(
        boxes=np.array([box for box, _ in found], np.float32).reshape(-1, 4),
        labels=np.array([label for _, label in found], np.int64),
        scores=np.linspace(0.9, 0.8, len(found), dtype=np.float32),
    )
    return Sample(
        id=name,
        uri=uri,
        sha256="",
        as_drawn=uri,
        width=300,
        height=300,
        annotation=Annotation.empty(),
        proposed=asked,
        drawn=np.array(drawn),
        restored=np.zeros(2, bool),
        seen=seen,
        verdicts=(),
        dropped=dropped,
        lineage=Lineage(round=1, image_id="a", box_indices=(0,), generator="layout", seed=0),
    )


PERFECT = [(LEFT, 0), (RIGHT, 1)]


def test_the_yolo_score_of_perfect_detections_is_one_detdiffusion_table_1():
    measured = yolo_score([sample("a", PERFECT), sample("b", PERFECT)], CLASSES)
    assert (measured.metrics["AP"], measured.metrics["AP50"]) == pytest.approx((1, 1))


def test_the_yolo_score_is_of_what_was_asked_for_before_any_filter():
    refused = sample("b", [(LEFT, 0), (RIGHT, 0)], dropped="agreement: no_box_left")
    figures = yolo_scores([sample("a", PERFECT), refused], CLASSES)
    # bolts: two hits, and the wrong nut as a third detection, below both; nuts: one of two is found
    assert figures["yolo_score"] == pytest.approx((1 + 51 / 101) / 2)


def test_a_loose_box_is_right_at_iou_a_half_alone():
    loose = [10, 10, 50, 35]  # 25 of 40 rows: IoU 0.625, right at 0.50, 0.55 and 0.60
    figures = yolo_scores([sample("a", [(loose, 0)], ignore=(False, True))], CLASSES)
    assert figures["yolo_score_AP50"] == pytest.approx(1)
    assert figures["yolo_score"] == pytest.approx(0.3)


def test_untouched_boxes_flatter_unless_only_drawn_ones_count():
    missed = sample("a", [(LEFT, 0)], labels=(0, 0), drawn=(False, True))
    figures = yolo_scores([missed], CLASSES)
    assert figures["yolo_score"] == pytest.approx(51 / 101)
    assert figures["yolo_score_drawn"] == 0
    hit = sample("a", [(LEFT, 0), (RIGHT, 0)], labels=(0, 0), drawn=(False, True))
    assert yolo_scores([hit], CLASSES)["yolo_score_drawn"] == pytest.approx(1)  # the left one is no false alarm


def test_each_group_has_its_score():
    samples = [sample("a", PERFECT), sample("b", []), sample("c", [])]
    figures = yolo_scores(samples, CLASSES, {"a": "easy", "b": "hard"})
    assert (figures["yolo_score/easy"], figures["yolo_score/hard"]) == pytest.approx((1, 0))
    assert figures["yolo_score_drawn_AP50/easy"] == pytest.approx(1)
    assert 0 < figures["yolo_score"] < 1


def test_without_a_box_that_counts_there_is_no_yolo_score():
    untouched = sample("a", PERFECT, drawn=(False, False))
    assert yolo_scores([untouched], CLASSES).keys() == {"yolo_score", "yolo_score_AP50"}
    assert yolo_scores([sample("a", [], ignore=(True, True))], CLASSES) == {}
    assert yolo_scores([sample("a", PERFECT, uri="", dropped="generate: OSError")], CLASSES) == {}
    assert yolo_scores([], CLASSES) == {}


def cross(deviations, middle=0.0):
    """Points on the axes, two on each, whose covariance is diagonal with these standard deviations."""
    half = np.diag(np.array(deviations, float) * np.sqrt((2 * len(deviations) - 1) / 2))
    return np.concatenate([half, -half]) + middle


def test_the_points_have_the_moments_that_they_are_made_for():
    assert np.cov(cross([1, 2], 5).T) == pytest.approx(np.diag([1, 4]))
    assert cross([1, 2], 5).mean(axis=0) == pytest.approx([5, 5])


def test_the_frechet_distance_of_known_gaussians():
    """Axes alone: the means' distance, 3^2 + 3^2, and that of the standard deviations, (1 - 3)^2 + (2 - 2)^2."""
    assert frechet_distance(cross([1, 2]), cross([3, 2], middle=3)) == pytest.approx(18 + 4)


def test_the_frechet_distance_of_gaussians_that_are_turned_against_each_other():
    """C = [[2, 1], [1, 2]] and D = diag(1, 4): C D = [[2, 4], [1, 8]], whose root has the trace (10 + 2 * 12^.5)^.5."""
    turned = cross([1, 1]) @ np.linalg.cholesky([[2, 1], [1, 2]]).T
    assert np.cov(turned.T) == pytest.approx(np.array([[2, 1], [1, 2]]))
    assert frechet_distance(turned, cross([1, 2])) == pytest.approx(4 + 5 - 2 * np.sqrt(10 + 2 * np.sqrt(12)))


def test_the_frechet_distance_agrees_with_the_root_of_the_matrix():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(60, 8)), rng.normal(0.3, 2, size=(40, 8)) @ rng.normal(size=(8, 8))
    covariances = np.cov(first.T), np.cov(second.T)
    means = first.mean(axis=0) - second.mean(axis=0)
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = (means**2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected)


def test_fewer_pictures_than_features_are_no_trouble():
    """Variance 2 along x alone, against 2 along y alone and 8 along x alone: 2 + 2 - 0, and 2 + 8 - 2 * 16^.5."""
    along_x, along_y = np.array([[1.0, 0, 0], [-1, 0, 0]]), np.array([[0.0, 1, 0], [0, -1, 0]])
    assert frechet_distance(along_x, along_y) == pytest.approx(4)
    assert frechet_distance(along_x, 2 * along_x) == pytest.approx(2)


@pytest.mark.parametrize("shape", [(50, 4), (5, 300)])
def test_equal_sets_have_distance_zero(shape):
    features = np.random.default_rng(1).normal(7, 3, shape).astype(np.float32)
    shuffled = features[::-1]
    assert frechet_distance(features, shuffled) == pytest.approx(0, abs=1e-8)


def test_equal_sets_have_precision_and_recall_one_and_far_ones_zero_1904_06991_section_2():
    features = np.random.default_rng(2).normal(size=(30, 5))
    assert precision_recall(features, features) == (1, 1)
    assert precision_recall(features, features + 100) == (0, 0)


def test_a_generator_that_knows_one_mode_alone_has_precision_without_recall():
    """Third neighbours on a line: radii 3, 2, 2, 3 among 0..3; all drawn lie near 1, so all radii there are tiny."""
    real = np.array([[0.0], [1], [2], [3], [100], [101], [102], [103]])
    drawn = np.array([[1.1], [1.12], [1.14], [1.16], [1.18], [1.2], [1.22], [1.24]])
    assert precision_recall(real, drawn) == (1, 0)
    assert precision_recall(drawn, real) == (0, 1)


def test_the_third_neighbour_decides():
    real = np.array([[0.0], [1], [2], [3]])
    edge, beyond = [[6.0], [50], [60], [70]], [[6.01], [50], [60], [70]]
    assert precision_recall(real, np.array(edge))[0] == 0.25  # 3 reaches as far as its third neighbour, 0
    assert precision_recall(real, np.array(beyond))[0] == 0


def test_a_copied_picture_has_distance_zero_and_shows():
    real = np.random.default_rng(3).normal(size=(200, 16))
    near = nearness(real, real[[5, 17]].copy())
    assert near.drawn.tolist() == [0, 0]
    assert near.figures() == {"nearest_ratio": 0, "copied_frac": 1}


def test_distances_to_the_nearest_by_hand():
    real, drawn = np.array([[0.0], [1], [3], [10]]), np.array([[0.5], [6.0], [12.0]])
    near = nearness(real, drawn)
    assert (near.real.tolist(), near.drawn.tolist()) == ([1, 1, 2, 7], [0.5, 3, 2])
    assert near.figures() == {"nearest_ratio": 2 / 1.5, "copied_frac": pytest.approx(1 / 3)}


def test_pictures_of_the_same_kind_have_a_ratio_of_one_and_no_copies():
    both = np.random.default_rng(4).normal(size=(2000, 6))
    figures = nearness(both[:1000], both[1000:]).figures()
    assert figures["nearest_ratio"] == pytest.approx(1, abs=0.05)
    assert figures["copied_frac"] == pytest.approx(0.01, abs=0.015)


def test_doubles_among_the_real_pictures_leave_no_ratio():
    real = np.repeat(np.arange(5.0), 2)[:, None]
    assert nearness(real, real[:1]).figures() == {"copied_frac": 0}


def test_distances_in_parts_are_the_same(monkeypatch):
    rng = np.random.default_rng(5)
    real, drawn = rng.normal(size=(23, 4)), rng.normal(size=(17, 4))
    whole = precision_recall(real, drawn), nearness(real, drawn).drawn.tolist()
    monkeypatch.setattr(fidelity, "MAX_DISTANCES", 50)
    assert (precision_recall(real, drawn), nearness(real, drawn).drawn.tolist()) == whole


def test_comparisons_are_at_equal_numbers():
    rng = np.random.default_rng(6)
    real, held_out, drawn = (rng.normal(size=(number, 3)) for number in (40, 12, 25))
    figures = compare(real, held_out, drawn, seed=1)
    assert (figures["num_real"], figures["num_drawn"], figures["num_compared"]) == (40, 25, 12)
    assert figures["frechet_detector"] == frechet_distance(real, some(drawn, 12, 1))
    assert figures["frechet_detector_val"] == frechet_distance(real, held_out)
    assert (figures["precision"], figures["recall"]) == precision_recall(some(real, 25, 1), drawn)
    assert figures == compare(real, held_out, drawn, seed=1) != compare(real, held_out, drawn, seed=2)


def test_what_is_chosen_is_chosen_once_each():
    features = np.arange(20.0)[:, None]
    chosen = some(features, 8, 0)
    assert len({float(row[0]) for row in chosen}) == 8
    assert some(features, 30, 0) is features


@pytest.mark.parametrize(
    ("measure", "first", "second", "message"),
    [
        (frechet_distance, np.zeros((1, 3)), np.zeros((5, 3)), "1 and 5 pictures"),
        (frechet_distance, np.zeros((5, 3)), np.zeros((5, 4)), r"not \(5, 3\) and \(5, 4\)"),
        (frechet_distance, np.zeros((5, 3)), np.full((5, 3), np.nan), "not finite"),
        (precision_recall, np.zeros((3, 3)), np.zeros((9, 3)), "at least 4 each"),
        (nearness, np.zeros((1, 3)), np.zeros((9, 3)), "at least two"),
        (nearness, np.zeros((5, 3)), np.zeros((0, 3)), "5 and 0 pictures"),
    ],
)
def test_what_cannot_be_compared_is_an_error(measure, first, second, message):
    with pytest.raises(ValueError, match=message):
        measure(first, second)


def test_what_fid_lacks_is_said_and_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "find_spec", lambda name: None if name == "torch_fidelity" else name)
    assert inception.missing("anything").startswith("torch_fidelity not installed; install the extra: ")
    with pytest.raises(ValueError, match=r"FID: torch_fidelity not installed.*detloop\[fid\]"):
        inception.open_inception("anything")
    monkeypatch.setattr(inception, "find_spec", lambda name: name)
    assert f"no weights at {tmp_path / 'none.pth'}" in inception.missing(str(tmp_path / "none.pth"))
    (tmp_path / "some.pth").touch()
    assert inception.missing(str(tmp_path / "some.pth")) == ""


def test_fid_proper():
    weights = Path(os.environ.get("DETLOOP_WEIGHTS", ""), "weights-inception-2015-12-05-6726825d.pth")
    if lack := inception.missing(str(weights)):
        pytest.skip(f"{lack} (its folder is named by DETLOOP_WEIGHTS)")
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64 + number, 80, 3), np.uint8) for number in range(6)]
    features = inception.open_inception(str(weights))(pictures)
    assert features.shape == (6, inception.NUM_FEATURES)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features[:3], features[3:]) > 1e-3


def start(tree, root, **evaluation):
    """Run one round of ``tree``; the round's folder, and what was said."""
    tree = {**tree, "rounds": 1, "root": str(root), "evaluation": {"bootstrap_draws": 100, **evaluation}}
    said = StringIO()
    folder = run(LoopConfig.model_validate(tree), Reporter(Console(file=said, width=200)))
    return Path(folder) / "rounds/001", said.getvalue()


@pytest.fixture(scope="module")
def measured(easy_config, new_root):
    """A round of copy-paste whose crops are compared with the real ones, and what it said."""
    return start(easy_config, new_root(), fidelity="crops")


def test_a_round_records_what_its_pictures_are_worth(measured):
    place, said = measured
    figures = json.loads((place / "metrics.json").read_text())["drawn"]
    assert 0 <= figures["yolo_score_drawn"] <= figures["yolo_score_drawn_AP50"] <= 1
    assert f", YOLO score {100 * figures['yolo_score']:.1f} (points)" in said
    crops = {key.removeprefix("fidelity_crops/"): value for key, value in figures.items() if "fidelity_" in key}
    samples = [json.loads(file.read_text()) for fate in ("kept", "dropped") for file in (place / fate).glob("*.json")]
    assert crops["num_drawn"] == sum(sum(one["drawn"]) - sum(one["restored"]) for one in samples)
    assert crops["num_real"] == 16
    assert crops["frechet_detector"] > 0
    assert crops["frechet_detector_val"] > 0


def test_mlflow_has_the_same_figures(measured):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{measured[0].parents[2]}/mlflow.db")
    experiment = client.get_experiment_by_name("easy")
    logged = client.search_runs([experiment.experiment_id], "tags.round = '1'")[0].data.metrics
    figures = json.loads((measured[0] / "metrics.json").read_text())["drawn"]
    assert {key: logged[key] for key in figures} == figures


def test_what_is_measured_besides_changes_no_run(easy_config, measured):
    place, _ = measured
    plain = LoopConfig.model_validate({**easy_config, "rounds": 1})
    asked = plain.model_copy(update={"evaluation": EvaluationConfig(bootstrap_draws=100, fidelity="crops")})
    assert plain.science() == asked.science()
    assert plain.science()["evaluation"] == {"seeds": 1, "bootstrap_draws": 100}
    _, again = start(easy_config, place.parents[2])  # goes on without a word about another config
    assert "YOLO" not in again


def test_fid_is_of_whole_images():
    with pytest.raises(ValueError, match="inception needs fidelity: images, not crops"):
        EvaluationConfig(fidelity="crops", inception="weights.pth")


def test_whole_images_are_compared_and_missing_weights_are_no_reason_to_stop(easy_config, measured, tmp_path):
    root = measured[0].parents[2]  # its control is trained
    weights = str(tmp_path / "none.pth")
    place, said = start({**easy_config, "name": "whole"}, root, fidelity="images", inception=weights)
    figures = json.loads((place / "fidelity_images.json").read_text())
    assert (figures["num_real"], figures["num_compared"]) == (8, 8)
    assert "fid" not in figures
    assert "warning: FID is not measured: " in said
