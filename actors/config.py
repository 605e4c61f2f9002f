"""The base of every config section: frozen, and unknown keys are refused."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A config section. Construction raises ``pydantic.ValidationError`` on unknown keys and bad values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)
