"""Averaged weights of two detectors: WiSE-FT (arXiv 2109.01903, Sec. 3) and model soups (arXiv 2203.05482, Sec. 2).

Both papers average networks that were fine-tuned from the same weights. From random weights, two trainings end too far
apart, and their average is rarely better than either.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from actors.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from torch import Tensor


def blend(control: Checkpoint, loop: Checkpoint, share: float, uri: Checkpoint) -> None:
    """Write to ``uri`` the average of the weights of both, of which a share ``share`` are those of ``loop``.

    Statistics of BatchNorm are averaged as well. Counters are those of ``loop``. Raises ValueError if the checkpoints
    are not of the same architecture and classes.
    """
    import torch

    header, ours = read_checkpoint(loop)
    other, theirs = read_checkpoint(control)
    if header != other or _shapes(ours) != _shapes(theirs):
        raise ValueError(f"{loop} and {control} are not of the same architecture and classes: they have no average")
    average = {
        name: torch.lerp(theirs[name], one, share) if one.is_floating_point() else one for name, one in ours.items()
    }
    write_checkpoint(uri, header, average)


def _shapes(tensors: Mapping[str, "Tensor"]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(one.shape) for name, one in tensors.items()}
