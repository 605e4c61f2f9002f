"""Instance masks: on a grid by hand, and what a fit of the layout model makes of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from actors.fitting import FitData, Worker
from actors.generators.diffusion.box_masks import box_masks
from actors.generators.diffusion.instance_masks import decode, instance_masks
from actors.generators.layout.component import LayoutConfig
from actors.images import encode_png
from actors.records import Annotation, Difficulty, LabeledImage

torch.set_num_threads(1)

BOXES = np.array([[0, 0, 8, 8], [8, 4, 16, 12], [1, 13, 2, 14]], np.float32)  # in 16 x 16 px


def encoded(mask):
    return coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


def filled(box, side=16):
    mask = np.zeros((side, side), bool)
    left, top, right, bottom = box.astype(int)
    mask[top:bottom, left:right] = True
    return mask


def lower_triangle(box, side=16):
    rows, columns = np.mgrid[:side, :side] + 0.5
    return filled(box, side) & (rows - box[1] > columns - box[0])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("masks", [(), ("", "", "")])
def test_without_masks_boxes_stand_for_them_bit_for_bit(masks, mirrored):
    drawn = instance_masks(masks, BOXES, 16, 16, (5, 7), mirrored=mirrored)
    assert drawn.tobytes() == box_masks(BOXES, 16, 16, (5, 7)).tobytes()
    assert instance_masks(masks, BOXES[:0], 16, 16, (5, 7), mirrored=mirrored).shape == (0, 5, 7)


def test_a_mask_that_fills_its_box_is_the_boxs_own():
    masks = tuple(encoded(filled(box)) for box in BOXES)
    for size in ((4, 8), (16, 16), (5, 7), (32, 32)):
        drawn = instance_masks(masks, BOXES, 16, 16, size, mirrored=False)
        assert (drawn == box_masks(BOXES, 16, 16, size)).all()


def test_a_cell_is_covered_where_its_centre_is_and_the_rest_stays_the_boxes():
    masks = (encoded(lower_triangle(BOXES[0])), "", "")
    drawn = instance_masks(masks, BOXES, 16, 16, (8, 8), mirrored=False)
    # cells of 2 x 2 px: centres at odd px, and the pixel after each says what the cell is
    assert drawn[0, :4, :4].tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert drawn[0].sum() == 6
    assert (drawn[1:] == box_masks(BOXES, 16, 16, (8, 8))[1:]).all()
    assert drawn.dtype == np.float32


def test_masks_are_mirrored_with_their_boxes():
    mirrored = BOXES.copy()
    mirrored[:, [0, 2]] = 16 - BOXES[:, [2, 0]]
    masks = (*(encoded(lower_triangle(box)) for box in BOXES[:2]), "")
    as_it_lies = instance_masks(masks, BOXES, 16, 16, (8, 8), mirrored=False)
    turned = instance_masks(masks, mirrored, 16, 16, (8, 8), mirrored=True)
    assert (turned == as_it_lies[:, :, ::-1]).all()


def test_an_object_between_all_centres_has_the_cell_that_it_lies_in():
    mask = np.zeros((16, 16), bool)
    mask[13:15, 1] = True
    drawn = instance_masks((encoded(mask),), BOXES[2:], 16, 16, (2, 2), mirrored=False)
    assert drawn.tolist() == [[[0, 0], [1, 0]]]


def test_masks_are_decoded_row_by_row():
    mask = np.zeros((3, 5), bool)
    mask[1, 2:] = True
    assert (decode(encoded(mask), 5, 3) == mask).all()


# --- in a fit

SETTINGS = LayoutConfig.model_validate(
    {
        "network": {"kind": "small", "size_px": 16, "channels": (8, 16), "text_width": 16, "text_layers": 1},
        "prompt": {"grid": (8, 8), "max_tokens": 24},
        "fit": {"steps": 3, "batch_size": 8, "null_prompt": 0.2},
    }
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A grey image of 32 x 32 px with two boxes, the first and the last of three; the one between is to be ignored."""
    file = tmp_path_factory.mktemp("images") / "0.png"
    file.write_bytes(encode_png(np.full((32, 32, 3), 90, np.uint8)))
    boxes = np.array([[2, 4, 14, 16], [0, 0, 30, 30], [16, 16, 30, 28]], np.float32)
    annotation = Annotation(boxes=boxes, labels=np.array([0, 1, 1]), ignore=np.array([False, True, False]))
    image = LabeledImage(id="0.png", uri=str(file), width=32, height=32, annotation=annotation)
    return FitData(classes=("a", "b"), images=(image,), difficulties=((Difficulty.EASY,) * 3,), seed=3)


@pytest.fixture(scope="module")
def masked(data):
    """The same image; its first box has a mask."""
    image = data.images[0]
    masks = (encoded(lower_triangle(image.annotation.boxes[0], 32)), "", "")
    return replace(data, images=(replace(image, masks=masks),))


def asked_for(fit, monkeypatch):
    """The examples of the first step, its loss, and the masks ``[B, K, h, w]`` that the perception-aware loss got."""
    from actors.generators.layout import fit as fit_module

    given, loss = [], fit_module.perception_loss
    with monkeypatch.context() as patched:
        patched.setattr(fit_module, "perception_loss", lambda *args: given.append(args[1]) or loss(*args))
        found = fit.step(0)
    return fit.examples.batch(0, range(8)), found, given[0].numpy()


def test_a_fit_asks_for_the_instance_masks_that_there_are_detdiffusion_sec_3_3(data, masked, monkeypatch):
    plain, told = (SETTINGS.open_fit(one, Worker(device="cpu")) for one in (data, masked))
    _, base, boxes = asked_for(plain, monkeypatch)
    batch, loss, masks = asked_for(told, monkeypatch)
    own = lower_triangle(data.images[0].annotation.boxes[0], 32)[1::2, 1::2]  # the network has half the image's side
    assert loss != base
    seen = set()
    for example, drawn, instead in zip(batch, masks, boxes, strict=True):
        assert not example.prompt.kept or set(example.prompt.kept) == {0, 2}  # in any order
        for index, mask, box in zip(example.prompt.kept, drawn, instead, strict=False):
            expected = own[:, ::-1] if example.mirrored else own
            assert (mask == (expected if index == 0 else box)).all()
            assert index == 2 or (mask != box).any()
            seen.add((index, example.mirrored))
        assert example.prompt.kept or not drawn.any()
    assert seen == {(index, mirrored) for index in (0, 2) for mirrored in (False, True)}


def test_masks_of_nothing_change_nothing(data):
    blank = replace(data, images=(replace(data.images[0], masks=("", "", "")),))
    plain, told = (SETTINGS.open_fit(one, Worker(device="cpu")) for one in (data, blank))
    assert [plain.step(step) for step in range(3)] == [told.step(step) for step in range(3)]


def test_as_many_masks_as_boxes_or_none(data):
    with pytest.raises(ValueError, match="2 masks for 3 boxes"):
        replace(data.images[0], masks=("", ""))
