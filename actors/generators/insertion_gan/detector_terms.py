"""The detector in the training loop of DetectorGAN (Liu, Muelly, Deng, Pfister, Li, ICCV 2019): L_syn and L_unroll."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from actors.checkpoint import read_header
from actors.detector_loss import prefixes_of
from actors.fitting import DetectorCheckpoint, Worker
from actors.generators.insertion_gan.batches import Windows, drawn_views, real_views
from actors.generators.insertion_gan.config import InsertionFitConfig
from actors.generators.insertion_gan.scene import Scene
from actors.generators.insertion_gan.unroll import slopes, unrolled_loss

_LEARNING_RATE = 0.001  # of the detector, where neither the config nor training.overrides has one


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terms:
    """The detector's part of the generators' loss, and the direction of its own next step."""

    synthetic: Tensor  # L_syn
    unrolled: Tensor  # L_unroll; 0 if it has no weight
    slopes: list[Tensor]  # gradient of L_real + L_syn by the detector's trained parameters


class DetectorInLoop:
    """A copy of the current detector that is trained on real and drawn views while the generators are fitted."""

    def __init__(self, fit: InsertionFitConfig, checkpoint: DetectorCheckpoint, worker: Worker) -> None:
        header = read_header(checkpoint.uri)
        if header is None:
            raise ValueError(f"{checkpoint.uri}: not a checkpoint of detloop; give a file that it wrote")
        self.fit, self.worker, self.image_size_px = fit, worker, header.image_size_px
        self.detector = checkpoint.open_loss(prefixes_of(fit.unroll_parameters), worker.device)
        rate = fit.detector_lr or checkpoint.learning_rate or _LEARNING_RATE
        self.eta = rate * fit.unroll_lr_factor
        self.optimizer = torch.optim.Adam(list(self.detector.parameters.values()), lr=rate)

    def terms(self, scenes: Sequence[Scene], drawn: Windows, real: Sequence[tuple[Scene, Scene]]) -> Terms:
        """The terms for windows that were drawn into ``scenes``.

        Args:
            scenes: The scenes of the windows.
            drawn: The windows.
            real: Real scenes for the detector's step, and others on which the stepped detector is judged.
        """
        shape = self.image_size_px, self.fit.view_px
        synthetic = drawn_views(scenes, drawn, *shape).loss(self.detector)
        unrolls = self.fit.unroll_weight > 0
        by_drawn = slopes(self.detector, synthetic, differentiable=unrolls, keep=True)
        inner = real_views([one for one, _ in real], *shape, self.worker.device)
        by_real = slopes(self.detector, inner.loss(self.detector), differentiable=False)
        unrolled = torch.zeros(())
        if unrolls:
            outer = real_views([other for _, other in real], *shape, self.worker.device)
            unrolled = unrolled_loss(self.detector, by_drawn, by_real, outer, self.eta)
        return Terms(
            synthetic=synthetic,
            unrolled=unrolled,
            slopes=[(drawn + real).detach() for drawn, real in zip(by_drawn, by_real, strict=True)],
        )

    def step(self, terms: Terms) -> None:
        """Train the detector on L_real + L_syn."""
        self.worker.share(terms.slopes)
        for value, slope in zip(self.detector.parameters.values(), terms.slopes, strict=True):
            value.grad = slope
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """The trained parameters and their optimiser."""
        trained = {name: value.detach() for name, value in self.detector.parameters.items()}
        return {"parameters": trained, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from an earlier ``state_dict``."""
        with torch.no_grad():
            for name, value in self.detector.parameters.items():
                value.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
