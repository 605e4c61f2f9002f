"""The crop painter: what it is fitted on, that it learns, and that its pictures depend on their seeds alone."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from actors.checkpoint import read_checkpoint
from actors.fitting import FitData, Worker
from actors.generators.copy_paste import CopyPasteConfig
from actors.generators.inpaint.component import InpaintConfig
from actors.generators.inpaint.painters.base import CropRule, Window
from actors.generators.inpaint.painters.crop.component import CropConfig
from actors.generators.inpaint.painters.crop.examples import Crop, Examples, _turned, crops
from actors.generators.inpaint.painters.crop.painter import condition_index, load_painter
from actors.generators.inpaint.painters.crop.space import Space, known_input
from actors.images import encode_png
from actors.records import Annotation, Difficulty, LabeledImage

CLASSES = ("blue", "red")
PAINTER = CropConfig(size_px=16, channels=(8, 16), fit_steps=12, fit_batch_size=8, sampling_steps=3)
CONFIG = InpaintConfig(painter=PAINTER)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two grey images, a blue and a red box each."""
    folder, images = tmp_path_factory.mktemp("images"), []
    for number in range(2):
        pixels = np.random.default_rng(number).normal(110, 8, (40, 60, 3))
        boxes = np.array([[6, 8, 18, 22], [36, 12, 50, 24]], np.float32) + number
        for (left, top, right, bottom), colour in zip(boxes.astype(int), ((30, 40, 230), (235, 50, 50)), strict=True):
            pixels[top:bottom, left:right] = colour
        file = folder / f"{number}.png"
        file.write_bytes(encode_png(pixels.clip(0, 255).astype(np.uint8)))
        annotation = Annotation(boxes=boxes, labels=np.arange(2), ignore=np.zeros(2, bool))
        images.append(LabeledImage(id=file.name, uri=str(file), width=60, height=40, annotation=annotation))
    difficulties = ((Difficulty.EASY, Difficulty.HARD),) * 2
    return FitData(classes=CLASSES, images=tuple(images), difficulties=difficulties, seed=3)


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    """The URI of a painter after twelve steps."""
    uri = str(tmp_path_factory.mktemp("fit") / "generator.safetensors")
    fit = CONFIG.open_fit(data, Worker(device="cpu"))
    for step in range(fit.num_steps):
        fit.step(step)
    fit.save(uri)
    return uri


def examples_of(config, found, *, seed, turns=True):
    rule = CropRule(context=1.5, margin=0.1, flip=turns, rotate=turns)
    return Examples(config, found, Space(config, torch.device("cpu")), len(CLASSES), seed, rule)


def window(seed, label=0, difficulty=Difficulty.HARD):
    pixels = np.random.default_rng(seed).integers(60, 160, (16, 16, 3), np.uint8)
    mask = np.zeros((16, 16), bool)
    mask[4:12, 3:13] = True
    box = np.array([4, 5, 12, 11], np.float32)
    return Window(pixels=pixels, mask=mask, box=box, label=label, difficulty=difficulty, seed=seed)


def test_every_box_gives_a_crop_but_ignored_ones(data):
    first = data.images[0].annotation
    marked = Annotation(boxes=first.boxes, labels=first.labels, ignore=np.array([True, False]))
    images = (replace(data.images[0], annotation=marked), data.images[1])
    found = crops(PAINTER, images, data.difficulties, context=1.5, margin=0.1)
    assert [(crop.label, crop.difficulty) for crop in found] == [
        (1, Difficulty.HARD),
        (0, Difficulty.EASY),
        (1, Difficulty.HARD),
    ]
    assert {crop.pixels.shape for crop in found} == {(20, 20, 3)}


def test_what_is_in_the_hole_is_not_shown():
    one, other = window(1), window(2)
    mixed = np.where(one.mask[..., None], other.pixels, one.pixels)
    shown = known_input(one.pixels, one.mask, one.box)
    assert (shown == known_input(mixed, one.mask, one.box)).all()
    assert (shown[3] == one.mask).all()
    assert shown[4].sum() == 8 * 6


def test_class_and_difficulty_each_have_a_place_in_the_embedding():
    """DetDiffusion, arXiv 2403.13304, Sec. 3.2: the attribute is a condition of its own."""
    found = {condition_index(label, difficulty) for label in range(3) for difficulty in Difficulty}
    assert found == set(range(6))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarter_turns", range(4))
def test_a_turned_box_still_frames_its_pixels(quarter_turns, mirrored):
    pixels, mask = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), bool)
    pixels[2:9, 4:7], mask[2:9, 4:7] = 255, True
    box = np.array([4, 2, 7, 9], np.float32)
    crop = Crop(pixels=pixels, holes=mask, box=box, instance=mask, label=0, difficulty=Difficulty.EASY)
    turned = _turned(crop, quarter_turns, mirrored=mirrored)
    left, top, right, bottom = turned.box.astype(int)
    assert (turned.pixels[top:bottom, left:right] == 255).all()
    assert turned.holes.sum() == turned.holes[top:bottom, left:right].sum() == 21
    assert (turned.instance == turned.holes).all()


def test_examples_depend_on_seed_step_and_place_alone(data):
    found = crops(PAINTER, data.images, data.difficulties, context=1.5, margin=0.1)
    first, second = (examples_of(PAINTER, found, seed=1) for _ in range(2))
    together = first.batch(5)
    apart = [one for rank in range(2) for one in second.batch(5, rank, 2)]
    for one, other in zip(together, [*apart[::4], *apart[1::4], *apart[2::4], *apart[3::4]], strict=True):
        assert (one.image == other.image).all()
        assert (one.noise == other.noise).all()
        assert (one.condition, one.timestep) == (other.condition, other.timestep)


def test_classes_take_turns_whatever_their_share(data):
    found = crops(PAINTER, data.images, data.difficulties, context=1.5, margin=0.1)
    rare = [found[0], *[found[1]] * 30]
    examples = examples_of(PAINTER.model_copy(update={"condition_dropout": 0.0}), rare, seed=0, turns=False)
    seen = [one.condition for step in range(40) for one in examples.batch(step)]
    share = np.mean(np.array(seen) == condition_index(0, Difficulty.EASY))
    assert abs(share - 0.5) < 3 * 0.5 / np.sqrt(len(seen))


@pytest.mark.slow
def test_the_loss_falls(data):
    longer = CONFIG.model_copy(update={"painter": PAINTER.model_copy(update={"fit_steps": 60})})
    fit = longer.open_fit(data, Worker(device="cpu"))
    losses = [fit.step(step) for step in range(60)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


def test_an_interrupted_fit_goes_on_to_the_same_weights(data, fitted, tmp_path):
    first = CONFIG.open_fit(data, Worker(device="cpu"))
    for step in range(5):
        first.step(step)
    second = CONFIG.open_fit(data, Worker(device="cpu"))
    second.restore(first.state())
    for step in range(5, second.num_steps):
        second.step(step)
    second.save(str(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == Path(fitted).read_bytes()


def test_a_preview_is_what_the_saved_weights_paint_and_changes_nothing(data, fitted, tmp_path):
    fit = CONFIG.open_fit(data, Worker(device="cpu"))
    for step in range(fit.num_steps):
        fit.step(step)
        if step % 5 == 4:
            fit.preview()
    fit.save(str(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == Path(fitted).read_bytes()
    painter, previews = load_painter(PAINTER, CLASSES, fitted), fit.preview()
    assert [int(one.annotation.labels[0]) for one in previews] == [0, 1, 0, 1]  # classes in turns
    for place, preview in enumerate(previews):
        window = fit.examples.window(place)
        assert preview.difficulties == (Difficulty.EASY, Difficulty.HARD)[window.label :][:1]
        left, top, right, bottom = np.rint(window.box).astype(int)
        assert window.mask[top:bottom, left:right].all()  # its box has a hole to be painted
        for difficulty in Difficulty:
            (painted,) = painter.paint([replace(window, difficulty=difficulty)])
            shown = preview.drawn[difficulty]
            assert np.abs(shown[window.mask].astype(int) - painted[window.mask]).max() <= 1  # as in a larger batch
            assert (shown == preview.real)[~window.mask].all()
        assert (preview.drawn["easy"] != preview.drawn["hard"]).any()


PERCEIVING = CONFIG.model_copy(update={"painter": PAINTER.model_copy(update={"mask_loss_weight": 0.01})})


def test_a_mask_loss_of_weight_0_is_none_at_all_detdiffusion_eq_5(data):
    fit = CONFIG.open_fit(data, Worker(device="cpu"))
    assert fit.perception is None
    assert list(fit.state()) == ["network", "average", "optimizer", "schedule"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in fit.network.modules())
    assert [len(group["params"]) for group in fit.learner.optimizer.param_groups] == [
        len(list(fit.network.parameters()))
    ]


def test_the_mask_loss_is_added_and_moves_the_network_detdiffusion_eq_5(data):
    plain, told, strongly = (
        CONFIG.model_copy(update={"painter": PAINTER.model_copy(update={"mask_loss_weight": weight})}).open_fit(data,
                 Worker(device="cpu"))
        for weight in (0.0, 0.01, 1.0)
    )  # fmt: skip
    same = zip(plain.network.parameters(), told.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)  # the head takes nothing from the network's chance
    first, second, third = (fit.step(0) for fit in (plain, told, strongly))
    assert second - first == pytest.approx(0.01 * (third - first), rel=1e-2)
    assert third - first > 0.1
    assert not torch.equal(plain.network.conv_in.weight, told.network.conv_in.weight)


def test_the_head_learns_where_the_box_is_detdiffusion_sec_3_3(data):
    longer = PAINTER.model_copy(update={"fit_steps": 25, "mask_loss_weight": 1.0})
    fit = CONFIG.model_copy(update={"painter": longer}).open_fit(data, Worker(device="cpu"))
    losses = [fit.step(step) for step in range(25)]
    assert np.mean(losses[-5:]) < 0.6 * losses[0]


@pytest.fixture
def masked(data):
    """The same images; of the blue boxes it is said that the object is their upper left triangle."""
    images = []
    for image in data.images:
        left, top, right, bottom = image.annotation.boxes[0].astype(int)
        rows, columns = np.mgrid[: image.height, : image.width]
        inside = (rows >= top) & (columns >= left) & (rows < bottom) & (columns < right)
        mask = inside & ((rows - top) / (bottom - top) + (columns - left) / (right - left) < 1)
        counts = coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
        images.append(replace(image, masks=(counts, "")))
    return replace(data, images=tuple(images))


def test_the_head_is_asked_for_the_instance_where_its_mask_is_known_detdiffusion_sec_3_3(data, masked):
    plain, told = (PERCEIVING.open_fit(one, Worker(device="cpu")) for one in (data, masked))
    batches = ([one for step in range(4) for one in fit.examples.batch(step)] for fit in (plain, told))
    shares = {Difficulty.EASY: [], Difficulty.HARD: []}
    for base, one in zip(*batches, strict=True):
        assert (one.image == base.image).all()
        assert (one.known == base.known).all()  # what the network is shown is the box still
        assert (base.mask == base.known[4:]).all()
        assert not (one.mask[0] > cv2.dilate(one.known[4], np.ones((3, 3)))).any()  # edges are rounded apart
        blue = condition_index(0, Difficulty.EASY)
        if one.condition != plain.examples.none:
            shares[Difficulty.EASY if one.condition == blue else Difficulty.HARD].append(
                one.mask.sum() / one.known[4].sum()
            )
    assert set(shares[Difficulty.HARD]) == {1.0}  # a box without a mask stands for it
    assert 0.4 < min(shares[Difficulty.EASY]) < max(shares[Difficulty.EASY]) < 0.65
    assert plain.step(0) != told.step(0)


def test_the_instance_turns_with_its_picture(masked):
    """The picture is painted white where the mask is; so it must be wherever the example's mask is."""
    found = [crop for crop in crops(PAINTER, masked.images, masked.difficulties, 1.5, 0.1) if crop.instance is not None]
    assert len(found) == 2
    painted = [replace(one, pixels=one.instance[..., None].repeat(3, 2) * np.uint8(255)) for one in found]
    examples = examples_of(PAINTER, painted, seed=1)
    for one in (one for step in range(5) for one in examples.batch(step)):
        assert one.mask.any()
        assert (one.image[0] > 0)[one.mask[0] > 0].mean() > 0.9
        assert (one.image[0] < 0)[one.mask[0] == 0].mean() > 0.9


def test_the_head_is_not_in_the_checkpoint_but_in_the_state(data, fitted, tmp_path):
    whole = PERCEIVING.open_fit(data, Worker(device="cpu"))
    for step in range(whole.num_steps):
        whole.step(step)
    whole.save(str(tmp_path / "whole.safetensors"))
    first, second = (PERCEIVING.open_fit(data, Worker(device="cpu")) for _ in range(2))
    for step in range(5):
        first.step(step)
    with torch.no_grad():
        second.perception.head.query.weight.zero_()  # what restoring must undo
    second.restore(first.state())
    for step in range(5, second.num_steps):
        second.step(step)
    second.save(str(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    names, plain = (set(read_checkpoint(uri)[1]) for uri in (str(tmp_path / "whole.safetensors"), fitted))
    assert names == plain
    painter = load_painter(PAINTER, CLASSES, str(tmp_path / "whole.safetensors"))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in painter.network.modules())


def test_one_seed_one_picture_at_batch_1_and_8(fitted):
    """Byte for byte, in whatever company; with another ``batch_size`` within one grey level: it rounds otherwise."""
    windows = [window(seed, label=seed % 2) for seed in range(8)]
    painter = load_painter(PAINTER, CLASSES, fitted)
    together = np.stack(painter.paint(windows))
    alone = np.stack([painter.paint([one])[0] for one in windows])
    assert (alone == together).all()
    one_by_one = load_painter(PAINTER.model_copy(update={"batch_size": 1}), CLASSES, fitted)
    assert np.abs(np.stack(one_by_one.paint(windows)).astype(int) - together).max() <= 1
    assert (painter.paint([replace(windows[0], seed=99)])[0] != alone[0]).any()


def test_painting_changes_no_weight(fitted):
    """Gen2Det, Sec. 3.1: the generator is frozen."""
    painter = load_painter(PAINTER, CLASSES, fitted)
    before = {name: weight.clone() for name, weight in painter.network.state_dict().items()}
    painter.paint([window(1), window(2)])
    assert all(torch.equal(weight, before[name]) for name, weight in painter.network.state_dict().items())
    assert not any(weight.requires_grad for weight in painter.network.parameters())


def test_little_strength_stays_near_the_example(fitted):
    """SDEdit, arXiv 2108.01073: the further back towards noise, the less is left of the example."""
    painters = [load_painter(PAINTER.model_copy(update={"strength": s}), CLASSES, fitted) for s in (0.02, 0.9)]
    near, far = (
        np.mean([np.abs(p.paint([window(s)])[0].astype(int) - window(s).pixels).mean() for s in range(4)])
        for p in painters
    )
    assert near < far / 2


def test_a_checkpoint_of_other_classes_is_refused(fitted):
    assert read_checkpoint(fitted)[0].classes == CLASSES
    with pytest.raises(ValueError, match="is asked for"):
        load_painter(PAINTER, ("blue", "green"), fitted)
    with pytest.raises(ValueError, match="no checkpoint of a fit is given"):
        CONFIG.build([], CLASSES)


def test_what_does_not_learn_is_not_fitted(data):
    assert CONFIG.learns
    assert not CopyPasteConfig().learns
    with pytest.raises(NotImplementedError, match="copy_paste does not learn"):
        CopyPasteConfig().open_fit(data, Worker(device="cpu"))


@pytest.mark.parametrize(("key", "value"), [("channels", (12, 24)), ("size_px", 24)])
def test_sizes_that_do_not_go_together(key, value):
    with pytest.raises(ValueError, match=key):
        CropConfig.model_validate({"channels": (8, 16, 16, 16, 16), key: value})
