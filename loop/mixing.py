"""The images of each training step: real and synthetic ones in the ratio p (Gen2Det, arXiv 2312.04566, Sec. 3.3).

The batches depend on the seed and the step only. So every worker derives the same global batches and takes its slice,
a resumed training continues exactly, and with p = 0 the order of the real images is the same as without a pool.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actors.counted import counted
from actors.seeds import derive_seed
from loop.config import MixingConfig

Kind = Literal["real", "synthetic", "clean"]


class Draw(NamedTuple):
    """One image of a batch, and the seed of its augmentation."""

    kind: Kind  # clean: a real image of ``data.clean``
    image: int  # position among the images of its kind
    seed: int  # of the augmentation; depends on the step and the place in the batch, not on the worker

    @property
    def synthetic(self) -> bool:
        """Whether the image is from the pool."""
        return self.kind == "synthetic"


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
    image is shown more than ``mixing.max_repeats`` times as often as the control shows a real one. After a share
    ``mixing.until`` of the steps, all images are real.

    If there are images without objects, a share ``mixing.clean`` of the real images are such ones, spread evenly over
    the training at random places. Which real images they are depends on their number so far, not on p.

    Raises ValueError if there is no real image.
    """

    num_real: int
    num_synthetic: int
    num_steps: int
    batch_size: int  # images per step, over all workers
    mixing: MixingConfig
    seed: int
    num_clean: int = 0  # images without objects, besides num_real
    counts: NDArray[np.int64] = field(init=False, repr=False)  # [num_steps] synthetic images in each step
    _before: NDArray[np.int64] = field(init=False, repr=False)  # [num_steps] synthetic images in the steps before
    _clean: NDArray[np.int64] = field(init=False, repr=False)  # which of the real draws are without objects, sorted

    def __post_init__(self) -> None:
        if self.num_real < 1:
            raise ValueError("no real training image: mosaics and the control arm need at least one")
        counts = self._count() if self.num_synthetic else np.zeros(self.num_steps, np.int64)
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "_before", np.cumsum(counts) - counts)
        object.__setattr__(self, "_clean", self._places_of_clean())

    @property
    def clean_share(self) -> float:
        """The share of images without objects among the real ones."""
        return self.mixing.clean if self.num_clean else 0.0

    def _places_of_clean(self) -> NDArray[np.int64]:
        """The k-th is at a random place among the real draws from k / share to (k + 1) / share."""
        if not self.clean_share:
            return np.zeros(0, np.int64)
        number = int(self.num_real_draws * self.clean_share) + 1
        starts = np.floor(np.arange(number + 1) / self.clean_share).astype(np.int64)
        chance = np.random.default_rng(derive_seed(self.seed, "clean places")).random(number)
        places: NDArray[np.int64] = starts[:-1] + (chance * np.diff(starts)).astype(np.int64)
        return places[places < self.num_real_draws]

    def _count(self) -> NDArray[np.int64]:
        if self.mixing.mode == "batch":
            draws = np.random.default_rng(derive_seed(self.seed, "kind")).random(self.num_steps)
            draws[self._num_mixed :] = 1.0
            num_batches = min(int((draws < self.p).sum()), self._most_draws // self.batch_size)
            ranks = draws.argsort(kind="stable").argsort(kind="stable")
            return np.where(ranks < num_batches, np.int64(self.batch_size), np.int64(0))
        wanted = self.p * self.batch_size * np.minimum(np.arange(self.num_steps + 1), self._num_mixed)
        so_far: NDArray[np.int64] = np.minimum(np.floor(wanted + 0.5).astype(np.int64), self._most_draws)
        return so_far[1:] - so_far[:-1]

    @property
    def p(self) -> float:
        """The share of synthetic images that is aimed at: ``mixing.p``, or what the pool allows."""
        return min(self.mixing.p, self._most_draws / (self._num_mixed * self.batch_size))

    @property
    def _num_mixed(self) -> int:
        """The number of steps with synthetic images; the others follow them."""
        return max(round(self.mixing.until * self.num_steps), 1)

    @property
    def _most_draws(self) -> int:
        most, repeats = self._num_mixed * self.batch_size, self.mixing.max_repeats
        if repeats is None:
            return most
        of_control = self.num_steps * self.batch_size * (1.0 - self.clean_share) / self.num_real  # times an image
        return min(int(repeats * self.num_synthetic * of_control + 1e-6), most)

    @property
    def num_synthetic_draws(self) -> int:
        """Synthetic images over all steps, repetitions included."""
        return int(self.counts.sum())

    @property
    def num_real_draws(self) -> int:
        """Real images over all steps, repetitions and those without objects included."""
        return self.num_steps * self.batch_size - self.num_synthetic_draws

    @property
    def num_clean_draws(self) -> int:
        """Images without objects over all steps, repetitions included."""
        return len(self._clean)

    @property
    def realised_p(self) -> float:
        """Share of synthetic images over all steps."""
        return self.num_synthetic_draws / (self.num_steps * self.batch_size)

    def warnings(self) -> list[str]:
        """One line if the pool is too small for ``mixing.p``: p is lowered, or images are shown too often."""
        if not self.num_synthetic:
            return []
        num_draws = self.num_steps * self.batch_size
        each = self.mixing.p * self._num_mixed * self.batch_size / self.num_synthetic
        of_control = num_draws * (1.0 - self.clean_share) / self.num_real
        times, of_real = (counted(f"{number:.0f}", "time") for number in (each, of_control))
        often = f"each {times}, and the control shows each real image {of_real}"
        images = counted(self.num_synthetic, "synthetic image")
        remedy = "raise generation.copies, or relax the filters"
        if self.p < self.mixing.p:
            lowered = (
                f"mixing.p is lowered from {self.mixing.p:g} to {self.p:.2g}: it would show {images} "
                f"{often} (mixing.max_repeats; for a larger share {remedy})"
            )
            return [lowered]
        memorised = (
            f"{images}, {self.realised_p:.0%} of the training: it shows {often}; "
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
        before = int(self._before[step])
        kind, turn = self._real_turn(step * self.batch_size - before + place)
        if place >= num_real:
            kind, turn = "synthetic", before + place - num_real
        num_images = {"real": self.num_real, "synthetic": self.num_synthetic, "clean": self.num_clean}[kind]
        pass_, position = divmod(turn, num_images)
        image = int(_order(self.seed, kind, pass_, num_images)[position])
        return Draw(kind, image, derive_seed(self.seed, "augment", step, place))

    def _real_turn(self, number: int) -> tuple[Kind, int]:
        """The kind of the real draw ``number``, and its number among those of its kind."""
        num_clean = int(np.searchsorted(self._clean, number))
        is_clean = num_clean < len(self._clean) and int(self._clean[num_clean]) == number
        return ("clean", num_clean) if is_clean else ("real", number - num_clean)
