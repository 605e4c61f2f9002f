"""Painter with a pretrained inpainting checkpoint: any that diffusers can load (SD 1.5, 2, XL, Flux fill)."""

from collections.abc import Sequence
from inspect import signature
from typing import Any, Literal

from pydantic import Field
from typing_extensions import override

from actors.generators.diffusion.weights import Pipeline
from actors.generators.inpaint.painters.base import Window
from actors.generators.inpaint.painters.pipelines import (
    Flags,
    Pictures,
    PipelineConfig,
    PipelinePainter,
    generators,
    load_pipeline,
)


class DiffusersConfig(PipelineConfig):
    """An inpainting checkpoint and its prompts."""

    kind: Literal["diffusers"] = "diffusers"
    guidance: float | None = Field(None, ge=0.0)
    """Classifier-free guidance by the prompt; default: the pipeline's own."""
    strength: float = Field(1.0, gt=0.0, le=1.0)
    """Share of the noise schedule applied to the hole: 1 starts from noise alone, less keeps some of the example."""

    @property
    @override
    def varies(self) -> bool:
        return self.strength < 1

    @override
    def build(self, classes: tuple[str, ...], fitted: str | None = None) -> "DiffusersPainter":
        return DiffusersPainter(self, classes)


class DiffusersPainter(PipelinePainter):
    """Repaints the masked part of windows by the class's prompt; see ``PipelinePainter``.

    Raises FileNotFoundError if the weights cannot be loaded, ValueError for a checkpoint that cannot inpaint and for
    settings that its pipeline does not have.
    """

    def __init__(self, config: DiffusersConfig, classes: tuple[str, ...]) -> None:
        super().__init__(config, classes, load_pipeline(_from_pretrained, config))
        self.config, self.varies = config, config.varies
        known = signature(type(self.pipeline).__call__).parameters
        wanted = {
            "guidance_scale": config.guidance,
            "strength": config.strength,
            "negative_prompt": config.negative_prompt or None,
        }
        missing = [name for name, value in wanted.items() if value not in (None, 1.0) and name not in known]
        if missing:
            raise ValueError(f"{type(self.pipeline).__name__} of {config.model!r} has no {missing}; leave it out")
        self._options = {name: value for name, value in wanted.items() if value is not None and name in known}

    def _draw(self, windows: Sequence[Window]) -> tuple[Pictures, Flags]:
        from PIL import Image

        options: dict[str, Any] = dict(self._options)
        if "negative_prompt" in options:
            options["negative_prompt"] = [options["negative_prompt"]] * len(windows)
        output = self.pipeline(
            prompt=[self.caption(window) for window in windows],
            image=[Image.fromarray(window.pixels) for window in windows],
            mask_image=[Image.fromarray(window.mask).convert("L") for window in windows],
            generator=generators(windows),
            height=self.size_px,
            width=self.size_px,
            num_inference_steps=self.config.steps,
            output_type="np",
            **options,
        )
        return output.images, getattr(output, "nsfw_content_detected", None)


def _from_pretrained(model: str, **options: object) -> Pipeline:
    """The checkpoint's own pipeline if it can inpaint, else diffusers' inpainting pipeline for its networks.

    (AutoPipelineForInpainting alone does not know FluxFillPipeline.)
    """
    import diffusers

    name = diffusers.DiffusionPipeline.load_config(model, revision=options["revision"])["_class_name"]
    pipeline: Pipeline = getattr(diffusers, str(name), None)
    if pipeline is None or "mask_image" not in signature(pipeline.__call__).parameters:
        pipeline = diffusers.AutoPipelineForInpainting
    return pipeline.from_pretrained(model, **options)
