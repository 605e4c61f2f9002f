"""Generators draw variants of mined instances; the union of their configs."""

from collections.abc import Sequence

from actors.generators.base import Generator
from actors.generators.copy_paste import CopyPasteConfig
from actors.records import LabeledImage

GeneratorConfig = CopyPasteConfig


def build_generator(config: GeneratorConfig, real: Sequence[LabeledImage]) -> Generator:
    """The generator of ``config`` over the real training images."""
    from actors.generators.copy_paste import CopyPaste

    return CopyPaste(config, real)
