"""Ultralytics models, YOLO and RT-DETR: their architecture, and weights of other makers.

The package is AGPL-3.0. In ``actors`` only this folder imports it, inside functions.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.detectors.ultralytics.config import UltralyticsSettings
from actors.detectors.ultralytics.model_file import check_model, check_model_file, find_model_file
from actors.detectors.ultralytics.releases import is_release, releases_folder

if TYPE_CHECKING:
    from torch import Tensor

Model = Any
"""A ``torch.nn.Module`` with attributes of ultralytics, which is not typed."""

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


def build(config: UltralyticsSettings, num_classes: int) -> Model:
    """A model with fresh weights, drawn from torch's global generator, on the CPU, in training mode.

    ``args`` and ``nc`` are set, so that ``model.loss(batch)`` runs. Raises FileNotFoundError where there is no such
    YAML, ValueError where it is no detector or does not take the image size.
    """
    import_ultralytics()
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel

    layers = _read_yaml(config.model)
    kind = RTDETRDetectionModel if layers["head"][-1][2] == "RTDETRDecoder" else DetectionModel
    model: Model = kind(layers, nc=num_classes, verbose=False)
    model.args, model.nc, model.task = get_cfg(), num_classes, "detect"
    if config.image_size_px % stride_px(model):
        raise ValueError(f"detector.image_size_px: {config.image_size_px} is no multiple of {stride_px(model)}")
    return model


def _read_yaml(name: str) -> dict[str, Any]:
    from ultralytics.nn.tasks import yaml_model_load

    if (file := find_model_file(name)) == Path(name):
        check_model_file(file)
    layers: dict[str, Any] = yaml_model_load(name)
    check_model(layers, f"detector.model: {name}")
    return layers


def stride_px(model: Model) -> int:
    """The coarsest grid of a model, in px: canvases are multiples of it."""
    return max(32, int(model.stride.max()))


def is_detr(model: Model) -> bool:
    """Whether the head is RT-DETR's, of queries; else it is a YOLO's, of locations."""
    return not hasattr(model.model[-1], "one2many")


def head_name(model: Model) -> str:
    """The prefix of the names of the head's parameters."""
    return f"model.{len(model.model) - 1}."


def plain_names(tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """The tensors by the names that ``build`` gives them, whichever module they were saved from.

    ``YOLO.state_dict()`` begins names with ``model.model.``, that of its model with ``model.``, and that of the model's
    layers with their number.
    """
    return {"model." + re.sub(r"^(module\.)?(model\.)*", "", name): tensor for name, tensor in tensors.items()}


def unpack(source: str, *, trust_pickle: bool) -> tuple[tuple[str, ...], dict[str, "Tensor"]]:
    """Class names and tensors of a pickled file.

    ``source`` is a release of ultralytics by its bare name, kept in ``releases_folder()`` and downloaded into it where
    missing; or, with ``trust_pickle``, any local file. A file in the working directory is never taken for a release.
    Raises FileNotFoundError or ValueError.
    """
    import_ultralytics()
    if is_release(source, trust_pickle=trust_pickle):
        return _unpickle(_release(source), restricted=True)
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
    with tempfile.TemporaryDirectory(prefix="detloop-weights-") as folder:
        copy = shutil.copyfile(path, Path(folder, "weights.pt"))  # for some names it would download another file
        try:
            content, _ = torch_safe_load(str(copy), safe_only=restricted)
        except TypeError as error:
            reason = str(error).replace(str(copy), path)
            raise ValueError(f"detector.weights: {path} cannot be read: {reason}") from error
    source = content.get("ema") or content["model"]
    return tuple(source.names.values()), source.float().state_dict()
