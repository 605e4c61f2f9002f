"""Compare the speed of painters with the same networks run on one image at a time. Run by speed.py.

The crop painter's network has its default size. The pipelines are the tiny random ones of the tests, so their figures
show the overhead of a call, not the speed of a foundation model.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from turns import headline, in_turns, ratio_to_best

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_pipelines import CLASSES, SIZE_PX, open_gates, tiny_networks, tiny_text, window

from actors.generators.diffusion.learner import noise_scheduler, sampling_timesteps
from actors.generators.inpaint.painters.base import Window
from actors.generators.inpaint.painters.crop.component import CropConfig
from actors.generators.inpaint.painters.crop.painter import CropPainter, build_network, condition_index, device
from actors.generators.inpaint.painters.crop.space import Space, known_input
from actors.generators.inpaint.painters.diffusers_inpaint import DiffusersConfig, DiffusersPainter
from actors.generators.inpaint.painters.gligen import GligenConfig, GligenPainter
from actors.images import Pixels, scaled
from actors.precision import native_dtypes
from actors.records import Difficulty

NUM_WINDOWS = {"crop": 64, "diffusers": 16, "gligen": 16}
STEPS = 10  # of the pipelines
CAPTION = "a photo of a {}"

Painted = list[Pixels | None]
Calls = dict[str, Callable[[], Painted]]


def measure_sampling() -> dict[str, Any]:
    """Ours: ``paint`` on all windows, at its default precision and batch size. Plain: one window at a time.

    Plain runs in float32 and at our precision; ``sampling_ratio`` is the crop painter's ratio to the faster one.
    """
    crop = crop_calls()
    with tempfile.TemporaryDirectory() as folder:
        calls = {"crop": crop, **pipeline_calls(Path(folder))}
        cases = {name: in_turns(NUM_WINDOWS[name], these) for name, these in calls.items()}
    found: dict[str, Any] = {name: {**case, **ratio_to_best(case)} for name, case in cases.items()}
    found["crop"]["grey_levels_apart"] = grey_levels_apart(crop)
    return {"sampling_ratio": headline(found["crop"]), "sampling": found}


def grey_levels_apart(calls: Calls) -> int:
    """Largest pixel difference of ours to any other call: all should give the same images."""
    pictures = {name: np.stack([np.asarray(picture, np.int16) for picture in call()]) for name, call in calls.items()}
    return max(int(np.abs(others - pictures["ours"]).max()) for others in pictures.values())


def dtypes() -> dict[str, torch.dtype]:
    """float32 and the fastest dtype of this machine, by name."""
    native = native_dtypes(torch.device("cuda" if torch.cuda.is_available() else "cpu"))[0]
    return {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, native)}


def crop_calls() -> Calls:
    """The crop painter's default network with random weights, batched and one window at a time."""
    config, windows = CropConfig(), [crop_window(seed) for seed in range(NUM_WINDOWS["crop"])]
    networks, space = [], Space(config, device())
    for _ in range(2):  # the painter changes the memory layout of its network
        torch.manual_seed(0)
        networks.append(build_network(config, num_classes=6, shape=space.shape))
    painter = CropPainter(config, networks[0], space)
    plain = Plain(config, networks[1].eval().to(painter.device))
    return {"ours": lambda: painter.paint(windows)} | {
        f"plain_{name}": partial(plain.paint, windows, dtype) for name, dtype in dtypes().items()
    }


def crop_window(seed: int) -> Window:
    """A window of noise with a square hole."""
    size_px = CropConfig().size_px
    mask = np.zeros((size_px, size_px), np.bool_)
    mask[12:36, 12:36] = True
    return Window(
        pixels=np.random.default_rng(seed).integers(0, 256, (size_px, size_px, 3), np.uint8),
        mask=mask,
        box=np.array([14, 14, 34, 34], np.float32),
        label=seed % 6,
        difficulty=Difficulty.HARD,
        seed=seed,
    )


class Plain:
    """Painter in the style of diffusers' guides: a loop over the network and the scheduler's step."""

    def __init__(self, config: CropConfig, network: Any) -> None:
        from diffusers import DPMSolverMultistepScheduler

        self.network, self.device = network, next(network.parameters()).device
        self.forward = noise_scheduler()
        settings = {**self.forward.config, "final_sigmas_type": "zero"}
        self.scheduler: Any = DPMSolverMultistepScheduler.from_config(settings)
        self.timesteps = sampling_timesteps(config.strength, config.sampling_steps)

    def paint(self, windows: list[Window], dtype: torch.dtype) -> Painted:
        """Paint the windows one by one."""
        with torch.inference_mode(), torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            return [self.paint_one(one) for one in windows]

    def paint_one(self, one: Window) -> Pixels:
        """Paint one window with the noise of its seed."""
        noise = np.random.default_rng(one.seed).standard_normal((3, *one.mask.shape), np.float32)
        arrays = known_input(one.pixels, one.mask, one.box), scaled(one.pixels), noise
        known, example, grain = (torch.from_numpy(array)[None].to(self.device) for array in arrays)
        condition = torch.tensor([condition_index(one.label, one.difficulty)], device=self.device)
        self.scheduler.set_timesteps(timesteps=self.timesteps)
        image = self.forward.add_noise(example, grain, self.scheduler.timesteps[:1])
        for timestep in self.scheduler.timesteps:
            velocity = self.network(torch.cat([image, known], dim=1), timestep, condition).sample.float()
            image = self.scheduler.step(velocity, timestep, image).prev_sample
        pixels = ((image[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        picture: Pixels = pixels.permute(1, 2, 0).cpu().numpy()
        return picture


def pipeline_calls(folder: Path) -> dict[str, Calls]:
    """Painters on saved pipelines, and the pipelines' own calls, one window at a time."""
    from diffusers import StableDiffusionGLIGENPipeline, StableDiffusionInpaintPipeline

    torch.manual_seed(0)
    text = tiny_text(folder / "text")
    filling, grounded = tiny_networks(in_channels=9), tiny_networks(in_channels=9, attention_type="gated")
    open_gates(grounded["unet"])
    unsafe = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    StableDiffusionInpaintPipeline(**text, **filling, **unsafe).save_pretrained(folder / "diffusers")
    StableDiffusionGLIGENPipeline(**text, **grounded, **unsafe).save_pretrained(folder / "gligen")
    made: dict[str, tuple[Any, Any, Callable[[Any, Window], Pixels]]] = {
        "diffusers": (DiffusersConfig, DiffusersPainter, inpaint_one),
        "gligen": (GligenConfig, GligenPainter, ground_one),
    }
    return {name: calls_of(folder / name, *parts) for name, parts in made.items()}


def calls_of(model: Path, config: Any, painter_kind: Any, one: Callable[[Any, Window], Pixels]) -> Calls:
    """Both ways to paint with the pipeline saved in ``model``."""
    windows = [spread(seed) for seed in range(NUM_WINDOWS[model.name])]
    painter = painter_kind(
        config(
            model=str(model), size_px=SIZE_PX, steps=STEPS, batch_size=len(windows), prompt=CAPTION.format("{name}")
        ),
        CLASSES,
    )
    from diffusers import DiffusionPipeline

    def plain(dtype: torch.dtype) -> Callable[[], Painted]:
        pipeline: Any = DiffusionPipeline.from_pretrained(model, dtype=dtype, use_safetensors=True)
        pipeline.to(painter.pipeline.device)
        pipeline.set_progress_bar_config(disable=True)
        return lambda: [one(pipeline, window) for window in windows]

    return {"ours": lambda: painter.paint(windows)} | {
        f"plain_{name}": plain(dtype) for name, dtype in dtypes().items()
    }


def spread(seed: int) -> Window:
    """A window whose box depends on the seed, so that windows differ."""
    left = 8 * (seed % 4)
    return window(seed, label=seed % len(CLASSES), box=(left, 8, left + 24, 40))


def inpaint_one(pipeline: Any, one: Window) -> Pixels:
    """Call the pipeline on one window."""
    picture: Pixels = pipeline(
        prompt=CAPTION.format(CLASSES[one.label].replace("_", " ")),
        image=Image.fromarray(one.pixels),
        mask_image=Image.fromarray(one.mask).convert("L"),
        generator=torch.Generator("cpu").manual_seed(one.seed),
        height=SIZE_PX,
        width=SIZE_PX,
        num_inference_steps=STEPS,
        output_type="np",
    ).images[0]
    return (picture * 255).round().astype(np.uint8)


def ground_one(pipeline: Any, one: Window) -> Pixels:
    """Call the pipeline on one window, grounded by its box and phrase in all steps."""
    name = CLASSES[one.label].replace("_", " ")
    picture: Pixels = pipeline(
        prompt=CAPTION.format(name),
        gligen_phrases=[name],
        gligen_boxes=[(one.box / SIZE_PX).tolist()],
        gligen_inpaint_image=Image.fromarray(one.pixels),
        gligen_scheduled_sampling_beta=1.0,
        generator=torch.Generator("cpu").manual_seed(one.seed),
        height=SIZE_PX,
        width=SIZE_PX,
        num_inference_steps=STEPS,
        output_type="np",
    ).images[0]
    return (picture * 255).round().astype(np.uint8)
