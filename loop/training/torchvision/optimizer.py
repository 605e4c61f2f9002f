"""Optimiser, learning-rate schedule and moving average of a training, by torch."""

from torch import nn, optim
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from loop.training.torchvision.settings import Settings

FALLS = (2 / 3, 8 / 9)
"""Where the schedule ``step`` falls, as in torchvision's references: epochs 16 and 22 of 26, shares of the training."""


def build_optimizer(network: nn.Module, settings: Settings, batch_size: int) -> optim.Optimizer:
    """The optimiser of all weights of ``network`` that are not frozen."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    lr, decay = settings.learning_rate(batch_size), settings.weight_decay
    if settings.optimizer == "adamw":
        return optim.AdamW(weights, lr, weight_decay=decay, fused=True)
    return optim.SGD(weights, lr, momentum=settings.momentum, weight_decay=decay, fused=True)


def build_schedule(optimizer: optim.Optimizer, settings: Settings, steps: int) -> lr_scheduler.LRScheduler:
    """The learning rate over ``steps`` steps: a linear warm-up, then a cosine or steps."""
    warmup = min(round(settings.warmup * steps), steps - 1)
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    fall: lr_scheduler.LRScheduler = lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup)
    if settings.schedule == "step":
        fall = lr_scheduler.MultiStepLR(optimizer, [round(share * steps) - warmup for share in FALLS])
    return lr_scheduler.SequentialLR(optimizer, [rise, fall], [warmup])


def build_average(network: nn.Module, settings: Settings, steps: int) -> AveragedModel:
    """The moving average of weights and statistics; the first step's replace the initial ones."""
    decay = 1 - 1 / max(settings.ema * steps, 1.0)
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
