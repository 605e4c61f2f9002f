"""Ultralytics' own trainer on the batches of a mixture (the package is AGPL-3.0).

Imported by training workers alone, after ``import_ultralytics``: what the package does when it is imported is
decided there.

Augmentation, optimiser, warm-up, schedule, moving average and losses are ultralytics'. Ours are where the images
come from, which of them a step sees, what background costs, and where the state of the training lies.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from ultralytics.data.build import InfiniteDataLoader, seed_worker
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import RTDETRDetectionModel
from ultralytics.utils.torch_utils import unwrap_model

from actors.detectors.ultralytics.losses import dense_losses, hook_losses, mark_background
from actors.seeds import derive_seed
from loop.hosting.records import Place, Progress
from loop.hosting.resume import Memory
from loop.mixing import Kind
from loop.training.base import PROGRESS_S
from loop.training.batches import Labels, MixedImages, MixtureSampler
from loop.training.image_cache import PICTURES_BYTES, Pictures, Record
from loop.training.job import TrainJob
from loop.training.precision import forward_dtype
from loop.training.ultralytics.amp import in_full_precision
from loop.training.ultralytics.settings import settings

State = dict[str, Any]  # plain values and tensors
Batch = dict[str, Any]


class Images(YOLODataset):  # type: ignore[misc]
    """One kind of training images; mosaics are made of one kind only.

    Boxes flagged ignore go through the augmentation as one class more, and leave it in ``Training.preprocess_batch``.
    """

    def __init__(self, pictures: Pictures, num_classes: int, *, stretch: bool, **options: Any) -> None:  # noqa: ANN401
        self.pictures, self.num_classes, self.stretch = pictures, num_classes, stretch
        uris = [record.uri for record in pictures.records]
        super().__init__(img_path=uris, imgsz=pictures.size_px, cache="ram", augment=True, **options)

    def get_img_files(self, img_path: list[str]) -> list[str]:
        """The URIs as they are."""
        return img_path

    def check_cache_ram(self, safety_margin: float = 1.0) -> bool:  # noqa: ARG002 - ultralytics' signature
        """No second copy; the setting ``ram`` is there to let mosaics draw from all images, not from recent ones."""
        return False

    def get_labels(self) -> list[Labels]:
        """The annotations, boxes as centre, width, height in shares of the image."""
        return [self._label(record) for record in self.pictures.records]

    def _label(self, record: Record) -> Labels:
        boxes = record.annotation.boxes / np.array([record.width, record.height] * 2, np.float32)
        middle, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        classes = np.where(record.annotation.ignore, self.num_classes, record.annotation.labels)
        return {
            "im_file": record.uri,
            "shape": (record.height, record.width),
            "cls": classes[:, None].astype(np.float32),
            "bboxes": np.concatenate([middle, size], axis=1, dtype=np.float32),
            "segments": [],
            "keypoints": None,
            "normalized": True,
            "bbox_format": "xywh",
        }

    def load_image(
        self,
        i: int,
        rect_mode: bool = True,  # noqa: ARG002 - ultralytics' signature
        resize_short: bool = False,  # noqa: ARG002
    ) -> tuple[NDArray[np.uint8], tuple[int, int], tuple[int, int]]:
        """Pixels BGR, and (height, width) before and after resizing."""
        record, pixels = self.pictures.records[i], self.pictures.load(i, stretch=self.stretch)
        return pixels, (record.height, record.width), pixels.shape[:2]


class MixedMosaics(MixedImages):
    """Images whose mosaics the trainer closes."""

    kinds: Mapping[Kind, Images]

    def close_mosaic(self, hyp: SimpleNamespace) -> None:
        """No more mosaics from here on."""
        for images in self.kinds.values():
            images.close_mosaic(copy(hyp))


class Training(DetectionTrainer):  # type: ignore[misc] # with "Trainer" in its name ultralytics would hook trackers to it
    """Ultralytics' training of one job: ``epoch_steps`` steps are an epoch, a batch is a step, nothing is validated."""

    def __init__(
        self, job: TrainJob, model: nn.Module, place: Place, memory: Memory, progress: Callable[[Progress], None]
    ) -> None:
        self.job, self.place, self.memory, self.progress = job, place, memory, progress
        self.detr = isinstance(model, RTDETRDetectionModel)
        self.losses: list[dict[str, float]] = []
        self.done, self.seconds, self.began, self.reported = 0, 0.0, 0.0, 0.0
        threads = torch.get_num_threads()
        super().__init__(overrides=settings(job, place.folder, place.device))
        torch.set_num_threads(threads)  # ultralytics takes all but one of the machine's
        self.model = model
        self.dtype = forward_dtype(self.device, job.training.overrides.get("amp", not self.detr))
        self.add_callback("on_train_start", Training.begin)
        self.add_callback("on_train_epoch_start", Training.begin_epoch)
        self.add_callback("on_train_batch_end", Training.report)
        self.add_callback("on_fit_epoch_end", Training.end_epoch)

    # What ultralytics asks of a trainer: data, model, and what it should not do

    def get_dataset(self) -> dict[str, Any]:
        """Class names; images come from the job."""
        names = dict(enumerate(self.job.classes))
        return {"train": "", "val": "", "nc": len(names), "names": names, "channels": 3}

    def get_dataloader(self, dataset_path: str, batch_size: int, rank: int, mode: str) -> InfiniteDataLoader:  # noqa: ARG002
        """This worker's part of the mixture's batches."""
        if mode == "val":
            return self.train_loader
        mixture, steps = self.job.mixture(), self.job.training.epoch_steps
        loaders = self.args.workers
        return InfiniteDataLoader(
            dataset=self.build_images(),
            batch_size=mixture.batch_size // self.place.num_workers,
            sampler=MixtureSampler(mixture, steps, self.place.rank, self.place.num_workers),
            num_workers=loaders,
            prefetch_factor=4 if loaders else None,
            pin_memory=self.device.type == "cuda",
            collate_fn=YOLODataset.collate_fn,
            worker_init_fn=seed_worker,
            generator=torch.Generator(),
        )

    def build_images(self) -> MixedMosaics:
        """The images of the job, each kind apart."""
        limit_bytes = PICTURES_BYTES // 2 // max(self.args.workers, 1)
        shared = {"hyp": self.args, "data": self.data, "stride": self.stride, "batch_size": self.args.batch}

        def images(records: Sequence[Record]) -> Images:
            pictures = Pictures(records, self.args.imgsz, limit_bytes)
            return Images(pictures, len(self.job.classes), stretch=self.detr, **shared)

        return MixedMosaics.of(self.job, images)

    def get_class_counts(self) -> NDArray[np.float32]:
        """Boxes of each class ``[classes]`` in the real images: the same with and without a pool."""
        annotations = [record.annotation for record in self.job.real]
        labels = np.concatenate([annotation.labels[~annotation.ignore] for annotation in annotations])
        return np.bincount(labels, minlength=len(self.job.classes)).astype(np.float32)

    def get_validator(self) -> SimpleNamespace:
        """Nothing is validated while training."""
        return SimpleNamespace(metrics=SimpleNamespace(keys=[]))

    def validate(self) -> tuple[dict[str, float], None]:
        """Nothing is validated while training."""
        return {}, None

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """No file; see ``losses``."""

    def save_model(self) -> bool:
        """No file; the caller takes ``ema.ema``."""
        return False

    def final_eval(self) -> None:
        """Nothing is validated after training."""

    # Set-up

    def _build_train_pipeline(self) -> None:
        if self.optimizer is not None:  # ultralytics would go on with half the batch
            raise ValueError(f"out of memory: lower training.batch_size ({self.args.batch}) or detector.image_size_px")
        if self.device.type == "cpu":  # on GPUs ultralytics does this itself
            self.model = self.model.to(memory_format=torch.channels_last)
        if self.place.num_workers > 1:
            devices = None if self.device.index is None else [self.device.index]
            ddp = nn.parallel.DistributedDataParallel
            self.model = ddp(self.model, device_ids=devices, find_unused_parameters=True, broadcast_buffers=False)
        super()._build_train_pipeline()
        self.world_size = self.place.num_workers  # by which ultralytics scales the loss, since gradients are averaged
        self.amp = self.dtype != torch.float32
        if self.device.type == "cuda":
            self.args.amp = "bf16" if self.dtype == torch.bfloat16 else self.amp
            self.scaler = torch.amp.GradScaler("cuda", enabled=self.dtype == torch.float16)

    def build_optimizer(self, *args: Any, **options: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - ultralytics' signature
        """Ultralytics' choice. On the CPU its steps are fused where torch has that: they take a third of the time."""
        optimizer: torch.optim.Optimizer = super().build_optimizer(*args, **options)
        if self.device.type == "cpu":
            for group in optimizer.param_groups:
                group["fused"] = True
        return optimizer

    def resume_training(self, ckpt: None) -> None:  # noqa: ARG002 - ultralytics' signature
        """Go on from where the training was, if it was; then hook the losses, with the average already copied."""
        model = unwrap_model(self.model)
        model.criterion = model.init_criterion()
        state = self.memory.recall()
        if state is not None:
            self.restore(state, model)
        hook_losses(model)
        for head in dense_losses(model.criterion):
            head.loss = in_full_precision(head.loss, self.device.type)

    def restore(self, state: State, model: nn.Module) -> None:
        """Take up weights, average, optimiser and schedule where ``snapshot`` left them."""
        model.load_state_dict(state["model"])
        self.ema.ema.load_state_dict(state["ema"])
        self.ema.updates, self.losses = state["updates"], state["losses"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.start_epoch = state["epoch"]
        criterion: Any = model.criterion
        if hasattr(criterion, "update"):  # how much the two branches of an end-to-end head count
            criterion.updates = self.start_epoch - 1
            criterion.update()

    def snapshot(self) -> State:
        """All that the rest of the training depends on."""
        return {
            "epoch": self.epoch + 1,
            "model": unwrap_model(self.model).state_dict(),
            "ema": self.ema.ema.state_dict(),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "losses": self.losses,
        }

    # While it runs

    def begin(self) -> None:
        """The clock of the training loop starts."""
        self.began = self.reported = time.perf_counter()

    def begin_epoch(self) -> None:
        """What is random in an epoch, and which images it sees, depends on its number and not on the epochs before."""
        self.train_loader.sampler.set_epoch(self.epoch)
        torch.manual_seed(derive_seed(self.job.seed, "epoch", self.epoch, self.place.rank))

    def preprocess_batch(self, batch: Batch) -> Batch:
        """On the device, in [0, 1], with the marks that background ignore goes by."""
        batch = mark_background(batch, len(self.job.classes), synthetic=self.job.training.background_ignore)
        random.seed(batch["seed"][0])  # ultralytics draws the size here where multi_scale is on
        batch = super().preprocess_batch(batch)
        if self.device.type == "cpu":
            batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch

    def report(self) -> None:
        """Tell how far the training is, now and then."""
        self.done += 1
        now = time.perf_counter()
        if self.place.rank > 0 or now - self.reported < PROGRESS_S:
            return
        self.reported = now
        steps, batch_size = self.job.training.steps, self.job.training.batch_size
        step = self.start_epoch * self.job.training.epoch_steps + self.done
        loss = float(sum(self.loss_items.values()))
        speed = self.done * batch_size / (now - self.began)
        self.progress(Progress(step=step, steps=steps, loss=loss, images_per_s=speed))

    def end_epoch(self) -> None:
        """Note the losses and offer the state."""
        means = {name: float(value) for name, value in self.tloss.items()}
        steps = (self.epoch + 1) * self.job.training.epoch_steps
        self.losses.append({"step": steps, "lr": self.optimizer.param_groups[0]["lr"], **means})
        self.seconds = time.perf_counter() - self.began
        if self.epoch + 1 < self.epochs:
            self.memory.keep(self.snapshot)

    def _handle_nan_recovery(self, epoch: int) -> bool:
        if self.loss.isfinite():
            return False
        raise ValueError(
            f"the loss is {float(self.loss)} in epoch {epoch + 1}; lower training.overrides.lr0 (now {self.args.lr0}), "
            "or set training.overrides.amp: false"
        )
