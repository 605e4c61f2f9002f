"""Models of open_clip: pictures and prompts as unit vectors in one space."""

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
    from torch import Tensor

Item = TypeVar("Item")

LOCAL_DIR = "local-dir:"

Embeddings = NDArray[np.float32]
"""Rows of length one, ``[n, d]``."""


class ClipConfig(Config):
    """Any model of open_clip, by name or from local files."""

    model: str = "ViT-L-14-quickgelu"
    """Architecture, by open_clip's name. Weights of OpenAI need one that ends in -quickgelu; a named release gets the
    right activation either way. Not used with local-dir:."""
    weights: str = "openai"
    """A named release (downloaded once, then kept in the cache of the Hugging Face hub), a local .safetensors or .pt
    file of tensors, or local-dir:FOLDER with open_clip_config.json and the weights beside it."""
    batch_size: int = Field(16, ge=1)
    """Pictures shown to the model at a time; results differ by rounding only, less than 1e-5 in each component."""

    def needs(self) -> tuple[Need, ...]:
        """The weights. Names of releases have no suffix, local files have one."""
        place = self.weights.removeprefix(LOCAL_DIR)
        is_release = place == self.weights and not Path(place).suffix
        what = f"CLIP weights of {self.model}" if is_release else "CLIP weights"
        return (Need(what=what, place=place, is_release=is_release),)


class Clip:
    """A model on the GPU that this process was given, else on the CPU; float32, eval mode."""

    def __init__(self, config: ClipConfig) -> None:
        """Raises FileNotFoundError where weights are not to be had, ValueError where they do not fit the model."""
        import torch
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self._name = config.weights if config.weights.startswith(LOCAL_DIR) else config.model
        self._batch_size = config.batch_size
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = _load(config).eval().requires_grad_(False).to(self._device)
        preprocess = PreprocessCfg(**self._model.visual.preprocess_cfg)
        self._transform: Any = image_transform_v2(preprocess, is_train=False)
        self.input_px = int(np.min(preprocess.size))  # what the shorter side of a picture is resized to

    @cached_property
    def identity(self) -> str:
        """16 hex digits over what decides a picture's embedding: the image tower's weights, and the preprocessing."""
        digest = hashlib.blake2b(repr(self._transform).encode(), digest_size=8)
        for name, tensor in sorted(self._model.visual.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def width(self) -> int:
        """Numbers in an embedding."""
        return len(self.embed_images([np.zeros((32, 32, 3), np.uint8)])[0])

    def embed_images(self, images: Iterable[Pixels]) -> Embeddings:
        """Unit vectors ``[n, d]`` of pictures ``[H, W, 3]`` uint8 RGB, preprocessed as the model's makers say.

        That is, for most models, the shorter side resized to the input's and the middle square taken. Pictures are
        taken batch by batch, so they need not be in memory all at once.
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
    """The model of ``config``, loaded once in a process, for all filters that name it."""
    return Clip(config)


def _unit(batches: Sequence["Tensor"]) -> Embeddings:
    """Batches ``[m, d]`` as unit rows of one array; raises ValueError where there are none."""
    if not batches:
        raise ValueError("there is nothing to embed: give at least one picture or prompt")
    rows = np.concatenate([batch.float().cpu().numpy() for batch in batches])
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _load(config: ClipConfig) -> Any:  # noqa: ANN401 - open_clip has several classes of models
    import open_clip

    model, weights = config.model, config.weights
    is_folder = weights.startswith(LOCAL_DIR)
    release = None if is_folder else open_clip.get_pretrained_cfg(model, weights)
    if not is_folder and model not in open_clip.list_models():
        raise ValueError(f"clip.model: open_clip has no {model!r}; open_clip.list_models() shows the names")
    if not release and not (Path(weights.removeprefix(LOCAL_DIR)).is_dir() if is_folder else Path(weights).is_file()):
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise FileNotFoundError(
            f"clip.weights: {weights!r} is no local file or folder, and no release for {model}; releases: {tags}"
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
    """What to do about weights that did not load, whatever open_clip and the hub raised."""
    if named:
        return FileNotFoundError(
            f"clip.weights: {config.weights!r} of {config.model} is not in this machine's cache and could not be "
            "downloaded. Run this once where there is a network and bring the cache along (HF_HOME names its folder), "
            f"or set clip.weights to a local .safetensors file of it ({error})"
        )
    return ValueError(
        f"clip.weights: {config.weights!r} does not load into {config.model}: give tensors of this very model, as "
        f".safetensors or as a plain state dict; pickled code and TorchScript archives are not run ({error})"
    )
