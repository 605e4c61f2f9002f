"""Fitting the crop painter (DDPM, arXiv 2006.11239, Algorithm 1): real boxes in windows, with holes to fill.

The checkpoint is the exponential moving average of the weights. Workers share each batch and average their gradients.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.fitting import NUM_PREVIEWS, FitData, Preview, Worker
from actors.generators.base import one_box
from actors.generators.diffusion.learner import Learner, noise_scheduler, target_of
from actors.generators.inpaint.painters.base import CropRule, Window
from actors.generators.inpaint.painters.crop.config import CropSettings
from actors.generators.inpaint.painters.crop.examples import Example, Examples, crops
from actors.generators.inpaint.painters.crop.painter import CropPainter, build_network, read_network, save_network
from actors.generators.inpaint.painters.crop.perception import Perception
from actors.generators.inpaint.painters.crop.space import Space
from actors.precision import autocast
from actors.records import Difficulty
from actors.seeds import derive_seed

_OUTSIDE_WEIGHT = 0.1  # of the loss outside of the hole, where the target is in the input


class CropFit:
    """See ``actors.fitting.Fit``."""

    boxes_cut = 0  # each box has a window of its own

    def __init__(
        self,
        config: CropSettings,
        data: FitData,
        worker: Worker,
        rule: CropRule,
    ) -> None:
        self.config, self.classes, self.worker = config, data.classes, worker
        self.num_steps, self.batch_size = config.fit_steps, config.fit_batch_size
        if self.batch_size % worker.num_workers:
            raise ValueError(f"fit_batch_size ({self.batch_size}) is no multiple of {worker.num_workers} workers")
        self.attributes = data.attributes
        self.device, self.scheduler = torch.device(worker.device), noise_scheduler()
        self.space = Space(config, self.device)
        found = crops(config, data.images, data.difficulties, rule.context, rule.margin)
        self.examples = Examples(config, found, self.space, len(data.classes), data.seed, rule)
        torch.manual_seed(derive_seed(data.seed, "fit weights"))
        self.network = build_network(config, len(data.classes), self.space.shape).to(self.device)
        group = {"params": list(self.network.parameters()), "lr": config.learning_rate}
        self.learner = Learner(self.network, [group], self.num_steps, worker)
        self.perception = Perception(self.network, self.device) if config.mask_loss_weight else None
        if self.perception:
            self.learner.add(self.perception.head, config.learning_rate)

    def warm_start(self, uri: str) -> None:
        """Start from the weights at ``uri``."""
        self.learner.warm_start(read_network(self.config, self.classes, uri)[1])

    def step(self, number: int) -> float:
        """Forward, backward, update; the weighted loss over all workers' examples."""
        batch = self.examples.batch(number, self.worker.rank, self.worker.num_workers)
        return self.learner.update([lambda: self._loss(batch)])

    def state(self) -> dict[str, Any]:
        """Network, average, optimiser, and the perception-aware loss's head if there is one."""
        return self.learner.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from an earlier ``state``."""
        self.learner.restore(state)

    def preview(self) -> list[Preview]:
        """Windows of real boxes, painted easy and hard with the same noise by the averaged weights."""
        painter = CropPainter(self.config, self.learner.average, self.space)
        return [_preview(painter, self.examples.window(place)) for place in range(NUM_PREVIEWS)]

    def save(self, uri: str) -> None:
        """Write the network's averaged weights to ``uri``, without the head, which painting does not need."""
        save_network(self.learner.average, self.config, self.classes, self.attributes, uri)

    def _loss(self, batch: Sequence[Example]) -> Tensor:
        """Mean squared error of the clean picture or latents implied by v, which weights steps with little noise less.

        Those in the hole have weight 1, others 0.1. The perception-aware loss is added if it is on.
        """

        def stacked(name: str) -> Tensor:
            return torch.from_numpy(np.stack([getattr(one, name) for one in batch])).to(self.device)

        image, known, noise = stacked("image"), stacked("known"), stacked("noise")
        timesteps, conditions = stacked("timestep"), stacked("condition")
        noisy = self.scheduler.add_noise(image, noise, timesteps)
        target = target_of(self.scheduler, image, noise, timesteps)
        with autocast(self.device):
            predicted = self.network(torch.cat([noisy, known], dim=1), timesteps, conditions).sample.float()
        alphas = self.scheduler.alphas_cumprod.to(self.device)[timesteps]
        noise_power = 1 - alphas[:, None, None, None]
        num_channels, holes = image.shape[1], known[:, -2:-1]
        weights = (holes * (1 - _OUTSIDE_WEIGHT) + _OUTSIDE_WEIGHT) * noise_power
        loss: Tensor = ((predicted - target) ** 2 * weights).sum() / (num_channels * self.worker.mean(weights.sum()))
        if self.perception:
            loss = loss + self.config.mask_loss_weight * self.perception.loss(conditions, stacked("mask"), alphas)
        return loss


def _preview(painter: CropPainter, window: Window) -> Preview:
    variants = [replace(window, difficulty=requested) for requested in Difficulty]
    holes = window.mask[..., None]
    return Preview(
        real=window.pixels,
        annotation=one_box(window.box, np.int64(window.label)),
        difficulties=(window.difficulty,),
        drawn={
            str(variant.difficulty): np.where(holes, painted, window.pixels)
            for variant, painted in zip(variants, painter.paint(variants), strict=True)
        },
    )
