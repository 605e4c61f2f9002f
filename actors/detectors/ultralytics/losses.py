"""The losses of Ultralytics' heads, dense (YOLO) and of queries (RT-DETR).

Background ignore and ignored regions are hooked into them, for training and for the loss as a function of parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from actors.checkpoint import Checkpoint
from actors.detector_loss import DetectorLoss, Forward, check_sides
from actors.detectors.background_ignore import (
    NO_MARKS,
    SILENT_LOGIT,
    ElementLoss,
    Marks,
    WeightedBackground,
    background_weights,
    location_weights,
)
from actors.detectors.base import Setting
from actors.detectors.ultralytics.config import UltralyticsSettings
from actors.detectors.ultralytics.weights import Model, import_ultralytics, is_detr, stride_px
from actors.records import Annotation

if TYPE_CHECKING:
    from torch import Tensor

Batch = Mapping[str, Any]
Losses = Any  # of a head: tensors in ultralytics' own tuples and dicts
LossFunction = Callable[[Batch, Batch], Losses]  # of predictions and batch

MARKS = "marks"  # key of a batch's marks; left out where it has none
GAINS = ("box", "cls", "dfl")  # settings that weigh the terms of a YOLO's loss


# Background ignore


class DenseLoss(Protocol):
    """The loss of one dense head, as ultralytics' detection losses have it."""

    bce: ElementLoss
    loss: LossFunction


def mark_background(batch: Batch, num_classes: int, *, synthetic: bool) -> dict[str, Any]:
    """A batch with the marks that the losses go by, and without ignored boxes among its targets.

    Ignored boxes come as class ``num_classes``. With ``synthetic``, images flagged so give no background loss.
    A batch that needs no marks gets none.
    """
    import torch

    marked, background, regions = dict(batch), None, None
    if synthetic and any(batch["synthetic"]):
        background = 1.0 - torch.tensor(batch["synthetic"], dtype=torch.float32)
    ignored = batch["cls"].view(-1) == num_classes
    if ignored.any():
        regions = torch.cat([batch["batch_idx"].view(-1, 1), batch["bboxes"]], dim=1)[ignored]
        marked |= {key: batch[key][~ignored] for key in ("batch_idx", "cls", "bboxes")}
    if background is not None or regions is not None:
        marked[MARKS] = Marks(background=background, ignored=regions)
    return marked


def hook_losses(model: Model) -> None:
    """Let the losses of ``model``, which has its ``criterion``, follow a batch's marks; without, they are as before."""
    for head in dense_losses(model.criterion):
        ignore_background(head)
    if is_detr(model):
        ignore_unmatched(model)


def dense_losses(criterion: Model) -> Sequence[DenseLoss]:
    """The losses of the dense heads: one, or two where the detector is end to end; none for RT-DETR (queries)."""
    if hasattr(criterion, "one2many"):
        return [criterion.one2many, criterion.one2one]
    return [criterion] if hasattr(criterion, "bce") else []


def ignore_background(head: DenseLoss) -> None:
    """Let the loss of ``head`` follow a batch's marks."""
    weighted = WeightedBackground(head.bce)
    inner = head.loss

    def loss(predictions: Batch, batch: Batch) -> Losses:
        weighted.weights = location_weights(predictions["feats"], batch.get(MARKS, NO_MARKS))
        return inner(predictions, batch)

    head.bce, head.loss = weighted, loss


class QueryLoss:
    """The losses of one layer of a DETR, in which background queries are silent where the marks say so."""

    def __init__(self, criterion: Model) -> None:
        self.num_classes = criterion.nc
        self._layer_loss, self._class_loss = criterion._get_loss, criterion._get_loss_class  # noqa: SLF001 - no other way in
        self.marks = NO_MARKS
        self._weights: Tensor | None = None  # [b, queries]

    def layer_loss(self, boxes: "Tensor", logits: "Tensor", *targets: object, **options: object) -> Losses:
        """All losses of a layer; boxes ``[b, queries, 4]`` are centre, width, height in shares of the image."""
        self._weights = background_weights(boxes[..., :2].detach().float(), self.marks)
        return self._layer_loss(boxes, logits, *targets, **options)

    def class_loss(self, logits: "Tensor", targets: "Tensor", *scores: object, **options: object) -> Losses:
        """The classification loss; targets ``[b, queries]`` are ``num_classes`` where no box is matched."""
        if self._weights is not None:
            silent = (targets == self.num_classes) & (self._weights == 0)
            logits = logits.masked_fill(silent.unsqueeze(-1), SILENT_LOGIT)
        return self._class_loss(logits, targets, *scores, **options)


def ignore_unmatched(model: Model) -> None:
    """Let the loss of a DETR follow a batch's marks; its criterion is given targets only, so the model passes them."""
    queries, inner = QueryLoss(model.criterion), model.loss

    def loss(batch: Batch, preds: Losses = None) -> Losses:
        queries.marks = batch.get(MARKS, NO_MARKS)
        return inner(batch, preds)

    model.loss = loss
    model.criterion._get_loss, model.criterion._get_loss_class = queries.layer_loss, queries.class_loss  # noqa: SLF001


# The loss as a function of parameters


def open_loss(
    config: UltralyticsSettings,
    checkpoint: Checkpoint,
    prefixes: Sequence[str] | None,
    overrides: Mapping[str, Setting],
    device: str | None,
) -> DetectorLoss:
    """The training loss of a model, without ultralytics' factor of batch size; see ``DetectorBase.open_loss``.

    Of ``overrides``, ``box``, ``cls`` and ``dfl`` count. Images have sides that are multiples of the coarsest stride.
    The losses take their precision from torch's default dtype: set it to float64 before this call to check gradients.

    Constant, as in training: targets of the task-aligned assignment and of the matching, with their soft scores; the
    factor alpha of CIoU; of a YOLO with two heads the features that the one-to-one head is given; of RT-DETR the boxes
    from which each decoder layer starts, and the selection of its queries. A YOLO with two heads weighs them as at the
    start of a training, 0.8 and 0.2. RT-DETR's denoising queries, which are random, are left out; its varifocal loss
    is computed in float32 whatever the default, and its matching works outside torch, so that it takes
    ``torch.autograd.grad`` and not ``torch.func.grad``. All that remains has second derivatives.
    """
    import_ultralytics()
    import torch
    from ultralytics.cfg import get_cfg

    model: Model
    model, _ = config.load_checkpoint(checkpoint)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model.eval().to(device, torch.get_default_dtype())  # RT-DETR makes some of its parameters float32 in any case
    model.args = get_cfg(overrides={name: overrides[name] for name in GAINS if name in overrides})
    model.criterion = model.init_criterion()
    hook_losses(model)
    _set_to_train(model)
    return DetectorLoss(
        model,
        partial(_loss, model, device),
        prefixes or [config.head(model)],
        maps=partial(_maps, model, device),
        strides=() if is_detr(model) else tuple(int(stride) for stride in model.stride),
    )


def _set_to_train(model: Model) -> None:
    """Let the head give what the loss takes; modules below it, such as normalisation, stay in evaluation."""
    head = model.model[-1]
    head.training = True
    if is_detr(model):
        model.training = head.decoder.training = True
        head.num_denoising = 0


def _loss(model: Model, device: str, forward: Forward, images: "Tensor", annotations: Sequence[Annotation]) -> "Tensor":
    check_sides(images, stride_px(model))
    images = images.to(device)
    batch = {"img": images, **_targets(annotations, model.nc, images)}
    loss, _ = forward(mark_background(batch, model.nc, synthetic=False))
    scalar: Tensor = loss if is_detr(model) else loss.sum() / len(images)
    return scalar


def _maps(model: Model, device: str, forward: Forward, images: "Tensor") -> "Sequence[Tensor]":
    """The inputs of a YOLO's head."""
    if is_detr(model):
        raise ValueError("the features of RT-DETR cannot be refined with: it has no pyramid; choose a YOLO")
    check_sides(images, stride_px(model))
    outputs = forward(images.to(device))
    maps: Sequence[Tensor] = outputs.get("one2many", outputs)["feats"]
    return maps


def _targets(annotations: Sequence[Annotation], num_classes: int, images: "Tensor") -> dict[str, "Tensor"]:
    """Boxes as ultralytics' losses take them, centre and size in shares of the image; ignored as one class more."""
    height, width = images.shape[-2:]
    boxes = np.concatenate([annotation.boxes for annotation in annotations]) / np.array([width, height] * 2)
    arrays = {
        "batch_idx": np.repeat(np.arange(len(annotations)), [len(annotation) for annotation in annotations]),
        "cls": np.concatenate([np.where(one.ignore, num_classes, one.labels) for one in annotations]),
        "bboxes": np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1),
    }
    return {name: images.new_tensor(values) for name, values in arrays.items()}
