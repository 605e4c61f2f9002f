"""Fitting DetectorGAN (Liu, Muelly, Deng, Pfister, Li, ICCV 2019): discriminators, generators, detector, in turn.

The checkpoint has the exponential moving average of the generators' weights. Workers share each batch and average their
gradients; each unrolls the detector's step on its own share.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from actors.fitting import NUM_PREVIEWS, FitData, Preview, Worker
from actors.generators.base import one_box
from actors.generators.diffusion.learner import to_pixels
from actors.generators.insertion_gan import checkpoint, losses
from actors.generators.insertion_gan.batches import Windows
from actors.generators.insertion_gan.config import InsertionGANSettings
from actors.generators.insertion_gan.detector_terms import DetectorInLoop, Terms
from actors.generators.insertion_gan.examples import Examples
from actors.generators.insertion_gan.networks import composed, local_crops
from actors.generators.insertion_gan.painting import paint
from actors.generators.insertion_gan.pool import Pool
from actors.generators.insertion_gan.scene import Scene
from actors.records import Annotation
from actors.seeds import derive_seed

_EMA_DECAY = 0.99
_TINY = 1e-30  # least norm of a gradient that is scaled
_BETAS = (0.5, 0.999)  # CycleGAN's


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """What the generators make of a batch."""

    empty: Windows  # x: windows without objects, at places for them
    full: Windows  # y: windows with objects
    raw_inserted: Tensor  # [b, 3, S, S]: G_X(x) before it is confined to the mask
    raw_removed: Tensor  # likewise G_Y(y)
    inserted: Windows  # G_X(x, m)
    removed: Windows  # G_Y(y, m)


class InsertionGANFit:
    """See ``actors.fitting.Fit``."""

    boxes_cut = 0  # each box has a window of its own

    def __init__(self, settings: InsertionGANSettings, data: FitData, worker: Worker) -> None:
        self.settings, self.classes, self.worker, self.seed = settings, data.classes, worker, data.seed
        self.fit, self.num_steps, self.batch_size = settings.fit, settings.fit.steps, settings.fit.batch_size
        _check_shares(settings, worker)
        self.attributes = data.attributes
        self.examples = Examples(settings, data)
        torch.manual_seed(derive_seed(data.seed, "fit weights"))
        self.painters = checkpoint.build_painters(settings, len(data.classes)).to(worker.device)
        self.judges = checkpoint.build_judges(settings, len(data.classes)).to(worker.device)
        self.average = AveragedModel(self.painters, multi_avg_fn=get_ema_multi_avg_fn(_EMA_DECAY))
        self.painting, self.judging = (self._optimizer(one) for one in (self.painters, self.judges))
        self.schedules = [LambdaLR(one, self._rate) for one in (self.painting, self.judging)]
        self.pools = Pool(self.fit.pool_size), Pool(self.fit.pool_size)
        self.detector = self._open_detector(data)

    def warm_start(self, uri: str) -> None:
        """Start from the networks at ``uri``; the detector is the one that the fit is given."""
        painters, judges = checkpoint.load(uri, self.settings, self.classes)
        self.painters.load_state_dict(painters)
        self.average.module.load_state_dict(painters)
        self.judges.load_state_dict(judges)

    def step(self, number: int) -> float:
        """Update the discriminators, the generators and, if it is its turn, the detector.

        Returns the generators' loss without L_syn and L_unroll.
        """
        places = range(self.worker.rank, self.batch_size, self.worker.num_workers)
        empty = [self.examples.without_object(number, place) for place in places]
        full = [self.examples.with_object(number, place) for place in places]
        drawn = self._draw(empty, full, number)
        self._update(self.judging, self.judges, self._judges_loss(drawn, number))
        terms = self._terms(empty, drawn, number)
        loss = self._painters_loss(drawn, number)
        guided = loss + self._guidance(drawn.inserted.images, loss, terms) if terms else loss
        self._update(self.painting, self.painters, guided)
        self.average.update_parameters(self.painters)
        if self.detector and terms:
            self.detector.step(terms)
        for schedule in self.schedules:
            schedule.step()
        return float(self.worker.mean(loss.detach().cpu()))

    def state(self) -> dict[str, Any]:
        """Networks, averages, optimisers, schedules, pools, and the detector's trained weights."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from an earlier ``state``."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def preview(self) -> list[Preview]:
        """Windows without objects with one inserted; beside them real objects of their class, and those removed."""
        return [self._preview(number) for number in range(NUM_PREVIEWS)]

    def save(self, uri: str) -> None:
        """Write the generators' averaged weights to ``uri``, with the discriminators, which warm starts need."""
        checkpoint.save(uri, self.settings, self.classes, self.average.module, self.judges)

    # The parts of a step

    def _draw(self, empty: Sequence[Scene], full: Sequence[Scene], number: int) -> Drawn:
        device = self.worker.device
        x, y = (Windows.of(self.settings, scenes, device) for scenes in (empty, full))
        inserted = self._paint("insert", x, x.images, number)
        removed = self._paint("remove", y, y.images, number)
        return Drawn(
            empty=x,
            full=y,
            raw_inserted=inserted,
            raw_removed=removed,
            inserted=replace(x, images=composed(inserted, x.images, x.masks)),
            removed=replace(y, images=composed(removed, y.images, y.masks)),
        )

    def _paint(self, name: Literal["insert", "remove"], windows: Windows, images: Tensor, *at: int) -> Tensor:
        """The output of G_X or G_Y for the masks and classes of ``windows``, before it is confined to the masks."""
        rng = np.random.default_rng(derive_seed(self.seed, "noise", name, self.worker.rank, *at))
        shape = (len(images), self.settings.noise_channels, *images.shape[2:])
        noise = torch.from_numpy(rng.standard_normal(shape, np.float32)).to(images)
        return paint(self.painters, name, replace(windows, images=images), noise)

    def _judge(self, name: str, windows: Windows) -> Tensor:
        images, masks = windows.images, windows.masks
        if name == "local":
            images, masks = local_crops(images, masks, windows.boxes, self.fit.local_px)
        values: Tensor = self.judges[name](images, masks, windows.labels)
        return values

    def _judges_loss(self, drawn: Drawn, number: int) -> Tensor:
        rng = np.random.default_rng(derive_seed(self.seed, "pool", self.worker.rank, number))
        inserted, removed = (
            pool.exchange(one, rng) for pool, one in zip(self.pools, (drawn.inserted, drawn.removed), strict=True)
        )
        shown = (drawn.full, inserted)
        pairs = [("inserted", shown), ("local", shown), ("removed", (drawn.empty, removed))]
        found = [losses.tells_apart(self._judge(name, real), self._judge(name, fake)) for name, (real, fake) in pairs]
        return torch.stack(found).sum()

    def _painters_loss(self, drawn: Drawn, number: int) -> Tensor:
        """The adversarial, cycle and outside losses."""
        fit, x, y = self.fit, drawn.empty, drawn.full
        adversarial = losses.looks_real(self._judge("inserted", drawn.inserted))
        adversarial = adversarial + losses.looks_real(self._judge("removed", drawn.removed))
        if fit.local_weight:
            adversarial = adversarial + fit.local_weight * losses.looks_real(self._judge("local", drawn.inserted))
        x_again = self._paint("remove", x, drawn.inserted.images, number, 1)
        y_again = self._paint("insert", y, drawn.removed.images, number, 1)
        cycle = losses.cycle_loss(x_again, x.images, x.masks) + losses.cycle_loss(y_again, y.images, y.masks)
        outside = losses.outside_loss(drawn.raw_inserted, x.images, x.masks)
        outside = outside + losses.outside_loss(drawn.raw_removed, y.images, y.masks)
        return adversarial + fit.cycle_weight * cycle + fit.outside_weight * outside

    def _terms(self, empty: Sequence[Scene], drawn: Drawn, number: int) -> Terms | None:
        """L_syn and L_unroll of the first windows of the batch, in the steps in which the detector takes part."""
        turn = number - self.fit.warmup_steps
        if self.detector is None or turn < 0 or turn % self.fit.detector_every:
            return None
        size, workers = self.fit.detector_batch_size, self.worker.num_workers
        real = self.examples.real_pairs(number, size)[self.worker.rank :: workers]
        return self.detector.terms(empty[: size // workers], drawn.inserted.take(0, size // workers), real)

    def _guidance(self, images: Tensor, loss: Tensor, terms: Terms) -> Tensor:
        """A loss of value 0 that pulls drawn windows ``[b, 3, S, S]`` as L_syn and L_unroll do, at their weights.

        The norm of each pull is its weight times the norm of the pull of ``loss``, all the others together.
        """
        (others,) = torch.autograd.grad(loss, images, retain_graph=True)
        pull = torch.zeros_like(images)
        weights = (self.fit.syn_weight, terms.synthetic), (self.fit.unroll_weight, terms.unrolled)
        for weight, term in weights:
            if weight:
                (slope,) = torch.autograd.grad(term, images, retain_graph=True)
                pull += weight * others.norm() / slope.norm().clamp(min=_TINY) * slope
        return ((images - images.detach()) * pull).sum()

    def _update(self, optimizer: torch.optim.Optimizer, networks: nn.Module, loss: Tensor) -> None:
        """A step on the networks' own parameters; other networks get no gradients."""
        parameters = list(networks.parameters())
        gradients = list(torch.autograd.grad(loss, parameters, materialize_grads=True))
        self.worker.share(gradients)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()

    # What the constructor builds

    def _open_detector(self, data: FitData) -> DetectorInLoop | None:
        if not self.settings.has_detector_terms:
            return None
        if data.detector is None:
            raise ValueError("insertion_gan: syn_weight or unroll_weight is above 0, but no detector is given")
        return DetectorInLoop(self.fit, data.detector, self.worker)

    def _optimizer(self, networks: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(networks.parameters(), lr=self.fit.learning_rate, betas=_BETAS)

    def _rate(self, step: int) -> float:
        """Factor of the learning rate: 1 over the first half of the steps, then falling to 0."""
        return min(1.0, 2 * (1 - step / self.num_steps))

    def _parts(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("painters", "judges", "average", "painting", "judging")}
        parts |= {f"schedule_{number}": one for number, one in enumerate(self.schedules)}
        parts |= {f"pool_{number}": one for number, one in enumerate(self.pools)}
        return parts | ({"detector": self.detector} if self.detector else {})

    def _preview(self, number: int) -> Preview:
        full, empty = self.examples.pair(number)
        x, y = (Windows.of(self.settings, [scene], self.worker.device) for scene in (empty, full))
        with torch.no_grad():
            inserted, removed = self._averaged("insert", x), self._averaged("remove", y)
        drawn = {"inserted": inserted, "a real object": y.images, "that removed": removed}
        own = self._in_window(full)
        return Preview(
            real=to_pixels(x.images)[0],
            annotation=self._in_window(empty),
            difficulties=(),
            drawn={name: to_pixels(images)[0] for name, images in drawn.items()},
            others={"a real object": own, "that removed": own},
            heading="place",
        )

    def _in_window(self, scene: Scene) -> Annotation:
        """The object's box, in its window."""
        return one_box(scene.frame.to_window(scene.box, self.settings.size_px), np.int64(scene.label))

    def _averaged(self, name: Literal["insert", "remove"], windows: Windows) -> Tensor:
        shape = (1, self.settings.noise_channels, *windows.images.shape[2:])
        noise = torch.zeros(shape).to(windows.images)
        painted = paint(cast("nn.ModuleDict", self.average.module), name, windows, noise)
        return composed(painted, windows.images, windows.masks)


def _check_shares(settings: InsertionGANSettings, worker: Worker) -> None:
    """Raise ValueError unless the batches can be shared evenly."""
    sizes = {"batch_size": settings.fit.batch_size, "detector_batch_size": settings.fit.detector_batch_size}
    for name, size in sizes.items():
        if size % worker.num_workers:
            raise ValueError(f"generator.fit.{name} ({size}) is no multiple of {worker.num_workers} workers")
