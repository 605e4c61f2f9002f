"""Ultralytics detectors as files of other programs: a .pt of ultralytics, ONNX and TorchScript.

ONNX and TorchScript are written by ultralytics' own exporter, which adds names, image size and licence as metadata.
Every file also holds ``max_picture_px``, the size to which larger pictures are reduced first.
"""

import tempfile
import warnings
from io import BytesIO
from pathlib import Path

from actors.checkpoint import Checkpoint
from actors.detectors.ultralytics.config import UltralyticsSettings
from actors.detectors.ultralytics.weights import Model, import_ultralytics, is_detr

LICENCE = "AGPL-3.0 License (https://ultralytics.com/license)"  # as ultralytics writes it into every file


def export(config: UltralyticsSettings, checkpoint: Checkpoint, fmt: str) -> bytes:
    """The content of the file; see ``DetectorBase.export``.

    A YOLO takes pictures whose sides are any multiple of 32 px; an RT-DETR takes squares of ``image_size_px``. Boxes
    come from the one-to-many head without suppression, as in our own detector.
    """
    config.check_export(fmt)
    import_ultralytics()
    model: Model
    model, classes = config.load_checkpoint(checkpoint)
    model.eval().requires_grad_(False)
    model.names, model.end2end = dict(enumerate(classes)), False
    return _ultralytics_file(model, config) if fmt == "pt" else _converted(model, config, fmt)


def _ultralytics_file(model: Model, config: UltralyticsSettings) -> bytes:
    """A checkpoint as ultralytics leaves it after training, but in float32 and without a date."""
    import torch
    from ultralytics import __version__
    from ultralytics.utils import DEFAULT_CFG_DICT

    model.args = {**DEFAULT_CFG_DICT, "model": config.model, "imgsz": config.image_size_px, "task": "detect"}
    unused = dict.fromkeys(("best_fitness", "ema", "updates", "optimizer", "scaler"))
    about = {"version": __version__, "license": LICENCE, "docs": "https://docs.ultralytics.com"}
    about |= {"max_picture_px": config.picture_px}
    buffer = BytesIO()
    torch.save({"epoch": -1, "model": model, "train_args": model.args, **unused, **about}, buffer)
    return buffer.getvalue()


def _converted(model: Model, config: UltralyticsSettings, fmt: str) -> bytes:
    from ultralytics.engine.exporter import Exporter
    from ultralytics.utils import LOGGER

    settings = {"format": fmt, "imgsz": config.image_size_px, "dynamic": not is_detr(model), "batch": 1}
    settings |= {"simplify": False} if fmt == "onnx" else {}  # that would need a package more
    level = LOGGER.level
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about every branch of the network
        model.pt_path = str(Path(folder, "detector.pt"))  # the file is written beside it
        try:
            LOGGER.setLevel("ERROR")
            exporter = Exporter(overrides=settings)
            exporter.add_callback("on_export_start", lambda one: one.metadata.update(max_picture_px=config.picture_px))
            return Path(exporter(model)).read_bytes()
        finally:
            LOGGER.setLevel(level)
