import signal
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from actors.detectors.base import DetectorBase
from actors.detectors.torchvision.component import TorchvisionConfig
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.detectors.ultralytics.weights import import_ultralytics
from actors.records import Annotation, LabeledImage
from loop.config import MixingConfig, TrainingConfig
from loop.hosting.config import HostingConfig
from loop.hosting.records import Place, Progress
from loop.hosting.resume import Memory, NoMemory, RayMemory
from loop.training.base import Trained, trainer_of
from loop.training.job import TrainJob
from loop.training.train import train
from loop.training.worker import start_network

import_ultralytics()

from loop.training.ultralytics.trainer import State, Training

INLINE = HostingConfig(engine="inline")
SIZE_PX = 64
STILL = dict.fromkeys(("mosaic", "translate", "scale", "fliplr", "hsv_h", "hsv_s", "hsv_v"), 0.0)
COLOURS = np.array([[230, 30, 30], [30, 230, 30], [30, 30, 230]], np.uint8)


def draw_images(folder: Path, num_images: int, seed: int, *, ground: int | None = None) -> tuple[LabeledImage, ...]:
    """Scenes of two coloured boxes on noise, or on one flat ``ground`` without boxes."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    return tuple(draw_image(folder / f"{number}.png", rng, ground) for number in range(num_images))


def draw_image(path: Path, rng: np.random.Generator, ground: int | None) -> LabeledImage:
    width, height = 96, 64
    pixels = rng.integers(90, 130, (height, width, 3), dtype=np.uint8)
    boxes, labels = [], []
    for x in () if ground is not None else (8, 52):
        label, y, side = int(rng.integers(3)), int(rng.integers(4, 24)), int(rng.integers(18, 34))
        pixels[y : y + side, x : x + side] = COLOURS[label]
        boxes.append([x, y, x + side, y + side])
        labels.append(label)
    Image.fromarray(pixels if ground is None else np.full_like(pixels, ground)).save(path)
    annotation = Annotation(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        ignore=np.zeros(len(labels), np.bool_),
    )
    return LabeledImage(id=path.name, uri=str(path), width=width, height=height, annotation=annotation)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> tuple[tuple[LabeledImage, ...], tuple[LabeledImage, ...]]:
    folder = tmp_path_factory.mktemp("images")
    return draw_images(folder / "real", 8, 0), draw_images(folder / "pool", 5, 1)


@pytest.fixture
def job(images, tmp_path) -> Callable[..., TrainJob]:
    """A training of six steps that take a tenth of a second each, with changes by name."""

    def make(p: float = 0.5, mode: str = "share", overrides: dict[str, Any] | None = None, **changes: Any) -> TrainJob:
        plan = {"steps": 6, "epoch_steps": 2, "batch_size": 4} | changes.pop("plan", {})
        made = TrainJob(
            detector=UltralyticsConfig(model="yolo11n.yaml", image_size_px=SIZE_PX),
            training=TrainingConfig(overrides=overrides or {}, **plan),
            mixing=MixingConfig(p=p, mode=mode, max_repeats=None),
            classes=("red", "green", "blue"),
            real=images[0],
            pool=images[1],
            seed=5,
            start=None,
            checkpoint=str(tmp_path / "detector.safetensors"),
            name="training",
            storage=str(tmp_path / "train"),
        )
        return replace(made, **changes)

    return make


YOLOS = [UltralyticsConfig(model=model, image_size_px=SIZE_PX) for model in ("yolo11n.yaml", "yolo26n.yaml")]
TORCHVISION = [
    TorchvisionConfig(model=model, backbone="timm:test_resnet", fpn_channels=64, roi_samples=16, image_size_px=SIZE_PX)
    for model in ("fasterrcnn", "retinanet", "fcos")
]
ALL_SAMPLED = TORCHVISION[0].model_copy(update={"image_size_px": 32, "roi_samples": 4096})
"""It has so few anchors and regions that no sampling leaves any out, so that nothing is random."""


def trained(job: TrainJob, folder: Path, memory: Memory | None = None) -> Trained:
    """The result of a family's trainer."""
    place = Place(folder=str(folder), device="cpu")
    return trainer_of(job.detector).train(job, start_network(job)[0], place, memory or NoMemory(), lambda _: None)


def trained_bytes(job: TrainJob) -> bytes:
    train(job, INLINE)
    return Path(job.checkpoint).read_bytes()


def set_up(job: TrainJob, folder: Path, memory: Any = None) -> Training:
    place = Place(folder=str(folder), device="cpu")
    return Training(job, start_network(job)[0], place, memory or NoMemory(), lambda _: None)


def loader_of(job: TrainJob, folder: Path, num_loaders: int = 0) -> Any:
    training = set_up(job, folder)
    training.stride, training.args.workers = 32, num_loaders
    return training.get_dataloader("", 4, -1, "train")


@pytest.mark.slow
def test_equal_jobs_give_equal_bytes_and_other_seeds_do_not(job):
    first = trained_bytes(job())
    assert trained_bytes(job()) == first
    assert trained_bytes(job(seed=6)) != first


def test_p_of_zero_equals_real_only_bit_for_bit_gen2det_section_3_3(job):
    weighted = {"cls_pw": 1.0}  # ultralytics weights classes by their numbers of boxes
    assert trained_bytes(job(p=0.0, overrides=weighted)) == trained_bytes(job(p=0.0, overrides=weighted, pool=()))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_training_keeps_its_number_of_threads(job, tmp_path, threads):
    torch.set_num_threads(threads)
    set_up(job(), tmp_path)
    assert torch.get_num_threads() == threads
    torch.set_num_threads(1)


def test_result_tells_what_was_shown(job):
    result = train(job(p=0.25), INLINE)
    assert (result.steps, result.num_real_shown, result.num_synthetic_shown) == (6, 18, 6)
    assert result.realised_p == 0.25
    assert [entry["step"] for entry in result.losses] == [2, 4, 6]
    assert result.training_s > 0
    assert result.launch_s > 0


def test_background_ignore_changes_a_mixed_training(job):
    plan = {"background_ignore": False}
    assert trained_bytes(job()) != trained_bytes(job(plan=plan))


@pytest.mark.slow
def test_background_ignore_changes_a_mixed_training_of_queries_and_no_other(job, small_detr):
    detr = UltralyticsConfig(model=str(small_detr), image_size_px=SIZE_PX)
    ignoring, counting = ({"background_ignore": flag} for flag in (True, False))
    assert trained_bytes(job(detector=detr, plan=ignoring)) != trained_bytes(job(detector=detr, plan=counting))
    real_only = {"detector": detr, "p": 0.0}
    bytes_ = {
        trained_bytes(job(**real_only, plan=ignoring)),
        trained_bytes(job(**real_only, plan=counting)),
        trained_bytes(job(**real_only, plan=counting, pool=())),
    }
    assert len(bytes_) == 1


def test_queries_learn_nothing_from_synthetic_images_without_boxes_gen2det_section_3_3(
    job, images, small_detr, tmp_path
):
    bare = tuple(replace(image, annotation=Annotation.empty()) for image in images[1])
    still = {"optimizer": "SGD", "momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 0.0}
    detr = UltralyticsConfig(model=str(small_detr), image_size_px=SIZE_PX)
    one = job(detector=detr, p=1.0, mode="batch", pool=bare, overrides=still)
    before = dict(start_network(one)[0].named_parameters())
    training = set_up(one, tmp_path)
    training.train()
    after = dict(training.model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


class Notebook:
    """Keeps the state of the epoch after which the training is broken off."""

    def __init__(self, after_epoch: int) -> None:
        self.after_epoch, self.data = after_epoch, b""

    def recall(self) -> State | None:
        return torch.load(BytesIO(self.data), weights_only=True) if self.data else None

    def keep(self, snapshot: Callable[[], State]) -> None:
        state = snapshot()
        if state["epoch"] == self.after_epoch and not self.data:
            buffer = BytesIO()
            torch.save(state, buffer)
            self.data = buffer.getvalue()
            raise InterruptedError


@pytest.mark.parametrize("detector", [*YOLOS, *TORCHVISION], ids=lambda detector: detector.model)
def test_an_interrupted_training_ends_as_if_it_had_not_been(detector, job, tmp_path):
    overrides = {"schedule": "step", "optimizer": "sgd"} if detector.model == "fcos" else {}
    whole_job = job(detector=detector, overrides=overrides)
    whole = trained(whole_job, tmp_path)
    notebook = Notebook(after_epoch=2)
    with pytest.raises(InterruptedError):
        trained(whole_job, tmp_path, notebook)
    resumed = trained(whole_job, tmp_path, notebook)
    expected, found = whole.network.state_dict(), resumed.network.state_dict()
    assert (whole.images, resumed.images) == (6 * 4, 2 * 4)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed.losses == whole.losses


def test_a_loss_that_is_not_finite_is_told(job):
    wild = {"optimizer": "sgd", "lr": 1e30, "clip": 0.0, "warmup": 0.0}
    with pytest.raises(ValueError, match=r"the loss is .* in epoch 1; lower training.overrides.lr \(now 1e\+30\)"):
        train(job(detector=TORCHVISION[-1], overrides=wild), INLINE)


def test_images_do_not_depend_on_the_number_of_loaders(job, tmp_path):
    alone, helped = (loader_of(job(), tmp_path, num_loaders) for num_loaders in (0, 2))
    for mine, theirs in zip(alone, helped, strict=True):
        assert torch.equal(mine["img"], theirs["img"])
        assert torch.equal(mine["bboxes"], theirs["bboxes"])
        assert mine["seed"] == theirs["seed"]
    helped.close()


def test_a_mosaic_is_made_of_one_kind_of_images(job, tmp_path):
    black, white = (draw_images(tmp_path / str(ground), 3, 0, ground=ground) for ground in (0, 255))
    plain = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
    seen = set()
    for batch in loader_of(job(real=black, pool=white, overrides=plain), tmp_path):
        for pixels, synthetic in zip(batch["img"], batch["synthetic"], strict=True):
            seen.add(synthetic)
            levels = set(pixels.unique().tolist())
            assert (0 in levels) is not synthetic
            assert (255 in levels) is synthetic
    assert seen == {False, True}


def test_a_mosaic_of_clean_images_has_no_other_image_in_it(job, tmp_path):
    black, white = (draw_images(tmp_path / str(ground), 3, 0, ground=ground) for ground in (0, 255))
    plain = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
    half = job(real=black, clean=white, pool=(), mixing=MixingConfig(p=0.0, clean=0.5), overrides=plain)
    pictures = [pixels for batch in loader_of(half, tmp_path) for pixels in batch["img"]]
    levels = [set(pixels.unique().tolist()) for pixels in pictures]
    kinds = [draw.kind for step in range(2) for draw in half.mixture().batch(step)]
    assert [255 in one for one in levels] == [kind == "clean" for kind in kinds]
    assert [0 in one for one in levels] == [kind == "real" for kind in kinds]
    assert set(kinds) == {"clean", "real"}


@pytest.mark.parametrize("detector", [*YOLOS, *TORCHVISION], ids=lambda detector: detector.model)
def test_every_family_trains_on_images_without_boxes(detector, job, tmp_path):
    """Nine in ten are clean, so that some batches of four, mosaics included, have no box at all."""
    clean = draw_images(tmp_path / "clean", 3, 0, ground=110)
    mostly = job(detector=detector, p=0.0, pool=(), clean=clean, mixing=MixingConfig(p=0.0, clean=0.9))
    assert any(all(draw.kind == "clean" for draw in batch) for batch in mostly.mixture().steps(0))
    result = train(mostly, INLINE)
    assert (result.num_real_shown, result.num_clean_shown) == (24, mostly.mixture().num_clean_draws)
    assert result.num_clean_shown in {21, 22}
    assert all(np.isfinite(list(entry.values())).all() for entry in result.losses)
    first = Path(mostly.checkpoint).read_bytes()
    assert trained_bytes(mostly) == first
    assert trained_bytes(replace(mostly, clean=())) != first


def test_the_share_of_clean_images_changes_nothing_without_them(job):
    one, other = (job(mixing=MixingConfig(clean=share)) for share in (0.0, 0.5))
    assert one.fingerprint() == other.fingerprint()
    assert replace(one, clean=one.real).fingerprint() != replace(other, clean=one.real).fingerprint()
    assert trained_bytes(one) == trained_bytes(other)


def test_the_model_sees_red_as_red(job, tmp_path):
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    path = tmp_path / "red.png"
    Image.fromarray(red).save(path)
    picture = LabeledImage(id="red", uri=str(path), width=64, height=64, annotation=Annotation.empty())
    batch = next(iter(loader_of(job(real=(picture,), pool=(), overrides=STILL), tmp_path)))
    assert batch["img"][0, :, 32, 32].tolist() == [255, 0, 0]


def test_ignored_boxes_leave_the_targets(job, images, tmp_path):
    first = images[0][0]
    flags = np.array([True, False])
    annotation = Annotation(boxes=first.annotation.boxes, labels=first.annotation.labels, ignore=flags)
    training = set_up(job(real=(replace(first, annotation=annotation),), pool=(), overrides=STILL), tmp_path)
    training.stride = 32
    batch = training.preprocess_batch(next(iter(training.get_dataloader("", 4, -1, "train"))))
    assert batch["cls"].flatten().tolist() == [float(first.annotation.labels[1])] * 4
    assert len(batch["marks"].ignored) == 4


def test_a_picture_that_changed_since_its_import_is_an_error(job, images):
    wrong = replace(images[0][0], width=97)
    with pytest.raises(ValueError, match="96x64 px, recorded as 97x64"):
        train(job(real=(wrong,)), INLINE)


@pytest.mark.parametrize(
    ("name", "message"),
    [("mosiac", "near it: .*mosaic"), ("epochs", "training.steps"), ("plots", "cannot be set here")],
)
def test_settings_that_cannot_be_given_are_named(name, message, job):
    with pytest.raises(ValueError, match=rf"training.overrides.{name}: .*{message}"):
        train(job(overrides={name: 1}), INLINE)


def test_workers_that_cannot_share_a_batch_are_refused(job):
    with pytest.raises(ValueError, match="batch_size \\(4\\)"):
        train(job(), HostingConfig(train={"num_workers": 3}))


def test_a_training_goes_on_from_a_checkpoint_of_the_same_classes(job, tmp_path):
    train(job(), INLINE)
    start = str(tmp_path / "detector.safetensors")
    model, _ = start_network(job(start=start))
    saved = load_file(start)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ValueError, match="but the data set has"):
        start_network(job(start=start, classes=("red", "green", "black")))


def test_the_state_of_another_training_is_refused(monkeypatch, tmp_path):
    train_api = pytest.importorskip("ray.train")
    torch.save({"job": "another"}, tmp_path / "state.pt")
    monkeypatch.setattr(train_api, "get_checkpoint", lambda: train_api.Checkpoint.from_directory(tmp_path))
    with pytest.raises(ValueError, match="state of another training"):
        RayMemory(Place(folder="", device="cpu"), "this", 0.0).recall()


@pytest.mark.usefixtures("ray_session")
def test_ray_gives_the_bytes_of_this_process_even_when_a_worker_is_killed(job, kill_a_worker, caplog):
    long = job(plan={"steps": 60, "epoch_steps": 5})
    expected = trained_bytes(long)
    Path(long.checkpoint).unlink()
    killed = []

    def interfere(progress: Progress) -> None:
        if not killed and progress.step > 10:
            killed.append(kill_a_worker())

    result = train(long, HostingConfig(train={"keep_every_s": 0.0}), interfere)
    assert killed == [True]
    assert f"training {long.name} lost worker 0" in caplog.text
    assert "it goes on from its last saved state" in caplog.text
    assert Path(long.checkpoint).read_bytes() == expected
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # Ray Train would take Ctrl-C for itself
    assert [entry["step"] for entry in result.losses] == list(range(5, 61, 5))


GENTLE = {"box": 0.05, "cls": 0.005, "dfl": 0.01}  # gradients too small to be clipped, which would hide their scale


def settings_of(detector: DetectorBase) -> tuple[dict[str, Any], dict[str, Any]]:
    """Overrides for a detector that finds something, and for plain steps from it, both without augmentation."""
    if isinstance(detector, UltralyticsConfig):
        calm = {"optimizer": "SGD", "momentum": 0.0, "warmup_epochs": 0.0, "amp": False}
        return {"optimizer": "AdamW", "lr0": 0.003, "warmup_epochs": 0.0} | STILL, calm | STILL | GENTLE
    still = {"flip": 0.0, "scale": 0.0, "color": 0.0}
    return {"lr": 0.003} | still, {"optimizer": "sgd", "momentum": 0.0, "warmup": 0.0, "clip": 0.0} | still


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("detector", [YOLOS[0], ALL_SAMPLED], ids=lambda detector: detector.model)
def test_two_workers_make_the_steps_of_one(detector, job, images, tmp_path):
    # BatchNorm and the normaliser of the loss see a worker's own part, so both parts are made the same: one image.
    # The start is a detector that finds something, since ultralytics does not let the normaliser fall below 1.
    lively, calm = settings_of(detector)
    one_image = {"detector": detector, "real": images[0][:1], "pool": (), "p": 0.0}
    start = job(overrides=lively, plan={"steps": 20, "epoch_steps": 20}, **one_image)
    train(start, INLINE)
    plan = {"steps": 2, "epoch_steps": 1, "batch_size": 8}
    one = job(overrides=calm, plan=plan, start=start.checkpoint, **one_image)
    one, two = (replace(one, name=name, checkpoint=str(tmp_path / name)) for name in ("one", "two"))
    losses = [train(one, INLINE).losses, train(two, HostingConfig(train={"num_workers": 2})).losses]
    before = load_file(start.checkpoint)
    moves = [{k: v - before[k] for k, v in load_file(j.checkpoint).items() if "running" not in k} for j in (one, two)]
    first, second = (torch.cat([move[name].float().flatten() for name in sorted(move)]) for move in moves)
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-3)
    assert float(second.norm() / first.norm()) == pytest.approx(1.0, abs=0.02)
    assert torch.cosine_similarity(first, second, dim=0) > 0.999
