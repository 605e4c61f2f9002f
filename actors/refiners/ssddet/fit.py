"""Fitting the refiner of SSD-Det (arXiv 2307.12101, Sec. 3.1, Eq. 1), alone or together with the detector.

Unless the detector is trained as well, its features of a picture are computed once.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from actors.checkpoint import read_checkpoint
from actors.fitting import FitData, Preview, Worker
from actors.images import Pixels
from actors.letterbox import Letterbox, to_tensor
from actors.refiners.ssddet.config import SSDDetSettings
from actors.refiners.ssddet.examples import Example, Examples
from actors.refiners.ssddet.losses import refiner_loss
from actors.refiners.ssddet.mirrors import Mirror
from actors.refiners.ssddet.network import SSDDetNetwork
from actors.refiners.ssddet.refiner import KIND, REFINER, channels_of, objects_of, part_of, save
from actors.seeds import derive_seed

_CACHE_BYTES = 2**30  # of features, or of pictures, in memory; in larger data sets, many are made again each time
_MAX_NORM = 10.0  # of gradients (released code)
_WEIGHT_DECAY = 1e-4  # (released code)


class SSDDetFit:
    """See ``actors.fitting.Fit``."""

    boxes_cut = 0

    def __init__(self, settings: SSDDetSettings, data: FitData, worker: Worker) -> None:
        if data.detector is None:
            raise ValueError(f"{KIND}: the fit reads the features of a detector, and none is given")
        self.fit, self.worker = settings.fit, worker
        self.num_steps, self.batch_size = settings.fit.steps, settings.fit.batch_size
        self.header, _ = read_checkpoint(data.detector.uri)
        self.size_px = settings.image_size_px or self.header.image_size_px
        self.examples = Examples(data, settings.noise, settings.fit)
        self.detector = data.detector.open_loss([""] if settings.fit.joint else None, worker.device)
        self.parameters = self.detector.parameters if settings.fit.joint else {}
        channels = channels_of(self.detector, self.size_px)
        torch.manual_seed(derive_seed(data.seed, "fit weights"))
        self.network = SSDDetNetwork(settings, channels, len(data.classes)).to(worker.device)
        self.optimizer = torch.optim.AdamW(self._groups())
        self.schedule = _schedule(self.optimizer, self.num_steps)
        pixels = self.size_px**2
        values = sum(count / stride**2 for count, stride in zip(channels, self.detector.strides, strict=True))
        self.features = lru_cache(int(_CACHE_BYTES / (4 * pixels * values)))(self._features)
        self.canvas = lru_cache(_CACHE_BYTES // (3 * pixels))(self._canvas)

    def warm_start(self, uri: str) -> None:
        """Start from the refiner's own weights at ``uri``; the detector is the one that the fit is given."""
        header, tensors = read_checkpoint(uri)
        wanted = (KIND, f"{self.header.family} {self.header.model}", self.header.classes)
        if (header.family, header.model, header.classes) != wanted:
            raise ValueError(f"{uri}: holds {header.family} {header.model} for {header.classes}, but not {wanted}")
        self.network.load_state_dict(part_of(tensors, REFINER))

    def step(self, number: int) -> float:
        """Forward, backward, update; the mean loss over all workers' examples."""
        places = range(self.worker.rank, self.batch_size, self.worker.num_workers)
        self.optimizer.zero_grad()
        loss = self.loss([self.examples.example(number, place) for place in places])
        torch.autograd.backward(loss)
        learning = [one for group in self.optimizer.param_groups for one in group["params"]]
        self.worker.share(_gradients(learning))
        torch.nn.utils.clip_grad_norm_(learning, _MAX_NORM)
        self.optimizer.step()
        self.schedule.step()
        return float(self.worker.mean(loss.detach()))

    def state(self) -> dict[str, Any]:
        """Network, optimiser, and the detector's weights if they are trained."""
        parts: dict[str, Any] = {"network": self.network, "optimizer": self.optimizer, "schedule": self.schedule}
        trained = {name: one.detach() for name, one in self.parameters.items()}
        return {name: part.state_dict() for name, part in parts.items()} | {"detector": trained}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from an earlier ``state``."""
        for name in ("network", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        with torch.no_grad():
            for name, one in self.parameters.items():
                one.copy_(state["detector"][name])

    def preview(self) -> list[Preview]:
        """None: a refiner draws no pictures."""
        return []

    def save(self, uri: str) -> None:
        """Write the refiner with its detector to ``uri``."""
        save(uri, self.header, self.detector, self.parameters, self.network)

    def loss(self, examples: Sequence[Example]) -> Tensor:
        """The loss of a batch (Eq. 1)."""
        device, places = self.worker.device, [self._place(one) for one in examples]
        objects = objects_of([one.used for one in examples], places, device)
        images = self._images(examples) if self.fit.joint else None
        maps = self._read(examples) if images is None else self.detector.maps(self.parameters, images)
        levels = self.network.levels(maps, (self.size_px, self.size_px))
        outcomes = self.network(levels, objects)
        draws = [one.draws.to(device) for one in examples]
        loss = refiner_loss(self.network, levels, objects, outcomes, draws, self.fit)
        if images is None:
            return loss
        refined = zip(examples, outcomes[-1].boxes.split(list(objects.counts)), places, strict=True)
        annotations = [example.with_boxes(boxes, place) for example, boxes, place in refined]
        return loss + self.fit.detector_weight * self.detector(self.parameters, images, annotations)

    def _place(self, example: Example) -> Letterbox:
        picture = self.examples.pictures[example.number]
        return Letterbox.fit((picture.height, picture.width), self.size_px, self.size_px)

    def _images(self, examples: Sequence[Example]) -> Tensor:
        return to_tensor(np.stack([self.canvas(one.number, one.mirror) for one in examples]))

    def _canvas(self, number: int, mirror: Mirror) -> Pixels:
        return self.examples.pictures[number].drawn(self.size_px, mirror)

    def _read(self, examples: Sequence[Example]) -> list[Tensor]:
        found = [self.features(one.number, one.mirror) for one in examples]
        return [torch.cat(level) for level in zip(*found, strict=True)]

    def _features(self, number: int, mirror: Mirror) -> list[Tensor]:
        with torch.no_grad():
            return self.detector.maps({}, to_tensor(self._canvas(number, mirror)[None]))

    def _groups(self) -> list[dict[str, Any]]:
        own, detectors = self.network.parameters(), self.parameters.values()
        groups = [{"params": list(own), "lr": self.fit.learning_rate, "weight_decay": _WEIGHT_DECAY}]
        if detectors:  # without decay, which would change what has no gradient and is no weight to be learnt
            groups.append({"params": list(detectors), "lr": self.fit.detector_learning_rate, "weight_decay": 0.0})
        return groups


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of parameters; 0 for one that the batch did not reach, as a level without a proposal."""
    for one in parameters:
        one.grad = torch.zeros_like(one) if one.grad is None else one.grad
    return [one.grad for one in parameters if one.grad is not None]


def _schedule(optimizer: torch.optim.Optimizer, num_steps: int) -> SequentialLR:
    rise = max(num_steps // 20, 1)
    parts = [
        LinearLR(optimizer, start_factor=1 / rise, total_iters=rise),
        CosineAnnealingLR(optimizer, max(num_steps - rise, 1)),
    ]
    return SequentialLR(optimizer, parts, milestones=[rise])
