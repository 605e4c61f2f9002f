"""Compare the speed of training with ultralytics' own ``train``. Run by speed.py."""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from actors.detectors.base import DetectorBase
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.records import Annotation, LabeledImage
from loop.config import MixingConfig, TrainingConfig
from loop.hosting.records import Place
from loop.hosting.resume import NoMemory
from loop.training.job import TrainJob
from loop.training.worker import start_network

MODEL = "yolo11n.yaml"
CLASSES = tuple("abcdefgh")
NUM_PICTURES, BATCH_SIZE, EPOCH_STEPS = 320, 16, 20  # an epoch of theirs is as long as one of ours
NUM_BLOCKS, NUM_WARM = 9, 2
CASES = {160: 4, 320: 1}  # image_size_px: steps in a block
SHARED = {"close_mosaic": 0, "workers": 0}

AfterStep = Callable[[Any], None]


class Finished(Exception):  # noqa: N818 - ends a training that has been timed
    """All blocks of a training are timed."""


class Turns:
    """Runs several trainings in turns, one block of steps each, and times the blocks by ``clock``."""

    def __init__(
        self,
        names: list[str],
        block_steps: int,
        batch_size: int = BATCH_SIZE,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.names, self.block_steps, self.batch_size, self.clock = names, block_steps, batch_size, clock
        self.speeds: dict[str, list[float]] = {name: [] for name in names}
        self.change, self.turn = threading.Condition(), 0

    def wait(self, name: str) -> float:
        """Wait for the turn of ``name`` and return the time."""
        with self.change:
            self.change.wait_for(lambda: self.names[self.turn] == name)
        return self.clock()

    def hand_over(self) -> None:
        """Give the turn to the next training."""
        with self.change:
            self.turn = (self.turn + 1) % len(self.names)
            self.change.notify_all()

    def run(self, name: str, train: Callable[[AfterStep], object]) -> None:
        """Run one training, in its own thread, until its blocks are timed."""
        state = {"steps": 0, "start": self.wait(name)}

        def after_step(_: Any) -> None:
            state["steps"] += 1
            if state["steps"] % self.block_steps:
                return
            self.speeds[name].append(self.block_steps * self.batch_size / (self.clock() - state["start"]))
            if len(self.speeds[name]) == NUM_WARM + NUM_BLOCKS:
                raise Finished
            self.hand_over()
            state["start"] = self.wait(name)

        try:
            train(after_step)
        except Finished:
            self.hand_over()

    def run_all(self, trainings: dict[str, Callable[[AfterStep], object]]) -> None:
        """Run all trainings."""
        threads = [threading.Thread(target=self.run, args=item) for item in trainings.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def measure_train() -> dict[str, Any]:
    """Ours at its default precision and in float32, theirs in float32; ``train_ratio`` compares float32."""
    with tempfile.TemporaryDirectory() as folder:
        records = write_pictures(Path(folder))
        cases = {f"{size_px}px": compare(Path(folder), records, size_px, steps) for size_px, steps in CASES.items()}
    return {"train_ratio": min(case["ratio"] for case in cases.values()), "train": cases}


def compare(folder: Path, records: tuple[LabeledImage, ...], size_px: int, block_steps: int) -> dict[str, Any]:
    """Images/s of each training, and the ratios of ours to theirs."""
    trainings = {
        "ours": lambda after: ours(records, size_px, after, {}),
        "ours_float32": lambda after: ours(records, size_px, after, {"amp": False}),
        "theirs": lambda after: theirs(folder, size_px, after),
    }
    turns = Turns(list(trainings), block_steps)
    turns.run_all(trainings)
    figures: dict[str, Any] = {name: summary(speeds) for name, speeds in turns.speeds.items()}
    for name, ratio in (("ours_float32", "ratio"), ("ours", "ratio_at_default_precision")):
        figures[ratio] = round(figures[name]["images_per_s"] / figures["theirs"]["images_per_s"], 3)
    return figures


def summary(speeds: list[float], unit: str = "images_per_s") -> dict[str, float]:
    """Median and range of the warm blocks, and the first block, which includes the set-up."""
    warm = speeds[NUM_WARM:]
    figures = {unit: statistics.median(warm), "slowest": min(warm), "fastest": max(warm)}
    return {name: round(value, 2) for name, value in (figures | {"first_block": speeds[0]}).items()}


def real_job(records: tuple[LabeledImage, ...], detector: DetectorBase, training: TrainingConfig) -> TrainJob:
    """A training on real images only."""
    return TrainJob(
        detector=detector,
        training=training,
        mixing=MixingConfig(p=0.0),
        classes=CLASSES,
        real=records,
        pool=(),
        seed=0,
        start=None,
        checkpoint="",
        name="",
        storage="",
    )


def ours(records: tuple[LabeledImage, ...], size_px: int, after_step: AfterStep, overrides: dict[str, Any]) -> None:
    """Train with our trainer on real images only."""
    from loop.training.ultralytics.trainer import Training

    with tempfile.TemporaryDirectory() as folder:
        training = TrainingConfig(
            steps=100 * EPOCH_STEPS, epoch_steps=EPOCH_STEPS, batch_size=BATCH_SIZE, overrides=SHARED | overrides
        )
        job = real_job(records, UltralyticsConfig(model=MODEL, image_size_px=size_px), training)
        place = Place(folder=folder, device="cpu")
        run = Training(job, start_network(job)[0], place, NoMemory(), lambda _: None)
        run.add_callback("on_train_batch_end", after_step)
        run.train()


def theirs(folder: Path, size_px: int, after_step: AfterStep) -> None:
    """Train with ``YOLO.train`` on the same images in memory, without validation, plots and checkpoints."""
    from ultralytics import YOLO

    yolo = YOLO(MODEL)
    yolo.add_callback("on_train_batch_end", after_step)
    quiet = dict.fromkeys(("val", "save", "plots", "verbose", "pretrained"), False)
    yolo.train(
        data=str(folder / "data.yaml"),
        imgsz=size_px,
        epochs=100,
        batch=BATCH_SIZE,
        nbs=BATCH_SIZE,
        device="cpu",
        cache="ram",
        project=str(folder / "theirs"),
        **SHARED,
        **quiet,
    )


def write_pictures(folder: Path) -> tuple[LabeledImage, ...]:
    """Write images of 320 x 240 px with boxes on noise in ultralytics' layout; returns their records."""
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    names = "\n".join(f"  {number}: {name}" for number, name in enumerate(CLASSES))
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images\nval: images\nnames:\n{names}\n")
    rng = np.random.default_rng(0)
    return tuple(write_picture(folder, f"{number:03d}", rng) for number in range(NUM_PICTURES))


def write_picture(folder: Path, name: str, rng: np.random.Generator) -> LabeledImage:
    """Write one image and its label file; returns its record."""
    width, height, num_boxes = 320, 240, 5
    corners, sides = rng.integers(0, 160, (num_boxes, 2)), rng.integers(20, 80, (num_boxes, 2))
    labels = rng.integers(0, len(CLASSES), num_boxes)
    pixels = rng.integers(80, 140, (height, width, 3), dtype=np.uint8)
    for (x, y), (w, h), label in zip(corners, sides, labels, strict=True):
        pixels[y : y + h, x : x + w] = label * 30
    path = folder / "images" / f"{name}.png"
    Image.fromarray(pixels).save(path)
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    shares = np.concatenate([corners + sides / 2, sides], axis=1) / np.array([width, height] * 2)
    rows = [f"{label} {' '.join(f'{share:.6f}' for share in row)}" for label, row in zip(labels, shares, strict=True)]
    (folder / "labels" / f"{name}.txt").write_text("\n".join(rows) + "\n")
    annotation = Annotation(boxes=boxes, labels=labels.astype(np.int64), ignore=np.zeros(num_boxes, np.bool_))
    return LabeledImage(id=name, uri=str(path), width=width, height=height, annotation=annotation)
