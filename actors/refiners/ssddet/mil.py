"""Multiple-instance learning over bags of proposals in two stages (SSD-Det, arXiv 2307.12101, Sec. 3.2, Eqs. 2-4)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

POSITIVES, NEGATIVES = 0.25, 0.75  # weights of the terms in stage II (released code)
_EPS = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The scores of the proposals of n bags."""

    classes: Tensor  # [n, p, c] in [0, 1]
    proposals: Tensor  # [n, p, c]: sums to 1 over the valid proposals of a bag, 0 for others

    def of(self, labels: Tensor) -> "Scores":
        """The scores ``[n, p]`` for each bag's own class of ``labels`` ``[n]``."""
        index = labels[:, None, None].expand(-1, self.classes.shape[1], 1)
        return Scores(*(one.gather(2, index).squeeze(2) for one in (self.classes, self.proposals)))

    @property
    def bags(self) -> Tensor:
        """Scores ``[n, c]`` of whole bags, in [0, 1]."""
        return (self.classes * self.proposals).sum(dim=1).clamp(_EPS, 1 - _EPS)


class Stage(nn.Module):
    """The two branches of a stage."""

    def __init__(self, width: int, num_classes: int, *, softmax: bool) -> None:
        """``softmax`` over the classes and a background, as in stage I; else a sigmoid for each class, as in stage II.

        ``width`` is that of the proposals' features.
        """
        super().__init__()
        self.softmax, outputs = softmax, num_classes + softmax
        self.classes, self.proposals = nn.Linear(width, outputs), nn.Linear(width, outputs)

    def class_scores(self, features: Tensor) -> Tensor:
        """Scores ``[..., c]`` of features ``[..., width]``."""
        logits: Tensor = self.classes(features)
        return logits.softmax(dim=-1) if self.softmax else logits.sigmoid()

    def forward(self, features: Tensor, valid: Tensor) -> Scores:
        """Scores of bags of features ``[n, p, width]``, of which ``valid`` ``[n, p]`` count."""
        logits = self.proposals(features).masked_fill(~valid[..., None], -torch.inf)
        return Scores(self.class_scores(features), logits.softmax(dim=1))


def stage_one_loss(bags: Tensor, labels: Tensor) -> Tensor:
    """Losses ``[n]`` of bag scores ``[n, c + 1]`` (Eq. 3)."""
    wanted = functional.one_hot(labels, bags.shape[1]).to(bags.dtype)
    return functional.binary_cross_entropy(bags, wanted, reduction="none").sum(dim=1)


def focal(scores: Tensor, wanted: Tensor) -> Tensor:
    """Focal losses ``[n]`` of scores ``[n, c]`` for targets ``[n, c]`` of 0 and 1."""
    error = functional.binary_cross_entropy(scores.clamp(_EPS, 1 - _EPS), wanted, reduction="none")
    return ((scores - wanted) ** 2 * error).sum(dim=1)


def stage_two_loss(bags: Tensor, labels: Tensor) -> Tensor:
    """Losses ``[n]`` of bag scores ``[n, c]`` (Eq. 4, the first term, without its weight for objects)."""
    return POSITIVES * focal(bags, functional.one_hot(labels, bags.shape[1]).to(bags.dtype))


def negatives_loss(scores: Tensor) -> Tensor:
    """Losses ``[m]`` of class scores ``[m, c]`` of background proposals (Eq. 4, the second term)."""
    return NEGATIVES * focal(scores, torch.zeros_like(scores))


def merge(values: Tensor, scores: Tensor, top_k: int) -> Tensor:
    """The means ``[n, v]`` of values ``[n, p, v]`` over the ``top_k`` proposals with the highest scores ``[n, p]``.

    They are weighted by the scores. Invalid proposals have the score 0, and so do not count.
    """
    best, index = scores.topk(min(top_k, scores.shape[1]), dim=1)
    shares = best / best.sum(dim=1, keepdim=True).clamp(min=torch.finfo(best.dtype).tiny)
    return (values.gather(1, index[..., None].expand(-1, -1, values.shape[2])) * shares[..., None]).sum(dim=1)
