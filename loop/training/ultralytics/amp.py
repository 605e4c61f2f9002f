"""The number format of the forward pass in training. Weights, losses and optimiser stay float32.

``training.overrides.amp`` (ultralytics' own setting) chooses: true, the default, is the fastest format that the
hardware computes natively; ``bf16`` and ``fp16`` name one; false is float32, and the default for RT-DETR, whose
matching ultralytics reports to break on half numbers.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from actors.detectors.ultralytics.losses import Batch, Losses, LossFunction
from actors.precision import native_dtypes

if TYPE_CHECKING:
    import torch


def forward_dtype(device: "torch.device", amp: bool | float | str) -> "torch.dtype":
    """The format for ``device``. Raises ValueError where it cannot compute in the one that was named."""
    import torch

    if amp in {False, "fp32"}:
        return torch.float32
    native = native_dtypes(device)
    if amp is True:
        return native[0]
    named = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(str(amp))
    if named not in native:
        choices = ", ".join(str(dtype).removeprefix("torch.") for dtype in native)
        raise ValueError(f"training.overrides.amp: {amp!r} is not to be had on {device.type}; native here: {choices}")
    return named


def in_full_precision(loss: LossFunction, device_type: str) -> LossFunction:
    """``loss`` on float32 predictions: eight bits of bfloat16 place a box edge no better than to a few pixels."""
    import torch

    def full(value: Losses) -> Losses:
        if isinstance(value, Mapping):
            return {key: full(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [full(entry) for entry in value]
        return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    def wrapped(predictions: Batch, batch: Batch) -> Losses:
        with torch.autocast(device_type, enabled=False):
            return loss(full(predictions), batch)

    return wrapped
