"""The images of each training step: real and synthetic ones in the ratio p (Gen2Det, arXiv 2312.04566, Sec. 3.3).

The batches depend on the seed and the step only. So every worker derives the same global batches and takes its slice,
a resumed training continues exactly, and with p = 0 the order of the real images is the same as without a pool.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actors.seeds import derive_seed
from loop.config import MixingConfig


class Draw(NamedTuple):
    """One image of a batch, and the seed of its augmentation."""

    synthetic: bool
    image: int  # position among the real images, or in the pool
    seed: int  # of the augmentation; depends on the step and the place in the batch, not on the worker


@lru_cache(maxsize=64)
def _order(seed: int, kind: str, pass_: int, num_images: int) -> NDArray[np.int64]:
    """The order ``[num_images]`` of one pass over the real images or over the pool."""
    return np.random.default_rng(derive_seed(seed, kind, pass_)).permutation(num_images)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """All batches of a training.

    In mode ``batch`` a whole batch is synthetic with probability p, as in the paper. In mode ``share`` a share p of
    every batch is synthetic, rounded so that the total is off by at most half an image after any number of steps.
    Real images and pool each have an order of their own, reshuffled for every pass. With an empty pool all images
    are real, and ``realised_p`` is 0. Where the pool is too small for ``mixing.p``, p is lowered until no synthetic
    image is shown more than ``mixing.max_repeats`` times as often as the control shows a real one.

    Raises ValueError if there is no real image.
    """

    num_real: int
    num_synthetic: int
    num_steps: int
    batch_size: int  # images per step, over all workers
    mixing: MixingConfig
    seed: int
    counts: NDArray[np.int64] = field(init=False, repr=False)  # [num_steps] synthetic images in each step
    _before: NDArray[np.int64] = field(init=False, repr=False)  # [num_steps] synthetic images in the steps before

    def __post_init__(self) -> None:
        if self.num_real < 1:
            raise ValueError("no real training image: mosaics and the control arm need at least one")
        counts = self._count() if self.num_synthetic else np.zeros(self.num_steps, np.int64)
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "_before", np.cumsum(counts) - counts)

    def _count(self) -> NDArray[np.int64]:
        if self.mixing.mode == "batch":
            draws = np.random.default_rng(derive_seed(self.seed, "kind")).random(self.num_steps)
            num_batches = min(int((draws < self.p).sum()), self._most_draws // self.batch_size)
            ranks = draws.argsort(kind="stable").argsort(kind="stable")
            return np.where(ranks < num_batches, np.int64(self.batch_size), np.int64(0))
        wanted = self.p * self.batch_size * np.arange(self.num_steps + 1)
        so_far: NDArray[np.int64] = np.minimum(np.floor(wanted + 0.5).astype(np.int64), self._most_draws)
        return so_far[1:] - so_far[:-1]

    @property
    def p(self) -> float:
        """The share of synthetic images that is aimed at: ``mixing.p``, or what the pool allows."""
        return min(self.mixing.p, self._most_share)

    @property
    def _most_share(self) -> float:
        repeats = self.mixing.max_repeats
        return 1.0 if repeats is None else min(repeats * self.num_synthetic / self.num_real, 1.0)

    @property
    def _most_draws(self) -> int:
        return int(self._most_share * self.num_steps * self.batch_size + 1e-6)

    @property
    def num_synthetic_draws(self) -> int:
        """Synthetic images over all steps, repetitions included."""
        return int(self.counts.sum())

    @property
    def num_real_draws(self) -> int:
        """Real images over all steps, repetitions included."""
        return self.num_steps * self.batch_size - self.num_synthetic_draws

    @property
    def realised_p(self) -> float:
        """Share of synthetic images over all steps."""
        return self.num_synthetic_draws / (self.num_steps * self.batch_size)

    def warnings(self) -> list[str]:
        """One line if the pool is too small for ``mixing.p``: p is lowered, or images are shown too often."""
        if not self.num_synthetic:
            return []
        num_draws = self.num_steps * self.batch_size
        each = self.mixing.p * num_draws / self.num_synthetic
        of_control = num_draws / self.num_real
        often = f"each {each:.0f} times, and the control shows each real image {of_control:.0f} times"
        remedy = "raise generation.copies, or relax the filters"
        if self.p < self.mixing.p:
            lowered = (
                f"mixing.p is lowered from {self.mixing.p:g} to {self.p:.2g}: it would show {self.num_synthetic} "
                f"synthetic images {often} (mixing.max_repeats; for a larger share {remedy})"
            )
            return [lowered]
        memorised = (
            f"{self.num_synthetic} synthetic images make up {self.realised_p:.0%} of the training: it shows {often}; "
            f"the detector can memorise them (set mixing.max_repeats: 1.0, {remedy})"
        )
        return [memorised] if each > of_control else []

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> list[Draw]:
        """The part of worker ``rank`` of ``world_size`` in ``step``: every ``world_size``-th image of the batch."""
        places = range(rank, self.batch_size, world_size)
        return [self._draw(step, place) for place in places]

    def steps(self, start: int, rank: int = 0, world_size: int = 1) -> Iterator[list[Draw]]:
        """The batches from step ``start`` to the last."""
        return (self.batch(step, rank, world_size) for step in range(start, self.num_steps))

    def _draw(self, step: int, place: int) -> Draw:
        num_real = self.batch_size - int(self.counts[step])
        synthetic = place >= num_real
        before = int(self._before[step])
        turn = before + place - num_real if synthetic else step * self.batch_size - before + place
        pass_, position = divmod(turn, self.num_synthetic if synthetic else self.num_real)
        order = self._order(synthetic, pass_)
        return Draw(synthetic, int(order[position]), derive_seed(self.seed, "augment", step, place))

    def _order(self, synthetic: bool, pass_: int) -> NDArray[np.int64]:
        num_images = self.num_synthetic if synthetic else self.num_real
        return _order(self.seed, "synthetic" if synthetic else "real", pass_, num_images)
