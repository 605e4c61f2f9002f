"""The base of every config section, and of those that configure a component and build it."""

from abc import ABC
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

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

    not_in_fit: ClassVar[frozenset[str]] = frozenset()
    """Keys on which the fit of a component that learns does not depend."""

    def needs(self) -> tuple[Need, ...]:
        """Files and downloads without which the component cannot be opened, including those of nested sections."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The class of a component that was imported by name, as a config file gives it."""

    place: str  # package.module:ClassName
    version: str


class Component(Config, ABC):
    """The config of a component, which builds the component and answers for it before it is built.

    Each family (generators, filters, painters, detectors) has a base class that derives from this one. Subclasses give
    ``kind`` a literal value and its default.
    """

    kind: str

    version: ClassVar[str] = ""
    """Version of a component from outside; it counts in the fingerprint. Default: the version of its distribution."""

    runs_network: ClassVar[bool] = False
    """Whether the component is much slower without a GPU."""

    _origin: Origin | None = None

    @property
    def origin(self) -> Origin | None:
        """Where the component was imported from; None for those of detloop itself."""
        return self._origin

    @model_serializer(mode="wrap")
    def _named(self, to_plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep ``kind`` even where defaults are left out; give an imported component the form that imports it."""
        plain = to_plain(self)
        if self._origin is None:
            return {"kind": self.kind, **plain}
        options = {key: value for key, value in plain.items() if key != "kind"}
        return {"kind": "custom", "import": self._origin.place, "version": self._origin.version, "options": options}
