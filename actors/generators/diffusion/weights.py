"""Loading of pretrained diffusers pipelines from a folder or the hub."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Pipeline: TypeAlias = Any  # diffusers is not typed


def load_weights(
    from_pretrained: Callable[..., Pipeline], model: str, revision: str | None, variant: str | None
) -> Pipeline:
    """The pipeline that ``from_pretrained`` loads. Raises FileNotFoundError if it cannot be loaded."""
    place = Path(model)
    if place.is_dir() and not (place / "model_index.json").is_file():
        raise FileNotFoundError(f"{model}: no model_index.json; give a folder written by save_pretrained")
    if not place.is_dir() and (place.is_absolute() or model.startswith((".", "~"))):
        raise FileNotFoundError(f"{model}: no such folder; give one written by save_pretrained, or a hub id")
    try:
        return from_pretrained(model, revision=revision, variant=variant)
    except OSError as error:
        raise FileNotFoundError(
            f"model {model!r} (revision {revision}, variant {variant}) cannot be loaded: give a "
            "folder written by save_pretrained, or a hub id which this machine can reach or has in its cache; gated "
            f"models need a login. Error: {error}"
        ) from error


def is_hub_id(place: str) -> bool:
    """True if ``place`` names a repository on the hub: it is not there locally, and not written as a path or file."""
    path = Path(place)
    return not (path.exists() or path.is_absolute() or place.startswith((".", "~")) or path.suffix == ".safetensors")
