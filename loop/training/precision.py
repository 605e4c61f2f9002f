"""The number format of the forward pass in training. Weights, losses and optimiser stay float32."""

from typing import TYPE_CHECKING

from actors.precision import native_dtypes

if TYPE_CHECKING:
    import torch


def forward_dtype(device: "torch.device", amp: bool | float | str) -> "torch.dtype":
    """The format that ``training.overrides.amp`` chooses on ``device``.

    True is the fastest format that the hardware computes natively; ``bf16`` and ``fp16`` name one; False is float32.
    Raises ValueError where the device cannot compute in the one that was named.
    """
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
