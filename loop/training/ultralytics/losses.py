"""Background ignore and ignored regions in the losses of Ultralytics' heads: dense (YOLO) and queries (RT-DETR)."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from loop.training.background_ignore import (
    SILENT_LOGIT,
    LossFunction,
    WeightedBackground,
    background_weights,
    location_weights,
)

if TYPE_CHECKING:
    from torch import Tensor


class DenseLoss(Protocol):
    """The loss of one dense head, as ultralytics' detection losses have it."""

    bce: Callable[["Tensor", "Tensor"], "Tensor"]  # logits and targets [b, locations, classes] to losses, same shape
    loss: LossFunction


def ignore_background(head: DenseLoss) -> None:
    """Let the loss of ``head`` heed a batch's ``BACKGROUND`` and ``IGNORED``; without them it is as before."""
    weighted = WeightedBackground(head.bce)
    inner = head.loss

    def loss(predictions: Mapping[str, Any], batch: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the head's own type
        weighted.weights = location_weights(predictions["feats"], batch)
        return inner(predictions, batch)

    head.bce, head.loss = weighted, loss


class QueryLoss:
    """The losses of one layer of a DETR, with the background queries silent that a batch's marks name."""

    def __init__(self, criterion: Any) -> None:  # noqa: ANN401 - ultralytics' DETRLoss
        self.num_classes = criterion.nc
        self._layer_loss, self._class_loss = criterion._get_loss, criterion._get_loss_class  # noqa: SLF001
        self.batch: Mapping[str, Any] = {}
        self._weights: Tensor | None = None  # [b, queries]

    def layer_loss(self, boxes: "Tensor", logits: "Tensor", *targets: Any, **options: Any) -> Any:  # noqa: ANN401
        """All losses of a layer; boxes ``[b, queries, 4]`` are centre, width, height in shares of the image."""
        self._weights = background_weights(boxes[..., :2].detach().float(), self.batch)
        return self._layer_loss(boxes, logits, *targets, **options)

    def class_loss(self, logits: "Tensor", targets: "Tensor", *scores: Any, **options: Any) -> Any:  # noqa: ANN401
        """The classification loss; targets ``[b, queries]`` are ``num_classes`` where no box is matched."""
        if self._weights is not None:
            silent = (targets == self.num_classes) & (self._weights == 0)
            logits = logits.masked_fill(silent.unsqueeze(-1), SILENT_LOGIT)
        return self._class_loss(logits, targets, *scores, **options)


def ignore_unmatched(model: Any) -> None:  # noqa: ANN401 - ultralytics' RTDETRDetectionModel
    """Let the loss of a DETR heed a batch's ``BACKGROUND`` and ``IGNORED``; without them it is as before.

    ``model`` has its ``criterion`` already, which sees targets only: the marks are taken from the model's own batch.
    """
    heeding, inner = QueryLoss(model.criterion), model.loss

    def loss(batch: Mapping[str, Any], preds: Any = None) -> Any:  # noqa: ANN401 - the model's own types
        heeding.batch = batch
        return inner(batch, preds)

    model.loss = loss
    model.criterion._get_loss, model.criterion._get_loss_class = heeding.layer_loss, heeding.class_loss  # noqa: SLF001


def heads(criterion: Any) -> Sequence[DenseLoss]:  # noqa: ANN401 - one of several unrelated classes of ultralytics
    """The losses of the dense heads: one, or two where the detector is end to end; none for RT-DETR (queries)."""
    if hasattr(criterion, "one2many"):
        return [criterion.one2many, criterion.one2one]
    return [criterion] if hasattr(criterion, "bce") else []
