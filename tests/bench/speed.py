"""Compare the speed of detloop with its libraries used plainly: ``python tests/bench/speed.py [--only NAME]``.

Each measure (mine, train, torchvision, sampling, layout) runs ours and theirs in turns, in one process, on one thread
without a GPU. It gives the ratio of the median images/s after warm-up; the time of the first call is reported
separately. Without a GPU, the ratio uses CPU seconds, which depend little on other load; on an idle machine both clocks
agree. Results are merged into ``results/speed.json``.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from speed_layout import measure_layout
from speed_sampling import measure_sampling
from speed_torchvision import measure_torchvision
from speed_train import measure_train
from turns import headline, in_turns, ratio_to_best

from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.detectors.ultralytics.weights import import_ultralytics
from actors.images import Pixels

RESULTS = Path(__file__).parent / "results" / "speed.json"
NUM_PICTURES = 32
MODEL = "yolo11n.yaml"
CLASSES = tuple("abcdefgh")
CASES = ((160, False), (320, False), (320, True), (640, False))  # image_size_px, pictures of mixed shapes
THEIR_BATCHES = (8, 16)  # the faster one counts


def pictures(num: int, *, mixed: bool) -> list[Pixels]:
    """Smooth random images of 640 x 480 px, or of random sizes."""
    import cv2

    rng = np.random.default_rng(0)
    sizes = [(int(rng.integers(300, 700)), int(rng.integers(300, 700))) if mixed else (480, 640) for _ in range(num)]
    coarse = [rng.integers(0, 256, (12, 16, 3), dtype=np.uint8) for _ in range(num)]
    return [
        cv2.resize(part, size[::-1], interpolation=cv2.INTER_CUBIC) for part, size in zip(coarse, sizes, strict=True)
    ]


def lively_model(config: UltralyticsConfig) -> Any:
    """A model with random weights and fitted normalisation, so that images give boxes for NMS."""
    torch.manual_seed(0)
    model: Any = config.architecture(len(CLASSES))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.rand(8, 3, 160, 160))
    return model.eval()


def measure_mine() -> dict[str, Any]:
    """Ours: ``detect`` on a list of arrays. Theirs: ``YOLO.predict`` on the same arrays, one batch per call.

    ``mine_ratio`` is for the default image size and images of one shape, against their fastest batch size.
    """
    cases: dict[str, Any] = {}
    for size_px, mixed in CASES:
        name = f"{size_px}px_{'mixed' if mixed else 'equal'}_shapes"
        case = in_turns(NUM_PICTURES, mining_calls(size_px, pictures(NUM_PICTURES, mixed=mixed)))
        cases[name] = {**case, **ratio_to_best(case)}
    return {"mine_ratio": headline(cases["320px_equal_shapes"]), "mine": cases}


def mining_calls(size_px: int, images: list[Pixels]) -> dict[str, Callable[[], object]]:
    """Both ways to detect objects in ``images``, with the same weights and settings."""
    config = UltralyticsConfig(model=MODEL, image_size_px=size_px)
    model = lively_model(config)
    with tempfile.TemporaryDirectory() as folder:
        config.save_checkpoint(model, CLASSES, f"{folder}/model.safetensors")
        detector = config.load(f"{folder}/model.safetensors")
    from ultralytics import YOLO

    yolo = YOLO(MODEL)
    yolo.model = model
    bgr = [np.ascontiguousarray(image[..., ::-1]) for image in images]
    settings = {"imgsz": size_px, "conf": config.min_score, "iou": config.nms_iou, "max_det": config.max_detections}

    def theirs(batch: int) -> list[object]:
        parts = [bgr[start : start + batch] for start in range(0, len(bgr), batch)]
        return [yolo.predict(part, batch=batch, verbose=False, save=False, **settings) for part in parts]

    calls: dict[str, Callable[[], object]] = {"ours": partial(detector.detect, images)}
    return calls | {f"theirs_batch_{size}": partial(theirs, size) for size in THEIR_BATCHES}


MEASURES: dict[str, Callable[[], dict[str, Any]]] = {
    "mine": measure_mine,
    "train": measure_train,
    "torchvision": measure_torchvision,
    "sampling": measure_sampling,
    "layout": measure_layout,
}


def main() -> None:
    """Run the requested measures and merge them into the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=MEASURES, help="run this measure only")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    import_ultralytics()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in [only] if only else MEASURES:
        results |= MEASURES[name]() | {f"{name}_machine": machine()}
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print(json.dumps(results, indent=1, sort_keys=True))


def machine() -> dict[str, Any]:
    """The device and the library versions of the measurement."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    versions = {name: version(name) for name in ("torch", "torchvision", "ultralytics", "diffusers", "opencv-python")}
    return {"device": device, "threads": torch.get_num_threads(), **versions}


if __name__ == "__main__":
    main()
