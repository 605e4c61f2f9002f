import xml.etree.ElementTree as ET

import numpy as np
import pytest

from actors import boxes as geometry
from actors.attributes import attributes
from actors.records import Annotation, Detections, Difficulty, LabeledImage


def labeled(boxes, labels, ignore=None):
    annotation = Annotation(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        ignore=np.zeros(len(labels), np.bool_) if ignore is None else np.array(ignore),
    )
    return LabeledImage(id="a", uri="a.png", width=640, height=480, annotation=annotation)


def detections(boxes, labels, scores):
    order = np.argsort(-np.array(scores, np.float32), kind="stable")
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4)[order],
        labels=np.array(labels, np.int64)[order],
        scores=np.array(scores, np.float32)[order],
    )


def rule(gamma=0.3, beta=0.5, match_class=True):
    return {"score_threshold": gamma, "iou_threshold": beta, "match_class": match_class}


def test_easy_needs_score_and_overlap_in_the_same_detection():
    # the first detection sits well but is unsure, the second is sure but overlaps by 50 / 150 only
    seen = detections([[0, 0, 10, 10], [5, 0, 15, 10]], [0, 0], [0.2, 0.9])
    (instance,) = attributes(labeled([[0, 0, 10, 10]], [0]), seen, **rule())
    assert instance.difficulty is Difficulty.HARD
    assert instance.best_score == pytest.approx(0.2)
    assert instance.best_iou == pytest.approx(1 / 3, abs=1e-6)


def test_thresholds_are_strict():
    seen = detections([[0, 0, 10, 5]], [0], [0.5])  # IoU exactly 0.5
    (at_beta,) = attributes(labeled([[0, 0, 10, 10]], [0]), seen, **rule(0.3, 0.5))
    (at_gamma,) = attributes(labeled([[0, 0, 10, 10]], [0]), seen, **rule(0.5, 0.4))
    (above,) = attributes(labeled([[0, 0, 10, 10]], [0]), seen, **rule(0.49, 0.49))
    assert [at_beta.difficulty, at_gamma.difficulty, above.difficulty] == ["hard", "hard", "easy"]


def test_class_agreement_is_an_option():
    seen = detections([[0, 0, 10, 10]], [1], [0.9])
    (strict,) = attributes(labeled([[0, 0, 10, 10]], [0]), seen, **rule())
    (loose,) = attributes(labeled([[0, 0, 10, 10]], [0]), seen, **rule(match_class=False))
    assert (strict.difficulty, strict.best_score, strict.best_iou) == (Difficulty.HARD, 0.0, 0.0)
    assert loose.difficulty is Difficulty.EASY


def test_ignored_boxes_are_left_out_and_indices_stay():
    image = labeled([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 2], ignore=[True, False])
    found = attributes(image, detections([], [], []), **rule())
    assert [(instance.index, instance.label, instance.difficulty) for instance in found] == [(1, 2, "hard")]
    assert attributes(labeled([], []), detections([], [], []), **rule()) == ()


def bccd_images(root):
    for name in (root / "bccd/ImageSets/Main/train.txt").read_text().split()[:60]:
        boxes, labels = [], []
        for entry in ET.parse(root / f"bccd/Annotations/{name}.xml").getroot().iter("object"):  # noqa: S314
            boxes.append([float(entry.find("bndbox").find(side).text) for side in ("xmin", "ymin", "xmax", "ymax")])
            labels.append(["RBC", "WBC", "Platelets"].index(entry.find("name").text))
        yield labeled(boxes, labels)


def noisy_detections(image, rng):
    """Each box two times, moved by up to 40 % of its size, a tenth under another class, with any score."""
    boxes = np.repeat(image.annotation.boxes, 2, axis=0)
    labels = np.repeat(image.annotation.labels, 2)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moved = boxes + rng.uniform(-0.4, 0.4, boxes.shape) * sides
    labels = np.where(rng.random(len(labels)) < 0.1, (labels + 1) % 3, labels)
    return detections(moved, labels, rng.random(len(labels)))


def by_hand(box, label, seen, gamma, beta, match_class):
    """Eq. 2 box by box."""
    best_score, best_iou, easy = 0.0, 0.0, False
    for found, found_label, score in zip(seen.boxes, seen.labels, seen.scores, strict=True):
        if match_class and found_label != label:
            continue
        iou = float(geometry.pairwise_iou(box[None], found[None])[0, 0])
        easy = easy or (iou > beta and float(score) > gamma)
        best_score = max(best_score, float(score) if iou > beta else 0.0)
        best_iou = max(best_iou, iou if float(score) > gamma else 0.0)
    return ("easy" if easy else "hard"), best_score, best_iou


@pytest.mark.parametrize("match_class", [True, False])
@pytest.mark.parametrize(("gamma", "beta"), [(0.1, 0.3), (0.3, 0.5), (0.6, 0.75)])
def test_detdiffusion_eq_2_equals_brute_force_on_bccd(real_data, gamma, beta, match_class):
    rng = np.random.default_rng(0)
    tags = []
    for image in bccd_images(real_data):
        seen = noisy_detections(image, rng)
        truth = image.annotation
        for instance in attributes(image, seen, **rule(gamma, beta, match_class)):
            box, label = truth.boxes[instance.index], truth.labels[instance.index]
            expected = by_hand(box, label, seen, gamma, beta, match_class)
            assert (instance.difficulty, instance.best_score, instance.best_iou) == expected
            assert (instance.difficulty == "easy") == (instance.best_score > gamma) == (instance.best_iou > beta)
            tags.append(instance.difficulty)
    assert 0 < tags.count("easy") < len(tags)
