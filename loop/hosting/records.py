"""Plain records of a training: the place of a worker, its progress, and its result."""

from dataclasses import dataclass


class ActorFailedError(ValueError):
    """Raised if an actor or a worker fails for a reason that is not in a single row. The message is one sentence."""


def in_one_line(error: BaseException) -> str:
    """The type of ``error`` and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of a worker."""

    folder: str  # for temporary files
    device: str  # "cpu", or the index of a GPU
    rank: int = 0
    num_workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The hardware and the libraries of a training, which affect its result."""

    device: str  # "cpu" or "cuda"
    model: str  # of the processor or GPU
    precision: str  # the fastest native number format, see ``actors.precision``
    libraries: dict[str, str]  # versions by distribution

    def key(self) -> list[object]:
        """The part on which only equal trainings are shared: all but ``model``, which may differ from node to node."""
        return [self.device, self.precision, self.libraries]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of the first worker."""

    losses: tuple[dict[str, float], ...]  # one entry an epoch: steps so far, learning rate, each loss
    seconds: float  # in the training loop, this attempt
    images: int  # shown in the training loop, this attempt, all workers
    precision: str  # of the forward pass: float32, bfloat16 or float16
    platform: Platform
    weights: dict[str, int]  # counts of tensors loaded from the start checkpoint, and of those not loaded by reason
    boxes_cut: int = 0  # in a fit: boxes of the real images that do not fit into a prompt and are left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a training."""

    step: int  # steps done
    steps: int  # in all
    loss: float  # of the last step, summed over its terms, per image
    images_per_s: float
