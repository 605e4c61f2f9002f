"""The pool of drawn images of CycleGAN (arXiv 1703.10593, Sec. 4; Shrivastava et al., arXiv 1612.07828, Sec. 2.3)."""

from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from actors.generators.insertion_gan.batches import Windows

_REUSED = 0.5  # share of drawn windows in whose place an earlier one is shown, as in CycleGAN's code


class Pool:
    """The last drawn windows: discriminators are shown earlier ones in the place of some."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: list[dict[str, Tensor]] = []  # the fields of one window each, [1, ...]

    def exchange(self, drawn: Windows, rng: np.random.Generator) -> Windows:
        """As many windows as ``drawn``, some of them drawn earlier; the others are stored."""
        shown = []
        for number in range(len(drawn.labels)):
            one = {name: value.detach() for name, value in _tensors(drawn.take(number, number + 1)).items()}
            if len(self.kept) < self.size:
                self.kept.append(one)
            elif rng.random() < _REUSED:
                place = int(rng.integers(len(self.kept)))
                self.kept[place], one = one, self.kept[place]
            shown.append(one)
        return replace(drawn, **_joined(shown))

    def state_dict(self) -> dict[str, Tensor]:
        """The stored windows."""
        return _joined(self.kept) if self.kept else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from an earlier ``state_dict``."""
        num_kept = len(next(iter(state.values()))) if state else 0
        self.kept = [{name: value[n : n + 1] for name, value in state.items()} for n in range(num_kept)]


def _joined(windows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([one[name] for one in windows]) for name in windows[0]}


def _tensors(windows: Windows) -> dict[str, Tensor]:
    return {field.name: getattr(windows, field.name) for field in fields(windows)}
