"""Layout to image: what is fitted and how, what is asked for, and that pictures depend on their seeds alone."""

import json
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pipelines import tiny_networks, tiny_text

from actors import precision
from actors.checkpoint import read_checkpoint
from actors.fitting import FitData, FitSize, Worker
from actors.generators.diffusion.box_masks import box_masks
from actors.generators.diffusion.learner import target_of
from actors.generators.diffusion.low_rank import LowRankConfig
from actors.generators.layout.arrangement import ArrangementConfig
from actors.generators.layout.component import LayoutConfig
from actors.generators.layout.fit import Examples, LayoutFit
from actors.generators.layout.foreground_weight import foreground_weight
from actors.generators.layout.generator import stretched
from actors.generators.layout.network import load_network
from actors.generators.layout.prompt import PromptWriter, located, word_tokenizer
from actors.images import encode_png, read
from actors.precision import autocast
from actors.records import Annotation, Difficulty, LabeledImage, Lineage
from actors.seeds import derive_seed

pytestmark = pytest.mark.slow

torch.set_num_threads(1)

CLASSES = ("blue", "red")
COLOURS = ((30, 40, 230), (235, 50, 50))
EASY, HARD = Difficulty.EASY, Difficulty.HARD
CPU = Worker(device="cpu")
SMALL = {"kind": "small", "size_px": 16, "channels": (8, 16), "text_width": 16, "text_layers": 1}
SETTINGS = {
    "network": SMALL,
    "prompt": {"grid": (8, 8), "max_tokens": 24},
    "fit": {"steps": 3, "batch_size": 4},
    "sampling_steps": 2,
    "batch_size": 8,
}


def config(**changes):
    """The usual settings, with others laid over them: a mapping is merged."""
    merged = {
        key: {**SETTINGS.get(key, {}), **value} if isinstance(value, dict) else value for key, value in changes.items()
    }
    return LayoutConfig.model_validate(SETTINGS | merged)


CONFIG = config()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two grey images of 60 x 40 px: a blue and a red box each, and a third that is to be ignored."""
    folder, images = tmp_path_factory.mktemp("images"), []
    for number in range(2):
        pixels = np.random.default_rng(number).normal(110, 8, (40, 60, 3))
        boxes = np.array([[6, 8, 18, 22], [36, 12, 50, 24], [24, 30, 30, 36]], np.float32) + number
        for (left, top, right, bottom), colour in zip(boxes.astype(int), (*COLOURS, (0, 0, 0)), strict=True):
            pixels[top:bottom, left:right] = colour
        file = folder / f"{number}.png"
        file.write_bytes(encode_png(pixels.clip(0, 255).astype(np.uint8)))
        annotation = Annotation(boxes=boxes, labels=np.array([0, 1, 0]), ignore=np.array([False, False, True]))
        images.append(LabeledImage(id=file.name, uri=str(file), width=60, height=40, annotation=annotation))
    return FitData(classes=CLASSES, images=tuple(images), difficulties=((EASY, HARD, HARD),) * 2, seed=3)


def fitted_at(settings, data, place):
    fit = settings.open_fit(data, CPU)
    for step in range(fit.num_steps):
        fit.step(step)
    fit.save(str(place))
    return str(place)


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    """The URI of a model after three steps."""
    return fitted_at(CONFIG, data, tmp_path_factory.mktemp("fit") / "generator.safetensors")


@pytest.fixture(scope="module")
def build(data, checkpoint):
    """Generators with other settings over the same weights."""
    return lambda **changes: config(**changes).build(data.images, CLASSES, checkpoint)


def lineage(seed, image_id="0.png", boxes=(0, 1)):
    return Lineage(round=1, image_id=image_id, box_indices=boxes, generator="layout", seed=seed)


LINEAGES = [lineage(seed, f"{seed % 2}.png") for seed in range(8)]


def orders(generator, lineages):
    """What the generator asks its network for."""
    return [generator._draft(one)[0] for one in lineages]


def weights(fit):
    return deepcopy(fit.learner.network.state_dict())


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- the fit


@pytest.mark.slow
def test_weight_0_is_the_base_model_bit_for_bit_detdiffusion_eq_5(data):
    """Against GeoDiffusion's loss (arXiv 2306.04607, Eqs. 5-7) written out here."""
    without, base = (config(fit={"mask_loss": 0.0}).open_fit(data, CPU) for _ in range(2))
    assert without.perception is None
    assert list(without.state()) == ["network", "average", "optimizer", "schedule"]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in without.network.denoiser.modules())

    def loss(step):
        network, batch = base.network, base.examples.batch(step, range(4))
        clean = torch.from_numpy(np.stack([one.picture for one in batch]))
        noise = torch.from_numpy(
            np.stack([np.random.default_rng(one.noise_seed).standard_normal((3, 16, 16), np.float32) for one in batch])
        )
        times = torch.tensor([one.timestep for one in batch])
        noisy = network.forward.add_noise(clean, noise, times)
        with autocast(network.device):
            states = network.denoiser.read(network.tokens([one.prompt.text for one in batch]))
            predicted = network.denoiser(noisy, times, states)
        error = (predicted - target_of(network.forward, clean, noise, times)) ** 2
        foreground = [foreground_weight(box_masks(one.boxes, 60, 40, (16, 16))) for one in batch]
        return (error * torch.from_numpy(np.stack(foreground))[:, None]).mean()

    for step in range(3):
        base.learner.update([lambda step=step: loss(step)])
        without.step(step)
    assert equal(weights(without), weights(base))
    assert equal(without.learner.average.state_dict(), base.learner.average.state_dict())


def test_the_mask_loss_is_added_and_moves_the_network_detdiffusion_eq_5(data):
    plain, told, strongly = (config(fit={"mask_loss": share}).open_fit(data, CPU) for share in (0.0, 0.01, 1.0))
    assert equal(weights(plain), weights(told))  # the head takes nothing from the network's chance
    first, second, third = (fit.step(0) for fit in (plain, told, strongly))
    assert second - first == pytest.approx(0.01 * (third - first), rel=1e-2)
    assert third - first > 0.1
    assert not equal(weights(plain), weights(told))


def test_the_head_is_in_the_state_and_nowhere_else_detdiffusion_sec_3_3(data, checkpoint):
    fit = CONFIG.open_fit(data, CPU)
    assert list(fit.state()) == ["network", "average", "optimizer", "schedule", "beside"]
    _, tensors = read_checkpoint(checkpoint)
    assert set(tensors) == set(fit.network.denoiser.state_dict())
    network = load_network(CONFIG, CLASSES, checkpoint)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.denoiser.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in fit.learner.average.modules())
    assert not any(weight.requires_grad for weight in network.denoiser.parameters())


def test_text_encoder_and_u_net_learn_geodiffusion_sec_3_3(data):
    fit = CONFIG.open_fit(data, CPU)
    before = weights(fit)
    fit.step(0)
    after = weights(fit)
    assert not torch.equal(before["unet.conv_in.weight"], after["unet.conv_in.weight"])
    name = next(name for name in before if "token_embedding" in name)
    assert not torch.equal(before[name], after[name])


def test_a_batch_can_be_learned(data):
    fit = config(fit={"steps": 15}).open_fit(data, CPU)
    losses = [fit.learner.update([lambda: fit._loss(0, range(4))]) for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]


def test_an_interrupted_fit_goes_on_to_the_same_bytes(data, checkpoint, tmp_path):
    first, second = (CONFIG.open_fit(data, CPU) for _ in range(2))
    first.step(0)
    file = tmp_path / "state.pt"
    torch.save(first.state(), file)
    with torch.no_grad():
        second.perception.head.query.weight.zero_()  # what restoring must undo
    second.restore(torch.load(file, weights_only=True))
    for step in (1, 2):
        second.step(step)
    second.save(str(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == Path(checkpoint).read_bytes()


def test_a_fit_that_goes_on_begins_with_the_saved_weights_and_its_own_difficulties(data, checkpoint, tmp_path):
    again = CONFIG.open_fit(replace(data, difficulties=((HARD,) * 3,) * 2), CPU)
    again.warm_start(checkpoint)
    saved = read_checkpoint(checkpoint)[1]
    assert equal(weights(again), saved)
    assert equal(again.learner.average.state_dict(), saved)
    again.save(str(tmp_path / "again.safetensors"))
    header, tensors = read_checkpoint(str(tmp_path / "again.safetensors"))
    assert equal(tensors, saved)
    assert header.attributes == {"0.png": (HARD,) * 3, "1.png": (HARD,) * 3}
    other = config(prompt={"grid": (4, 4)}).open_fit(data, CPU)
    with pytest.raises(ValueError, match="grid 4x4"):
        other.warm_start(checkpoint)


def test_a_preview_is_what_the_saved_weights_draw_and_changes_nothing(data, checkpoint, tmp_path):
    fit = CONFIG.open_fit(data, CPU)
    for step in range(3):
        fit.step(step)
        previews = fit.preview()
    fit.save(str(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == Path(checkpoint).read_bytes()
    assert not any(one.training for one in fit.network.denoiser.modules())
    still = {"arrangement": {"flip": False}}
    by_picture = {read(image.uri).tobytes(): image for image in data.images}
    images = [by_picture.pop(preview.real.tobytes()) for preview in previews]
    assert len(images) == len(data.images)
    asked = [lineage(derive_seed(data.seed, "preview", image.id), image.id, ()) for image in images]
    for strategy in ("easy", "hard"):
        generator = config(strategy=strategy, **still).build(data.images, CLASSES, checkpoint)
        for preview, drawn in zip(previews, generator.generate(asked), strict=True):  # together: last bits depend on it
            assert drawn.pixels.tobytes() == preview.drawn[strategy].tobytes()
    for preview, image in zip(previews, images, strict=True):
        assert preview.annotation.boxes.tolist() == image.annotation.boxes.tolist()
        assert preview.annotation.ignore.tolist() == [False, False, True]
        assert preview.difficulties == (EASY, HARD, HARD)
        assert list(preview.drawn) == ["easy", "hard"]
        assert (preview.drawn["easy"] != preview.drawn["hard"]).any()


def test_without_the_attribute_a_preview_has_nothing_to_tell_apart(data):
    (preview, *_) = config(prompt={"attribute": False}, strategy="origin").open_fit(data, CPU).preview()
    assert list(preview.drawn) == ["origin"]


def test_parts_of_a_batch_and_several_workers_make_the_steps_of_one(data, together, monkeypatch):
    """In float32, losses agree to 1e-5 and gradients to 1e-4 of their norm: sums round otherwise in the last bits."""
    monkeypatch.setattr(precision, "native_dtypes", lambda _: [torch.float32])
    alone, parted = (config(fit={"accumulate": number}).open_fit(data, CPU) for number in (1, 2))
    gang = [CONFIG.open_fit(data, Worker(device="cpu", rank=rank, num_workers=2)) for rank in range(2)]
    expected, apart = alone.step(0), parted.step(0)
    shared = together([lambda fit=fit: fit.step(0) for fit in gang])
    assert apart == pytest.approx(expected, rel=1e-5)
    assert shared == pytest.approx([expected] * 2, rel=1e-5)
    wanted = gradients(alone)
    for fit in (parted, *gang):
        assert (gradients(fit) - wanted).norm() < 1e-4 * wanted.norm()
    assert equal(weights(gang[0]), weights(gang[1]))


def gradients(fit):
    return torch.cat([weight.grad.flatten() for weight in fit.network.denoiser.parameters()])


def test_what_cannot_be_parted_is_refused(data):
    with pytest.raises(ValueError, match=r"batch_size \(4\) is no multiple of accumulate \(3\)"):
        config(fit={"accumulate": 3})
    with pytest.raises(
        ValueError, match=r"fit.batch_size \(4\) is no multiple of 4 workers times fit.accumulate \(2\)"
    ):
        LayoutFit(config(fit={"accumulate": 2}), data, Worker(device="cpu", rank=0, num_workers=4))


# --- what it is fitted on


def examples(settings, data):
    return Examples(settings, data, PromptWriter(settings.prompt, CLASSES, word_tokenizer(settings.prompt, CLASSES)))


def test_mirrored_pictures_and_their_prompts_agree_geodiffusion_sec_4_1(data):
    """The middle of each box that the prompt names has its class's colour in the picture."""
    found = examples(config(prompt={"grid": (32, 32)}, fit={"null_prompt": 0.0, "batch_size": 40}), data)
    lefts = set()
    for one in found.batch(0, range(40)):
        words = one.prompt.text.removeprefix("An image with ").split()
        assert one.prompt.kept in ((0, 1), (1, 0))  # never the ignored one
        for place, start in enumerate((0, 4)):
            name, attribute = words[start], words[start + 3]
            corners = np.array([[int(word.strip("<>")) for word in words[start + 1 : start + 3]]])
            box = located(corners, 60, 40, (32, 32))[0]
            assert np.abs(box - one.boxes[place]).max() <= 60 / 64 + 1e-4
            x, y = (box[:2] + box[2:]) / 2 * 16 / np.array([60, 40])
            colour = (one.picture[:, int(y), int(x)] + 1) * 127.5
            assert np.abs(colour - COLOURS[CLASSES.index(name)]).max() < 40
            assert attribute == f"[{EASY if name == 'blue' else HARD}]"
            lefts.add((name, round(float(one.boxes[place][0]))))
    assert lefts == {("blue", left) for left in (6, 7, 42, 41)} | {("red", left) for left in (36, 37, 10, 9)}


def test_examples_are_those_of_their_step_and_place(data):
    one, other = examples(CONFIG, data), examples(CONFIG, data)
    other.batch(0, range(4))  # what was taken before does not matter
    for first, second in zip(one.batch(5, range(4)), other.batch(5, (0, 1)) + other.batch(5, (2, 3)), strict=True):
        assert (first.picture == second.picture).all()
        assert (first.prompt, first.timestep, first.noise_seed) == (second.prompt, second.timestep, second.noise_seed)


def test_a_tenth_is_shown_without_words_and_has_no_objects(data):
    fit = config(fit={"null_prompt": 0.3}).open_fit(data, CPU)
    batch = fit.examples.batch(0, range(200))
    untold = [one for one in batch if not one.prompt.text]
    assert abs(len(untold) - 60) < 3 * np.sqrt(200 * 0.3 * 0.7)
    assert {one.prompt.spans for one in untold} == {()}
    network = fit.network
    states = network.denoiser.read(network.tokens([""] * 2))
    network.denoiser(torch.zeros(2, 3, 16, 16), torch.tensor([5, 5]), states)
    assert fit.perception.loss(untold[:2], states, torch.ones(2)) == 0


def test_little_strength_is_fitted_for_little_noise(data):
    found = examples(config(strength=0.2), data).batch(0, range(200))
    assert max(one.timestep for one in found) <= 199
    assert max(one.timestep for one in examples(CONFIG, data).batch(0, range(200))) > 900


def test_boxes_without_room_in_the_prompt_are_counted(data):
    """Ten tokens have room for one of an image's two boxes; the ignored one does not count."""
    cut = [config(prompt={"max_tokens": budget}).open_fit(data, CPU).boxes_cut for budget in (24, 10)]
    assert cut == [0, 2]


# --- what is drawn


def test_a_candidate_is_a_whole_image_of_the_size_of_the_real_one(build):
    (one,) = build(arrangement={"flip": False}).generate([lineage(0)])
    assert one.pixels.shape == (40, 60, 3)
    assert (one.canvas, one.refused) == ("", "")
    assert one.annotation.boxes.tolist() == [[6, 8, 18, 22], [36, 12, 50, 24], [24, 30, 30, 36]]
    assert one.annotation.labels.tolist() == [0, 1, 0]
    assert one.annotation.ignore.tolist() == [False, False, True]  # as in the real image
    assert one.drawn.tolist() == [True, True, False]
    expected = np.full((40, 60), -1)
    expected[8:22, 6:18], expected[12:24, 36:50] = 0, 1
    assert (one.painted == expected).all()


def test_boxes_cut_by_the_budget_are_flagged_ignore(data, tmp_path):
    """Ten tokens: begin, three words, one object of four, end; the other object is left out."""
    short = config(prompt={"max_tokens": 10}, arrangement={"flip": False})
    uri = fitted_at(short, data, tmp_path / "short.safetensors")
    generator = short.build(data.images, CLASSES, uri)
    found = generator.generate(LINEAGES)
    assert {tuple(one.annotation.ignore.tolist()) for one in found} == {(True, False, True), (False, True, True)}
    assert all((one.drawn == ~one.annotation.ignore).all() for one in found)
    asked = [CLASSES.index(order.text.split()[3]) for order in orders(generator, LINEAGES)]
    assert asked == [int(np.flatnonzero(one.drawn)[0]) for one in found]
    assert all(set(np.unique(one.painted)) == {-1, label} for one, label in zip(found, asked, strict=True))


@pytest.mark.parametrize(
    ("strategy", "words"), [("origin", {("blue", "[easy]"), ("red", "[hard]")}), ("easy", "[easy]"), ("hard", "[hard]")]
)
def test_the_strategy_is_in_the_prompt_detdiffusion_fig_3(build, strategy, words):
    for order in orders(build(strategy=strategy), LINEAGES):
        assert order.start is None  # from noise alone
        told = order.text.split()[3:]
        expected = words if strategy == "origin" else {("blue", words), ("red", words)}
        assert {(told[0], told[3]), (told[4], told[7])} == expected


def test_one_seed_one_picture_at_batch_1_and_8(build):
    """Equal to within one grey level: other batch sizes round otherwise in the last bits."""
    eight, single = build(), build(batch_size=1)
    together, alone = eight.generate(LINEAGES), single.generate(LINEAGES[::-1])[::-1]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1
        assert (one.annotation.boxes == other.annotation.boxes).all()
        assert one.lineage == other.lineage
    again = build().generate([lineage(99), *LINEAGES[1:]])
    assert (again[0].pixels != together[0].pixels).any()
    assert np.abs(again[1].pixels.astype(int) - together[1].pixels).max() <= 1


def test_drawing_changes_no_weight_and_leaves_torchs_generator_alone(build):
    generator = build()
    before, state = deepcopy(generator.network.denoiser.state_dict()), torch.get_rng_state()
    generator.generate(LINEAGES[:2])
    assert equal(before, generator.network.denoiser.state_dict())
    assert torch.equal(state, torch.get_rng_state())


def test_guidance_draws_otherwise_and_1_is_none(build):
    first, second = (build(guidance=scale).generate(LINEAGES[:1])[0] for scale in (1.0, 6.0))
    assert (first.pixels != second.pixels).any()


def test_little_strength_keeps_the_picture_mirrored_with_its_boxes_sdedit(build, data):
    generator = build(strength=0.002)
    seen = set()
    for one in generator.generate(LINEAGES):
        real = read(data.images[int(one.lineage.image_id[0])].uri)
        mirrored = one.annotation.boxes[0, 0] > 30
        small = stretched(real[:, ::-1] if mirrored else real, 16, 16)
        assert np.abs(stretched(one.pixels, 16, 16).astype(int) - small).mean() < 12
        seen.add(mirrored)
    assert seen == {False, True}


@pytest.mark.parametrize("strategy", ["easy", "hard"])
def test_nothing_is_asked_for_by_a_word_that_is_not_written(strategy):
    with pytest.raises(ValueError, match=f"strategy {strategy} needs a word in the prompt, but prompt.attribute"):
        config(strategy=strategy, prompt={"attribute": False})
    assert config(strategy="origin", prompt={"attribute": False}).strategy == "origin"


@pytest.mark.parametrize("arrangement", [{"jitter": 0.1}, {"recombine": 0.5}])
def test_boxes_stay_where_the_picture_stays(arrangement):
    with pytest.raises(ValueError, match=r"strength 0\.5 keeps a part of the real image"):
        config(strength=0.5, arrangement=arrangement)
    assert config(strength=0.5).arrangement.flip
    assert config(arrangement=arrangement).arrangement.moves


def test_layouts_put_together_are_drawn_whole(build):
    found = build(arrangement={"recombine": 1.0, "jitter": 0.2}).generate(LINEAGES)
    assert all(len(one.drawn) == len(one.annotation) >= 2 for one in found)
    assert all(one.drawn.any() for one in found)
    assert all(one.annotation.boxes.min() >= 0 for one in found)


def test_a_lineage_that_is_not_there_is_refused(build):
    with pytest.raises(ValueError, match="no training image"):
        build().generate([lineage(0, "2.png")])


# --- checkpoints


@pytest.mark.parametrize(
    ("change", "classes"),
    [
        ({"prompt": {"grid": (4, 16)}}, CLASSES),
        ({"prompt": {"attribute": False}, "strategy": "origin"}, CLASSES),
        ({}, ("blue", "green")),
    ],
    ids=["grid", "attribute", "classes"],
)
def test_weights_of_another_prompt_are_refused_geodiffusion_sec_3_2(checkpoint, change, classes):
    """Bins are a model's own: 8 x 8 and 4 x 16 are as many, and mean other places."""
    with pytest.raises(ValueError, match="is asked for"):
        load_network(config(**change), classes, checkpoint)


def test_a_generator_without_a_fit_is_refused(data):
    with pytest.raises(ValueError, match="no checkpoint of a fit is given"):
        CONFIG.build(data.images, CLASSES)


def test_what_was_measured_is_in_the_checkpoint(checkpoint):
    header, _ = read_checkpoint(checkpoint)
    assert header.attributes == {"0.png": (EASY, HARD, HARD), "1.png": (EASY, HARD, HARD)}


def test_how_it_draws_needs_no_new_fit():
    assert CONFIG.learns
    assert CONFIG.fit_size() == FitSize(steps=3, batch_size=4)
    drawn = {"strategy": "easy", "guidance": 1.0, "batch_size": 3, "sampling_steps": 9}
    assert config(**drawn, arrangement={"jitter": 0.5, "recombine": 0.5}).fit_options() == CONFIG.fit_options()
    for change in (
        {"strength": 0.5},
        {"arrangement": {"flip": False}},
        {"prompt": {"grid": (4, 4)}},
        {"fit": {"steps": 4}},
    ):
        assert config(**change).fit_options() != CONFIG.fit_options()


@pytest.mark.parametrize(("key", "value"), [("channels", (12, 24)), ("size_px", 24), ("text_width", 24)])
def test_sizes_that_do_not_go_together(key, value):
    with pytest.raises(ValueError, match=key):
        config(network=SMALL | {"channels": (8, 16, 16, 16, 16), key: value})


# --- Stable Diffusion: a tiny random folder, through the way of a real one


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A StableDiffusionPipeline, and one for inpainting, which is refused."""
    from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("stable_diffusion")
    text = tiny_text(root / "text")
    bare = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    StableDiffusionPipeline(**text, **tiny_networks(in_channels=4), **bare).save_pretrained(root / "plain")
    StableDiffusionInpaintPipeline(**text, **tiny_networks(in_channels=9), **bare).save_pretrained(root / "inpaint")
    return root


def latent(model, **changes):
    network = {"kind": "stable_diffusion", "model": str(model), "size_px": 32}
    settings = {"fit": {"steps": 2, "batch_size": 2}, "prompt": {"grid": (8, 8), "max_tokens": 77}} | changes
    return LayoutConfig.model_validate(SETTINGS | settings | {"network": network})


def test_a_stable_diffusion_folder_is_fitted_saved_loaded_and_drawn_with(folders, data, tmp_path):
    settings = latent(folders / "plain")
    fit = settings.open_fit(data, CPU)
    vae, before = deepcopy(fit.network.vae.network.state_dict()), weights(fit)
    assert fit.network.latent_shape == (4, 8, 8)
    assert fit.network.encode(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 8, 8)
    assert [group["lr"] for group in fit.learner.optimizer.param_groups][1] == 0.75 * settings.fit.learning_rate
    losses = [fit.step(step) for step in range(2)]
    assert np.isfinite(losses).all()
    assert equal(vae, fit.network.vae.network.state_dict())
    after = weights(fit)
    parts = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert parts == {"unet", "text_encoder"}
    fit.save(str(tmp_path / "generator.safetensors"))
    _, tensors = read_checkpoint(str(tmp_path / "generator.safetensors"))
    assert set(tensors) == set(before)  # no VAE, no head
    generator = settings.build(data.images, CLASSES, str(tmp_path / "generator.safetensors"))
    assert equal(generator.network.vae.network.state_dict(), vae)
    drawing, average = generator.network.denoiser.state_dict(), fit.learner.average.state_dict()
    assert equal(drawing, {name: tensor.to(drawing[name].dtype) for name, tensor in average.items()})
    together = generator.generate(LINEAGES[:3])
    alone = [generator.generate([one])[0] for one in LINEAGES[:3]]
    for one, other in zip(together, alone, strict=True):
        assert one.pixels.shape == (40, 60, 3)
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1
    assert np.abs(together[0].pixels.astype(int) - together[2].pixels).max() > 10


def test_little_strength_starts_from_the_real_image_s_latents(folders, data, tmp_path):
    settings = latent(folders / "plain", strength=0.3)
    uri = fitted_at(settings, data, tmp_path / "generator.safetensors")
    generator = settings.build(data.images, CLASSES, uri)
    (order,) = orders(generator, [lineage(0)])
    assert order.start.shape == (3, 32, 32)
    (one,) = generator.generate([lineage(0)])
    (other,) = settings.build([replace(data.images[0], uri=data.images[1].uri)], CLASSES, uri).generate([lineage(0)])
    assert (one.pixels != other.pixels).any()


def test_a_checkpoint_with_pickled_weights_or_code_is_refused(folders, data, tmp_path):
    from diffusers import StableDiffusionPipeline

    pickled, coded = tmp_path / "pickled", tmp_path / "coded"
    StableDiffusionPipeline.from_pretrained(folders / "plain").save_pretrained(pickled, safe_serialization=False)
    with pytest.raises(FileNotFoundError, match="safetensors"):
        latent(pickled).open_fit(data, CPU)
    shutil.copytree(folders / "plain", coded)
    index = json.loads((coded / "model_index.json").read_text()) | {"unet": ["own", "Own"]}
    (coded / "model_index.json").write_text(json.dumps(index))
    (coded / "unet/own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="custom code"):
        latent(coded).open_fit(data, CPU)
    assert not (tmp_path / "ran").exists()


def test_what_is_no_such_checkpoint_is_refused(folders, data, tmp_path):
    with pytest.raises(ValueError, match="is no text-to-image model: its U-Net takes 9 channels, latents have 4"):
        latent(folders / "inpaint").open_fit(data, CPU)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        latent(tmp_path / "nowhere").open_fit(data, CPU)
    with pytest.raises(FileNotFoundError, match="no model_index"):
        latent(tmp_path).open_fit(data, CPU)
    (need,) = latent(folders / "plain").needs()
    assert (need.place, need.is_release) == (str(folders / "plain"), False)
    assert CONFIG.needs() == ()


# --- low-rank additions


def low_rank(folders, steps=2, **lora):
    """The settings of a fit of low-rank additions to the tiny folder."""
    settings = latent(folders / "plain", fit={"steps": steps, "batch_size": 2})
    network = settings.network.model_copy(update={"lora": LowRankConfig(**({"rank": 2} | lora))})
    return settings.model_copy(update={"network": network})


def states_and_prediction(fit):
    """What the network makes of an example, in float32."""
    network, (one,) = fit.network, fit.examples.batch(0, [0])
    noisy = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 4, 8, 8), np.float32))
    with torch.no_grad():
        states = network.denoiser.read(network.tokens([one.prompt.text]))
        return states, network.denoiser(noisy, torch.tensor([500]), states)


def frozen(denoiser):
    """What stays as it is, by its name without low-rank additions."""
    wrapped = (".base_layer", ".token_adapter")
    found = dict(denoiser.named_buffers())
    for part in wrapped:
        found = {name.replace(part, ""): tensor for name, tensor in found.items()}
    return found


def test_only_low_rank_additions_and_the_prompts_tokens_learn_lora_sec_4_1(folders, data):
    whole, fit = latent(folders / "plain").open_fit(data, CPU), low_rank(folders, steps=3).open_fit(data, CPU)
    for one, other in zip(states_and_prediction(whole), states_and_prediction(fit), strict=True):
        assert torch.allclose(one, other, atol=1e-6)  # additions begin as nothing
    base, before = weights(whole), weights(fit)
    assert sum(map(torch.numel, before.values())) < sum(map(torch.numel, base.values())) / 10
    for step in range(3):
        fit.step(step)
    after, still = weights(fit), frozen(fit.network.denoiser)
    assert all(torch.equal(base[name], still[name]) for name in base)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert {name.split(".")[-3] for name in before if "lora" in name} == {"lora_A", "lora_B"}
    (tokens,) = (tensor for name, tensor in after.items() if "token" in name)
    assert tokens.shape == (8 * 8 + 2, 16)  # the grid's, [easy] and [hard]
    assert {name.split(".")[0] for name in before} == {"unet", "text_encoder"}
    assert dict(fit.learner.average.named_parameters()).keys() == before.keys()
    shared = frozen(fit.learner.average)
    assert all(shared[name] is tensor for name, tensor in still.items())


def test_a_batch_can_be_learned_by_low_rank_additions(folders, data):
    fit = low_rank(folders, steps=20).open_fit(data, CPU)
    losses = [fit.learner.update([lambda: fit._loss(0, range(4))]) for _ in range(20)]
    assert losses[-1] < 0.97 * losses[0]  # the head alone could not bring as much


def test_low_rank_additions_are_saved_loaded_and_drawn_with(folders, data, tmp_path, monkeypatch):
    """In float32, equal to within one grey level: the generator's are merged into the weights."""
    monkeypatch.setattr(precision, "native_dtypes", lambda _: [torch.float32])
    settings, place = low_rank(folders, steps=3, alpha=64.0), str(tmp_path / "generator.safetensors")
    fit = settings.open_fit(data, CPU)
    for step in range(3):
        fit.step(step)
    fit.save(place)
    assert equal(read_checkpoint(place)[1], fit.learner.average.state_dict())
    image = data.images[0]
    (preview,) = (one for one in fit.preview() if one.real.tobytes() == read(image.uri).tobytes())
    told = settings.model_copy(update={"strategy": "hard", "arrangement": ArrangementConfig(flip=False)})
    one = lineage(derive_seed(data.seed, "preview", image.id), image.id, ())
    (drawn,) = told.build(data.images, CLASSES, place).generate([one])
    assert np.abs(drawn.pixels.astype(int) - preview.drawn["hard"]).max() <= 1
    fresh = settings.open_fit(data, CPU)
    fresh.save(str(tmp_path / "fresh.safetensors"))
    (other,) = told.build(data.images, CLASSES, str(tmp_path / "fresh.safetensors")).generate([one])
    assert np.abs(drawn.pixels.astype(int) - other.pixels).max() > 1
    fresh.warm_start(place)
    assert equal(weights(fresh), read_checkpoint(place)[1])
    assert equal(fresh.learner.average.state_dict(), read_checkpoint(place)[1])


def test_additions_of_another_rank_or_none_are_refused(folders, data, tmp_path):
    place = fitted_at(low_rank(folders, steps=1), data, tmp_path / "generator.safetensors")
    for other in (low_rank(folders, rank=3), low_rank(folders, alpha=1.0), latent(folders / "plain")):
        with pytest.raises(ValueError, match=r"with LoRA of rank 2 and alpha 16, .* is asked for"):
            other.open_fit(data, CPU).warm_start(place)


def test_an_interrupted_fit_of_low_rank_additions_goes_on_to_the_same_bytes(folders, data, tmp_path):
    settings = low_rank(folders)
    whole = Path(fitted_at(settings, data, tmp_path / "whole.safetensors")).read_bytes()
    first, second = (settings.open_fit(data, CPU) for _ in range(2))
    first.step(0)
    torch.save(first.state(), tmp_path / "state.pt")
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    second.step(1)
    second.save(str(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == whole
