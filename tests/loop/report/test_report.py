"""What a run shows: the figures as they stand, pictures that hold what they should, and a page that loads nothing."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from actors.checkpoint import Misfit
from actors.images import encode_png
from actors.plain import from_plain, to_plain
from actors.records import WHOLE_IMAGE, Annotation, Detections, LabeledImage, Lineage, Refined, Sample, Verdict
from loop.evaluation.coco import RECALLS, Evaluation
from loop.evaluation.counts import count_drawn, count_dropped, failures, none_clean, warnings
from loop.guard.choice import Tried
from loop.report.budget import Spent
from loop.report.contact_sheet import DRAWN, DROPPED, KEPT, MINED, RESTORED, SEEN, _refined_lines, contact_sheet
from loop.report.control import WHY_FRESH
from loop.report.curves import ap_curve, pr_curve
from loop.report.guard import GuardSummary
from loop.report.marks import Mark, marked
from loop.report.page import Figure, html_summary
from loop.report.shown import choose, extremes
from loop.report.summary import RoundSummary, agreement_told, clean_told, conclusion, fates_told, summary
from loop.report.table import rounds_table


def annotation(*boxes) -> Annotation:
    number = len(boxes)
    values = np.array(boxes, np.float32).reshape(-1, 4)
    return Annotation(boxes=values, labels=np.zeros(number, np.int64), ignore=np.zeros(number, bool))


def round_summary(number=1, gain=0.012, low=-0.004, high=0.031, **other) -> RoundSummary:
    fields = {
        "round": number,
        "ap": 0.312 + gain,
        "control_ap": 0.312,
        "gain": gain,
        "gain_ci95": (low, high),
        "seeds": 1,
        "training_sd": 0.0131,
        "ap_by_seed": (0.312 + gain,),
        "control_ap_by_seed": (0.312,),
        "mined": 40,
        "candidates": 80,
        "kept": 50,
        "dropped": {"naturalness: unnatural": 12, "chain: no_drawn_box_left": 18},
        "dropped_boxes": {"agreement: not_detected": 33},
        "restored_boxes": 0,
        "asked": 90,
        "drawn": 90,
        "seconds": {"mine": 10.0, "train": 300.0},
        "wall_s": 1325.0,
        "engine_s": 25.0,
    }
    return RoundSummary(**{**fields, **other})


def verdict(name="agreement", box=WHOLE_IMAGE, score=0.5, threshold=0.1, reason="") -> Verdict:
    return Verdict(filter=name, box=box, keep=not reason, score=score, threshold=threshold, reason=reason)


def sample(
    number, dropped="", verdicts=(), uri="there", size=(320, 240), box=(200, 100, 280, 180), restored=False
) -> Sample:
    lineage = Lineage(round=1, image_id="real.png", box_indices=(0,), generator="copy_paste", seed=number)
    proposed = annotation([10, 10, 60, 60], box)
    seen = Detections(boxes=proposed.boxes[1:], labels=np.zeros(1, np.int64), scores=np.array([0.66], np.float32))
    return Sample(
        id=lineage.id,
        uri=uri,
        sha256="",
        as_drawn=uri,
        width=size[0],
        height=size[1],
        annotation=proposed,
        proposed=proposed,
        drawn=np.array([False, True]),
        restored=np.array([False, restored]),
        seen=seen,
        verdicts=tuple(verdicts),
        dropped=dropped,
        lineage=lineage,
    )


@pytest.fixture
def grey(tmp_path):
    """Writes a grey picture, gives its path."""

    def write(width=320, height=240) -> str:
        path = tmp_path / f"{width}x{height}.png"
        path.write_bytes(encode_png(np.full((height, width, 3), 128, np.uint8)))
        return str(path)

    return write


def real(uri, width=320, height=240) -> dict[str, LabeledImage]:
    boxes = annotation([10, 10, 60, 60], [100, 100, 160, 160])
    return {"real.png": LabeledImage(id="real.png", uri=uri, width=width, height=height, annotation=boxes)}


def pixels_of(png) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)))


def count(pixels, colour) -> int:
    return int((pixels == np.array(colour)).all(axis=-1).sum())


def test_the_table_shows_points_and_the_summary_fractions():
    rounds = [round_summary(1), round_summary(2, gain=0.034, low=0.011, high=0.056)]
    table = rounds_table(rounds)
    row = next(line for line in table.splitlines() if line.strip().startswith("2 "))
    assert row.split() == ["2", "34.6", "31.2", "+3.4", "[+1.1,", "+5.6]", "40", "50/80", "1,325", "25"]
    assert "points" in table
    assert max(map(len, table.splitlines()[:4])) <= 100
    plain = json.loads(json.dumps(summary(rounds, name="bccd", fingerprint="f0", seed=3, steps=600)))
    assert {key: plain[key] for key in ("name", "fingerprint", "seed", "steps")} == {
        "name": "bccd",
        "fingerprint": "f0",
        "seed": 3,
        "steps": 600,
    }
    assert plain["rounds"][1]["gain_ci95"] == [0.011, 0.056]
    assert plain["rounds"][0]["ap"] == pytest.approx(0.324)
    assert plain["rounds"][0]["dropped"] == {"naturalness: unnatural": 12, "chain: no_drawn_box_left": 18}


@pytest.mark.parametrize(
    ("gain", "low", "high", "said"),
    [(0.03, 0.01, 0.05, "a gain"), (0.01, -0.01, 0.03, "undecided"), (-0.03, -0.05, -0.01, "a loss")],
)
def test_the_conclusion_follows_the_interval(gain, low, high, said):
    assert f"; {said}: " in conclusion([round_summary(gain=gain, low=low, high=high)])


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        (["few", "few"], "^Rounds 1 and 2 trained no detector: few.$"),
        (["few", "none"], "^Round 1 trained no detector: few. Round 2 trained no detector: none.$"),
        (["few", "", "few"], "^After round 2: .* Rounds 1 and 3 trained no detector: few.$"),
    ],
)
def test_the_conclusion_names_every_round_that_was_not_trained(reasons, said):
    rounds = [round_summary(number, not_trained=reason) for number, reason in enumerate(reasons, start=1)]
    assert re.search(said, conclusion(rounds))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [(0.31, 0.5, "mean IoU with the detections 0.31 as drawn, 0.50 as"), (0.0, 0.0, "no detection of their class")],
)
def test_the_agreement_of_refined_boxes_is_told_or_that_there_is_none(before, after, said):
    assert agreement_told({"seen_before": before, "seen_after": after}).startswith(said)


@pytest.mark.parametrize(
    ("ignored", "unsure", "said"),
    [
        (0, 0, "3 moved, 2 kept, 0 ignored"),
        (4, 0, "3 moved, 2 kept, 4 ignored (4 by refiner.min_agreement)"),
        (4, 1, "3 moved, 2 kept, 4 ignored (1 by refiner.min_confidence, 3 by refiner.min_agreement)"),
    ],
)
def test_ignored_boxes_are_told_with_the_key_that_ruled_them_out(ignored, unsure, said):
    assert fates_told({"moved": 3.0, "kept": 2.0, "ignored": float(ignored), "unsure": float(unsure)}) == said


def test_a_round_that_was_not_trained_has_no_gain_in_the_summary():
    trained, other = summary(
        [round_summary(), round_summary(2, not_trained="few")], name="a", fingerprint="f", seed=0, steps=6
    )["rounds"]
    assert trained["gain"] is not None
    assert (other["gain"], other["gain_ci95"]) == (None, None)


@pytest.mark.parametrize(("num_boxes", "told"), [(4, []), (6, ["and 2 more boxes"])])
def test_refined_boxes_that_the_sheet_leaves_out_are_counted(num_boxes, told):
    one = Refined(box=0, corners=(0, 0, 9, 9), prompt_iou=0.5, seen_before=0, seen_after=0, confidence=1, fate="moved")
    texts = [line.text for line in _refined_lines([one] * num_boxes, ["1 bolt"])]
    assert texts[5:] == told


def guarded(chosen, width=0.03):
    """A round whose loop was 2 points worse than the control, and a blend of both 3 points better."""
    tried = [
        Tried(
            name=name, share=share, ap=0.4 + d, difference=d, difference_ci95=(d - width, d + width), standard_error=e
        )
        for name, share, d, e in (("control", 0, 0, 0), ("blend 0.5", 0.5, 0.03, 0.006), ("loop", 1, -0.02, 0.005))
    ]
    gain = {"loop_ap": 0.291, "loop_gain": -0.021, "loop_gain_ci95": (-0.05, 0.01)}
    return GuardSummary(chosen=chosen, tried=tuple(tried), pools=(7, 9), steps=1200, shared_steps=1200, **gain)


def test_what_the_guard_chose_is_told_with_what_the_validation_images_say_of_the_loop():
    rounds = [round_summary(gain=0.034, low=0.011, high=0.056, guard=guarded("blend 0.5"))]
    table = " ".join(rounds_table(rounds).split())
    assert "Round 1: the guard chose blend 0.5. On held-back training images the control has AP 40.0; " in table
    assert "against it: blend 0.5 +3.0 [0.0, +6.0], loop \N{MINUS SIGN}2.0 " in table
    assert "the loop's own detector has AP 29.1, gain \N{MINUS SIGN}2.1" in table
    assert "After round 1: +3.4 points AP against the control" in table
    page = html_summary(rounds, {}, "name", {})
    assert "<td>blend 0.5</td><td>43.0</td><td>+3.0 [0.0, +6.0]</td><td>0.6</td><td>chosen</td>" in page
    assert "<td>control</td><td>40.0</td><td></td><td></td><td></td>" in page
    metrics = rounds[0].metrics()
    assert (metrics["guard/chosen_share"], metrics["guard/AP/loop"], metrics["own_gain"]) == (0.5, 0.38, -0.021)
    assert from_plain(RoundSummary, to_plain(rounds[0])) == rounds[0]


def test_a_control_that_was_kept_since_the_pool_does_harm_is_told():
    rounds = [round_summary(gain=0, low=0, high=0, guard=guarded("control", width=0.01))]
    table = " ".join(rounds_table(rounds).split())
    assert "the guard chose control, since the pool makes the loop's own detector worse. On held-back" in table


def test_a_kept_control_is_neither_gain_nor_loss():
    rounds = [round_summary(gain=0.0, low=0.0, high=0.0, guard=guarded("control"))]
    assert "control kept" in rounds_table(rounds)
    assert conclusion(rounds) == "After round 1: the guard kept the control, so there is neither gain nor loss."


def test_the_verdict_tells_the_seeds_and_what_the_interval_covers():
    one = conclusion([round_summary()])
    assert "One training seed" in one
    assert "luck of training as measured on other data (standard deviation 1.3)" in one
    three = conclusion([round_summary(seeds=3, training_sd=0.011)])
    assert "3 training seeds: the interval covers the validation images and the luck of training" in three
    assert "standard deviation 1.1" in three
    rounds = [round_summary()]
    assert summary(rounds, name="a", fingerprint="f", seed=0, steps=6)["conclusion"] == one
    assert one in " ".join(rounds_table(rounds).split())
    assert one in html_summary(rounds, {}, "name", {})


def test_a_gain_that_rounds_to_nothing_has_no_sign():
    assert " 0.0 points" in conclusion([round_summary(gain=-0.0002)])


def test_that_there_are_no_rounds_is_said():
    assert rounds_table([]) == "no rounds: the control alone"


def test_a_round_has_its_names_in_mlflow():
    metrics = round_summary().metrics()
    assert metrics["dropped/chain/no_drawn_box_left"] == 18
    assert metrics["dropped_boxes/agreement/not_detected"] == 33
    assert (metrics["gain_low"], metrics["gain_high"]) == (-0.004, 0.031)
    assert (metrics["verdict"], metrics["seeds"], metrics["training_sd"]) == (0, 1, 0.0131)
    assert [round_summary(low=low, high=0.01 + low).metrics()["verdict"] for low in (0.01, -0.02)] == [1, -1]
    assert (metrics["seconds/train"], metrics["seconds/engine"]) == (300, 25)
    assert (metrics["asked"], metrics["drawn"]) == (90, 90)


def test_dropped_images_and_boxes_are_counted_apart():
    missed = verdict(box=1, score=0.02, reason="not_detected")
    samples = [
        sample(1, verdicts=[verdict("blank"), verdict(box=1)]),
        sample(2, verdicts=[missed, verdict(box=0)]),
        sample(3, dropped="chain: no_drawn_box_left", verdicts=[missed]),
        sample(4, dropped="naturalness: unnatural", verdicts=[verdict("naturalness", reason="unnatural")]),
    ]
    assert count_dropped(samples) == (
        {"chain: no_drawn_box_left": 1, "naturalness: unnatural": 1},
        {"agreement: not_detected": 2},
    )


def drawing(number, asked, drawn, dropped=""):
    """A candidate that was to show so many instances, and has so many drawn boxes."""
    one = sample(number, dropped=dropped)
    lineage = replace(one.lineage, box_indices=tuple(range(asked)))
    return replace(one, lineage=lineage, drawn=np.ones(drawn, bool))


def test_further_places_of_one_candidate_do_not_stand_for_what_another_lacks():
    samples = [drawing(1, asked=2, drawn=6), drawing(2, asked=3, drawn=1), drawing(3, asked=1, drawn=0, dropped="a: x")]
    assert count_drawn(samples) == (6, 3)
    assert count_drawn([]) == (0, 0)


@pytest.mark.parametrize(("num_drawn", "warned"), [(0, True), (3, True), (4, False), (8, False)])
def test_that_fewer_than_half_of_the_instances_were_drawn_is_told(num_drawn, warned):
    said = warnings([drawing(number, asked=1, drawn=int(number < num_drawn)) for number in range(8)])
    assert [line.startswith(f"only {num_drawn} of 8 mined instances drawn;") for line in said] == [True] * warned


def test_that_candidates_failed_is_told_with_the_most_frequent_error():
    errors = ["generate: OSError: a.png"] * 2 + ["judge: ValueError: no box"] * 3
    assert failures(errors, 40) == [
        "5 of 40 candidates could not be drawn or judged: dropped; 3 of them for judge: ValueError: no box"
    ]
    assert failures([], 40) == []


@pytest.mark.parametrize(("num_kept", "warned"), [(0, True), (1, True), (2, False), (20, False)])
def test_that_less_than_a_tenth_was_kept_is_told_with_the_main_reasons(num_kept, warned):
    reasons = ["a: x"] * 9 + ["b: y"] * 5 + ["c: z"] * 3 + ["d: w"] * 3
    samples = [drawing(n, 1, 1, dropped="" if n < num_kept else reasons[n - num_kept]) for n in range(20)]
    said = warnings(samples)
    told = f"{num_kept} of 20 candidates kept"
    assert [line.startswith(told) and "dropped for a: x (9), b: y (5), c: z (3);" in line for line in said] == [
        True
    ] * warned


@pytest.mark.parametrize(
    ("fates", "warned"), [((), False), (("kept",), False), (("ignored", "moved"), False), (("ignored",) * 2, True)]
)
def test_that_no_refined_box_counts_is_told(fates, warned):
    one = Refined(box=0, corners=(0, 0, 9, 9), prompt_iou=0.5, seen_before=0, seen_after=0, confidence=1, fate="kept")
    samples = [replace(drawing(0, 1, 1), refined=tuple(replace(one, fate=fate) for fate in fates))]
    assert [line.startswith("no refined box counts.") for line in warnings(samples)] == [True] * warned


@pytest.mark.parametrize(
    ("num", "share", "canvas", "warned"),
    [(4, 1.0, "a", True), (4, 1.0, "clean/1", False), (4, 0.5, "a", False), (8, 0.5, "a", True), (99, 0.0, "a", False)],
)
def test_that_no_candidate_came_into_a_clean_image_is_told(num, share, canvas, warned):
    """Among four candidates that choose by a coin, none may have chosen such an image."""
    samples = [replace(drawing(number, 1, 1), canvas="a" if number else canvas) for number in range(num)]
    said = none_clean(samples, {"clean/1"}, share)
    assert [f"a share of {share:g} should be (generator.clean)" in line for line in said] == [True] * warned


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (1, "1 candidate drawn into them, 1 kept; shown 1 time to"),
        (1000, "1,000 candidates drawn into them, 1,000 kept; shown 1,000 times to"),
    ],
)
def test_the_use_of_clean_images_is_told_in_words(number, told):
    assert clean_told(dict.fromkeys(("candidates", "kept", "shown", "control_shown"), number)).startswith(told)


def test_that_nothing_was_mined_is_told():
    assert warnings([]) == ["nothing was mined, so there are no candidates, and the pool does not change"]


def test_the_choice_shows_both_fates_and_every_reason_and_does_not_depend_on_order():
    samples = [sample(n) for n in range(20)] + [sample(n, dropped="a: x") for n in range(20, 40)]
    samples += [sample(40, dropped="b: y"), sample(41, uri="")]
    chosen = choose(samples, 8)
    assert [bool(one.dropped) for one in chosen] == [False] * 4 + [True] * 4
    assert "b: y" in {one.dropped for one in chosen}
    assert [one.id for one in choose(samples[::-1], 8)] == [one.id for one in chosen]


@pytest.mark.parametrize(("num_kept", "num_dropped", "shown"), [(20, 1, (7, 1)), (1, 20, (1, 7)), (2, 3, (2, 3))])
def test_the_choice_fills_the_rows_with_what_there_is(num_kept, num_dropped, shown):
    samples = [sample(n) for n in range(num_kept)] + [sample(100 + n, dropped="a: x") for n in range(num_dropped)]
    chosen = choose(samples, 8)
    num_shown_dropped = sum(bool(one.dropped) for one in chosen)
    assert (len(chosen) - num_shown_dropped, num_shown_dropped) == shown


def test_the_extremes_are_the_best_and_the_worst_by_a_filter():
    def judged(number, score):
        return sample(number, verdicts=[verdict("utility", score=score)])

    samples = [judged(number, score) for number, score in enumerate((0.3, 1.2, -0.5, 0.9, 0.1))] + [sample(9)]
    scores = [one.verdicts[0].score for one in extremes(samples, "utility", 4)]
    assert scores == [1.2, 0.9, 0.1, -0.5]
    assert [one.verdicts[0].score for one in extremes(samples, "utility", 3)] == [1.2, 0.9, -0.5]
    assert len(extremes(samples, "utility", 8)) == 5
    assert extremes(samples, "aesthetic", 8) == []


def test_a_sheet_marks_the_mined_the_drawn_and_the_seen_boxes_and_the_verdict(grey):
    uri = grey()
    png = contact_sheet([sample(1, uri=uri, verdicts=[verdict(box=1)])], real(uri), ["cell"], "a title")
    sheet = pixels_of(png)
    thirds = [sheet[100:, 26 + column * 334 : 346 + column * 334] for column in range(3)]
    for picture, colour in zip(thirds, (MINED, DRAWN, SEEN), strict=True):
        assert count(picture, colour) > 300
        assert all(count(picture, other) == 0 for other in {MINED, DRAWN, SEEN} - {colour})
    verdict_column = sheet[100:, 1028:]
    assert count(verdict_column, KEPT) > 300
    assert count(verdict_column, DROPPED) == 0
    assert tuple(thirds[1][14 + 8 + 92, 199]) == DRAWN  # the box's left side: x 200 px less the line, y 100..180


def test_a_dropped_sample_is_shown_in_red(grey):
    uri = grey()
    verdicts = [verdict(box=1, score=0.01, reason="not_detected")]
    dropped = sample(1, dropped="chain: no_drawn_box_left", uri=uri, verdicts=verdicts)
    sheet = pixels_of(contact_sheet([dropped], real(uri), ["cell"], "t"))
    assert count(sheet[100:, 360:680], DROPPED) > 300
    assert count(sheet[100:, 1028:], KEPT) == 0


def test_a_restored_box_has_a_colour_of_its_own_and_no_detection(grey):
    uri = grey()
    verdicts = [verdict(box=1, score=0.01, reason="not_detected")]
    undone = sample(1, uri=uri, verdicts=verdicts, restored=True)
    sheet = pixels_of(contact_sheet([undone], real(uri), ["cell"], "t"))
    assert count(sheet[100:, 360:680], RESTORED) > 300
    assert count(sheet[100:, 360:680], DROPPED) == 0
    assert count(sheet[100:, 694:1014], SEEN) == 0
    assert count(sheet[100:, 1028:], RESTORED) > 20
    assert count(sheet[:100], RESTORED) > 0


@pytest.mark.parametrize("size", [(320, 240), (640, 640), (240, 320), (1600, 100)])
def test_sheets_hold_pictures_of_any_shape(grey, size):
    uri = grey(*size)
    png = contact_sheet([sample(1, uri=uri, size=size), sample(2, uri=uri, size=size)], real(uri, *size), ["c"], "t")
    assert pixels_of(png).shape[1] == 1384


def test_equal_samples_give_equal_bytes(grey):
    uri = grey()
    sheets = {contact_sheet([sample(1, uri=uri)], real(uri), ["cell"], "t") for _ in range(2)}
    assert len(sheets) == 1


def test_a_sheet_without_a_picture_is_an_error():
    with pytest.raises(ValueError, match="needs a candidate with a picture"):
        contact_sheet([sample(1, uri="")], {}, ["cell"], "t")


def test_a_small_box_is_magnified_and_a_large_one_is_not():
    pixels = np.full((640, 640, 3), 128, np.uint8)
    small = Mark(box=np.array([20, 20, 40, 40], np.float32), colour=(250, 0, 0))
    large = Mark(box=np.array([20, 20, 300, 300], np.float32), colour=(250, 0, 0))
    corner = (slice(200, 320), slice(200, 320))  # bottom right, away from the box
    assert count(np.asarray(marked(pixels, [small], 320, small))[corner], small.colour) > 100
    assert count(np.asarray(marked(pixels, [large], 320, large))[corner], large.colour) == 0


def test_the_magnifier_covers_no_other_bold_box():
    pixels = np.full((640, 640, 3), 128, np.uint8)
    small = Mark(box=np.array([20, 20, 40, 40], np.float32), colour=(250, 0, 0))
    other = Mark(box=np.array([500, 500, 620, 620], np.float32), colour=(0, 0, 250))
    picture = np.asarray(marked(pixels, [small, other], 320, small))
    assert count(picture[240:, 240:], other.colour) == 63**2 - 59**2  # a ring two px wide round 250..310


def evaluation(level) -> Evaluation:
    curves = {name: np.clip(level - RECALLS, 0, 1) for name in ("bolt", "nut", "washer", "a class with a long name")}
    return Evaluation(metrics={"AP": level}, curves=curves, image_ids=(), matches=())


def test_curves_are_pictures():
    pr = pixels_of(pr_curve(evaluation(1.2), evaluation(1.0)))
    ap = pixels_of(ap_curve([round_summary(1), round_summary(2)]))
    one = pixels_of(ap_curve([round_summary(1)]))
    assert pr.shape[1] == round(4 * 2.6 * 150)
    assert all(picture.std() > 10 for picture in (pr, ap, one))


class Page(HTMLParser):
    """What a page holds, and whether each tag that opens closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.sources, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for key, value in attrs if key in {"src", "href"}]
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_and_loads_nothing():
    figure = Figure(png=ap_curve([round_summary()]), caption="AP <over> rounds", width_px=500)
    page = Page()
    page.feed(html_summary([round_summary()], {"seed": "3"}, "<b>name", {"Curves": [figure], "Nothing": []}))
    text = " ".join(page.text)
    assert page.open == []
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert len(page.sources) == 1
    assert "<b>name" in text
    assert "boxes, agreement: not detected" in text
    assert "restored" not in text
    assert "instances, not drawn" not in text
    page.feed(html_summary([round_summary(restored_boxes=21, drawn=70)], {}, "name", {}))
    assert page.text[page.text.index("boxes restored, of these") + 1] == "21"
    assert page.text[page.text.index("instances, not drawn") + 1] == "20 of 90"
    assert "undecided: the interval includes zero" in text
    assert "Nothing" not in text


def test_the_page_and_mlflow_tell_how_the_budget_was_spread():
    half = {"num_candidates": 2.5, "mean_utility": -0.25, "standard_error": 0.1, "given": 7}
    new = {"num_candidates": 0.0, "mean_utility": 0.5, "standard_error": 1.0, "given": 1}
    budget = (Spent(kind="instances", name="nut/bolt/hard", **half), Spent(kind="mode", name="blur", **new))
    row = round_summary(number=3, budget=budget)
    assert {key: value for key, value in row.metrics().items() if "utility" in key} == {"utility/nut/bolt/hard": -0.25}
    page = Page()
    page.feed(html_summary([round_summary(number=2), row], {}, "name", {}))
    start = page.text.index("Round 3")
    assert "Round 2" not in page.text
    cells = [text for text in page.text[start:] if text.strip()]
    first = cells.index("nut/bolt, hard")
    assert cells[first : first + 4] == ["nut/bolt, hard", "2.5", "\N{MINUS SIGN}0.250 ± 0.100", "7 instances"]
    assert cells[first + 4 : first + 8] == ["hard mode blur", "0", "0.500 ± 1.000", "1 candidate"]


def test_every_reason_why_a_tensor_starts_fresh_has_its_words():
    assert WHY_FRESH.keys() == set(get_args(Misfit))
