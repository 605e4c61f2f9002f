"""Numbers with their nouns."""

import pytest

from actors.counted import counted


@pytest.mark.parametrize(
    ("number", "words", "told"),
    [
        (0, ("image",), "0 images"),
        (1, ("image",), "1 image"),
        (2, ("image",), "2 images"),
        ("0.5", ("GPU",), "0.5 GPUs"),
        ("1", ("GPU",), "1 GPU"),
        (1, ("box is", "boxes are"), "1 box is"),
        (21, ("box is", "boxes are"), "21 boxes are"),
    ],
)
def test_one_is_singular_and_all_else_plural(number, words, told):
    assert counted(number, *words) == told
