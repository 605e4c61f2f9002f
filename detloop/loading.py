"""Configs from files, mappings and runs."""

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

from upath import UPath

from detloop.result import Place, Result
from loop.config import LoopConfig
from loop.config_files import nest, overlay, read_tree, validate

Layer = Place | Mapping[str, Any] | LoopConfig | Result
"""Keys of a config: a YAML file, a mapping, a config, or a run (its folder or its result), whose config is used."""
Source = Layer | Sequence[Layer]
"""One layer, or several of which a later one overrides the earlier ones."""
Overrides = Mapping[str, Any] | Sequence[str]
"""Single keys: ``{"mining.budget": 20}``, or as on the command line, ``["mining.budget=20"]``."""


def load_config(source: Source, overrides: Overrides = ()) -> LoopConfig:
    """Load a config from files, mappings or a run, and override single keys.

    Args:
        source: One layer or several; see ``Source``. The folder of a run holds no hosting and no tracking: these
            sections have their defaults.
        overrides: Keys set last; see ``Overrides``.

    Returns:
        The validated config with all defaults.

    Raises:
        ConfigError: A file cannot be read, a key is unknown, or a value is out of range. The message names file, key,
            value and choices, as on the command line.

    Example:
        >>> config = detloop.load_config(["detloop.yaml", "configs/hosting/gpu.yaml"], {"training.steps": 300})
        >>> config.training.steps
        300
    """
    layers = [source] if isinstance(source, str | PathLike | UPath | Mapping | LoopConfig | Result) else list(source)
    tree: dict[str, Any] = {}
    for layer in [*map(_tree, layers), *_override_trees(overrides)]:
        tree = overlay(tree, layer)
    return validate(LoopConfig, tree, " + ".join(map(_name, layers)))


def run_named(source: Source) -> Result | None:
    """The run that a source names by its folder or result; None for a config."""
    if isinstance(source, Result):
        return source
    return Result(source) if isinstance(source, str | PathLike | UPath) and UPath(source).is_dir() else None


def _tree(layer: Layer) -> dict[str, Any]:
    """The keys of one layer as plain values."""
    if isinstance(layer, Mapping):
        return {key: _plain(value) for key, value in layer.items()}
    if isinstance(layer, LoopConfig):
        return layer.model_dump(mode="json")
    if known := run_named(layer):
        return known.config.model_dump(mode="json")
    return read_tree([str(layer)])


def _override_trees(overrides: Overrides) -> Iterator[dict[str, Any]]:
    if isinstance(overrides, Mapping):
        yield from (nest(key, _plain(value)) for key, value in overrides.items())
        return
    for text in [overrides] if isinstance(overrides, str) else overrides:
        yield read_tree((), [text])


def _plain(value: object) -> object:
    """``value`` with paths as text, as in a config."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, PathLike | UPath) else value


def _name(layer: Layer) -> str:
    """The layer's name in messages."""
    if isinstance(layer, Mapping | LoopConfig):
        return "the given config"
    return str(layer.folder if isinstance(layer, Result) else layer)
