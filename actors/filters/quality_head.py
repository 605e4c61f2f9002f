"""Heads that score a CLIP embedding: the published aesthetic predictor, or one fitted on the run's own images."""

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from actors.filters.clip import Embeddings
from actors.filters.discriminant import Discriminant, Floats, cross_fitted

WIDTHS = (1024, 128, 64, 16, 1)
"""Outputs of the published predictor's layers."""
_NAMES = (0, 2, 4, 6, 7)  # its layers in the file; the others are dropout, which does nothing at inference

HOW_TO_GET = (
    "give the file sac+logos+ava1-l14-linearMSE.pth (3.7 MB, in the GitHub repository "
    "christophschuhmann/improved-aesthetic-predictor; for ViT-L-14 with the weights openai), "
    "or set head: fitted to fit one on the run's own images"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A stack of linear layers without activations: the published predictor's "linearMSE"."""

    layers: tuple[tuple[Floats, Floats], ...]  # weight [out, in] and bias [out]

    def scores(self, embeddings: Embeddings) -> Floats:
        """Scores ``[n]`` of unit vectors ``[n, d]``."""
        values = embeddings.astype(np.float64)
        for weight, bias in self.layers:
            values = values @ weight.T + bias
        return values[:, 0]

    @property
    def identity(self) -> str:
        """Hash of the weights, 16 hex digits."""
        numbers = b"".join(array.tobytes() for layer in self.layers for array in layer)
        return hashlib.blake2b(numbers, digest_size=8).hexdigest()

    def plain(self) -> list[list[Any]]:
        """The layers as JSON values."""
        return [[weight.tolist(), bias.tolist()] for weight, bias in self.layers]

    @classmethod
    def from_plain(cls, layers: Sequence[Sequence[Any]]) -> "Head":
        """The inverse of ``plain``."""
        return cls(layers=tuple((np.array(weight, np.float64), np.array(bias, np.float64)) for weight, bias in layers))


def read_head(uri: str, width: int) -> Head:
    """The head in a file of the published format, for embeddings of ``width`` numbers. Code in the file is not run.

    Raises FileNotFoundError, or ValueError if the file holds anything else or is for another width.
    """
    import torch

    try:
        tensors = torch.load(BytesIO(UPath(uri).read_bytes()), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"aesthetic.head: there is no file {uri}; {HOW_TO_GET}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"aesthetic.head: {uri} is no file of tensors ({error}); {HOW_TO_GET}") from error
    wanted = _shapes(width)
    found = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in dict(tensors).items()}
    if found != wanted:
        raise ValueError(
            f"aesthetic.head: {uri} holds {found}; the predictor for a model with embeddings of {width} numbers has "
            f"{wanted}. A head works with one CLIP model only; for others set head: fitted"
        )
    arrays = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    return Head(layers=tuple((arrays[f"layers.{name}.weight"], arrays[f"layers.{name}.bias"]) for name in _NAMES))


def _shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Tensor shapes in the published file, for embeddings of ``width`` numbers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, num_out, num_in in zip(_NAMES, WIDTHS, (width, *WIDTHS[:-1]), strict=True):
        shapes |= {f"layers.{name}.weight": (num_out, num_in), f"layers.{name}.bias": (num_out,)}
    return shapes


def fit_head(real: Embeddings, degraded: NDArray[np.float32]) -> tuple[Head, Floats]:
    """A linear head that separates real images ``[n, d]`` from degraded versions ``[n, k, d]``, and the real scores.

    The score is the log-likelihood ratio of real to degraded images, each modelled as a Gaussian. The scores ``[n]``
    of the real images are cross-fitted: a head overrates the images that it was fitted on, and a threshold from such
    scores would reject other real images.
    """
    count, copies, width = degraded.shape
    features = np.concatenate([real, degraded.reshape(-1, width)]).astype(np.float64)
    labels = np.repeat([0, 1], [count, count * copies])
    owners = [f"{index:09d}" for index in [*range(count), *np.repeat(np.arange(count), copies)]]
    scores = cross_fitted(features, labels, owners, 2)[:count]
    fitted = Discriminant.fitted(features, labels, 2)
    weight, bias = fitted.weights[0] - fitted.weights[1], fitted.bias[0] - fitted.bias[1]
    return Head(layers=((weight[None], np.array([bias])),)), scores[:, 0] - scores[:, 1]


def degrade(pixels: NDArray[np.uint8], seed: int, input_px: int) -> list[NDArray[np.uint8]]:
    """Four degraded versions of ``[H, W, 3]`` pixels: blurred, noisy, strongly compressed, with shuffled blocks.

    Their strength suits a model that resizes the shorter side to ``input_px``. Equal seeds give equal images.
    """
    rng = np.random.default_rng(seed)
    grain = max(1, round(min(pixels.shape[:2]) / input_px))
    return [
        _blurred(pixels, 1.5 * grain),
        _noisy(pixels, grain, rng),
        _compressed(pixels, grain),
        _shuffled(pixels, rng),
    ]


def _blurred(pixels: NDArray[np.uint8], sigma_px: float) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma_px), np.uint8)


def _noisy(pixels: NDArray[np.uint8], grain: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    noise = rng.normal(0, 25, (height // grain + 1, width // grain + 1, 3))
    noise = noise.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width]
    return np.asarray(np.clip(pixels + noise, 0, 255), np.uint8)


def _compressed(pixels: NDArray[np.uint8], grain: int) -> NDArray[np.uint8]:
    import cv2

    height, width = pixels.shape[:2]
    small = cv2.resize(pixels, (max(1, width // grain), max(1, height // grain)), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 8])
    poor = cv2.imdecode(data, cv2.IMREAD_COLOR)  # the channel order is the same before and after
    return np.asarray(cv2.resize(poor, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _shuffled(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    side = max(1, min(pixels.shape[:2]) // 8)
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    inner = pixels[: rows * side, : columns * side]
    blocks = inner.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(rows * columns, side, side, 3)
    mixed = rng.permutation(blocks).reshape(rows, columns, side, side, 3).swapaxes(1, 2)
    result = pixels.copy()
    result[: rows * side, : columns * side] = mixed.reshape(inner.shape)
    return result
