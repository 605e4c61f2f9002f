"""Loading of pretrained diffusers pipelines and networks from a folder or the hub."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Pipeline: TypeAlias = Any  # diffusers is not typed

NETWORK_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
"""What ``save_pretrained`` writes for a single network."""


def load_weights(
    from_pretrained: Callable[..., Pipeline],
    model: str,
    revision: str | None,
    variant: str | None,
    index: str = "model_index.json",
) -> Pipeline:
    """What ``from_pretrained`` loads: a pipeline, or a network, whose folder has another ``index``.

    Raises FileNotFoundError if it cannot be loaded.
    """
    place = Path(model)
    if place.is_dir() and not (place / index).is_file():
        raise FileNotFoundError(f"{model}: no {index}; give a folder written by save_pretrained")
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


def weights_digest(folder: str) -> str | None:
    """SHA-256 of the configs and weights in a local folder; None if there is no such folder."""
    files = sorted(file for file in Path(folder).glob("*") if file.suffix in {".json", ".safetensors"})
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest() if files else None
