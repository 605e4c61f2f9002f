"""Plain records of a training that runs somewhere: where its worker is, how far it has come, and its result."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a worker runs."""

    folder: str  # for files that nobody needs afterwards
    device: str  # "cpu", or the index of a GPU
    rank: int = 0
    num_workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the first worker hands back."""

    losses: tuple[dict[str, float], ...]  # one entry an epoch: steps so far, learning rate, each loss
    seconds: float  # in the training loop, this attempt
    images: int  # shown in the training loop, this attempt, all workers
    precision: str  # of the forward pass: float32, bfloat16 or float16
    weights: dict[str, int]  # tensors taken from the start checkpoint and left as they were, by why
    boxes_cut: int = 0  # in a fit: boxes of the real images that it leaves out, as prompts have no room for them


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a running training is."""

    step: int  # steps done
    steps: int  # in all
    loss: float  # of the last step, summed over its terms, per image
    images_per_s: float
