"""Fitting a generator: the same weights wherever it runs and whoever dies, made once for all runs that would agree."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from rich.console import Console

from actors.checkpoint import Checkpoint
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.fitting import DetectorCheckpoint, FitData, Fitted
from actors.generators.inpaint.component import InpaintConfig
from actors.generators.insertion_gan.component import InsertionGANConfig
from actors.generators.layout.component import LayoutConfig
from actors.images import encode_png
from actors.records import Annotation, Difficulty, LabeledImage
from loop import arms
from loop.arms import Trainings, unmined
from loop.config import LoopConfig
from loop.driver import import_real
from loop.hosting import launch
from loop.hosting.config import HostingConfig
from loop.hosting.records import Place, Progress
from loop.progress import Reporter
from loop.training.fit import EPOCH_STEPS, FitJob, fit

INLINE = HostingConfig(engine="inline")
PAINTER = {"kind": "crop", "size_px": 16, "channels": (8, 16), "fit_batch_size": 4, "strength": 0.5}
LAYOUT = {
    "network": {"kind": "small", "size_px": 16, "channels": (8, 16), "text_width": 16, "text_layers": 1},
    "prompt": {"grid": (8, 8), "max_tokens": 24},
    "sampling_steps": 2,
}
CLASSES = ("blue", "red")


def picture(file: Path, seed: int, *, ignore: bool = False) -> LabeledImage:
    """A blue and a red box on grey noise."""
    pixels = np.random.default_rng(seed).normal(110, 8, (40, 60, 3))
    boxes = np.array([[6, 8, 18, 22], [36, 12, 50, 24]], np.float32) + seed
    for (left, top, right, bottom), colour in zip(boxes.astype(int), ((30, 40, 230), (235, 50, 50)), strict=True):
        pixels[top:bottom, left:right] = colour
    file.write_bytes(encode_png(pixels.clip(0, 255).astype(np.uint8)))
    annotation = Annotation(boxes=boxes, labels=np.arange(2), ignore=np.full(2, ignore))
    return LabeledImage(id=file.name, uri=str(file), width=60, height=40, annotation=annotation)


@pytest.fixture
def job(tmp_path) -> Callable[..., FitJob]:
    """A fit on two images, with settings of the painter by name."""

    def make(*, ignore: bool = False, **settings: Any) -> FitJob:
        images = tuple(picture(tmp_path / f"{seed}.png", seed, ignore=ignore) for seed in range(2))
        difficulties = ((Difficulty.EASY, Difficulty.HARD),) * 2
        return FitJob(
            learner=InpaintConfig.model_validate({"painter": PAINTER | settings}),
            data=FitData(classes=CLASSES, images=images, difficulties=difficulties, seed=3),
            checkpoint=str(tmp_path / "generator.safetensors"),
            name="fit",
            storage=str(tmp_path / "fit"),
        )

    return make


def layout_job(job: Callable[..., FitJob], prompt: dict[str, Any] | None = None, **settings: Any) -> FitJob:
    """A fit of the layout model, with settings of its prompt and of its fit by name."""
    changes = {"prompt": LAYOUT["prompt"] | (prompt or {}), "fit": {"batch_size": 4, "learning_rate": 3e-3} | settings}
    return replace(job(), learner=LayoutConfig.model_validate(LAYOUT | changes))


@pytest.mark.usefixtures("ray_session")
def test_ray_gives_the_bytes_of_this_process_even_when_a_worker_is_killed(job, kill_a_worker, monkeypatch):
    monkeypatch.setattr(launch, "POLL_S", 0.1)  # to hear of the fit before it is over
    long = job(fit_steps=4 * EPOCH_STEPS)
    alone = fit(long, INLINE)
    expected = Path(long.checkpoint).read_bytes()
    Path(long.checkpoint).unlink()
    killed = []

    def interfere(progress: Progress) -> None:
        if not killed and progress.step > EPOCH_STEPS:
            killed.append(kill_a_worker())

    result = fit(long, HostingConfig(fit={"num_workers": 1, "keep_every_s": 0.0}), interfere)
    assert killed == [True]
    assert Path(long.checkpoint).read_bytes() == expected
    assert result.losses == alone.losses
    assert [entry["step"] for entry in result.losses] == [EPOCH_STEPS * part for part in range(1, 5)]
    shown = [round(one.images_per_s * one.training_s) for one in (alone, result)]  # in the last attempt
    assert shown[0] == 4 * EPOCH_STEPS * 4
    assert 0 < shown[1] < shown[0]  # it went on from the state that was kept


@pytest.mark.usefixtures("ray_session")
def test_two_workers_make_the_steps_of_one(job, tmp_path):
    """Each takes every other place of a batch; loss and gradients are over both. Sums round otherwise: 1 %."""
    one = job(fit_steps=2 * EPOCH_STEPS)
    two = replace(one, name="two", checkpoint=str(tmp_path / "two.safetensors"))
    curves = [fit(one, INLINE), fit(two, HostingConfig(fit={"num_workers": 2}))]
    first, second = ([entry["loss"] for entry in curve.losses] for curve in curves)
    assert len(first) == 2
    assert second == pytest.approx(first, rel=0.01)
    assert first[1] < 0.8 * first[0]  # there was something to learn
    assert Path(two.checkpoint).exists()


@pytest.mark.parametrize("hosting", [INLINE, HostingConfig(fit={"num_workers": 2})], ids=["inline", "ray"])
def test_a_fit_without_a_box_is_told_and_not_tried(hosting, job):
    with pytest.raises(ValueError, match="nothing to fit on: 2 training images without a box that counts"):
        fit(job(ignore=True), hosting)


@pytest.mark.slow
def test_workers_that_cannot_share_a_batch_are_refused(job):
    with pytest.raises(ValueError, match=r"batch size \(4\), hosting.fit.num_workers \(3\)"):
        fit(job(), HostingConfig(fit={"num_workers": 3}))
    in_parts = layout_job(job, steps=3, accumulate=4)
    with pytest.raises(ValueError, match=r"num_workers \(2\) times fit.accumulate \(4\)"):
        fit(in_parts, HostingConfig(fit={"num_workers": 2}))
    assert fit(in_parts, INLINE).steps == 3


@pytest.mark.usefixtures("ray_session")
def test_what_workers_cannot_do_is_said_in_their_words_and_tried_once(job, tmp_path):
    tried = tmp_path / "tried"

    def work(_: FitJob, place: Place, *__: Any) -> Any:
        with tried.open("a") as file:
            file.write(f"{place.rank}\n")
        raise FileNotFoundError("no such weights; name others")

    role = HostingConfig(fit={"num_workers": 2, "max_failures": 2}).fit
    with pytest.raises(FileNotFoundError, match=r"^no such weights; name others$"):
        launch.launch(work, job(), role, HostingConfig(), None)
    ranks = tried.read_text().split()
    assert len(set(ranks)) == len(ranks)


def test_boxes_without_room_in_their_prompts_are_told_at_every_start(easy_config, tmp_path):
    """Ten tokens have room for one of the two boxes of each of eight images."""
    generator = {"kind": "layout", **LAYOUT, "prompt": {"grid": (8, 8), "max_tokens": 10}, "fit": {"steps": 1}}
    config = LoopConfig.model_validate(easy_config | {"root": str(tmp_path), "generator": generator})
    data, said = import_real(config), StringIO()
    trainings = Trainings(config=config, data=data, reporter=Reporter(Console(file=said, width=300)))
    difficulties = tuple((Difficulty.HARD,) * len(image.annotation) for image in data.splits["train"])
    assert [trainings.fit(config.generator, difficulties, number=1, detector="").boxes_cut for _ in range(2)] == [8, 8]
    assert said.getvalue().count("8 of 16 boxes do not fit into their prompts, and the fit leaves them out") == 2


def test_the_fingerprint_is_over_what_decides_the_weights(job):
    one = job(fit_steps=6)
    same = replace(one, checkpoint="elsewhere", name="other", storage="elsewhere")
    hard = ((Difficulty.HARD, Difficulty.HARD),) * 2
    others = [
        job(fit_steps=7),
        replace(one, data=replace(one.data, seed=4)),
        replace(one, data=replace(one.data, difficulties=hard)),
        replace(one, data=replace(one.data, images=one.data.images[:1], difficulties=hard[:1])),
        replace(one, data=replace(one.data, classes=("red", "blue"))),
    ]
    prints = [other.fingerprint() for other in others]
    drawn_otherwise = one.learner.model_copy(update={"insert": 0.9, "difficulty": Difficulty.EASY})
    assert same.fingerprint() == one.fingerprint()
    assert replace(one, learner=drawn_otherwise).fingerprint() == job(fit_steps=6, sampling_steps=9).fingerprint()
    assert job(fit_steps=6, sampling_steps=9).fingerprint() == one.fingerprint()
    assert len({one.fingerprint(), *prints}) == 1 + len(others)


def test_a_fit_that_goes_on_is_known_by_what_it_starts_from_and_not_by_where_that_lies(job, tmp_path):
    first = Fitted(checkpoint=str(tmp_path / "first.safetensors"), fingerprint=job().fingerprint())
    again = replace(job(), start=first)
    moved, other = (replace(first, **change) for change in ({"checkpoint": "elsewhere"}, {"fingerprint": "f" * 16}))
    assert again.fingerprint() == replace(again, start=moved).fingerprint()
    prints = {job().fingerprint(), again.fingerprint(), replace(again, start=other).fingerprint()}
    assert len(prints) == 3
    assert again.located(lambda uri: f"/here/{Path(uri).name}").start.checkpoint == "/here/first.safetensors"


def test_masks_of_places_count_by_their_contents(job, tmp_path):
    masks = tmp_path / "masks"
    (masks / "sub").mkdir(parents=True)
    clean = tuple(replace(job().data.images[0], id=f"clean/{name}") for name in ("a.png", "sub/b.jpg"))
    learner = InsertionGANConfig(places="masks", place_masks=str(masks))
    one = replace(job(), learner=learner, data=replace(job().data, clean=clean))
    with pytest.raises(FileNotFoundError, match=r"a\.png is missing"):
        one.fingerprint()
    prints = []
    for contents in (b"white", b"black"), (b"black", b"white"), (b"white", b"white"), (b"white", b"black"):
        for name, content in zip(("a.png", "sub/b.png"), contents, strict=True):
            (masks / name).write_bytes(content)
        (masks / f"unused_{len(prints)}.png").write_bytes(b"")
        prints.append(one.fingerprint())
    assert prints[0] == prints[3]
    assert len(set(prints)) == 3


class Adversary(InpaintConfig):
    """A generator whose fit learns from the detector."""

    uses_detector: ClassVar = True


def test_a_detector_counts_by_config_overrides_and_weights_and_not_by_where_it_is_stored(job, tmp_path):
    places = [Checkpoint(str(tmp_path / name)) for name in ("a", "copy", "other")]
    for place, weights in zip(places, (b"1", b"1", b"2"), strict=True):
        Path(place).write_bytes(weights)
    detector = DetectorCheckpoint(config=UltralyticsConfig(), uri=places[0], overrides={"box": 7.5})
    others = [
        replace(detector, uri=places[2]),
        replace(detector, overrides={"box": 7.0}),
        replace(detector, config=UltralyticsConfig(model="yolo26n.yaml")),
    ]
    jobs = [replace(job(), data=replace(job().data, detector=one)) for one in (detector, *others)]
    assert len({one.fingerprint() for one in [job(), *jobs]}) == 2 + len(others)
    moved = replace(jobs[0], data=replace(jobs[0].data, detector=replace(detector, uri=places[1])))
    assert moved.fingerprint() == jobs[0].fingerprint()
    assert jobs[0].located(lambda uri: f"/here/{Path(uri).name}").data.detector.uri == "/here/a"


def test_a_learner_that_uses_the_detector_is_given_the_current_one_and_others_are_not(
    easy_config, tmp_path, monkeypatch
):
    data_config = LoopConfig.model_validate(easy_config | {"root": str(tmp_path)})
    checkpoint = Checkpoint(str(tmp_path / "detector.safetensors"))
    data_config.detector.save_checkpoint(data_config.detector.architecture(2), CLASSES, checkpoint)
    data, given = import_real(data_config), []

    def stop(job: FitJob, *_: Any) -> None:
        given.append(job.data.detector)
        raise InterruptedError

    monkeypatch.setattr(arms, "fit", stop)
    trainings = Trainings(config=data_config, data=data, reporter=Reporter(Console(file=StringIO())))
    difficulties = tuple((Difficulty.HARD,) * len(image.annotation) for image in data.splits["train"])
    for learner in (Adversary(), InpaintConfig()):
        with pytest.raises(InterruptedError):
            trainings.fit(learner, difficulties, number=1, detector=checkpoint)
    assert given[1] is None
    loss = given[0].open_loss()
    assert loss(loss.parameters, torch.zeros(1, 3, 64, 64), [Annotation.empty()]).item() > 0


class Inserter(InpaintConfig):
    """A generator whose fit learns from images without objects."""

    uses_clean: ClassVar = True


def test_clean_images_reach_the_fit_of_a_learner_that_uses_them_and_no_other_fit_changes(
    easy_config, tmp_path, monkeypatch
):
    config = LoopConfig.model_validate(easy_config | {"root": str(tmp_path)})
    data, given = import_real(config), []
    clean = tuple(replace(one, id=f"clean/{one.id}", annotation=Annotation.empty()) for one in data.splits["val"][:2])
    reporter = Reporter(Console(file=StringIO()))

    def stop(job: FitJob, *_: Any) -> None:
        given.append(job)
        raise InterruptedError

    monkeypatch.setattr(arms, "fit", stop)
    for learner, images in ((Inserter(), clean), (Inserter(), ()), (InpaintConfig(), clean), (InpaintConfig(), ())):
        trainings = Trainings(config=config, data=replace(data, clean=images), reporter=reporter)
        with pytest.raises(InterruptedError):
            trainings.fit(learner, unmined(data.splits["train"]), number=1, detector=Checkpoint("none"))
    assert [len(job.data.clean) for job in given] == [2, 0, 0, 0]
    prints = [job.fingerprint() for job in given]
    assert len(set(prints)) == 2
    assert prints[1] == prints[2] == prints[3]


def test_a_fit_goes_on_from_the_weights_of_the_one_before(job, tmp_path):
    first = job(fit_steps=40)
    from_nothing = fit(first, INLINE)
    start = Fitted(checkpoint=str(tmp_path / "first.safetensors"), fingerprint=first.fingerprint())
    Path(first.checkpoint).rename(start.checkpoint)
    from_there = fit(replace(job(fit_steps=40), start=start), INLINE)
    assert from_there.losses[0]["loss"] < 0.8 * from_nothing.losses[0]["loss"]
    with pytest.raises(ValueError, match="holds crop unet-8-16"):
        fit(replace(job(channels=(8, 8)), start=start), INLINE)


@pytest.mark.slow
def test_runs_of_one_root_share_a_fit_and_others_do_not(easy_config, tmp_path, monkeypatch):
    jobs: list[FitJob] = []

    def spy(job: FitJob, *rest: Any) -> Any:
        jobs.append(job)
        return fit(job, *rest)

    monkeypatch.setattr(arms, "fit", spy)

    def fitted(name: str, hardness: Difficulty = Difficulty.HARD, seed: int = 0, **settings: Any) -> Path:
        painter = PAINTER | {"fit_steps": 3} | settings
        changes = {
            "name": name,
            "root": str(tmp_path),
            "seed": seed,
            "generator": {"kind": "inpaint", "painter": painter},
        }
        config = LoopConfig.model_validate(easy_config | changes)
        data = import_real(config)
        difficulties = tuple((hardness,) * len(image.annotation) for image in data.splits["train"])
        trainings = Trainings(config=config, data=data, reporter=Reporter())
        return Path(trainings.fit(config.generator, difficulties, number=1, detector="").checkpoint)

    first = fitted("first")
    content = first.read_bytes()
    assert fitted("second") == first
    assert len(jobs) == 1
    others = [fitted("easy", Difficulty.EASY), fitted("seed", seed=1), fitted("longer", fit_steps=4)]
    assert len(jobs) == len({first, *others}) == 4
    assert len({one.read_bytes() for one in others} | {content}) == 4
    assert first.read_bytes() == content
    assert first.parent.parent == tmp_path / "fits"
