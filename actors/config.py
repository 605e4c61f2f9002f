"""The base of every config section: frozen, and unknown keys are refused."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Weights that a component does not bring along."""

    what: str
    place: str  # local path or URI, or the name of a release
    is_release: bool  # a name: downloaded on first use where no cache has it


class Config(BaseModel):
    """A config section. Construction raises ``pydantic.ValidationError`` on unknown keys and bad values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)

    runs_network: ClassVar[bool] = False
    """Whether the component is much slower without a GPU."""

    only_draws: ClassVar[frozenset[str]] = frozenset()
    """Of a generator: keys that say how it draws; its fit does not depend on them."""

    def needs(self) -> tuple[Need, ...]:
        """Files and downloads without which the component cannot be opened, those of sections below it included."""
        return ()
