"""COCO metrics against figures worked out by hand, and the bootstrap against pycocotools on duplicated images."""

import time

import numpy as np
import pytest

from actors.records import Annotation, Detections, LabeledImage
from loop.evaluation import bootstrap
from loop.evaluation.bootstrap import average_precision, gain
from loop.evaluation.coco import Evaluation, evaluate
from loop.evaluation.luck import Spread

CLASSES = ("bolt", "nut", "washer")


def image(name, boxes, labels, ignore=None) -> LabeledImage:
    annotation = Annotation(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        ignore=np.zeros(len(labels), bool) if ignore is None else np.array(ignore, bool),
    )
    return LabeledImage(id=name, uri=name, width=400, height=300, annotation=annotation)


def detections(boxes=(), labels=(), scores=()) -> Detections:
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        scores=np.array(scores, np.float32),
    )


def random_scene(rng, name, num_boxes) -> tuple[LabeledImage, Detections]:
    """Boxes of three classes and sizes, some ignored; detections that wander off them, some missing, some invented."""
    corner, side = rng.uniform(0, 200, (num_boxes, 2)), rng.uniform(8, 130, (num_boxes, 2))
    boxes, labels = np.concatenate([corner, corner + side], axis=1), rng.integers(0, 3, num_boxes)
    found = rng.random(num_boxes) < 0.8
    moved = boxes[found] + rng.normal(0, 4, (int(found.sum()), 4))
    num_invented = int(rng.integers(0, 5))
    corner = rng.uniform(0, 200, (num_invented, 2))
    invented = np.concatenate([corner, corner + rng.uniform(8, 130, (num_invented, 2))], axis=1)
    seen_labels = np.concatenate([labels[found], rng.integers(0, 3, num_invented)])
    scores = np.concatenate([rng.beta(4, 2, int(found.sum())), rng.beta(2, 4, num_invented)])
    scene = image(name, boxes, labels, rng.random(num_boxes) < 0.1)
    return scene, detections(np.concatenate([moved, invented]), seen_labels, scores)


def random_set(seed, num_images=30, max_boxes=8) -> tuple[list[LabeledImage], dict[str, Detections]]:
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, f"scene-{n:03}", int(rng.integers(0, max_boxes))) for n in range(num_images)]
    return [scene for scene, _ in scenes], {scene.id: seen for scene, seen in scenes}


BOX, FAR = [10, 10, 50, 50], [200, 200, 240, 240]


def test_a_perfect_detector_has_ap_one_everywhere():
    truth = [image("a", [BOX, FAR], [0, 1])]
    figures = evaluate(truth, {"a": detections([BOX, FAR], [0, 1], [0.9, 0.8])}, CLASSES).metrics
    precision, recall = ("AP", "AP50", "AP75", "AP_medium"), ("AR1", "AR10", "AR100", "AR_medium")
    assert figures == pytest.approx(dict.fromkeys([*precision, *recall, "AP/bolt", "AP/nut"], 1.0))


def test_half_the_boxes_found_gives_51_of_101_recall_points():
    truth = [image("a", [BOX, FAR], [0, 0])]
    figures = evaluate(truth, {"a": detections([BOX], [0], [0.9])}, CLASSES).metrics
    assert figures["AP"] == pytest.approx(51 / 101)  # recalls 0.00, 0.01, ..., 0.50


def test_a_false_alarm_above_the_hit_halves_precision():
    truth = [image("a", [BOX], [0])]
    figures = evaluate(truth, {"a": detections([FAR, BOX], [0, 0], [0.9, 0.8])}, CLASSES).metrics
    assert figures["AP50"] == pytest.approx(0.5)


def test_a_box_off_by_a_fifth_counts_at_the_loose_thresholds_alone():
    truth = [image("a", [[0, 0, 100, 100]], [0])]
    figures = evaluate(truth, {"a": detections([[0, 0, 78, 100]], [0], [0.9])}, CLASSES).metrics
    assert (figures["AP50"], figures["AP75"]) == pytest.approx((1, 1))
    assert figures["AP"] == pytest.approx(0.6)  # IoU 0.78: the six thresholds 0.50 to 0.75


def test_detections_on_an_ignored_box_count_as_nothing_however_many():
    truth = [image("a", [BOX, FAR], [0, 0], [False, True])]
    seen = {"a": detections([FAR, FAR, [205, 205, 220, 220], BOX], [0, 0, 0, 0], [0.9, 0.8, 0.7, 0.6])}
    assert evaluate(truth, seen, CLASSES).metrics["AP"] == pytest.approx(1)


def test_ap_hard_sets_other_boxes_aside_once():
    truth = [image("a", [BOX, FAR], [0, 0])]
    hard = {"a": np.array([False, True])}
    once = {"a": detections([BOX, FAR], [0, 0], [0.9, 0.8])}
    twice = {"a": detections([BOX, BOX, FAR], [0, 0, 0], [0.9, 0.85, 0.8])}
    missed = {"a": detections([BOX], [0], [0.9])}
    assert evaluate(truth, once, CLASSES, hard).metrics["AP_hard"] == pytest.approx(1)
    assert evaluate(truth, twice, CLASSES, hard).metrics["AP_hard"] == pytest.approx(0.5)
    assert evaluate(truth, missed, CLASSES, hard).metrics["AP_hard"] == 0


def test_hard_flags_leave_the_other_figures_alone():
    truth, seen = random_set(0)
    flags = {scene.id: np.arange(len(scene.annotation)) % 2 == 0 for scene in truth}
    with_flags = evaluate(truth, seen, CLASSES, flags).metrics
    assert evaluate(truth, seen, CLASSES).metrics == {k: v for k, v in with_flags.items() if k != "AP_hard"}


def test_nothing_hard_leaves_ap_hard_out():
    truth = [image("a", [BOX], [0])]
    assert "AP_hard" not in evaluate(truth, {"a": detections()}, CLASSES, {"a": np.array([False])}).metrics


def test_nothing_seen_at_all_is_ap_zero_and_quiet(capfd):
    result = evaluate([image("a", [BOX], [0]), image("b", [], [])], {"a": detections(), "b": detections()}, CLASSES)
    assert result.metrics["AP"] == 0
    assert np.array_equal(average_precision(result, np.array([[1, 1], [0, 2]])), [0, np.nan], equal_nan=True)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("truth", "seen", "hard", "message"),
    [
        ([image("a", [], [])], {"a": detections()}, None, "nothing to evaluate against"),
        ([image("a", [BOX], [0], [True])], {"a": detections()}, None, "nothing to evaluate against"),
        ([image("a", [BOX], [0])], {}, None, "no detections for image 'a'"),
        ([image("a", [BOX], [0])], {"a": detections([BOX], [3], [0.5])}, None, "labels 0..3, but 3 classes"),
        ([image("a", [BOX], [0])], {"a": detections()}, {}, "needs 1 hard flags"),
    ],
)
def test_what_cannot_be_evaluated_is_an_error(truth, seen, hard, message):
    with pytest.raises(ValueError, match=message):
        evaluate(truth, seen, CLASSES, hard)


def test_weights_of_one_give_pycocotools_ap():
    for seed in range(5):
        truth, seen = random_set(seed)
        result = evaluate(truth, seen, CLASSES)
        ours = average_precision(result, np.ones((1, len(truth)), np.int64))
        assert ours == pytest.approx([result.metrics["AP"]], abs=1e-9)
        assert 0.2 < result.metrics["AP"] < 0.9


def test_a_draw_equals_pycocotools_on_the_duplicated_images():
    truth, seen = random_set(7, num_images=12, max_boxes=4)
    times = np.random.default_rng(1).multinomial(12, [1 / 12] * 12, size=20)
    times[0] = np.eye(12, dtype=int)[next(n for n, one in enumerate(truth) if len(one.annotation) == 1)] * 12
    ours = average_precision(evaluate(truth, seen, CLASSES), times)
    for draw, value in zip(times, ours, strict=True):
        copies = [(one, copy) for one, number in zip(truth, draw, strict=True) for copy in range(number)]
        duplicated = [
            LabeledImage(id=f"{one.id}#{copy}", uri="", width=400, height=300, annotation=one.annotation)
            for one, copy in copies
        ]
        looked = {f"{one.id}#{copy}": seen[one.id] for one, copy in copies}
        assert value == pytest.approx(evaluate(duplicated, looked, CLASSES).metrics["AP"], abs=1e-9)


def worse(seen, rng, share) -> dict[str, Detections]:
    """The same detections with a share of them gone."""
    kept = {name: rng.random(len(one)) >= share for name, one in seen.items()}
    return {
        name: detections(one.boxes[kept[name]], one.labels[kept[name]], one.scores[kept[name]])
        for name, one in seen.items()
    }


def test_gain_is_signed_paired_and_seeded():
    truth, seen = random_set(3, num_images=60)
    better = evaluate(truth, seen, CLASSES)
    poorer = evaluate(truth, worse(seen, np.random.default_rng(0), 0.3), CLASSES)
    up, down, none = (images_alone(*pair) for pair in ((better, poorer), (poorer, better), (better, better)))
    assert 0 < up.low < up.value < up.high
    assert (down.value, down.low) == pytest.approx((-up.value, -up.high))
    assert (none.value, none.low, none.high) == pytest.approx((0, 0, 0), abs=1e-6)  # paired: the same draws for both
    assert images_alone(better, poorer) == up != images_alone(better, poorer, seed=1)


def images_alone(loop, control, draws=300, seed=0):
    """The gain with the interval of the choice of images alone."""
    return gain([loop], [control], draws, seed, prior=Spread(sd=1e-9, dof=1e9))


def test_the_interval_covers_the_true_gain_about_95_times_in_100():
    everything = random_set(11, num_images=600, max_boxes=5)
    truth, seen = everything
    poorer = worse(seen, np.random.default_rng(0), 0.2)
    true_gain = evaluate(truth, seen, CLASSES).metrics["AP"] - evaluate(truth, poorer, CLASSES).metrics["AP"]
    rng, covered = np.random.default_rng(5), 0
    for _ in range(40):
        drawn = [truth[n] for n in rng.choice(600, 60, replace=False)]
        found = images_alone(evaluate(drawn, seen, CLASSES), evaluate(drawn, poorer, CLASSES), draws=200)
        covered += found.low <= true_gain <= found.high
    assert 33 <= covered <= 40  # 0.95 * 40 = 38, three sigma down is 33.9


def test_a_thousand_draws_take_seconds():
    truth, seen = random_set(2, num_images=300, max_boxes=20)
    crowded = {
        name: detections(
            np.concatenate([one.boxes] + [one.boxes + shift for shift in range(3, 33, 3)]),
            np.tile(one.labels, 11),
            np.concatenate([one.scores * 0.9**n for n in range(11)]),
        )
        for name, one in seen.items()
    }
    result: Evaluation = evaluate(truth, crowded, CLASSES)
    start = time.perf_counter()
    gain([result], [result], 1000, 0)
    assert time.perf_counter() - start < 15


def test_blocks_of_resamplings_change_no_bit(monkeypatch):
    truth, seen = random_set(4, num_images=50, max_boxes=9)
    result = evaluate(truth, seen, CLASSES)
    times = np.random.default_rng(0).multinomial(50, [1 / 50] * 50, size=40)
    at_once = average_precision(result, times)
    assert max(one.hit.sum(axis=1).max() for one in result.matches) > 20  # the widest array
    for cells in (1, 200, 1000):
        monkeypatch.setattr(bootstrap, "MAX_CELLS", cells)
        assert average_precision(result, times).tobytes() == at_once.tobytes()
