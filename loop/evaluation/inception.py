"""InceptionV3's features for FID, with the weights, layer and resizing of its authors, from torchmetrics."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from actors.images import Pixels

if TYPE_CHECKING:
    from actors.filters.base import Embed

NUM_FEATURES = 2048  # of the last pooling layer


def missing(weights: str) -> str:
    """The parts that FID needs and that are missing on this machine, with the remedy; empty if none is missing."""
    if absent := [name for name in ("torchmetrics", "torch_fidelity") if find_spec(name) is None]:
        return f"{' and '.join(absent)} not installed; install the extra: pip install 'detloop[fid]'"
    if not Path(weights).is_file():
        return f"there are no weights at {weights}; put torch-fidelity's weights-inception-2015-12-05 there"
    return ""


def open_inception(weights: str) -> "Embed":
    """A function that returns the pooled features ``[n, 2048]`` of pictures of any size, with the weights in a file.

    Pictures are resized as in TensorFlow 1, without antialiasing, as in published results. Nothing is downloaded.
    Raises ValueError if a part is missing (see ``missing``).
    """
    if lack := missing(weights):
        raise ValueError(f"FID: {lack}")
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    metric = FrechetInceptionDistance(NUM_FEATURES, feature_extractor_weights_path=weights, antialias=False)
    network = metric.inception.to(device)

    def embed(pictures: Sequence[Pixels]) -> NDArray[np.float32]:
        with torch.inference_mode():
            tensors = [torch.from_numpy(np.moveaxis(pixels, 2, 0).copy()).to(device) for pixels in pictures]
            return np.concatenate([network(tensor[None]).float().cpu().numpy() for tensor in tensors])

    return embed
