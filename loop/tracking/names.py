"""A config and metrics by names that MLflow accepts."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

MAX_KEY_CHARS = 250  # as in mlflow.utils.validation


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A config tree as dotted keys and text values. A list of components becomes ``filters.<kind>.<key>``."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        branch = _by_kind(value)
        if isinstance(branch, Mapping):
            flat |= flatten(branch, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _by_kind(value: object) -> object:
    if isinstance(value, list) and value and all(isinstance(part, Mapping) and "kind" in part for part in value):
        return {part["kind"]: {**part, "position": place} for place, part in enumerate(value)}
    return value


def legal_keys(keys: Iterable[str]) -> list[str]:
    """The keys as MLflow accepts them: other characters become ``_``, and keys that become equal are numbered."""
    legal: list[str] = []
    for key in keys:
        parts = re.sub(r"[^\w.\- :/]", "_", key).split("/")
        name = "/".join("_" if part.strip(" .") == "" else part for part in parts)[: MAX_KEY_CHARS - 4]
        again = 2
        unique = name
        while unique in legal:
            unique, again = f"{name}_{again}", again + 1
        legal.append(unique)
    return legal
