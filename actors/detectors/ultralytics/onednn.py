"""Convolutions on the CPU that keep their weights packed and apply the activation while they write their output."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def pack_convolutions(model: "nn.Module") -> None:
    """Make a model that will not change again faster on the CPU, in place; the results differ in the last bits.

    A block is recognised by ``conv`` and ``act`` without ``bn``, as ultralytics' ``fuse`` leaves them. These are the
    operators that torch.compile puts in a frozen model; a torch built without oneDNN runs the model as it is.
    """
    import torch

    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return
    activations: dict[type, str] = {torch.nn.SiLU: "swish", torch.nn.ReLU: "relu", torch.nn.Identity: "none"}
    done = set()
    modules: Iterator[Any] = model.modules()
    for module in modules:  # blocks come before what is in them
        activation = activations.get(type(getattr(module, "act", None)))
        conv = getattr(module, "conv", None)
        if type(conv) is torch.nn.Conv2d and activation and not hasattr(module, "bn"):
            module.forward = _packed(conv, activation)
            done.add(conv)
        elif type(module) is torch.nn.Conv2d and module not in done:
            module.forward = _packed(module, "none")  # type: ignore[method-assign]


def _packed(conv: Any, activation: str) -> "partial[Tensor]":  # noqa: ANN401
    import torch

    shape = (conv.padding, conv.stride, conv.dilation, conv.groups)
    weight = torch._C._nn.mkldnn_reorder_conv2d_weight(conv.weight.detach().to_mkldnn(), *shape)  # noqa: SLF001
    return partial(_convolve, weight=weight, bias=conv.bias, shape=shape, activation=activation)


def _convolve(
    images: "Tensor", *, weight: "Tensor", bias: "Tensor | None", shape: tuple[Any, ...], activation: str
) -> "Tensor":
    import torch

    output: Tensor = torch.ops.mkldnn._convolution_pointwise(images, weight, bias, *shape, activation, [], "")  # noqa: SLF001
    return output
