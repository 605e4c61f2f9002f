"""Conversion of records to plain JSON values and back, for files and for text passed between processes."""

import json
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record")
Plain: TypeAlias = Any  # a JSON value: nested dicts and lists of strings, numbers, booleans and None


def to_plain(value: object) -> Plain:
    """``value`` as dicts, lists, strings and numbers: dataclasses by field, arrays as nested lists.

    A field with ``omit_default`` in its metadata is left out if it has its default value. float32 values survive the
    round trip through JSON exactly. Raises TypeError for other types.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: to_plain(getattr(value, one.name)) for one in fields(value) if not _omitted(one, value)}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} has no plain form")


def from_plain(kind: type[Record], plain: Plain) -> Record:
    """A record of type ``kind`` from the output of ``to_plain``.

    Raises KeyError or ValueError if ``plain`` does not fit ``kind``.
    """
    return cast("Record", _restore(kind, plain))


def dumps(value: object) -> bytes:
    """JSON of ``to_plain(value)``; equal values give equal bytes."""
    return json.dumps(to_plain(value), sort_keys=True, allow_nan=False, indent=1).encode()


def loads(kind: type[Record], data: bytes) -> Record:
    """A record of type ``kind`` from the output of ``dumps``."""
    return from_plain(kind, json.loads(data))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys that differ between two plain trees, each as ``key: old -> new``."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return lines


def _omitted(field: "Field[Any]", record: "DataclassInstance") -> bool:
    return bool(field.metadata.get("omit_default")) and getattr(record, field.name) == field.default


def _restore(kind: object, plain: Plain) -> Plain:
    kind = _without_alias(_present(kind, plain))
    if is_dataclass(kind):
        return _restore_record(cast("type[DataclassInstance]", kind), plain)
    origin, args = get_origin(kind), get_args(kind)
    if origin is tuple:
        kinds = args[:1] * len(plain) if args[1:] == (...,) else args
        return tuple(_restore(one, entry) for one, entry in zip(kinds, plain, strict=True))
    if origin is dict:
        return {key: _restore(args[1], entry) for key, entry in plain.items()}
    if origin is np.ndarray:
        (dtype,) = get_args(args[1])
        return np.array(plain, dtype=dtype)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(plain)
    return plain


def _without_alias(kind: object) -> object:
    """What a type alias stands for, or the kind itself. Newer versions of NumPy declare NDArray as an alias."""
    value: Any = getattr(get_origin(kind) or kind, "__value__", None)
    if value is None:
        return kind
    args = get_args(kind)
    return value[args] if args else value


def _present(kind: object, plain: Plain) -> object:
    """The kind of a value that may be None, if it is not; else ``kind``."""
    if plain is None or get_origin(kind) not in (Union, UnionType):
        return kind
    alternatives = [one for one in get_args(kind) if one is not NoneType]
    return alternatives[0] if len(alternatives) == 1 else kind


def _restore_record(kind: "type[DataclassInstance]", plain: dict[str, Any]) -> object:
    hints = get_type_hints(kind)
    if not isinstance(plain, dict):
        raise ValueError(f"{kind.__name__}: expected a mapping of its fields, not {type(plain).__name__}")
    unknown = plain.keys() - hints.keys()
    if unknown:
        raise ValueError(f"{kind.__name__}: unknown fields {sorted(unknown)}; written by another version?")
    values = {
        field.name: _restore(hints[field.name], plain[field.name])
        for field in fields(kind)
        if field.name in plain or not field.metadata.get("omit_default")
    }
    if "boxes" in values:  # an empty list has lost its second axis
        values["boxes"] = values["boxes"].reshape(-1, 4)
    return kind(**values)
