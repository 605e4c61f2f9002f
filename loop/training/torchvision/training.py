"""The training of a torchvision detector on the batches of a mixture. Imported by training workers alone."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from actors.detectors.torchvision.losses import losses
from actors.records import Annotation
from actors.seeds import derive_seed
from loop.hosting.launch import OnProgress
from loop.hosting.records import Place, Progress
from loop.hosting.resume import Memory
from loop.training.base import PROGRESS_S
from loop.training.batches import MixedImages, MixtureSampler
from loop.training.image_cache import PICTURES_BYTES, Pictures, Record
from loop.training.job import TrainJob
from loop.training.precision import forward_dtype
from loop.training.torchvision.images import Batch, Images, collate
from loop.training.torchvision.optimizer import build_average, build_optimizer, build_schedule
from loop.training.torchvision.settings import read_settings

State = dict[str, Any]  # plain values and tensors
MOST_LOADERS = 8


class Losses(nn.Module):
    """The losses of a network as a forward pass, which DistributedDataParallel expects."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: Tensor, annotations: Sequence[Annotation], synthetic: Sequence[bool]
    ) -> dict[str, Tensor]:
        """The losses by name, of images ``[n, 3, S, S]`` in [0, 1]."""
        return losses(self.network, images, annotations, synthetic)


class Training:
    """One worker's part of a job."""

    def __init__(self, job: TrainJob, network: nn.Module, place: Place, memory: Memory, progress: OnProgress) -> None:
        self.job, self.place, self.memory, self.progress = job, place, memory, progress
        self.settings, self.steps = read_settings(job.training.overrides), job.training.steps
        self.device = torch.device("cpu" if place.device == "cpu" else f"cuda:{place.device}")
        self.dtype = forward_dtype(self.device, self.settings.format_on(self.device.type))
        self.network = network.to(self.device).to(memory_format=torch.channels_last).train()
        self.average = build_average(self.network, self.settings, self.steps)
        self.optimizer = build_optimizer(self.network, self.settings, job.training.batch_size)
        self.schedule = build_schedule(self.optimizer, self.settings, self.steps)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.first_epoch, self.done, self.seconds, self.began, self.reported = 0, 0, 0.0, 0.0, 0.0
        self.losses: list[dict[str, float]] = []

    def run(self) -> None:
        """Train to the last step, from where the training was, if it was."""
        state = self.memory.recall()
        if state is not None:
            self.restore(state)
        forward, batches = self.parallel(), iter(self.loader())
        self.began = self.reported = time.perf_counter()
        with repeatable(self.device):
            for epoch in range(self.first_epoch, self.steps // self.job.training.epoch_steps):
                self.run_epoch(epoch, forward, batches)

    def parallel(self) -> nn.Module:
        """The losses, whose gradients are means over all workers."""
        forward = Losses(self.network)
        if self.place.num_workers == 1:
            return forward
        devices = None if self.device.index is None else [self.device.index]
        ddp = nn.parallel.DistributedDataParallel
        return ddp(forward, device_ids=devices, find_unused_parameters=True, broadcast_buffers=False)

    def loader(self) -> DataLoader[Any]:
        """This worker's batches, from the current epoch to the end of the training."""
        mixture, rank, num_workers = self.job.mixture(), self.place.rank, self.place.num_workers
        sampler = MixtureSampler(mixture, self.job.training.epoch_steps, rank, num_workers)
        sampler.set_epoch(self.first_epoch)
        on_gpu, loaders = self.device.type == "cuda", self.settings.workers
        if loaders is None:
            loaders = min(MOST_LOADERS, (os.cpu_count() or 1) // num_workers) if on_gpu else 0
        return DataLoader(
            self.images(loaders),
            batch_size=mixture.batch_size // num_workers,
            sampler=sampler,
            num_workers=loaders,
            prefetch_factor=4 if loaders else None,
            pin_memory=on_gpu,
            collate_fn=collate,
            generator=torch.Generator(),
        )

    def images(self, loaders: int) -> MixedImages:
        """The images of the job, each kind apart."""
        limit_bytes = PICTURES_BYTES // 2 // max(loaders, 1)

        def kind(records: Sequence[Record]) -> Images:
            return Images(Pictures(records, self.job.detector.image_size_px, limit_bytes), self.settings)

        return MixedImages.of(self.job, kind)

    # Resuming

    def snapshot(self) -> State:
        """All that the rest of the training depends on."""
        return {
            "epoch": len(self.losses),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "losses": self.losses,
        }

    def restore(self, state: State) -> None:
        """Take up what ``snapshot`` gave."""
        self.first_epoch, self.losses = state["epoch"], state["losses"]
        for name in ("network", "average", "optimizer", "schedule", "scaler"):
            getattr(self, name).load_state_dict(state[name])

    # While it runs

    def run_epoch(self, epoch: int, forward: nn.Module, batches: Iterator[Batch]) -> None:
        """``epoch_steps`` steps. What is random in an epoch depends on its number, not on the epochs before."""
        torch.manual_seed(derive_seed(self.job.seed, "epoch", epoch, self.place.rank))
        steps = []
        for _ in range(self.job.training.epoch_steps):
            steps.append(self.step(forward, next(batches)))
            self.report(steps[-1])
        means = {name: float(torch.stack([parts[name] for parts in steps]).mean()) for name in steps[0]}
        self.end_epoch(epoch, means)

    def step(self, forward: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """One step of the optimiser; the losses by name."""
        images = batch.images.to(self.device, non_blocking=True)
        images = images.to(torch.float32, memory_format=torch.channels_last).div_(255)
        synthetic = [flag and self.job.training.background_ignore for flag in batch.synthetic]
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            parts: dict[str, Tensor] = forward(images, batch.annotations, synthetic)
        self.optimizer.zero_grad()
        self.scaler.scale(torch.stack(list(parts.values())).sum()).backward()
        self.scaler.unscale_(self.optimizer)
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.average.update_parameters(self.network)
        return {name: value.detach() for name, value in parts.items()}

    def report(self, parts: dict[str, Tensor]) -> None:
        """Tell how far the training is, now and then."""
        self.done += 1
        now = time.perf_counter()
        if self.place.rank > 0 or now - self.reported < PROGRESS_S:
            return
        self.reported = now
        step = self.first_epoch * self.job.training.epoch_steps + self.done
        speed = self.done * self.job.training.batch_size / (now - self.began)
        loss = float(sum(parts.values()))
        self.progress(Progress(step=step, steps=self.steps, loss=loss, images_per_s=speed))

    def end_epoch(self, epoch: int, means: dict[str, float]) -> None:
        """Note the losses and offer the state. Raises ValueError where a loss is not finite."""
        if not math.isfinite(loss := sum(means.values())):
            lr = self.settings.learning_rate(self.job.training.batch_size)
            raise ValueError(
                f"the loss is {loss} in epoch {epoch + 1}; lower training.overrides.lr (now {lr:g}), or set "
                "training.overrides.amp: false"
            )
        done = (epoch + 1) * self.job.training.epoch_steps
        self.losses.append({"step": done, "lr": self.optimizer.param_groups[0]["lr"], **means})
        self.seconds = time.perf_counter() - self.began
        if done < self.steps:
            self.memory.keep(self.snapshot)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """A context in which GPUs compute with deterministic algorithms, where there are any. CPUs do anyway."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
