"""CLIP models from open_clip: embeddings of images and prompts as unit vectors in one space."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from actors.config import Config, Need
from actors.images import Pixels

if TYPE_CHECKING:
    from open_clip import CLIP, CoCa, CustomTextCLIP
    from torch import Tensor

Item = TypeVar("Item")

LOCAL_DIR = "local-dir:"

Embeddings = NDArray[np.float32]
"""Rows of length one, ``[n, d]``."""


class ClipConfig(Config):
    """A model of open_clip, by name or from local files."""

    model: str = "ViT-L-14-quickgelu"
    """Architecture, by its name in open_clip. A local file of OpenAI's weights needs a name that ends in -quickgelu;
    a named release gets the right activation either way. Not used with local-dir:."""
    weights: str = "openai"
    """A named release (downloaded once into the Hugging Face cache), a local .safetensors or .pt file of tensors, or
    local-dir:FOLDER, a folder with open_clip_config.json and the weights."""
    batch_size: int = Field(16, ge=1)
    """Images per forward pass. Results differ by rounding only, by less than 1e-5 in each component."""

    def needs(self) -> tuple[Need, ...]:
        """The weights. Names of releases have no file suffix; local files have one."""
        place = self.weights.removeprefix(LOCAL_DIR)
        is_release = place == self.weights and not Path(place).suffix
        what = f"CLIP weights of {self.model}" if is_release else "CLIP weights"
        return (Need(what=what, place=place, is_release=is_release),)


class Clip:
    """A model in float32 and eval mode, on the GPU of this process if it has one, else on the CPU."""

    def __init__(self, config: ClipConfig) -> None:
        """Raises FileNotFoundError if the weights are missing, ValueError if they do not fit the model."""
        import torch
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self._name = config.weights if config.weights.startswith(LOCAL_DIR) else config.model
        self._batch_size = config.batch_size
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = _load(config).eval().requires_grad_(False).to(self._device)
        preprocess = PreprocessCfg(**self._model.visual.preprocess_cfg)
        self._transform: Any = image_transform_v2(preprocess, is_train=False)
        self.input_px = int(np.min(preprocess.size))  # of the shorter side after resizing

    @cached_property
    def identity(self) -> str:
        """Hash of all that determines an image's embedding, 16 hex digits: image tower weights and preprocessing."""
        digest = hashlib.blake2b(repr(self._transform).encode(), digest_size=8)
        for name, tensor in sorted(self._model.visual.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def width(self) -> int:
        """Length d of an embedding."""
        return len(self.embed_images([np.zeros((32, 32, 3), np.uint8)])[0])

    def embed_images(self, images: Iterable[Pixels]) -> Embeddings:
        """Unit vectors ``[n, d]`` of images ``[H, W, 3]`` uint8 RGB, with the model's own preprocessing.

        Most models resize the shorter side to the input size and crop the central square. Images are read batch by
        batch, so they need not all be in memory at once.
        """
        import torch

        batches = (torch.stack([self._transform(Image.fromarray(one)) for one in part]) for part in self._parts(images))
        with torch.inference_mode():
            return _unit([self._model.encode_image(batch.to(self._device)) for batch in batches])

    def embed_texts(self, texts: Sequence[str]) -> Embeddings:
        """Unit vectors ``[n, d]`` of prompts."""
        import open_clip
        import torch

        tokenizer = open_clip.get_tokenizer(self._name)
        with torch.inference_mode():
            return _unit([self._model.encode_text(tokenizer(part).to(self._device)) for part in self._parts(texts)])

    def _parts(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        rest = iter(items)
        while part := list(islice(rest, self._batch_size)):
            yield part


@lru_cache(maxsize=2)
def open_model(config: ClipConfig) -> Clip:
    """The model of ``config``, loaded once per process and shared by all filters that use it."""
    return Clip(config)


def _unit(batches: Sequence["Tensor"]) -> Embeddings:
    """Concatenate batches ``[m, d]`` and normalise the rows. Raises ValueError without batches."""
    if not batches:
        raise ValueError("there is nothing to embed: give at least one picture or prompt")
    rows = np.concatenate([batch.float().cpu().numpy() for batch in batches])
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _load(config: ClipConfig) -> "CLIP | CoCa | CustomTextCLIP":
    import open_clip

    model, weights = config.model, config.weights
    is_folder = weights.startswith(LOCAL_DIR)
    release = None if is_folder else open_clip.get_pretrained_cfg(model, weights)
    if not is_folder and model not in open_clip.list_models():
        raise ValueError(f"clip.model: open_clip has no {model!r}; open_clip.list_models() shows the names")
    if not release and not (Path(weights.removeprefix(LOCAL_DIR)).is_dir() if is_folder else Path(weights).is_file()):
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise FileNotFoundError(
            f"clip.weights: {weights!r} is no local file or folder and no release of {model}; releases: {tags}"
        )
    try:
        return open_clip.create_model(
            weights if is_folder else model,
            None if is_folder else weights,
            force_quick_gelu=bool(release and release.get("quick_gelu")),
            require_pretrained=True,
        )
    except Exception as error:
        raise _explained(error, config, named=bool(release)) from error


def _explained(error: Exception, config: ClipConfig, *, named: bool) -> Exception:
    """An error that says what to do about weights that did not load, whatever open_clip or the hub raised."""
    if named:
        return FileNotFoundError(
            f"clip.weights: {config.weights!r} of {config.model} is not in this machine's cache and could not be "
            "downloaded. Run this once with a network connection and copy the cache (the folder HF_HOME) here, "
            f"or set clip.weights to a local .safetensors file of it ({error})"
        )
    return ValueError(
        f"clip.weights: {config.weights!r} does not load into {config.model}: give tensors of exactly this model, as "
        f".safetensors or as a plain state dict; pickled code and TorchScript archives are not loaded ({error})"
    )
