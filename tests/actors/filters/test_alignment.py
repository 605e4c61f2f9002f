"""The alignment filter on red and blue boxes, seen by their mean colour; and through an untrained CLIP."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from actors.filters.alignment import Alignment, AlignmentConfig
from actors.filters.base import DetectorAccess, RealImages
from actors.filters.chain import build_filters, fit_filters
from actors.filters.clip import ClipConfig, open_model
from actors.filters.crops import choose, cut, window
from actors.filters.discriminant import Discriminant, cross_fitted, margins
from actors.images import encode_png
from actors.records import Annotation, Candidate, Detections, Inspected, LabeledImage, Lineage

CLASSES = ("red", "blue")
RED, BLUE, GREEN = (220, 50, 40), (40, 60, 230), (40, 200, 60)
LINEAGE = Lineage(round=1, image_id="a", box_indices=(0,), generator="copy_paste", seed=1)
NOTHING = Detections(boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), scores=np.zeros(0, np.float32))


def annotated(boxes, labels, ignore=None):
    return Annotation(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        ignore=np.zeros(len(boxes), np.bool_) if ignore is None else np.array(ignore),
    )


def painted_scene(boxes, colours, seed=0):
    """Noisy grey, 96 x 64 px, with coloured boxes."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(110, 10, (64, 96, 3))
    for (left, top, right, bottom), colour in zip(boxes, colours, strict=True):
        pixels[top:bottom, left:right] = rng.normal(colour, 12, (bottom - top, right - left, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def inspected(pixels, annotation, drawn=None):
    candidate = Candidate(
        pixels=pixels,
        annotation=annotation,
        drawn=np.ones(len(annotation), np.bool_) if drawn is None else np.array(drawn),
        painted=np.full(pixels.shape[:2], -1, np.int16),
        canvas="a",
        lineage=LINEAGE,
    )
    return Inspected(candidate=candidate, seen=NOTHING)


BOXES = ([8, 8, 28, 24], [56, 30, 80, 56])


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Ten real images with a red box on the left and a blue one on the right."""
    folder = tmp_path_factory.mktemp("real")
    images = []
    for index in range(10):
        file = folder / f"{index:02d}.png"
        file.write_bytes(encode_png(painted_scene(BOXES, (RED, BLUE), index)))
        annotation = annotated(BOXES, (0, 1))
        images.append(LabeledImage(id=file.name, uri=str(file), width=96, height=64, annotation=annotation))
    return images


def mean_colours(crops):
    """Stands for a detector's features: mean and spread of each channel."""
    return np.array([[*crop.mean(axis=(0, 1)), *crop.std(axis=(0, 1))] for crop in crops], np.float32)


def opened(sizes=None):
    def open_embed(size_px):
        if sizes is not None:
            sizes.append(size_px)
        return mean_colours

    return open_embed


def built(real, config=None, classes=CLASSES, open_embed=None):
    config = config or AlignmentConfig()
    states = json.loads(json.dumps(fit_filters([config], RealImages(train=real, classes=classes))))
    (filter_,) = build_filters([config], states, DetectorAccess(open_embed=open_embed or opened()))
    return filter_


# what is kept ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("colour", "label", "reason"),
    [
        (RED, 0, ""),
        (BLUE, 1, ""),
        (BLUE, 0, "wrong_class"),
        (RED, 1, "wrong_class"),
        ((110, 110, 110), 0, "background"),
    ],
)
def test_a_drawn_box_must_look_like_its_own_class(real, colour, label, reason):
    one = inspected(painted_scene([[30, 10, 50, 30]], [colour], seed=99), annotated([[30, 10, 50, 30]], [label]))
    ((verdict,),) = built(real).judge([one])
    assert (verdict.filter, verdict.box, verdict.reason) == ("alignment", 0, reason)
    assert verdict.keep == (not reason) == (verdict.score >= verdict.threshold)


def test_only_drawn_boxes_that_count_are_judged(real):
    annotation = annotated([*BOXES, [30, 2, 50, 20]], [1, 1, 0], ignore=[False, False, True])
    one = inspected(painted_scene(BOXES, (RED, BLUE)), annotation, drawn=[True, False, True])
    none = inspected(painted_scene([], []), annotated([], []))
    first, second = built(real).judge([one, none])
    assert [(verdict.box, verdict.reason) for verdict in first] == [(0, "wrong_class")]
    assert second == ()


def test_verdicts_do_not_depend_on_the_batch(real):
    filter_ = built(real)
    scenes = [
        painted_scene(BOXES, colours, seed) for seed, colours in enumerate([(RED, BLUE), (BLUE, RED), (GREEN, RED)])
    ]
    batch = [inspected(pixels, annotated(BOXES, (0, 1))) for pixels in scenes * 30]  # more crops than are cut at once
    alone = [verdicts for one in batch[:3] for verdicts in filter_.judge([one])]
    assert filter_.judge(batch) == alone * 30


def test_the_bar_is_what_the_real_objects_of_the_class_reach(real, tmp_path):
    """One real red box in five is blue: were a drawn blue "red" refused, so would be a fifth of the real ones."""
    odd_real = []
    for index, image in enumerate(real):
        file = tmp_path / image.id
        file.write_bytes(encode_png(painted_scene(BOXES, (BLUE if index in {3, 7} else RED, BLUE), index)))
        odd_real.append(replace(image, uri=str(file)))
    one = inspected(painted_scene(BOXES, (BLUE, BLUE), 50), annotated(BOXES, (0, 1)))
    strict, lenient, none = (
        built(odd_real, AlignmentConfig(real_quantile=quantile)).judge([one])[0][0] for quantile in (0.5, 0.0, None)
    )
    assert (strict.keep, none.keep, none.threshold) == (False, False, 0.0)
    assert lenient.threshold < strict.threshold <= 0.0
    assert lenient.score == strict.score


def test_a_margin_allows_another_class_to_be_nearer(real):
    one = inspected(painted_scene(BOXES, (BLUE, BLUE), 50), annotated(BOXES, (0, 1)))
    refused = built(real, AlignmentConfig(real_quantile=None)).judge([one])[0][0]
    allowed = built(real, AlignmentConfig(real_quantile=None, margin=1 - refused.score)).judge([one])[0][0]
    assert (refused.keep, allowed.keep) == (False, True)
    assert allowed.threshold == refused.score - 1


def test_the_detector_is_opened_once_and_when_it_is_needed(real):
    sizes = []
    filter_ = built(real, AlignmentConfig(crop_px=96), open_embed=opened(sizes))
    assert sizes == []
    one = inspected(painted_scene(BOXES, (RED, BLUE)), annotated(BOXES, (0, 1)))
    filter_.judge([one])
    filter_.judge([one])
    assert sizes == [96]


def test_without_a_detector_it_says_so(real):
    states = fit_filters([AlignmentConfig()], RealImages(train=real, classes=CLASSES))
    with pytest.raises(ValueError, match="pass detectors"):
        build_filters([AlignmentConfig()], states)
    with pytest.raises(ValueError, match="names of the classes"):
        fit_filters([AlignmentConfig()], RealImages(train=real))


def test_a_class_without_real_crops_is_not_judged_and_said_so(real):
    state = AlignmentConfig().fit(RealImages(train=real, classes=(*CLASSES, "green")))
    assert state["remarks"] == ["green: no real crops to compare with; its drawn boxes are not judged"]
    one = inspected(painted_scene(BOXES, (GREEN, BLUE)), annotated(BOXES, (2, 0)))
    (verdicts,) = built(real, classes=(*CLASSES, "green")).judge([one])
    assert [(verdict.box, verdict.reason) for verdict in verdicts] == [(1, "wrong_class")]


def test_one_class_is_held_against_the_background(real):
    only_red = [replace(image, annotation=annotated(BOXES[:1], [0])) for image in real]
    filter_ = built(only_red, classes=("red",))
    boxes = [BOXES[0], [30, 2, 50, 18]]
    (verdicts,) = filter_.judge([inspected(painted_scene(BOXES[:1], [RED], 70), annotated(boxes, (0, 0)))])
    assert [verdict.reason for verdict in verdicts] == ["", "background"]


def test_with_nothing_to_compare_no_box_is_judged(real):
    full = [replace(image, annotation=annotated([[0, 0, 96, 64]], [0])) for image in real]
    state = AlignmentConfig().fit(RealImages(train=full, classes=("red",)))
    assert len(state["remarks"]) == 1
    filter_ = Alignment(AlignmentConfig(), state, DetectorAccess(open_embed=opened()))
    assert filter_.judge([inspected(painted_scene([], []), annotated([[0, 0, 96, 64]], [0]))]) == [()]


# CLIP -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_config(tiny_clip):
    return AlignmentConfig(features="clip", clip=ClipConfig(weights=f"local-dir:{tiny_clip}"), real_quantile=0.2)


def test_clip_sec_3_1_the_score_is_own_prompts_over_the_best_other(real, clip_config):
    config = clip_config.model_copy(update={"templates": ("a {}.", "the {}."), "background": ("nothing.",)})
    one = inspected(painted_scene(BOXES, (RED, BLUE), 5), annotated(BOXES, (0, 1)))
    first, second = built(real, config, classes=("red_box", "blue")).judge([one])[0]
    clip = open_model(config.clip)
    red = clip.embed_texts(["a red box.", "the red box."]).mean(axis=0)  # prompts are ensembled, then normalised
    blue = clip.embed_texts(["a blue.", "the blue."]).mean(axis=0)
    prompts = np.stack([red / np.linalg.norm(red), blue / np.linalg.norm(blue), clip.embed_texts(["nothing."])[0]])
    crops = [window(one.candidate.pixels, np.array(box, np.float32), 0.0) for box in BOXES]
    cosines = clip.embed_images(crops) @ prompts.T
    assert first.score == pytest.approx(cosines[0, 0] - max(cosines[0, 1:]), abs=1e-5)
    assert second.score == pytest.approx(cosines[1, 1] - max(cosines[1, [0, 2]]), abs=1e-5)


def test_clip_bars_are_a_quantile_of_the_real_crops_scores(real, clip_config):
    filter_ = built(real, clip_config)
    boxes = [inspected(painted_scene(BOXES, (RED, BLUE), index), annotated(BOXES, (0, 1))) for index in range(10)]
    scores = np.array([[verdict.score for verdict in verdicts] for verdicts in filter_.judge(boxes)])
    thresholds = [verdict.threshold for verdict in filter_.judge(boxes[:1])[0]]
    assert thresholds == pytest.approx(np.minimum(np.quantile(scores, 0.2, axis=0), 0.0), abs=1e-5)
    kept = np.array([[verdict.keep for verdict in verdicts] for verdicts in filter_.judge(boxes)])
    assert (kept.sum(axis=0) >= 8).all()


@pytest.mark.parametrize("template", ["a photo", "a {} and a {}", "a {name}"])
def test_a_template_has_one_place_for_the_name(template):
    with pytest.raises(ValidationError, match="templates"):
        AlignmentConfig(templates=(template,))


def test_clip_needs_no_detector(real, clip_config):
    states = json.loads(json.dumps(fit_filters([clip_config], RealImages(train=real, classes=CLASSES))))
    one = inspected(painted_scene(BOXES, (RED, BLUE)), annotated(BOXES, (0, 1)))
    (filter_,) = build_filters([clip_config], states)
    assert len(filter_.judge([one])[0]) == 2


# crops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "context_frac", "expected"),
    [
        ([40, 40, 60, 50], 0.0, [40, 35, 60, 55]),  # a square of the longer side, about the same centre
        ([40, 40, 60, 50], 0.5, [30, 25, 70, 65]),  # and half of it on each side
        ([0, 0, 10, 20], 0.0, [0, 0, 20, 20]),  # moved into the picture
        ([90, 60, 100, 80], 0.0, [80, 60, 100, 80]),
        ([0, 30, 100, 40], 0.0, [0, 0, 100, 80]),  # the picture is lower than that
        ([50, 40, 50, 40], 0.0, [50, 40, 51, 41]),  # never empty
    ],
)
def test_crops_are_squares_within_the_picture(box, context_frac, expected):
    rows, columns = np.mgrid[:80, :100]
    pixels = np.stack([rows, columns, columns], axis=2).astype(np.uint8)
    crop = window(pixels, np.array(box, np.float32), context_frac)
    found = [crop[0, 0, 1], crop[0, 0, 0], crop[-1, -1, 1] + 1, crop[-1, -1, 0] + 1]
    assert found == expected


def test_crops_are_capped_by_class_and_spread_over_the_images(real):
    crops = choose(real, 2, 6)
    labels = [crop["label"] for crop in crops]
    assert [labels.count(label) for label in (0, 1, 2)] == [6, 6, 6]
    assert len({crop["image"] for crop in crops if crop["label"] == 0}) == 6
    assert choose(real[::-1], 2, 6) == crops


def test_background_crops_keep_away_from_objects(real):
    for crop in choose(real, 2, 50):
        if crop["label"] == 2:
            left, top, right, bottom = crop["box"]
            width, height = right - left, bottom - top
            assert (width, height) in {(20, 16), (24, 26)}
            shared = sum(
                max(0, min(right, b[2]) - max(left, b[0])) * max(0, min(bottom, b[3]) - max(top, b[1])) for b in BOXES
            )
            assert shared <= 0.1 * width * height


def test_ignored_boxes_are_no_examples_and_no_background(real):
    ignored = annotated([*BOXES, [0, 0, 96, 64]], (0, 1, 0), ignore=[True, False, True])
    crops = choose([replace(real[0], annotation=ignored)], 2, 10)
    assert [(crop["label"], crop["box"]) for crop in crops] == [(1, list(BOXES[1]))]


def test_cut_gives_the_pixels_in_order(real):
    crops = choose(real, 2, 3)
    pictures = list(cut(crops, 0.0))
    assert [picture.shape[0] for picture in pictures] == [
        max(crop["box"][2] - crop["box"][0], crop["box"][3] - crop["box"][1]) for crop in crops
    ]
    red = [picture.mean(axis=(0, 1)) for picture, crop in zip(pictures, crops, strict=True) if crop["label"] == 0]
    assert all(mean[0] > mean[2] + 50 for mean in red)


# class Gaussians ------------------------------------------------------------------------------------------------


def test_mahalanobis_sec_2_1_two_gaussians_on_a_line():
    """Means -1 and 1, variance 1/4 within: the log of the ratio at x is 8 x. A single variance does not shrink."""
    features = np.array([[-1.5], [-0.5], [0.5], [1.5]])
    fitted = Discriminant.fitted(features, np.array([0, 0, 1, 1]), 2)
    scores = fitted.scores(np.array([[0.0], [1.0], [-0.25]]))
    assert scores[:, 1] - scores[:, 0] == pytest.approx([0.0, 8.0, -2.0], abs=1e-9)


def test_classes_count_alike_however_many_examples_they_have():
    features = np.array([[-1.5], [-0.5], *[[0.5], [1.5]] * 20])
    fitted = Discriminant.fitted(features, np.array([0, 0, *[1] * 40]), 2)
    scores = fitted.scores(np.array([[0.0]]))
    assert scores[0, 0] == pytest.approx(scores[0, 1], abs=1e-9)


def test_a_class_without_examples_scores_nothing():
    fitted = Discriminant.fitted(np.array([[0.0], [1.0], [2.0]]), np.array([0, 0, 2]), 3)
    scores = fitted.scores(np.array([[2.0]]))
    assert np.isneginf(scores[0]).tolist() == [False, True, False]
    assert margins(scores, np.array([1])).tolist() == [-np.inf]
    assert margins(scores, np.array([2]))[0] == scores[0, 2] - scores[0, 0]


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 1, 3]])
def test_where_there_is_no_spread_within_classes_to_tell_them_apart_by_they_score_alike(labels):
    scores = Discriminant.fitted(np.array([[0.0], [1.0], [2.0]]), np.array(labels), 4).scores(np.array([[2.0]]))[0]
    assert {label for label in range(4) if scores[label] == 0} == set(labels)
    assert np.isneginf(np.delete(scores, labels)).all()


@pytest.mark.parametrize("num_classes", [2, 3])
def test_variances_shrink_towards_their_mean_by_hand(num_classes):
    """Standardised, they are 1/5 and 1 within the classes: 3 % of the mean 3/5 are added to each."""
    corners = np.array([[-1.0, 0.0], [1.0, 0.0]])
    spread = np.array([[0.5, 1.0], [0.5, -1.0], [-0.5, 1.0], [-0.5, -1.0]])
    fitted = Discriminant.fitted((corners[:, None] + spread).reshape(-1, 2), np.repeat([0, 1], 4), num_classes)
    assert fitted.weights[1] - fitted.weights[0] == pytest.approx([2 * (1 / 1.25) / ((0.2 + 0.018) / 1.03), 0])


def test_rows_are_scored_without_their_own_group():
    """Of noise nothing can be learnt, but for what each row says of itself."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 80)), np.arange(60) % 2
    groups = [f"{index // 2:02d}" for index in range(60)]
    seen = margins(Discriminant.fitted(features, labels, 2).scores(features), labels)
    unseen = margins(cross_fitted(features, labels, groups, 2), labels)
    assert (seen > 0).mean() > 0.95
    assert 0.3 < (unseen > 0).mean() < 0.7


def test_a_single_group_cannot_be_scored():
    assert np.isneginf(cross_fitted(np.eye(3), np.array([0, 1, 0]), ["a"] * 3, 2)).all()


def test_a_rows_scores_do_not_depend_on_the_others():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 33))
    fitted = Discriminant.fitted(features, np.arange(50) % 4, 4)
    together = fitted.scores(features)
    assert all(np.array_equal(fitted.scores(features[i : i + 1])[0], together[i]) for i in range(50))
