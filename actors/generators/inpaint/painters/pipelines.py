"""The base of painters with a pretrained diffusers pipeline: frozen loading, prompts, batches, refusals."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from string import Formatter
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from actors.config import Need
from actors.generators.diffusion.weights import Pipeline, is_hub_id, load_weights
from actors.generators.inpaint.painters.base import PainterBase, Window
from actors.generators.inpaint.painters.lora import LoraConfig, fuse_lora
from actors.images import Pixels
from actors.precision import native_dtypes
from actors.records import Attributes

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Pictures = NDArray[np.float32]  # [n, S, S, 3] in [0, 1]
Flags = Sequence[bool] | None  # pictures flagged by a safety checker; None without one

FEW_STEPS = ("LCMScheduler", "TCDScheduler")  # fit any checkpoint with a beta schedule; diffusers does not list them
UNSEEDED = ("DPMSolverSDEScheduler",)  # draws noise of its own, so that a seed would not determine the picture


class PipelineConfig(PainterBase):
    """A pretrained pipeline: loading, prompts and sampling."""

    model: str
    """Hub id, or a local folder written by ``save_pretrained``. Without safetensors, its pickled tensors are read by
    torch's restricted unpickler, which runs no code."""
    revision: str | None = None
    """Branch, tag or commit on the hub; a commit makes a run repeatable."""
    variant: str | None = None
    """Weight files of this variant, e.g. fp16."""
    prompt: str = "a photo of a {name}"
    """The prompt. {name} is the class name, {difficulty} the requested difficulty: easy or hard."""
    prompts: dict[str, str] = Field(default_factory=dict)
    """Prompts of single classes, by class name, in place of ``prompt``."""
    negative_prompt: str = ""
    """Negative prompt; needs guidance above 1."""
    steps: int = Field(30, ge=1)
    """Denoising steps."""
    scheduler: str | None = None
    """Scheduler class of diffusers in place of the checkpoint's own, e.g. UniPCMultistepScheduler, LCMScheduler."""
    lora: LoraConfig | None = None
    """Low-rank weights added to the checkpoint's."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: the fastest format of the hardware: bfloat16, float16 on older GPUs, float32 on older CPUs."""
    cpu_offload: Literal["none", "model", "sequential"] = "none"
    """Keep only the network in use on the GPU (model), or only the layer in use (sequential), which is slower still."""
    channels_last: bool = False
    """Memory layout that convolutions on GPUs prefer."""
    compile: bool = False
    """Use torch.compile for the denoising network: it takes minutes at first, and is faster afterwards."""
    batch_size: int = Field(4, ge=1)
    """Windows painted at a time; halved when memory runs out. Affects only the last bits of results."""
    size_px: int = Field(512, ge=64, multiple_of=8)
    """Side of a window: the size that the checkpoint was trained at."""
    max_zoom: float = Field(8.0, ge=1.0)
    """Largest factor by which a small object is enlarged in its window."""

    def needs(self) -> tuple[Need, ...]:
        """The checkpoint, and the low-rank weights."""
        places = {"weights of the painter": self.model} | ({"LoRA": self.lora.path} if self.lora else {})
        return tuple(Need(what=what, place=place, is_release=is_hub_id(place)) for what, place in places.items())

    @field_validator("prompt")
    @classmethod
    def _fields_of_prompt(cls, prompt: str) -> str:
        return _check_fields(prompt)

    @field_validator("prompts")
    @classmethod
    def _fields_of_prompts(cls, prompts: dict[str, str]) -> dict[str, str]:
        return {name: _check_fields(prompt) for name, prompt in prompts.items()}


def _check_fields(template: str) -> str:
    unknown = {field for _, field, _, _ in Formatter().parse(template) if field is not None} - {"name", "difficulty"}
    if unknown:
        raise ValueError(f"{template!r} has unknown fields {sorted(unknown)}; known: {{name}} and {{difficulty}}")
    return template


class PipelinePainter(ABC):
    """A painter over a frozen pipeline; see ``actors.generators.inpaint.painters.base.Painter``.

    Subclasses load the pipeline and draw one batch. Raises ValueError for prompts of unknown classes, and for a
    ``size_px`` that the pipeline would change.
    """

    def __init__(self, config: PipelineConfig, classes: tuple[str, ...], pipeline: Pipeline) -> None:
        unknown = sorted(set(config.prompts) - set(classes))
        if unknown:
            raise ValueError(f"prompts for {unknown}: no such class; known: {list(classes)}")
        multiple = pipeline.image_processor.config.vae_scale_factor
        if config.size_px % multiple:
            raise ValueError(f"size_px {config.size_px}: {config.model!r} needs a multiple of {multiple}")
        self.pipeline = pipeline
        self.classes = classes
        self.size_px = config.size_px
        self.max_zoom, self.varies = config.max_zoom, False
        self.attributes: Attributes = {}
        self.batch_size = config.batch_size
        self._templates = [config.prompts.get(name, config.prompt) for name in classes]

    def paint(self, windows: Sequence[Window]) -> list[Pixels | None]:
        """The painted windows, each None if the safety checker flags it or its picture is all black.

        If a batch does not fit into memory, the batch size is halved for good; for a single window the error is raised.
        """
        painted: list[Pixels | None] = []
        while len(painted) < len(windows):
            batch = windows[len(painted) : len(painted) + self.batch_size]
            done = self._paint_batch(batch)
            if done is None:
                self._halve(len(batch))
            else:
                painted += done
        return painted

    def _paint_batch(self, windows: Sequence[Window]) -> list[Pixels | None] | None:
        """The pictures of a batch, or None if memory ran out and a smaller batch can be tried."""
        import torch

        try:
            with torch.no_grad():
                pictures, flags = self._draw(windows)
        except torch.OutOfMemoryError:
            if len(windows) == 1:
                raise
            return None
        return [
            None if flagged else _to_pixels(picture)
            for picture, flagged in zip(pictures, flags or [False] * len(windows), strict=True)
        ]

    def _halve(self, num_windows: int) -> None:
        """Halve the batch size; called when the error, which holds on to memory, is gone."""
        import torch

        self.batch_size = num_windows // 2
        log.warning("out of memory at %d windows; continuing with %d at a time", num_windows, self.batch_size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def caption(self, window: Window) -> str:
        """The prompt for the window's class."""
        return self._templates[window.label].format(name=self.name(window), difficulty=window.difficulty)

    def name(self, window: Window) -> str:
        """The window's class in words."""
        return self.classes[window.label].replace("_", " ")

    @abstractmethod
    def _draw(self, windows: Sequence[Window]) -> tuple[Pictures, Flags]:
        """Paint at most ``batch_size`` windows."""


def generators(windows: Sequence[Window]) -> list["torch.Generator"]:
    """A noise generator for each window, on the CPU, from its own seed."""
    import torch

    return [torch.Generator("cpu").manual_seed(window.seed) for window in windows]


def _to_pixels(picture: Pictures) -> Pixels | None:
    """The picture as uint8, or None if it is all black, as from a safety checker. Raises ValueError for NaN values."""
    if not np.isfinite(picture).all():
        raise ValueError("the painter's numbers overflow (NaN in its pictures): set painter.dtype: float32")
    pixels: Pixels = (picture.clip(0, 1) * 255).round().astype(np.uint8)
    return pixels if pixels.any() else None


def load_pipeline(from_pretrained: Callable[..., Pipeline], config: PipelineConfig) -> Pipeline:
    """The pipeline of ``config`` on this process's device, frozen.

    Raises FileNotFoundError if the weights cannot be loaded, ValueError for a scheduler or LoRA that does not fit.
    """
    in_format = partial(from_pretrained, dtype=_dtype(config.dtype))
    pipeline = load_weights(in_format, config.model, config.revision, config.variant)
    if not all(hasattr(pipeline, part) for part in ("vae", "image_processor", "scheduler")):
        raise ValueError(f"{config.model!r} is a {type(pipeline).__name__}; give a latent diffusion model of one stage")
    pipeline.set_progress_bar_config(disable=True)
    if config.scheduler:
        pipeline.scheduler = _scheduler(config.scheduler, pipeline.scheduler)
    if config.lora:
        fuse_lora(pipeline, config.lora)
    _freeze(pipeline)
    _prepare(pipeline, config)
    return pipeline


def _dtype(name: str) -> "torch.dtype":
    import torch

    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    return native_dtypes(torch.device("cuda" if torch.cuda.is_available() else "cpu"))[0]


def _scheduler(name: str, current: Pipeline) -> Pipeline:
    import diffusers

    fitting = {one.__name__ for one in current.compatibles}
    if "beta_schedule" in current.config:
        fitting |= {*FEW_STEPS}
    fitting -= {*UNSEEDED}
    if name not in fitting:
        raise ValueError(f"scheduler {name!r} does not fit this checkpoint; fitting: {sorted(fitting)}")
    return getattr(diffusers, name).from_config(current.config)


def _freeze(pipeline: Pipeline) -> None:
    import torch

    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(requires_grad=False)


def _prepare(pipeline: Pipeline, config: PipelineConfig) -> None:
    """Set the memory layout, compile, and move to the device."""
    import torch

    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    if config.channels_last:
        denoiser.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    if config.compile:
        denoiser.compile()
    if not torch.cuda.is_available():
        if config.cpu_offload != "none":
            log.info("cpu_offload: %s has no effect: there is no GPU", config.cpu_offload)
    elif config.cpu_offload == "model":
        pipeline.enable_model_cpu_offload()
    elif config.cpu_offload == "sequential":
        pipeline.enable_sequential_cpu_offload()
    else:
        pipeline.to("cuda")
