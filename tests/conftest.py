"""What the tests share: one thread each, a data set to try the loop on, and the folder of real data if there is one."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

STARTS_RAY = {"ray_session", "ray_engine", "swept"}
"""Fixtures whose tests are marked ``ray``."""


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests whose fixtures start Ray, and begin with the files of such tests, which take longest."""
    for item in items:
        if not STARTS_RAY.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.ray)
    long = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in long)


LAYERS = """\
nc: 80
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [48, 3, 2]]
  - [-1, 1, Conv, [64, 3, 2]]
head:
  - [[2, 3, 4], 1, Detect, [nc]]
"""
"""A YOLO of five layers: a training step takes 10 ms."""

DETR_LAYERS = LAYERS.replace("Detect, [nc]", "RTDETRDecoder, [nc, 32, 20, 2, 2, 2, 64, 0.0, None, -1, 10]")
"""The same with queries: 20 of 32 channels, two decoder layers, 10 denoising queries."""


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder named by DETLOOP_DATA, which holds ``bccd/`` and ``deeppcb/``; tests skip without it."""
    folder = os.environ.get("DETLOOP_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set DETLOOP_DATA to a folder with bccd/ and deeppcb/ to run this test")
    return Path(folder)


@pytest.fixture(scope="session")
def aesthetic_head() -> Path:
    """The published aesthetic predictor's head, in the folder named by DETLOOP_WEIGHTS; tests skip without it."""
    folder = os.environ.get("DETLOOP_WEIGHTS")
    file = Path(folder or "", "sac+logos+ava1-l14-linearMSE.pth")
    if not folder or not file.is_file():
        pytest.skip(f"set DETLOOP_WEIGHTS to a folder with {file.name} to run this test")
    return file


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained CLIP for open_clip: pictures of 32 px, embeddings of 768 numbers, as ViT-L/14 has."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    model = {
        "embed_dim": 768,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(model))
    open_clip.add_model_config(folder / "tiny-clip.json")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = open_clip.create_model("tiny-clip").state_dict()
    save_file(weights, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    return folder


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a very small detector."""
    file = tmp_path_factory.mktemp("model") / "small.yaml"
    file.write_text(LAYERS)
    return file


@pytest.fixture(scope="session")
def small_detr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a very small RT-DETR."""
    file = tmp_path_factory.mktemp("model") / "small-detr.yaml"
    file.write_text(DETR_LAYERS)
    return file


@pytest.fixture(scope="session")
def easy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder of 8 training and 8 validation images, two boxes each, which ``small_model`` learns in seconds."""
    folder = tmp_path_factory.mktemp("easy_data")
    for seed, split in enumerate(("train", "val")):
        _write_split(folder, split, seed)
    return folder


def _write_split(folder: Path, split: str, seed: int) -> None:
    import numpy as np

    rng = np.random.default_rng(seed)
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / split).mkdir()
    images, boxes = [], []
    for number in range(1, 9):
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        for box in _draw_image(folder / split / f"{number}.png", rng):
            boxes.append({"id": len(boxes) + 1, "image_id": number, "iscrowd": 0, **box})
    categories = [{"id": 1, "name": "blue"}, {"id": 2, "name": "red"}]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))


def _draw_image(path: Path, rng: Any) -> Iterator[dict[str, Any]]:
    """A noisy grey picture with a red or blue box in each half; gives its boxes."""
    import numpy as np
    from PIL import Image

    pixels = rng.normal(110, 12, (64, 64, 3))
    boxes = []
    for left in (0, 32):
        label, width, height = (int(rng.integers(*limits)) for limits in ((0, 2), (18, 27), (18, 27)))
        x, y = left + int(rng.integers(1, 31 - width)), int(rng.integers(1, 63 - height))
        colour = (235, 60, 60) if label else (40, 60, 230)
        pixels[y : y + height, x : x + width] = colour + rng.normal(0, 8, (height, width, 3))
        boxes.append({"category_id": label + 1, "bbox": [x, y, width, height], "area": width * height})
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return iter(boxes)


@pytest.fixture(scope="session")
def easy_config(easy_data: Path, small_model: Path) -> dict[str, Any]:
    """A run on ``easy_data`` without its root: some boxes easy and some hard, some candidates kept and some dropped."""
    return {
        "name": "easy",
        "rounds": 2,
        "data": {"format": "coco", "root": str(easy_data)},
        "detector": {"model": str(small_model), "image_size_px": 64},
        "mining": {"budget": 12, "score_threshold": 0.1, "iou_threshold": 0.8},
        "generator": {"kind": "copy_paste"},
        "generation": {"copies": 6},
        "filters": [{"kind": "blank"}, {"kind": "duplicate"}, {"kind": "agreement", "iou_threshold": 0.5}],
        "mixing": {"p": 0.5},
        "training": {
            "steps": 24,
            "epoch_steps": 12,
            "batch_size": 8,
            "overrides": {"optimizer": "Adam", "lr0": 0.01, "warmup_epochs": 0, "mosaic": 0.0, "close_mosaic": 0},
        },
        "evaluation": {"bootstrap_draws": 100},
        "hosting": {"engine": "inline"},
    }


@pytest.fixture(scope="session")
def new_root(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes empty storage roots. Each has MLflow's tables already: to create them takes MLflow several seconds."""
    from loop.tracking.store import local_store, open_client

    template = tmp_path_factory.mktemp("mlflow")
    open_client(local_store(str(template)))

    def make() -> Path:
        root = tmp_path_factory.mktemp("root")
        shutil.copy(template / "mlflow.db", root)
        return root

    return make


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    """Ray as a run starts it, with four logical CPUs."""
    from loop.hosting.engine import started_ray

    with started_ray(4):
        yield


@pytest.fixture(scope="session")
def kill_a_worker() -> Callable[[], bool]:
    """Kills one of the training workers of this process's own Ray; says whether there was one."""
    import psutil

    def kill() -> bool:
        for process in psutil.Process().children(recursive=True):
            if process.name().startswith("ray::RayTrainW"):
                process.kill()
                return True
        return False

    return kill


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Callable[[], Any]]], list[Any]]:
    """Runs each worker's part in a thread, torch's all_reduce summing over them, and gives what they return."""
    import threading
    from concurrent.futures import ThreadPoolExecutor

    import torch

    def run(parts: list[Callable[[], Any]]) -> list[Any]:
        turn, given = threading.Barrier(len(parts), timeout=60), {}

        def all_reduce(value: Any) -> None:
            given[threading.get_ident()] = value.clone()
            turn.wait()
            value.copy_(sum(given.values()))
            turn.wait()

        monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
        with ThreadPoolExecutor(len(parts)) as threads:
            return [future.result() for future in [threads.submit(part) for part in parts]]

    return run


@pytest.fixture
def detloop(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: exit status, stdout, stderr."""

    from loop import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["detloop", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, *capsys.readouterr()

    return call
