"""Compare the speed of training torchvision's detectors with a plain loop. Run by speed.py.

The plain loop does what torchvision's detection references do for each step: the model resizes and normalises its
images and gives its losses, SGD takes a step, and the learning rate another. Both loops train the same model on batches
of the same size, augment by the same transforms, and have their decoded pictures in memory. Speeds are images per CPU
second of the process, one training at a time.
"""

import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from speed_train import CLASSES, AfterStep, Turns, real_job, summary, write_pictures
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.models.detection import FCOS
from torchvision.transforms import v2

from actors.detectors.torchvision.component import TorchvisionConfig
from actors.images import read
from actors.records import LabeledImage
from loop.config import TrainingConfig
from loop.hosting.records import Place
from loop.hosting.resume import NoMemory
from loop.training.job import TrainJob
from loop.training.torchvision.images import color_transform
from loop.training.torchvision.settings import Settings
from loop.training.torchvision.training import Training
from loop.training.worker import start_network

BATCH_SIZE, EPOCH_STEPS = 4, 20
OF_INIT = {"fpn_channels": 64, "anchor_px": 16, "roi_samples": 128}  # as `detloop init` writes them
CASES = {  # with the settings of torchvision's own models where none are given
    "fasterrcnn_efficientnet_lite0_256px_of_init": {"backbone": "efficientnet_lite0", "image_size_px": 256, **OF_INIT},
    "fasterrcnn_mobilenet_v3_large_224px": {"backbone": "mobilenet_v3_large", "image_size_px": 224},
    "fcos_resnet18_160px": {"model": "fcos", "backbone": "resnet18", "image_size_px": 160},
}
UNIT = "images_per_cpu_s"
SGD = {"optimizer": "sgd"}
FIRST_LABEL = {"fasterrcnn": 1, "fcos": 0}  # 0 is the background of the first

Target = dict[str, Tensor]


def measure_torchvision() -> dict[str, Any]:
    """Ours with all that it does besides (moving average, clipping, ignored boxes), against the plain loop."""
    with tempfile.TemporaryDirectory() as folder:
        records = write_pictures(Path(folder))
        cases = {name: compare(records, TorchvisionConfig(**keys)) for name, keys in CASES.items()}
    return {"torchvision_train_ratio": min(case["ratio"] for case in cases.values()), "torchvision_train": cases}


def compare(records: tuple[LabeledImage, ...], detector: TorchvisionConfig) -> dict[str, Any]:
    """Images per CPU second of both trainings, and the ratio of ours to theirs."""
    training = TrainingConfig(steps=100 * EPOCH_STEPS, epoch_steps=EPOCH_STEPS, batch_size=BATCH_SIZE, overrides=SGD)
    job = real_job(records, detector, training)
    turns = Turns(["ours", "theirs"], 1, BATCH_SIZE, time.process_time)
    turns.run_all({"ours": lambda after: ours(job, after), "theirs": lambda after: theirs(job, after)})
    figures: dict[str, Any] = {name: summary(speeds, UNIT) for name, speeds in turns.speeds.items()}
    return figures | {"ratio": round(figures["ours"][UNIT] / figures["theirs"][UNIT], 3)}


def ours(job: TrainJob, after_step: AfterStep) -> None:
    """Train with our trainer on real images only."""

    class Timed(Training):
        def report(self, parts: dict[str, Tensor]) -> None:
            super().report(parts)
            after_step(self)

    Timed(job, start_network(job)[0], Place(folder="", device="cpu"), NoMemory(), lambda _: None).run()


def theirs(job: TrainJob, after_step: AfterStep) -> None:
    """Train the same model by the plain loop."""
    network: Any = start_network(job)[0]  # a FasterRCNN of torchvision
    if job.detector.model == "fcos":  # ours has a head with background ignore
        side = job.detector.image_size_px
        network = FCOS(network.backbone, len(CLASSES), min_size=side, max_size=side)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02 * BATCH_SIZE / 16, momentum=0.9, weight_decay=1e-4)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-3, total_iters=1000)
    for images, targets in plain_batches(job):
        losses = network(images, targets)
        loss = sum(losses.values())
        if not math.isfinite(loss.item()):
            raise ValueError(f"the loss is {losses}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        warmup.step()
        after_step(losses)


def plain_batches(job: TrainJob) -> Iterator[tuple[list[Tensor], list[Target]]]:
    """Batches of images ``[3, H, W]`` in [0, 1] and their targets, without end."""
    images = Decoded(job.real, job.detector.image_size_px, FIRST_LABEL[job.detector.model])
    loader = DataLoader(images, BATCH_SIZE, shuffle=True, collate_fn=lambda batch: tuple(zip(*batch, strict=True)))
    while True:
        for pictures, targets in loader:
            yield list(pictures), list(targets)


class Decoded(Dataset[tuple[Tensor, Target]]):
    """Decoded pictures with targets, augmented by torchvision's transforms."""

    def __init__(self, records: tuple[LabeledImage, ...], size_px: int, first_label: int) -> None:
        self.records, self.first_label = records, first_label
        self.pictures = [torch.from_numpy(read(record.uri).copy()).permute(2, 0, 1) for record in records]
        settings, canvas = Settings(), (size_px, size_px)
        self.transform = v2.Compose(
            [
                color_transform(settings),
                v2.ScaleJitter(canvas, (1 - settings.scale, 1 + settings.scale)),
                v2.RandomCrop(canvas, pad_if_needed=True),
                v2.RandomHorizontalFlip(settings.flip),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
                v2.ClampBoundingBoxes(),
                v2.SanitizeBoundingBoxes(),
                v2.ToPureTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        known = self.records[index]
        size = (known.height, known.width)
        boxes = torch.tensor(known.annotation.boxes)
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
            "labels": torch.tensor(known.annotation.labels) + self.first_label,
        }
        moved: tuple[Tensor, Target] = self.transform(tv_tensors.Image(self.pictures[index]), target)
        return moved
