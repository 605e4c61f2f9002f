"""Whether objects may be turned and mirrored is measured from labelled pictures."""

import cv2
import numpy as np
import pytest

from actors.images import encode_png
from actors.records import Annotation, LabeledImage
from loop.data.pose import Told, measure

SIDE_PX = 48


def glyph(text, rng):
    """A bright sign of varying size and thickness on a noisy ground."""
    pixels = rng.integers(40, 80, (SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
    scale, place = rng.uniform(1.2, 1.5), (int(rng.integers(8, 16)), int(rng.integers(36, 42)))
    cv2.putText(pixels, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (230, 230, 230), int(rng.integers(3, 6)))
    return pixels


def labelled(folder, pictures):
    """Each picture as an image with one box."""
    box = np.array([[4, 4, SIDE_PX - 4, SIDE_PX - 4]], np.float32)
    annotation = Annotation(boxes=box, labels=np.zeros(1, np.int64), ignore=np.zeros(1, np.bool_))
    images = []
    for index, pixels in enumerate(pictures):
        file = folder / f"{index}.png"
        file.write_bytes(encode_png(np.ascontiguousarray(pixels)))
        images.append(LabeledImage(id=file.name, uri=str(file), width=SIDE_PX, height=SIDE_PX, annotation=annotation))
    return images


def test_letters_stand_upright_and_are_not_mirrored(tmp_path):
    rng = np.random.default_rng(0)
    poses = measure(labelled(tmp_path, [glyph("F", rng) for _ in range(40)]))
    assert poses.turned.different
    assert poses.mirrored.different
    assert poses.turned.share > 0.9


def test_a_sign_that_is_its_own_mirror_image_may_be_mirrored_but_not_turned(tmp_path):
    rng = np.random.default_rng(1)
    poses = measure(labelled(tmp_path, [glyph("T", rng)[:, :: 1 if n % 2 else -1] for n in range(60)]))
    assert poses.turned.different
    assert not poses.mirrored.different


def test_what_lies_at_any_turn_may_be_turned(tmp_path):
    rng = np.random.default_rng(2)
    poses = measure(labelled(tmp_path, [np.rot90(glyph("F", rng), n % 4) for n in range(120)]))
    assert poses.turned.alike
    assert poses.turned.share == pytest.approx(0.5, abs=0.1)


def test_few_crops_and_flat_ones_say_nothing(tmp_path):
    rng = np.random.default_rng(3)
    flat = np.full((SIDE_PX, SIDE_PX, 3), 90, np.uint8)
    images = labelled(tmp_path, [*(glyph("F", rng) for _ in range(20)), *[flat] * 40])
    (tmp_path / "0.png").write_bytes(b"no picture")
    poses = measure(images)
    assert (poses.turned.num_crops, poses.turned.enough) == (19, False)
    assert not any((poses.turned.alike, poses.turned.different, poses.mirrored.different))
    assert str(poses.turned) == "not measured: 19 crops with contrast are too few"


@pytest.mark.parametrize(
    ("share", "margin", "alike", "different"),
    [(0.5, 0.05, True, False), (0.5, 0.15, False, False), (0.64, 0.05, False, False), (0.7, 0.05, False, True)],
)
def test_what_is_not_certain_is_neither(share, margin, alike, different):
    told = Told(share=share, margin=margin, num_crops=100, num_images=20)
    assert (told.alike, told.different) == (alike, different)
