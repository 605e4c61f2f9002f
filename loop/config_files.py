"""Where a config comes from: YAML files laid one over the other, then ``--set key.sub=value``.

Later files win: mappings merge, lists replace, and a component of another kind replaces the one below it whole.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from loop.config import ConfigError, LoopConfig


def load(files: Sequence[str | Path], overrides: Sequence[str] = ()) -> LoopConfig:
    """The config of ``files`` laid one over the other, then of ``key.sub=value`` overrides (values are YAML).

    Raises ConfigError, naming the key, the value seen and what was expected.
    """
    tree: dict[str, Any] = {}
    for file in files:
        tree = _merge(tree, _read(Path(file)))
    for override in overrides:
        tree = _merge(tree, _parse_override(override))
    try:
        return LoopConfig.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(detail) for detail in error.errors(include_url=False)]
        raise ConfigError("\n".join([f"{' + '.join(map(str, files))} cannot be used:", *lines])) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such config file") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file}: not readable as YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: a config is a mapping of keys, this file holds {type(tree).__name__}")
    return tree


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip("."):
        raise ConfigError(f"--set {text}: give it as key.sub=value")
    try:
        tree: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is no YAML: {error}") from None
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return dict(tree)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``base``. A component of another kind replaces the one below it whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping) and _same_kind(below, value):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged


def _same_kind(below: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    return "kind" not in over or over["kind"] == below.get("kind")


def _explain(detail: ErrorDetails) -> str:
    key = ".".join(str(part) for part in detail["loc"]) or "(config)"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return f"  {key}: unknown key; known here: {', '.join(_known_keys(detail['loc'][:-1]))}"
    if detail["type"] == "missing":
        return f"  {key}: required, but not given"
    seen = detail["input"]
    return f"  {key}: {message}" + ("" if isinstance(seen, dict | list) else f"; seen: {seen!r}")


def _known_keys(location: Sequence[str | int]) -> list[str]:
    """The keys of the section at ``location``, following unions by their kind."""
    section: Any = LoopConfig
    for part in location:
        options = [section, *getattr(section, "__args__", ())]
        models = [option for option in options if hasattr(option, "model_fields")]
        by_kind = [m for m in models if "kind" in m.model_fields and m.model_fields["kind"].default == part]
        if by_kind:
            section = by_kind[0]
        elif isinstance(part, str) and models and part in models[0].model_fields:
            section = models[0].model_fields[part].annotation
    return sorted(getattr(section, "model_fields", {}))
