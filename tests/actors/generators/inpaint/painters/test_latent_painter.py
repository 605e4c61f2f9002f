"""The crop painter in the latents of an autoencoder: what it is shown, that it learns, what it leaves alone."""

import logging
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.fitting import FitData, Worker
from actors.generators.diffusion.autoencoder import Autoencoder, open_autoencoder
from actors.generators.inpaint.component import InpaintConfig
from actors.generators.inpaint.painters.base import Window
from actors.generators.inpaint.painters.crop.component import CropConfig
from actors.generators.inpaint.painters.crop.painter import load_painter
from actors.generators.inpaint.painters.crop.space import Space
from actors.images import encode_png, read
from actors.records import Annotation, Difficulty, LabeledImage, Lineage
from loop.check import missing
from loop.config import LoopConfig

CLASSES = ("blue", "red")
CPU = Worker(device="cpu")
SIDE = 32


def tiny(seed, levels=4):
    from diffusers import AutoencoderTiny

    torch.manual_seed(seed)
    parts = {
        f"{part}_{key}": value
        for part in ("encoder", "decoder")
        for key, value in {"block_out_channels": (8,) * levels}.items()
    }
    blocks = {"num_encoder_blocks": (1,) * levels, "num_decoder_blocks": (1,) * levels}
    return AutoencoderTiny(**parts, **blocks, latent_channels=4)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """The folder of an autoencoder with random weights and latents of 8 x 8 px."""
    folder = tmp_path_factory.mktemp("vae")
    tiny(0).save_pretrained(folder)
    return folder


def painting(vae, **changes):
    vae = vae and str(vae)
    settings = {"size_px": SIDE, "channels": (8, 16), "fit_steps": 20, "fit_batch_size": 4, "batch_size": 3}
    return InpaintConfig.model_validate({"painter": {"kind": "crop", "vae": vae, **settings, **changes}})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two grey images, a blue and a red box each."""
    folder, images = tmp_path_factory.mktemp("images"), []
    for number in range(2):
        pixels = np.random.default_rng(number).normal(110, 8, (60, 90, 3))
        boxes = np.array([[9, 12, 30, 34], [52, 18, 76, 40]], np.float32) + number
        for (left, top, right, bottom), colour in zip(boxes.astype(int), ((30, 40, 230), (235, 50, 50)), strict=True):
            pixels[top:bottom, left:right] = colour
        file = folder / f"{number}.png"
        file.write_bytes(encode_png(pixels.clip(0, 255).astype(np.uint8)))
        annotation = Annotation(boxes=boxes, labels=np.arange(2), ignore=np.zeros(2, bool))
        images.append(LabeledImage(id=file.name, uri=str(file), width=90, height=60, annotation=annotation))
    difficulties = ((Difficulty.EASY, Difficulty.HARD),) * 2
    return FitData(classes=CLASSES, images=tuple(images), difficulties=difficulties, seed=3)


def fit_of(config, data, uri, *, steps=None):
    fit = config.open_fit(data, CPU)
    for step in range(steps or fit.num_steps):
        fit.step(step)
    fit.save(uri)
    return fit


@pytest.fixture(scope="module")
def fitted(data, vae, tmp_path_factory):
    """The URI of a painter after its fit."""
    uri = str(tmp_path_factory.mktemp("fit") / "generator.safetensors")
    fit_of(painting(vae), data, uri)
    return uri


def window(seed):
    pixels = np.random.default_rng(seed).integers(60, 160, (SIDE, SIDE, 3), np.uint8)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[4:20, 8:24] = True
    box = np.array([8, 6, 24, 18], np.float32)
    return Window(pixels=pixels, mask=mask, box=box, label=0, difficulty=Difficulty.HARD, seed=seed)


def test_the_network_sees_shares_of_the_hole_and_the_box_and_nothing_that_is_in_the_hole(vae):
    space, one, other = Space(painting(vae).painter, torch.device("cpu")), window(1), window(2)
    assert space.shape == (4, 4, 4)
    mixed = np.where(one.mask[..., None], other.pixels, one.pixels)
    known = space.known(one.pixels, one.mask, one.box)
    assert known.shape == (6, 4, 4)
    assert (known == space.known(mixed, one.mask, one.box)).all()
    assert (known[:4] != space.known(other.pixels, one.mask, one.box)[:4]).any()
    columns = np.array([0, 1, 1, 0])
    assert (known[4] == np.outer([0.5, 1, 0.5, 0], columns)).all()  # rows 4 to 20
    assert (known[5] == np.outer([0.25, 1, 0.25, 0], columns)).all()  # rows 6 to 18


def test_a_view_is_encoded_once_and_used_again_with_other_noise(data, vae, monkeypatch):
    fit, encoded = painting(vae, fit_steps=32).open_fit(data, CPU), []
    encode = Space.encode
    monkeypatch.setattr(Space, "encode", lambda space, pixels: encoded.append(1) or encode(space, pixels))
    batches = [fit.examples.batch(step) for step in range(4)]
    assert len(encoded) == 2 * 4 * 2  # 32 steps have two views a place: with and without what is in the hole
    for first, second, third in zip(*batches[:3], strict=True):
        assert (first.image == third.image).all()
        assert (first.image != second.image).any()
        assert (first.noise != third.noise).any()
    again = painting(vae, fit_steps=32).open_fit(data, CPU).examples.batch(3, rank=1, num_workers=2)
    assert all((one.known == other.known).all() for one, other in zip(batches[3][1::2], again, strict=True))


def test_an_interrupted_fit_goes_on_to_the_same_weights(data, vae, fitted, tmp_path):
    first, second = (painting(vae).open_fit(data, CPU) for _ in range(2))
    for step in range(5):
        first.step(step)
    second.restore(first.state())
    for step in range(5, second.num_steps):
        second.step(step)
    second.save(str(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == Path(fitted).read_bytes()


def test_the_loss_on_masks_is_taken_in_latents_and_falls(data, vae):
    settings = {"mask_loss_weight": 10.0, "fit_steps": 25, "fit_batch_size": 8, "learning_rate": 5e-3}
    fit = painting(vae, **settings).open_fit(data, CPU)
    for example in fit.examples.batch(0):  # a box without a mask stands for it
        assert (example.mask == (example.known[5:] >= 0.5)).all()
    losses = [fit.step(step) for step in range(25)]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


def test_pixels_outside_of_holes_stay_and_those_inside_are_painted(data, vae, fitted):
    generator = painting(vae, strength=1.0).build(data.images, CLASSES, fitted)
    lineages = [
        Lineage(round=1, image_id=image.id, box_indices=(0, 1), generator="inpaint", seed=seed)
        for seed, image in enumerate(data.images)
    ]
    for image, candidate in zip(data.images, generator.generate(lineages), strict=True):
        before, outside = read(image.uri), candidate.painted < 0
        assert candidate.drawn.all()
        assert (candidate.pixels[outside] == before[outside]).all()
        assert (candidate.pixels[~outside] != before[~outside]).any()


def test_a_picture_depends_on_its_seed_alone(vae, fitted):
    painter = load_painter(painting(vae).painter, CLASSES, fitted)
    windows = [window(seed) for seed in range(4)]
    together, alone = painter.paint(windows), [painter.paint([one])[0] for one in windows]
    assert all((one == other).all() for one, other in zip(together, alone, strict=True))
    assert (painter.paint([replace(windows[0], seed=9)])[0] != alone[0]).any()


def test_detail_that_the_autoencoder_loses_is_added_back_where_painting_starts_from_it(vae, fitted):
    """Random weights restore nothing; with hardly any noise, the picture is still the one that it starts from."""
    one = window(1)
    near, far = (
        load_painter(painting(vae, strength=strength, sampling_steps=1).painter, CLASSES, fitted)
        for strength in (0.001, 1.0)
    )
    start = torch.from_numpy(near.space.encode(one.pixels))
    restored = near.space.decode(start[None])[0]
    assert np.abs(restored.astype(int) - one.pixels).mean() > 20
    assert (near.space.sharpened(restored, one.pixels, start) == one.pixels).all()
    apart = [np.abs(painter.paint([one])[0].astype(int) - one.pixels).mean() for painter in (near, far)]
    assert apart[0] < 3
    assert apart[1] > 20


def test_latents_are_scaled_and_shifted_as_the_autoencoder_says():
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    network = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=8, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.5, shift_factor=0.25,
    )  # fmt: skip
    vae, pictures = Autoencoder(network, torch.device("cpu")), torch.rand(2, 3, 8, 8) * 2 - 1
    assert (vae.px, vae.shape(8)) == (2, (4, 4, 4))
    with torch.no_grad():
        mean = network.encode(pictures).latent_dist.mean
        decoded = network.decode(mean).sample
    latents = vae.encode(pictures)
    assert torch.allclose(latents, (mean - 0.25) * 0.5, atol=0.02)  # it may compute in bfloat16
    assert torch.allclose(vae.decode(latents).float(), decoded, atol=0.05)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size_px": 48, "channels": (8, 16, 16, 16)}, "size_px 48: with vae it must be a multiple of 64, e.g. 256"),
        ({"size_px": 40}, "multiple of 16"),
        ({"vae": None, "vae_revision": "main"}, "set vae to a hub id"),
    ],
)
def test_settings_that_do_not_go_together(settings, words, vae):
    with pytest.raises(ValueError, match=words):
        painting(vae).painter.model_validate({"vae": str(vae), "channels": (8, 16), **settings})


def test_what_is_no_autoencoder_of_this_kind_is_refused(data, fitted, tmp_path):
    from diffusers import UNet2DModel

    small, other, empty = (tmp_path / name for name in ("small", "other", "empty"))
    tiny(0, levels=3).save_pretrained(small)
    UNet2DModel(block_out_channels=(8, 8), norm_num_groups=8, **BLOCKS).save_pretrained(other)
    empty.mkdir()
    for folder, error, words in (
        (small, ValueError, "stands for 4 x 4 px"),
        (other, ValueError, "holds a UNet2DModel; give an AutoencoderTiny or AutoencoderKL"),
        (empty, FileNotFoundError, "no config.json"),
        (tmp_path / "absent", FileNotFoundError, "no such folder"),
    ):
        with pytest.raises(error, match=words):
            painting(folder).open_fit(data, CPU)
    for config in painting(other), painting(None):
        with pytest.raises(ValueError, match="is asked for"):
            config.build(data.images, CLASSES, fitted)


BLOCKS = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}


def test_a_fit_depends_on_the_contents_of_the_autoencoder(tmp_path):
    tiny(0).save_pretrained(tmp_path)
    config = painting(tmp_path)
    before = config.files_digest(())
    (tmp_path / "notes.txt").write_text("not read")
    assert config.files_digest(()) == before
    tiny(1).save_pretrained(tmp_path)
    assert config.files_digest(()) not in {before, None}
    assert painting("someone/vae").files_digest(()) is None
    assert InpaintConfig(painter=CropConfig()).files_digest(()) is None


def test_check_finds_files_that_are_missing(vae, tmp_path):
    def needed(place):
        return missing(
            LoopConfig.model_validate({"name": "x", "data": {"format": "world"}, "generator": painting(place)})
        )

    assert needed(vae) == needed("madebyollin/taesd") == []
    (tmp_path / "bare").mkdir()
    shutil.copy(vae / "config.json", tmp_path / "bare")
    weights = "diffusion_pytorch_model.safetensors"
    assert needed(tmp_path / "bare") == [f"painter.vae: {tmp_path / 'bare'}/{weights}"]
    assert needed(tmp_path / "gone") == [
        f"painter.vae: {tmp_path / 'gone'}/{file}" for file in ("config.json", weights)
    ]


def test_an_autoencoder_is_opened_without_the_warning_of_its_own_config(vae):
    from diffusers import AutoencoderTiny

    log, said = logging.getLogger("diffusers.configuration_utils"), StringIO()
    log.addHandler(handler := logging.StreamHandler(said))
    try:
        open_autoencoder(str(vae), None, torch.device("cpu"))
        assert said.getvalue() == ""
        AutoencoderTiny.from_pretrained(vae)
        assert "block_out_channels" in said.getvalue()
    finally:
        log.removeHandler(handler)
