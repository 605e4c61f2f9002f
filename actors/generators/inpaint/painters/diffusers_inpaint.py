"""Windows painted by a pretrained inpainting checkpoint: any that diffusers can load (SD 1.5, 2, XL, Flux fill)."""

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
    """An inpainting checkpoint and how it is asked."""

    kind: Literal["diffusers"] = "diffusers"
    guidance: float | None = Field(None, ge=0.0)
    """Weight of the prompt; default: the pipeline's own."""
    strength: float = Field(1.0, gt=0.0, le=1.0)
    """How far back towards noise the hole is taken: 1 is all the way, less keeps some of the example set into it."""

    @override
    def build(self, classes: tuple[str, ...], fitted: str | None = None) -> "DiffusersPainter":
        return DiffusersPainter(self, classes)


class DiffusersPainter(PipelinePainter):
    """Repaints the masked part of windows to the class's prompt; see ``PipelinePainter``.

    Raises FileNotFoundError where the weights cannot be had, ValueError for a checkpoint that cannot inpaint and for
    settings that its pipeline does not have.
    """

    def __init__(self, config: DiffusersConfig, classes: tuple[str, ...]) -> None:
        super().__init__(config, classes, load_pipeline(_from_pretrained, config))
        self.config, self.varies = config, config.strength < 1.0
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


def _from_pretrained(model: str, **options: Any) -> Pipeline:  # noqa: ANN401 - handed on to diffusers
    """The checkpoint's own pipeline where that inpaints, else what diffusers has for inpainting with its networks.

    (AutoPipelineForInpainting alone knows nothing of FluxFillPipeline.)
    """
    import diffusers

    name = diffusers.DiffusionPipeline.load_config(model, revision=options["revision"])["_class_name"]
    pipeline: Pipeline = getattr(diffusers, str(name), None)
    if pipeline is None or "mask_image" not in signature(pipeline.__call__).parameters:
        pipeline = diffusers.AutoPipelineForInpainting
    return pipeline.from_pretrained(model, **options)
