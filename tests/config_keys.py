"""Dotted keys as the documentation writes them, followed through the config tree."""

from loop.config import LoopConfig
from loop.config_files import _sections


def resolve(key):
    """Follow a dotted key through the config tree; a component may be named by its kind. KeyError where it ends."""
    sections = [LoopConfig]
    for part in key.split("."):
        kinds = [one for one in sections if "kind" in one.model_fields and one.model_fields["kind"].default == part]
        fields = [one.model_fields[part] for one in sections if part in one.model_fields]
        if not kinds and not fields:
            raise KeyError(f"{key}: there is no {part}")
        sections = kinds or [below for field in fields for below in _sections(field.annotation)]
