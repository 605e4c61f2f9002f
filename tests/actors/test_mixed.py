import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from actors.generators import build_generator, learner, parts
from actors.generators.copy_paste import CopyPasteConfig
from actors.generators.inpaint import InpaintConfig
from actors.generators.mixed import Mixed, MixedConfig
from actors.records import Annotation, LabeledImage, Lineage

PASTE, BOXES = CopyPasteConfig(modes=("plain",)), CopyPasteConfig(modes=("plain",), cutout="box")


@pytest.fixture
def real(tmp_path):
    """Three pictures with two marks each on grey."""
    images = []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(110, 130, (96, 96, 3), dtype=np.uint8)
        pixels[12:28, 12:28] = 220
        pixels[52:64, 60:76] = 30
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        boxes = np.array([[12, 12, 28, 28], [60, 52, 76, 64]], np.float32)
        annotation = Annotation(boxes=boxes, labels=np.array([0, 1], np.int64), ignore=np.zeros(2, np.bool_))
        images.append(
            LabeledImage(
                id=str(number), uri=str(tmp_path / f"{number}.png"), width=96, height=96, annotation=annotation
            )
        )
    return images


def lineages(kinds):
    return [
        Lineage(round=1, image_id=str(number % 3), box_indices=(0, 1), generator=kind, seed=number)
        for number, kind in enumerate(kinds)
    ]


def test_each_lineage_is_drawn_by_the_generator_it_names_in_order(real):
    class Other:
        def generate(self, asked):
            return [f"other {lineage.seed}" for lineage in asked]

    paste = build_generator(PASTE, real, ("a", "b"))
    asked = lineages(["other", "copy_paste", "copy_paste", "other"])
    drawn = Mixed({"copy_paste": paste, "other": Other()}).generate(asked)
    assert (drawn[0], drawn[3]) == ("other 0", "other 3")
    for one, alone in zip(drawn[1:3], paste.generate(asked[1:3]), strict=True):
        assert one.lineage == alone.lineage
        assert np.array_equal(one.pixels, alone.pixels)
    assert not Mixed({}).generate([])


def test_parts_learner_and_needs():
    mixed = MixedConfig()
    assert parts(mixed) == (InpaintConfig(), CopyPasteConfig())
    assert parts(PASTE) == (PASTE,)
    assert learner(mixed) == InpaintConfig()
    painter = {"kind": "gligen", "model": "some/model"}
    borrowed = MixedConfig.model_validate({"of": [{"kind": "inpaint", "painter": painter}, {"kind": "copy_paste"}]})
    assert learner(borrowed) is None
    assert [need.place for need in borrowed.needs()] == ["some/model"]


def test_a_generator_may_be_named_once_and_one_is_no_mixture():
    with pytest.raises(ValidationError, match="may be named once"):
        MixedConfig(of=(PASTE, BOXES))
    with pytest.raises(ValidationError, match="at least 2"):
        MixedConfig(of=(PASTE,))
