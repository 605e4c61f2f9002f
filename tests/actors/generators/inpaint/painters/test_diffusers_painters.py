"""Painters over pretrained pipelines: tiny random ones, saved by the tests and loaded as the real ones are."""

import hashlib
import json
import logging
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_pipelines import CLASSES, SIZE_PX, open_gates, tiny_networks, tiny_text, window

from actors.generators.inpaint.component import InpaintConfig
from actors.generators.inpaint.generator import Inpaint
from actors.generators.inpaint.painters.diffusers_inpaint import DiffusersConfig, DiffusersPainter
from actors.generators.inpaint.painters.gligen import GligenConfig, GligenPainter
from actors.generators.inpaint.painters.pipelines import load_pipeline
from actors.precision import native_dtypes
from actors.records import Annotation, Difficulty, LabeledImage, Lineage

pytestmark = pytest.mark.slow

torch.set_num_threads(1)

PAINTERS = {"diffusers": (DiffusersConfig, DiffusersPainter), "gligen": (GligenConfig, GligenPainter)}
both_kinds = pytest.mark.parametrize("kind", PAINTERS)

ONE_LEVEL = 1 / 255  # float32 sums of another batch size round differently; a pixel may change by one level


def tiny_safety_checker(*, flags):
    """One that flags every picture, or none: similarity to a concept is held against its weight."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    checker.concept_embeds_weights.data.fill_(-2.0 if flags else 2.0)
    checker.special_care_embeds_weights.data.fill_(2.0)
    size = {"height": 16, "width": 16}
    return {"safety_checker": checker, "feature_extractor": CLIPImageProcessor(size=size, crop_size=size)}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """A folder with an inpainting, a text-to-image, a GLIGEN pipeline and one whose safety checker flags everything."""
    from diffusers import StableDiffusionGLIGENPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("checkpoints")
    text = tiny_text(root / "text")
    unsafe, safe = ({"safety_checker": None, "feature_extractor": None}, tiny_safety_checker(flags=True))
    plain, filling = tiny_networks(in_channels=4), tiny_networks(in_channels=9)
    grounded = tiny_networks(in_channels=9, attention_type="gated")
    open_gates(grounded["unet"])
    made = {
        "diffusers": StableDiffusionInpaintPipeline(**text, **filling, **unsafe, requires_safety_checker=False),
        "text": StableDiffusionPipeline(**text, **plain, **unsafe, requires_safety_checker=False),
        "gligen": StableDiffusionGLIGENPipeline(**text, **grounded, **unsafe, requires_safety_checker=False),
        "diffusers_checked": StableDiffusionInpaintPipeline(**text, **filling, **safe),
        "gligen_checked": StableDiffusionGLIGENPipeline(**text, **grounded, **safe),
    }
    for name, pipeline in made.items():
        pipeline.save_pretrained(root / name)
    return root


@pytest.fixture(scope="session")
def build(checkpoints):
    """Painters of a kind, in float32 and four steps unless told otherwise."""

    def make(kind, model=None, **settings):
        config, painter = PAINTERS[kind]
        usual = {"model": str(checkpoints / (model or kind)), "size_px": SIZE_PX, "steps": 4, "dtype": "float32"}
        return painter(config(**(usual | settings)), CLASSES)

    return make


@pytest.fixture(scope="session")
def painters(build):
    """One painter of each kind with the usual settings; tests leave them as they are."""
    return {kind: build(kind, batch_size=8) for kind in PAINTERS}


WINDOWS = [window(seed, label=seed % 2, box=(8 * (seed % 4), 8, 8 * (seed % 4) + 24, 40)) for seed in range(8)]


def distance(first, second):
    """The largest difference of two lists of pictures, as a share of the range."""
    return np.abs(np.stack(first).astype(int) - np.stack(second).astype(int)).max() / 255


# --- pictures and seeds


@both_kinds
def test_the_same_seed_gives_the_same_picture_at_batch_1_and_8(kind, painters):
    together = painters[kind].paint(WINDOWS)
    alone = [painters[kind].paint([one])[0] for one in WINDOWS]
    assert [picture.shape for picture in together] == [(SIZE_PX, SIZE_PX, 3)] * 8
    assert {picture.dtype for picture in together} == {np.dtype(np.uint8)}
    assert distance(together, alone) <= ONE_LEVEL
    assert min(distance([together[0]], [other]) for other in together[1:]) > 10 * ONE_LEVEL


@both_kinds
def test_the_order_of_a_batch_does_not_matter(kind, painters):
    assert distance(painters[kind].paint(WINDOWS[::-1])[::-1], painters[kind].paint(WINDOWS)) <= ONE_LEVEL


@both_kinds
def test_nothing_comes_from_the_global_generator(kind, painters):
    torch.manual_seed(1)
    first = painters[kind].paint(WINDOWS[:2])
    state = torch.get_rng_state()
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, painters[kind].paint(WINDOWS[:2]))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())  # painting left it alone


@both_kinds
def test_schedulers_that_draw_noise_draw_it_from_the_seed(kind, build):
    painter = build(kind, scheduler="EulerAncestralDiscreteScheduler", batch_size=8)
    assert distance(painter.paint(WINDOWS), [painter.paint([one])[0] for one in WINDOWS]) <= ONE_LEVEL


@both_kinds
def test_no_windows_no_pictures(kind, painters):
    assert painters[kind].paint([]) == []


# --- the frozen network (Gen2Det, Fig. 2)


@both_kinds
def test_painting_changes_no_parameter(kind, painters, checkpoints):
    painter = painters[kind]
    before = digest(painter.pipeline)
    painter.paint(WINDOWS[:2])
    assert digest(painter.pipeline) == before
    assert not [
        weight for module in modules(painter.pipeline) for weight in module.parameters() if weight.requires_grad
    ]
    assert not any(module.training for module in modules(painter.pipeline))
    loaded = type(painter.pipeline).from_pretrained(checkpoints / kind)
    assert digest(loaded) == before


@both_kinds
def test_inpainting_with_it_leaves_what_lies_outside_the_box(kind, checkpoints, tmp_path):
    model = {"kind": kind, "model": str(checkpoints / kind), "size_px": SIZE_PX, "steps": 2, "dtype": "float32"}
    config = InpaintConfig(painter=model)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    annotation = Annotation(
        boxes=np.array([[20, 30, 60, 70]], np.float32), labels=np.array([1]), ignore=np.zeros(1, np.bool_)
    )
    image = LabeledImage(id="a", uri=str(tmp_path / "a.png"), width=120, height=90, annotation=annotation)
    inpaint = Inpaint(config, [image], config.painter.build(CLASSES, None))
    lineage = Lineage(round=0, image_id="a", box_indices=(0,), generator="inpaint", seed=3)
    (candidate,) = inpaint.generate([lineage])
    changed = (candidate.pixels != pixels).any(axis=2)
    assert changed[35:65, 25:55].mean() > 0.9
    assert not changed[candidate.painted < 0].any()
    assert not candidate.refused


def modules(pipeline):
    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def digest(pipeline):
    found = hashlib.sha256()
    for name, weight in sorted(
        (f"{module._get_name()}.{key}", w) for module in modules(pipeline) for key, w in module.state_dict().items()
    ):
        found.update(name.encode() + weight.contiguous().numpy().tobytes())
    return found.hexdigest()


# --- memory and refusals


def test_a_batch_that_does_not_fit_is_halved_for_good(build, monkeypatch, caplog):
    painter = build("diffusers", batch_size=8)
    sizes, call = [], type(painter.pipeline).__call__

    def small(self, prompt, **options):
        sizes.append(len(prompt))
        if len(prompt) > 2:
            raise torch.cuda.OutOfMemoryError
        return call(self, prompt, **options)

    monkeypatch.setattr(type(painter.pipeline), "__call__", small)
    with caplog.at_level(logging.WARNING):
        painted = painter.paint(WINDOWS[:6])
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]  # 3 is halved to 1
    assert painter.batch_size == 1
    assert [record.args for record in caplog.records] == [(6, 3), (3, 1)]
    monkeypatch.undo()
    assert distance(painted, painter.paint(WINDOWS[:6])) == 0


@both_kinds
def test_one_window_that_does_not_fit_is_an_error(kind, build, monkeypatch):
    painter = build(kind, batch_size=2)

    def full(windows):
        raise torch.cuda.OutOfMemoryError(f"{len(windows)}")

    monkeypatch.setattr(painter, "_draw", full)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="1"):
        painter.paint(WINDOWS[:2])


@both_kinds
def test_what_the_safety_checker_flags_is_refused(kind, build):
    assert build(kind, f"{kind}_checked").paint(WINDOWS[:2]) == [None, None]


@both_kinds
def test_black_pictures_are_refused(kind, build, monkeypatch):
    painter = build(kind)
    pictures = np.zeros((2, SIZE_PX, SIZE_PX, 3), np.float32)
    pictures[1, 3, 4] = 0.5
    monkeypatch.setattr(painter, "_draw", lambda windows: (pictures[: len(windows)], None))
    black, other = painter.paint(WINDOWS[:2])
    assert black is None
    assert other[3, 4].tolist() == [128] * 3


@both_kinds
def test_an_overflow_is_no_safety_checkers_picture(kind, build, monkeypatch):
    painter = build(kind)
    pictures = np.full((1, SIZE_PX, SIZE_PX, 3), np.nan, np.float32)
    monkeypatch.setattr(painter, "_draw", lambda _: (pictures, None))
    with pytest.raises(ValueError, match=r"overflow .* set painter.dtype: float32"):
        painter.paint(WINDOWS[:1])


# --- what is asked for


@both_kinds
def test_each_class_has_its_prompt(kind, build):
    painter = build(kind, prompt="{difficulty} {name}", prompts={"platelet": "a small {name}"})
    asked = [window(0), window(0, difficulty=Difficulty.EASY), window(0, label=1)]
    assert [painter.caption(one) for one in asked] == ["hard red cell", "easy red cell", "a small platelet"]


@both_kinds
@pytest.mark.parametrize(
    "settings",
    [
        {"prompt": "something else"},
        {"negative_prompt": "blurred"},
        {"guidance": 3.0},
        {"steps": 3},
        {"scheduler": "UniPCMultistepScheduler"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_setting_changes_the_picture(kind, settings, painters, build):
    assert distance(build(kind, **settings).paint(WINDOWS[:1]), painters[kind].paint(WINDOWS[:1])) > ONE_LEVEL


def test_the_settings_reach_the_call(build, monkeypatch):
    settings = {"negative_prompt": "blurred", "guidance": 3.0, "strength": 0.5, "steps": 4}
    painter = build("diffusers", **settings)
    seen, call = {}, type(painter.pipeline).__call__
    monkeypatch.setattr(
        type(painter.pipeline), "__call__", lambda self, **options: seen.update(options) or call(self, **options)
    )
    painter.paint(WINDOWS[:2])
    assert seen["prompt"] == ["a photo of a red cell", "a photo of a platelet"]
    assert seen["negative_prompt"] == ["blurred"] * 2
    assert (seen["guidance_scale"], seen["strength"], seen["num_inference_steps"]) == (3.0, 0.5, 4)
    assert [generator.initial_seed() for generator in seen["generator"]] == [0, 1]
    assert {generator.device.type for generator in seen["generator"]} == {"cpu"}
    assert (np.asarray(seen["mask_image"][0]) == 255 * WINDOWS[0].mask).all()


@both_kinds
@pytest.mark.parametrize("name", ["LCMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"])
def test_a_scheduler_by_name_keeps_the_checkpoints_noise_schedule(kind, name, build):
    painter = build(kind, scheduler=name)
    assert type(painter.pipeline.scheduler).__name__ == name
    assert painter.pipeline.scheduler.config.beta_end == 0.012
    assert painter.paint(WINDOWS[:1])[0].std() > 1


@pytest.mark.parametrize("name", ["NoScheduler", "FlowMatchEulerDiscreteScheduler", "DPMSolverSDEScheduler"])
def test_a_scheduler_that_does_not_fit(name, build):
    with pytest.raises(ValueError, match=rf"'{name}' does not fit.*DDIMScheduler.*LCMScheduler"):
        build("diffusers", scheduler=name)


@both_kinds
@pytest.mark.parametrize("dtype", ["bfloat16", "auto"])
def test_precision(kind, dtype, build):
    painter = build(kind, dtype=dtype)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    expected = native_dtypes(device)[0] if dtype == "auto" else torch.bfloat16
    assert {weight.dtype for module in modules(painter.pipeline) for weight in module.parameters()} == {expected}
    picture = painter.paint(WINDOWS[:1])[0]
    assert picture.std() > 1


def test_layout_compilation_and_offload_reach_the_networks(build, monkeypatch):
    compiled, offloaded = [], []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    painter = build("diffusers", compile=True, channels_last=True)
    assert compiled == ["UNet2DConditionModel"]
    assert painter.pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert painter.pipeline.vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for offload in ("model", "sequential"):
        noting = partial(offloaded.append, offload)
        monkeypatch.setattr(type(painter.pipeline), f"enable_{offload}_cpu_offload", staticmethod(noting))
        build("diffusers", cpu_offload=offload)
    assert offloaded == ["model", "sequential"]


# --- LoRA


def save_lora(file, layers, alpha=None):
    from safetensors.torch import save_file

    torch.manual_seed(3)
    weights = {}
    for layer, (rows, columns) in layers.items():
        weights[f"{layer}.lora_A.weight"] = torch.randn(2, columns)
        weights[f"{layer}.lora_B.weight"] = torch.randn(rows, 2)
    save_file(weights, file, alpha and {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": alpha, "unet.r": 2})})
    return weights


TO_Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
Q_PROJ = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"


@both_kinds
@pytest.mark.parametrize("alpha", [None, 1])
def test_lora_is_added_to_the_weights(kind, alpha, build, painters, tmp_path):
    halves = save_lora(tmp_path / "lora.safetensors", {TO_Q: (16, 16), Q_PROJ: (16, 16)}, alpha)
    painter = build(kind, lora={"path": str(tmp_path / "lora.safetensors"), "scale": 0.5})
    plain = painters[kind].pipeline
    for layer in (TO_Q, Q_PROJ):
        network, _, place = layer.replace(".text_model", "").partition(".")  # transformers 5 has no such level
        before, after = (
            getattr(pipeline, network).get_submodule(place).weight for pipeline in (plain, painter.pipeline)
        )
        scale = 0.25 if alpha and network == "unet" else 0.5  # alpha 1 over rank 2 halves it
        change = scale * halves[f"{layer}.lora_B.weight"] @ halves[f"{layer}.lora_A.weight"]
        torch.testing.assert_close(after, before + change)
    assert distance(painter.paint(WINDOWS[:1]), painters[kind].paint(WINDOWS[:1])) > ONE_LEVEL


def test_lora_of_another_model(build, tmp_path):
    save_lora(tmp_path / "lora.safetensors", {TO_Q: (32, 16)})
    with pytest.raises(ValueError, match=r"to_q has shape \[16, 16\], its update \[32, 16\]"):
        build("diffusers", lora={"path": str(tmp_path / "lora.safetensors")})
    save_lora(tmp_path / "lora.safetensors", {"unet.no_such_layer": (16, 16)})
    with pytest.raises(ValueError, match=r"no layer unet\.no_such_layer"):
        build("diffusers", lora={"path": str(tmp_path / "lora.safetensors")})


def test_lora_that_is_not_there(build, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"LoRA .*cannot be read"):
        build("diffusers", lora={"path": str(tmp_path), "weight_name": "lora.safetensors"})


# --- GLIGEN


def test_gligen_paints_what_the_pipelines_own_call_paints(painters, monkeypatch):
    """On the same noise and one window, whose box ends at latent cells; the call takes no more."""
    from diffusers.utils.torch_utils import randn_tensor

    painter, one = painters["gligen"], window(7)
    ours = painter.paint([one])
    noise = [torch.Generator().manual_seed(one.seed)]

    def from_seed(like):
        return randn_tensor(like.shape, generator=noise, dtype=like.dtype)

    monkeypatch.setattr(torch, "randn_like", from_seed)
    encode = type(painter.pipeline.vae).encode

    class Seeded:
        def __init__(self, encoded):
            self.latent_dist = self
            self.sample = lambda: encoded.latent_dist.sample(noise)

    monkeypatch.setattr(type(painter.pipeline.vae), "encode", lambda self, pixels: Seeded(encode(self, pixels)))
    theirs = painter.pipeline(
        prompt=painter.caption(one),
        gligen_phrases=["red cell"],
        gligen_boxes=[(one.box / SIZE_PX).tolist()],
        gligen_inpaint_image=Image.fromarray(one.pixels),
        gligen_scheduled_sampling_beta=1.0,
        negative_prompt="",
        num_inference_steps=4,
        output_type="np",
    ).images
    inside = np.s_[24:56, 16:48]
    assert distance([ours[0][inside]], [(theirs[0][inside] * 255).round()]) <= ONE_LEVEL


@pytest.mark.parametrize("changed", ["phrase", "box"])
def test_box_and_phrase_speak_in_the_grounded_steps(changed, build):
    """GLIGEN, arXiv 2301.07093, Eq. 8 and 10: through gated layers, which scheduled sampling turns off."""
    grounded, never = (build("gligen", grounded_frac=frac, prompt="the same") for frac in (1.0, 0.0))
    one = window(0)
    other = replace(one, label=1) if changed == "phrase" else replace(one, box=np.array([0, 0, 20, 20], np.float32))
    assert distance(grounded.paint([one]), grounded.paint([other])) > ONE_LEVEL
    assert distance(never.paint([one]), never.paint([other])) == 0


def test_a_checkpoint_that_is_not_gligens_inpainting(build):
    with pytest.raises(ValueError, match=r"no GLIGEN model for inpainting.*'default'"):
        build("gligen", "diffusers")


# --- what cannot be had


def test_a_pipeline_of_another_build():
    staged = SimpleNamespace(scheduler=None)
    with pytest.raises(ValueError, match="'x' is a SimpleNamespace; give a latent diffusion model of one stage"):
        load_pipeline(lambda *_, **__: staged, DiffusersConfig(model="x"))


def test_a_text_to_image_checkpoint_inpaints_with_its_own_networks(build):
    painter = build("diffusers", "text", strength=0.75)
    assert type(painter.pipeline).__name__ == "StableDiffusionInpaintPipeline"
    assert painter.paint(WINDOWS[:1])[0].std() > 1


@both_kinds
def test_missing_weights(kind, build, checkpoints, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nothing: no such folder; give one written by save_pretrained"):
        build(kind, model=str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match=r"no model_index\.json; give a folder written by save_pretrained"):
        build(kind, model=str(checkpoints / "text" / "unet"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config, painter = PAINTERS[kind]
    elsewhere = config(model="nobody/nothing", revision="v1")
    with pytest.raises(FileNotFoundError, match=r"'nobody/nothing' \(revision v1.*hub id which this machine can reach"):
        painter(elsewhere, CLASSES)


@both_kinds
def test_pickled_tensors_are_read_as_safetensors_are(kind, checkpoints, painters, build, tmp_path):
    folder = shutil.copytree(checkpoints / kind, tmp_path / "pickled")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    assert distance(build(kind, model=str(folder)).paint(WINDOWS[:1]), painters[kind].paint(WINDOWS[:1])) <= ONE_LEVEL


class RunsCode:
    """What it is unpickled as deletes a file."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return Path.unlink, (self.victim,)


@both_kinds
def test_pickled_code_is_not_run(kind, checkpoints, build, tmp_path):
    folder, victim = shutil.copytree(checkpoints / kind, tmp_path / "pickled"), tmp_path / "victim"
    victim.touch()
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(RunsCode(victim), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="cannot be loaded"):
        build(kind, model=str(folder))
    assert victim.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": {"dog": "a {name}"}}, r"prompts for \['dog'\]: no such class; known: \['red_cell', 'platelet'\]"),
        ({"prompt": "a {colour} {name}"}, "has unknown fields .'colour'.; known: {name} and {difficulty}"),
        ({"prompts": {"platelet": "a {0}"}}, "has unknown fields .'0'.; known: {name}"),
        ({"size_px": 65}, "multiple of 8"),
        ({"dtype": "float8"}, "'auto', 'float32', 'bfloat16' or 'float16'"),
    ],
)
def test_a_setting_that_cannot_be(settings, message, build):
    with pytest.raises(ValueError, match=message):
        build("diffusers", **settings)
