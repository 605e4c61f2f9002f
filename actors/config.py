"""The base of every config section: frozen, and unknown keys are refused."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


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

    def needs(self) -> tuple[Need, ...]:
        """Files and downloads without which the component cannot be opened, those of sections below it included."""
        return ()
