"""A mixture's draws as what a torch data loader asks for."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from loop.mixing import Draw, Kind, Mixture
from loop.training.image_cache import Record
from loop.training.job import TrainJob

Labels = dict[str, Any]  # one image and its boxes, as the family's augmentation returns them


class AugmentedImages(Protocol):
    """Images of one kind that come augmented, by the global random numbers of Python, NumPy and torch."""

    def __getitem__(self, index: int) -> Labels: ...


class MixedImages(Dataset[Labels]):
    """Images of all kinds, indexed by draws. Its length, which trainers plan by, is that of an epoch.

    An image comes with ``synthetic`` and ``seed``, those of its draw.
    """

    def __init__(self, kinds: Mapping[Kind, AugmentedImages], num_draws: int) -> None:
        self.kinds, self.num_draws = kinds, num_draws

    @classmethod
    def of(cls, job: TrainJob, open_images: Callable[[Sequence[Record]], AugmentedImages]) -> Self:
        """The images of ``job``. ``open_images`` opens those of one kind, which are never mixed in one mosaic."""
        records: dict[Kind, Sequence[Record]] = {"real": job.real, "synthetic": job.pool, "clean": job.clean}
        kinds = {kind: open_images(images) for kind, images in records.items() if images}
        return cls(kinds, job.training.epoch_steps * job.training.batch_size)

    def __len__(self) -> int:
        return self.num_draws

    def __getitem__(self, draw: Draw) -> Labels:
        random.seed(draw.seed)
        np.random.seed(draw.seed % 2**32)  # noqa: NPY002 - the generator that augmentations use
        with torch.random.fork_rng(devices=[]):  # the losses draw from torch's numbers, too
            torch.default_generator.manual_seed(draw.seed)
            return {**self.kinds[draw.kind][draw.image], "synthetic": draw.synthetic, "seed": draw.seed}


class MixtureSampler(Sampler[Draw]):
    """A worker's draws, from the current epoch to the end of the training: loaders may read ahead over epochs."""

    def __init__(self, mixture: Mixture, epoch_steps: int, rank: int, num_workers: int) -> None:
        self.mixture, self.epoch_steps, self.rank, self.num_workers = mixture, epoch_steps, rank, num_workers
        self.epoch = 0

    def __len__(self) -> int:
        return self.epoch_steps * self.mixture.batch_size // self.num_workers

    def __iter__(self) -> Iterator[Draw]:
        for batch in self.mixture.steps(self.epoch * self.epoch_steps, self.rank, self.num_workers):
            yield from batch

    def set_epoch(self, epoch: int) -> None:
        """The epoch at which the next iterator starts."""
        self.epoch = epoch
