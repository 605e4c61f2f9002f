"""A user's own components: classes named in the config or by an entry point of their package.

In a config file::

    generator:
      kind: custom
      import: my_package.shift:ShiftConfig   # a subclass of the family's base class
      options: {pixels: 8}                   # its fields

A package that declares the class as an entry point ``shift`` of the group ``detloop.generators`` gives it a kind of its
own: ``{kind: shift, pixels: 8}``. Either way, the config holds an instance of that class.
"""

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points, packages_distributions, version
from pathlib import Path
from typing import Any, get_args

from pydantic import GetCoreSchemaHandler, SerializerFunctionWrapHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from actors.config import Component, Origin

KIND = "custom"
_KEYS = {"kind", "import", "options", "version"}


@dataclass(frozen=True, slots=True)
class Open:
    """Annotation of the union of a family's configs: the union also accepts a user's own components."""

    base: type[Component]  # of the family
    group: str  # entry points that name kinds of this family
    default: str | None = None  # the kind of a section that names none; None: it must name one

    def __get_pydantic_core_schema__(self, union: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The union's schema, wrapped in a validator that recognises a user's own components."""
        own = {config.model_fields["kind"].default for config in _members(union)}

        def validate(value: object, within: core_schema.ValidatorFunctionWrapHandler) -> object:
            if isinstance(value, self.base):
                return value
            if self.default and isinstance(value, Mapping) and "kind" not in value:
                value = {"kind": self.default, **value}
            if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str) or value["kind"] in own:
                return within(value)
            return self._from_outside(value, own)

        schema = handler(union)
        as_it_is = core_schema.wrap_serializer_function_ser_schema(_serialize, schema=core_schema.any_schema())
        return core_schema.no_info_wrap_validator_function(validate, schema, serialization=as_it_is)

    def _from_outside(self, value: Mapping[str, Any], own: set[str]) -> Component:
        kind = value["kind"]
        if kind == KIND:
            if unknown := value.keys() - _KEYS:
                raise ValueError(f"{sorted(unknown)}: unknown keys beside kind: custom; known: {sorted(_KEYS)}")
            if not isinstance(value.get("options", {}), Mapping):
                raise ValueError(f"options: expected a mapping of the component's keys, not {value['options']!r}")
            return load_component(self.base, value.get("import"), value.get("options", {}), value.get("version"))
        found = {entry.name: entry.value for entry in entry_points(group=self.group)}
        if kind in found:
            return load_component(self.base, found[kind], {key: one for key, one in value.items() if key != "kind"})
        kinds = ", ".join(map(repr, [*sorted(own), *sorted(found), KIND]))
        raise PydanticCustomError("unknown_kind", "Input should be one of {kinds}", {"kinds": kinds})


def _members(union: object) -> tuple[type[Component], ...]:
    return (union,) if isinstance(union, type) else get_args(union)


def _serialize(value: object, to_plain: SerializerFunctionWrapHandler) -> object:
    return to_plain(value)


def load_component(
    base: type[Component], place: object, options: Mapping[str, Any], wanted_version: str | None = None
) -> Component:
    """The component of the class at ``place`` (``package.module:ClassName``) with these options.

    Raises ValueError if the class cannot be imported, is no complete subclass of ``base``, has another version than
    ``wanted_version``, or does not accept the options.
    """
    found = import_class(base, place)
    origin = Origin(place=str(place), version=_version(found))
    if wanted_version not in (None, origin.version):
        raise ValueError(f"{place} is version {origin.version} here, but the config requires {wanted_version}")
    try:
        component = found.model_validate(dict(options))
    except ValidationError as error:
        lines = [f"options.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ValueError(f"{place} does not accept its options: {'; '.join(lines)}") from None
    component._origin = origin  # noqa: SLF001 - of our own base class
    return component


def import_class(base: type[Component], place: object) -> type[Component]:
    """The class at ``place``. Modules in the working directory are found too, after installed ones."""
    module, separator, name = str(place or "").partition(":")
    if not (separator and module and name):
        raise ValueError(f"import: give it as package.module:ClassName, not {place!r}")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ValueError(f"import: {place} cannot be imported: {type(error).__name__}: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise ValueError(f"import: {place} is no subclass of {base.__module__}.{base.__name__}")
    if inspect.isabstract(found):
        raise ValueError(f"import: {place} does not implement {', '.join(sorted(found.__abstractmethods__))}")
    return found


def _version(found: type[Component]) -> str:
    """The class's own version, or that of its distribution."""
    if found.version:
        return found.version
    for distribution in packages_distributions().get(found.__module__.partition(".")[0], ()):
        return version(distribution)
    raise ValueError(
        f"{found.__module__}:{found.__name__} belongs to no installed distribution: give the class a version, such as "
        'version: ClassVar[str] = "1", and change it whenever its results change'
    )
