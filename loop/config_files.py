"""Reading a config from YAML files and ``--set key.sub=value`` overrides.

A later file overrides the earlier ones: mappings are merged, lists are replaced, and a component of another kind
replaces the earlier one as a whole.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from actors.config import Config
from actors.yaml_text import parse_yaml
from loop.config import ConfigError, LoopConfig

Section = TypeVar("Section", bound=Config)


def load(files: Sequence[str | Path], overrides: Sequence[str] = ()) -> LoopConfig:
    """The config from ``files``, where later ones override earlier ones, and ``key.sub=value`` overrides (YAML values).

    Raises ConfigError, which names the key, the value and what was expected.
    """
    return validate(LoopConfig, read_tree(files, overrides), " + ".join(map(str, files)))


def read_tree(files: Sequence[str | Path], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain tree of ``files`` and ``overrides``, not yet validated. Raises ConfigError."""
    tree: dict[str, Any] = {}
    for file in files:
        tree = overlay(tree, _read(Path(file)))
    for override in overrides:
        tree = overlay(tree, _parse_override(override))
    return tree


def validate(kind: type[Section], tree: Mapping[str, Any], source: str) -> Section:
    """``tree`` as a config section; ``source`` names it in errors. Raises ConfigError, which names every wrong key."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(detail, kind) for detail in error.errors(include_url=False)]
        raise ConfigError("\n".join([f"{source} cannot be used:", *lines])) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = parse_yaml(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such config file") from None
    except IsADirectoryError:
        raise ConfigError(
            f"{file} is a folder, not a config file; `detloop init {file}` writes a config for its images"
        ) from None
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise ConfigError(f"{file}: not readable as YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: a config is a mapping of keys, but this file holds {type(tree).__name__}")
    return tree


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not all(key.strip().split(".")):
        raise ConfigError(f"--set {text}: write it as key.sub=value")
    try:
        tree = parse_yaml(value)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--set {text}: the value is not valid YAML: {error}") from None
    return nest(key.strip(), tree)


def nest(key: str, value: object) -> dict[str, Any]:
    """The tree that sets a dotted key to a value."""
    first, dot, rest = key.partition(".")
    return {first: nest(rest, value) if dot else value}


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` overridden by ``over``. A component of another kind replaces the one in ``base`` as a whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping) and _same_kind(below, value):
            merged[key] = overlay(below, value)
        else:
            merged[key] = value
    return merged


def _same_kind(below: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    return all(over.get(key, below.get(key)) == below.get(key) for key in ("kind", "import"))


def _explain(detail: ErrorDetails, top: type[Config]) -> str:
    key, known = _locate(detail["loc"], top)
    message, seen = detail["msg"].removeprefix("Value error, "), detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            return f"  {key}: unknown key; known here: {', '.join(known)}"
        case "missing":
            return f"  {key}: required, but not given"
        case "union_tag_not_found":
            return f"  {key}.kind: required, but not given"
        case "unknown_kind":
            return f"  {key}.kind: {message}; seen: {seen['kind']!r}"
        case "union_tag_invalid":
            return f"  {key}.kind: Input should be one of {detail['ctx']['expected_tags']}; seen: {seen['kind']!r}"
    return f"  {key}: {message}" + ("" if isinstance(seen, dict | list) else f"; seen: {seen!r}")


def _locate(location: Sequence[str | int], top: type[Config]) -> tuple[str, list[str]]:
    """The dotted key at ``location``, and the keys of the innermost section that contains it."""
    sections = [top]
    parts = list[str]()
    for part in location:
        if len(sections) > 1 and isinstance(part, str):  # the kind of a component, not a key
            sections = [section for section in sections if section.model_fields["kind"].default == part]
            continue
        parts.append(str(part))
        if sections and part in sections[0].model_fields:
            sections = _sections(sections[0].model_fields[str(part)].annotation)
    return ".".join(parts) or "(config)", sorted(sections[0].model_fields) if sections else []


def _sections(form: object) -> list[type[Config]]:
    """The config sections that a type names."""
    if isinstance(form, type) and issubclass(form, Config):
        return [form]
    return [section for part in get_args(form) for section in _sections(part)]
