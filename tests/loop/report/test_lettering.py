"""Class names in any script on plots."""

import warnings

import numpy as np

from loop.evaluation.coco import RECALLS, Evaluation, Repeated
from loop.report.curves import pr_curve
from loop.report.lettering import legible

UNKNOWN = "\U000f0000"  # a code point that no font has


def test_letters_without_a_font_are_escaped():
    assert legible("straße") == ("straße", ("DejaVu Sans",))
    assert legible("two\nlines") == ("two lines", ("DejaVu Sans",))
    assert legible(f"a{UNKNOWN}") == (r"a\U000f0000", ("DejaVu Sans",))


def test_letters_of_another_font_of_the_machine_are_drawn_with_it():
    text, families = legible("⌒")  # in DejaVu Sans Mono, which comes with matplotlib
    assert text == "⌒"
    assert len(families) == 2


def test_curves_of_any_class_name_are_drawn_without_warnings():
    names = (f"unknown {UNKNOWN}", "⌒", "猫", "costs $5 or $6_a", "two\nlines")
    found = Evaluation(
        metrics={"AP": 1.0}, curves={name: np.ones_like(RECALLS) for name in names}, image_ids=(), matches=()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pr_curve(Repeated(each=(found,)), Repeated(each=(found,)))
