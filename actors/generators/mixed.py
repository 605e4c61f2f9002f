"""Several generators for one pool (ours): each candidate is drawn by one of them, as its lineage says."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator

from actors.config import Config, Need
from actors.generators.base import Generator
from actors.generators.copy_paste import CopyPasteConfig
from actors.generators.inpaint import InpaintConfig
from actors.generators.layout_config import LayoutConfig
from actors.records import Candidate, Lineage

OneGeneratorConfig = Annotated[CopyPasteConfig | InpaintConfig | LayoutConfig, Field(discriminator="kind")]


class MixedConfig(Config):
    """Which generators share the candidates of a round."""

    kind: Literal["mixed"] = "mixed"
    of: tuple[OneGeneratorConfig, ...] = Field((InpaintConfig(), CopyPasteConfig()), min_length=2)
    """They draw the copies of an image in turns, from a random one on. One of them may be one that learns."""

    @field_validator("of")
    @classmethod
    def _kinds_once(cls, parts: tuple[OneGeneratorConfig, ...]) -> tuple[OneGeneratorConfig, ...]:
        kinds = [one.kind for one in parts]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"a generator may be named once: {kinds}")
        return parts

    def needs(self) -> tuple[Need, ...]:
        """Theirs."""
        return tuple(need for one in self.of for need in one.needs())


class Mixed:
    """Has each lineage drawn by the generator that it names."""

    def __init__(self, parts: Mapping[str, Generator]) -> None:
        self.parts = parts

    def generate(self, lineages: Sequence[Lineage]) -> list[Candidate]:
        """One candidate per lineage, in order.

        Raises KeyError for a generator that is not there, ValueError where one raises it.
        """
        drawn: dict[int, Candidate] = {}
        for kind in dict.fromkeys(lineage.generator for lineage in lineages):
            places = [place for place, lineage in enumerate(lineages) if lineage.generator == kind]
            drawn |= zip(places, self.parts[kind].generate([lineages[place] for place in places]), strict=True)
        return [drawn[place] for place in range(len(lineages))]
