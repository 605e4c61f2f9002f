"""Losses in float32 whatever the number format of the forward pass, which ``training.overrides.amp`` chooses.

The default is the fastest native format (see ``loop.training.precision``), but float32 for RT-DETR, whose matching
ultralytics reports to break on half numbers.
"""

from collections.abc import Mapping

from actors.detectors.ultralytics.losses import Batch, Losses, LossFunction


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
