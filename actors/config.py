"""Base classes of config sections, and of the sections that configure and build a component."""

from abc import ABC
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

Share = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Weights or other files that a component needs and detloop does not include."""

    what: str
    place: str  # local path or URI, or the name of a release
    is_release: bool  # ``place`` is a name: downloaded on first use unless it is cached
    is_folder: bool = False


class Config(BaseModel):
    """A config section. Construction raises ``pydantic.ValidationError`` on unknown keys and bad values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)

    not_in_fit: ClassVar[frozenset[str]] = frozenset()
    """Keys that do not affect the fit of a component that learns."""

    def needs(self) -> tuple[Need, ...]:
        """Files and downloads that the component requires, including those of nested sections."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Import path and version of a component's class, as a config file gives them."""

    place: str  # package.module:ClassName
    version: str


class Component(Config, ABC):
    """The config of a component: it builds the component, and describes it before it is built.

    Each family (generators, filters, painters, detectors) has a base class that derives from this one. Subclasses give
    ``kind`` a literal value and its default.
    """

    kind: str

    version: ClassVar[str] = ""
    """Version of a user's own component, part of the fingerprint. Default: the version of its distribution."""

    runs_network: ClassVar[bool] = False
    """Whether the component is much slower without a GPU."""

    _origin: Origin | None = None

    @property
    def origin(self) -> Origin | None:
        """Import path and version of a user's own component; None for a component of detloop."""
        return self._origin

    @model_serializer(mode="wrap")
    def _named(self, to_plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Always include ``kind``; write an imported component in the form that imports it."""
        plain = to_plain(self)
        if self._origin is None:
            return {"kind": self.kind, **plain}
        options = {key: value for key, value in plain.items() if key != "kind"}
        return {"kind": "custom", "import": self._origin.place, "version": self._origin.version, "options": options}
