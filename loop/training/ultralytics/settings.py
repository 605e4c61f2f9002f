"""The training settings of ultralytics: those that a config may give, and all that a training gets."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from loop.training.job import TrainJob

RESERVED = {
    "model": "detector.model",
    "imgsz": "detector.image_size_px",
    "pretrained": "detector.weights and training.start",
    "epochs": "training.steps and training.epoch_steps",
    "time": "training.steps",
    "batch": "training.batch_size",
    "nbs": "training.batch_size (a batch is a step)",
    "device": "hosting.train",
    "data": "data",
    "fraction": "data.subset",
    "seed": "seed",
    "resume": "the same command again",
    "name": "name",
    "project": "root",
}
"""Settings that belong to other keys of the config."""

FIXED = frozenset(
    {
        *("task", "mode", "verbose", "cfg", "exist_ok", "save_dir"),
        *("val", "split", "patience", "plots", "profile", "save", "save_period", "cache"),
        *("single_cls", "classes", "rect", "augment", "augmentations", "source"),
        *("compile", "quantize", "distill_model"),
    }
)
"""Settings that have no meaning here: no validation, plots or files while training, all classes, square images."""


WARM_UP_SHARE, PLAIN_SHARE = 0.1, 0.1
"""Shares of the training that are warm-up and, at its end, without mosaics. Ultralytics gives them as 3 and 10 epochs
and means trainings of 100; ours may have ten.
"""


def settings(job: TrainJob, folder: str, device: str) -> dict[str, Any]:
    """Ultralytics' settings for ``job``, everything it writes going to ``folder``."""
    training = job.training
    check_settings(training.overrides)
    epochs = training.steps // training.epoch_steps
    return {
        "warmup_epochs": WARM_UP_SHARE * epochs,
        "close_mosaic": round(PLAIN_SHARE * epochs),
        **training.overrides,
        "model": job.detector.model,
        "imgsz": job.detector.image_size_px,
        "epochs": epochs,
        "batch": training.batch_size,
        "nbs": training.batch_size,
        "device": device,
        "seed": job.seed % 2**31,
        "save_dir": folder,
        "amp": False,  # see amp.py; ultralytics would download a model to try it on
        "augmentations": [],  # else whether albumentations happens to be installed would change the images
        **dict.fromkeys(("save", "val", "plots", "verbose", "pretrained"), False),
    }


@cache
def known_settings() -> frozenset[str]:
    """The names of ultralytics' settings, read from its defaults without importing it."""
    spec = find_spec("ultralytics")
    if spec is None or spec.origin is None:
        raise ValueError("detector.kind: ultralytics needs the package ultralytics, which is not installed")
    defaults = Path(spec.origin).parent / "cfg" / "default.yaml"
    return frozenset(yaml.safe_load(defaults.read_text()))


def check_settings(overrides: Iterable[str]) -> None:
    """Raise ValueError where ``training.overrides`` names a setting that is unknown or that is not its to give."""
    for name in overrides:
        key = f"training.overrides.{name}"
        if name in RESERVED:
            raise ValueError(f"{key}: set {RESERVED[name]} instead")
        if name in FIXED:
            raise ValueError(f"{key}: cannot be set here; detloop trains detectors without it")
        if name not in known_settings():
            near = get_close_matches(name, known_settings() - RESERVED.keys() - FIXED, n=4, cutoff=0.5)
            raise ValueError(
                f"{key}: ultralytics has no such setting" + (f"; near it: {', '.join(near)}" if near else "")
            )
