"""Native number formats of the hardware, and reproducible inference."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def native_dtypes(device: "torch.device") -> "list[torch.dtype]":
    """The formats in which ``device`` computes natively, fastest first.

    On CPUs with bfloat16 instructions (AMX, AVX-512) that is bfloat16. In float32, a training step of YOLO takes 1.3 to
    1.9 times as long, depending on the image size (``tests/bench/speed.py --only train``).
    """
    import torch

    if device.type == "cuda":
        bfloat = [torch.bfloat16] if torch.cuda.is_bf16_supported(including_emulation=False) else []
        return [*bfloat, torch.float16, torch.float32]
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        if has.get("amx_bf16", False) or has.get("avx512_bf16", False):
            return [torch.bfloat16, torch.float32]
    return [torch.float32]


def autocast(device: "torch.device") -> "torch.autocast":
    """A context in which networks on ``device`` compute in its fastest native format."""
    import torch

    dtype = native_dtypes(device)[0]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


@contextmanager
def reproducible(*, gradients: bool = False) -> Iterator[None]:
    """A context whose results depend neither on the number of CPUs nor on benchmarked algorithms, to the last bit.

    It is one for inference, unless ``gradients`` are needed.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # oneDNN splits convolutions among threads, so their number changes the last bits
    try:
        with torch.inference_mode(not gradients), torch.backends.cudnn.flags(benchmark=False, deterministic=True):
            yield
    finally:
        torch.set_num_threads(threads)


def cast_weights(network: "nn.Module", device: "torch.device") -> None:
    """Cast the weights that ``autocast`` would cast in every call to the fastest native format, once and in place.

    The outputs of a frozen network stay the same bit for bit, and it takes half the memory.
    """
    from torch import nn

    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.to(native_dtypes(device)[0])
