"""Generators draw variants of mined instances; the union of their configs, and which of them learn."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from actors.config import Config
from actors.generators.base import Fit, FitData, Generator, Worker
from actors.generators.copy_paste import CopyPasteConfig
from actors.generators.inpaint.config import InpaintConfig
from actors.generators.inpaint.painters.crop import CropConfig
from actors.generators.layout.config import LayoutConfig
from actors.records import LabeledImage

GeneratorConfig = Annotated[CopyPasteConfig | InpaintConfig | LayoutConfig, Field(discriminator="kind")]


def build_generator(
    config: GeneratorConfig, real: Sequence[LabeledImage], classes: tuple[str, ...], fitted: str | None = None
) -> Generator:
    """The generator of ``config`` over the real training images; ``fitted`` is its checkpoint's URI if it learns."""
    match config:
        case CopyPasteConfig():
            from actors.generators.copy_paste import CopyPaste

            return CopyPaste(config, real)
        case InpaintConfig():
            from actors.generators.inpaint.generator import Inpaint
            from actors.generators.inpaint.painters import build_painter

            return Inpaint(config, real, build_painter(config.painter, classes, fitted))
        case LayoutConfig():
            from actors.generators.layout.generator import LayoutGenerator
            from actors.generators.layout.network import load_network

            return LayoutGenerator(config, real, load_network(config, classes, fitted))


def learns(config: GeneratorConfig) -> bool:
    """Whether the generator is fitted on the real images before it draws."""
    return fit_size(config) is not None


def fit_size(config: GeneratorConfig) -> tuple[int, int] | None:
    """Steps of the fit, and examples a step; None where the generator does not learn."""
    match config:
        case InpaintConfig(painter=CropConfig() as painter):
            return painter.fit_steps, painter.fit_batch_size
        case LayoutConfig():
            return config.fit.steps, config.fit.batch_size
        case _:
            return None


def fit_parts(config: GeneratorConfig) -> int:
    """Parts that each worker's share of the fit's batch is taken in."""
    return config.fit.accumulate if isinstance(config, LayoutConfig) else 1


def strategy(config: GeneratorConfig) -> str:
    """The difficulty that it asks for in all that it draws; "origin", as mined, where it has no word for it."""
    match config:
        case LayoutConfig():
            return config.strategy
        case InpaintConfig(painter=CropConfig()):
            return config.difficulty
        case _:
            return "origin"


def decides_fit(config: GeneratorConfig) -> dict[str, Any]:
    """What of the config a fit depends on, as plain values: a change of how it draws needs no new fit."""
    return config.model_dump(mode="json", exclude=_only_draws(config))


def _only_draws(config: Config) -> dict[str, Any]:
    """The keys of ``only_draws``, those of sections below it included, as pydantic excludes them."""
    below = {name: _only_draws(value) for name, value in config if isinstance(value, Config)}
    return dict.fromkeys(config.only_draws, True) | {name: keys for name, keys in below.items() if keys}


def open_fit(config: GeneratorConfig, data: FitData, worker: Worker) -> Fit:
    """The fit of a generator that learns. Raises ValueError where there is nothing to fit it on."""
    match config:
        case InpaintConfig(painter=CropConfig() as painter):
            from actors.generators.inpaint.painters.crop_fit import CropFit

            options = {"context": config.context, "margin": config.margin}
            return CropFit(painter, data, worker, **options, flip=config.flip, rotate=config.rotate)
        case LayoutConfig():
            from actors.generators.layout.fit import LayoutFit

            return LayoutFit(config, data, worker)
        case _:
            raise ValueError(f"generator {config.kind}: it does not learn, there is nothing to fit")
