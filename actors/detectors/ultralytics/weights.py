"""Ultralytics models, YOLO and RT-DETR: their config, architecture and weights.

The package is AGPL-3.0. Nothing else in ``actors`` imports it, and this file does so inside functions only.
"""

import os
import tempfile
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from actors.checkpoint import Header, LoadedWeights, read_checkpoint, transfer, write_checkpoint
from actors.detectors.ultralytics.config import UltralyticsConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

FAMILY = "ultralytics"
TRACKERS = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")


@cache
def import_ultralytics() -> None:
    """Import the package with its side effects off. Call it before any ``import ultralytics``.

    No usage events, no trackers, no installing of packages, no look-up whether there is a network (named releases
    are still downloaded), and settings in a folder that is gone after the import (Ray's workers are killed, and would
    leave theirs behind): the user's own are neither read nor written.

    The package reads WORLD_SIZE, RANK and LOCAL_RANK once, now. Ray Train has set them in its workers, and if the
    process group is up, the import waits at a barrier for the other ranks: import on every rank or on none.
    """
    threads = os.environ.get("OMP_NUM_THREADS")
    with tempfile.TemporaryDirectory(prefix="detloop-ultralytics-") as folder:
        switches = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
        os.environ.update(switches, YOLO_CONFIG_DIR=folder)
        from ultralytics.utils import SETTINGS

    if threads is None:  # the package sets it, for all processes to come as well
        os.environ.pop("OMP_NUM_THREADS", None)
    dict.update(SETTINGS, dict.fromkeys(TRACKERS, False))  # in memory: its own update writes a file


def architecture(config: UltralyticsConfig, num_classes: int) -> "nn.Module":
    """A model with fresh weights, drawn from torch's global generator, on the CPU, in training mode.

    ``args``, ``nc`` and ``names`` ("0", "1", ...) are set, so that ``model.loss(batch)`` runs. Raises
    FileNotFoundError where there is no such YAML, ValueError where it is no detector or does not take the image size.
    """
    import_ultralytics()
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel

    layers = _read_yaml(config.model)
    build = RTDETRDetectionModel if layers["head"][-1][2] == "RTDETRDecoder" else DetectionModel
    model: Any = build(layers, nc=num_classes, verbose=False)
    model.args, model.nc, model.task = get_cfg(), num_classes, "detect"
    if config.image_size_px % stride_px(model):
        raise ValueError(f"detector.image_size_px: {config.image_size_px} is no multiple of {stride_px(model)}")
    network: nn.Module = model
    return network


def _read_yaml(name: str) -> dict[str, Any]:
    from ultralytics.nn.tasks import yaml_model_load

    if not name.endswith((".yaml", ".yml")) or "://" in name:
        raise ValueError(f"detector.model: {name!r} is no model YAML; weight files go into detector.weights")
    try:
        layers: dict[str, Any] = yaml_model_load(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"detector.model: no file {name!r} and no model of ultralytics; examples: yolo11n.yaml, yolo26s.yaml, "
            "yolov8m.yaml, rtdetr-l.yaml"
        ) from error
    if (head := layers["head"][-1][2]) not in {"Detect", "v10Detect", "RTDETRDecoder"}:
        raise ValueError(f"detector.model: {name!r} ends in {head} and is no detector; try yolo11n.yaml")
    return layers


def stride_px(model: Any) -> int:  # noqa: ANN401 - a torch module with attributes of ultralytics
    """The coarsest grid of a model, in px: canvases are multiples of it."""
    return max(32, int(model.stride.max()))


def save_checkpoint(model: "nn.Module", config: UltralyticsConfig, classes: Sequence[str], uri: str) -> None:
    """Put the weights (not fused, not wrapped) of ``model`` at ``uri`` as one of our checkpoints, atomically."""
    header = Header(
        family=FAMILY, model=PurePath(config.model).name, classes=tuple(classes), image_size_px=config.image_size_px
    )
    write_checkpoint(uri, header, model.state_dict())


def load_checkpoint(config: UltralyticsConfig, uri: str) -> "nn.Module":
    """The model of one of our checkpoints, as ``architecture`` gives it; its classes are the values of ``names``.

    Raises FileNotFoundError, or ValueError where the checkpoint is of another architecture than ``config``.
    """
    header, tensors = read_checkpoint(uri)
    wanted = (FAMILY, PurePath(config.model).name)
    if (header.family, header.model) != wanted:
        raise ValueError(f"{uri}: holds {header.family} {header.model}, but detector says {' '.join(wanted)}")
    model = architecture(config, len(header.classes))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{uri}: does not fit {config.model} with {len(header.classes)} classes: {error}") from error
    model.names = dict(enumerate(header.classes))  # type: ignore[assignment]
    return model


def load_weights(model: "nn.Module", config: UltralyticsConfig) -> LoadedWeights:
    """Give ``model`` the weights of ``config.weights`` wherever they fit, in place.

    Everything before the head must fit, else ValueError. In the head, tensors of another shape stay fresh, and so do
    the rows of classes unless ``model.names`` names the same classes in the same order: set it before.

    ``config.weights`` is one of our checkpoints (.safetensors, path or URI); a release of ultralytics by its bare
    name, kept in ``releases_folder()`` and downloaded into it where missing; or, with ``trust_pickle``, any pickled
    local file. A file in the working directory is never taken for a release. Raises FileNotFoundError or ValueError.
    """
    source: Any = model
    names, tensors = _read_weights(config)
    by_class = frozenset() if names == tuple(source.names.values()) else _class_tensors(source, config)
    head = f"model.{len(source.model) - 1}."
    return transfer(model, tensors, str(config.weights), head, by_class)


def _class_tensors(model: Any, config: UltralyticsConfig) -> frozenset[str]:  # noqa: ANN401
    """The tensors with a row for each class: those whose shape changes with one class more."""
    import torch

    with torch.random.fork_rng(devices=[]):
        larger = architecture(config, len(model.names) + 1).state_dict()
    return frozenset(name for name, tensor in model.state_dict().items() if tensor.shape != larger[name].shape)


def releases_folder() -> Path:
    """Where ultralytics' named releases are kept; a machine without a network takes them from here."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "detloop" / "weights"


def _read_weights(config: UltralyticsConfig) -> tuple[tuple[str, ...], dict[str, "Tensor"]]:
    """Class names and tensors of ``config.weights``."""
    source = config.weights
    if not source:
        raise ValueError("detector.weights: training.start is weights, but no weights are named")
    if source.endswith(".safetensors"):
        header, tensors = read_checkpoint(source)
        return header.classes, tensors
    import_ultralytics()
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

    if source in GITHUB_ASSETS_NAMES and source.endswith(".pt"):
        return _unpickle(_release(source), restricted=True)
    if not config.trust_pickle:
        raise ValueError(
            f"detector.weights: {source} is a pickled file and no named release of ultralytics. Unpickling runs code "
            "that the file brings along. Set detector.trust_pickle: true if you made it or trust who did"
        )
    return _unpickle(source, restricted=False)


def _release(name: str) -> str:
    from ultralytics.utils.downloads import attempt_download_asset

    path = releases_folder() / name
    try:
        attempt_download_asset(str(path), progress=False)
    except ConnectionError as error:
        raise FileNotFoundError(
            f"detector.weights: {name} is not in {path.parent} and could not be downloaded; put the file there"
        ) from error
    return str(path)


def _unpickle(path: str, *, restricted: bool) -> tuple[tuple[str, ...], dict[str, "Tensor"]]:
    """Class names and tensors; ``restricted`` allows the known layers of torch and ultralytics and no other code."""
    from ultralytics.nn.tasks import torch_safe_load

    if not Path(path).is_file():
        raise FileNotFoundError(f"detector.weights: no file {path}")
    try:
        content, _ = torch_safe_load(path, safe_only=restricted)
    except TypeError as error:
        raise ValueError(f"detector.weights: {path} cannot be read: {error}") from error
    source = content.get("ema") or content["model"]
    return tuple(source.names.values()), source.float().state_dict()


def attend_one_by_one(model: Any) -> None:  # noqa: ANN401 - a torch module
    """Let attention see one image at a time: in batched products of matrices the place counts, on some processors."""
    import torch
    from ultralytics.nn.modules.block import AAttn, Attention

    def alone(forward: Any, images: "Tensor") -> "Tensor":  # noqa: ANN401
        return torch.cat([forward(image) for image in torch.split(images, 1)])

    for module in model.modules():
        if isinstance(module, Attention | AAttn):
            module.forward = partial(alone, module.forward)
