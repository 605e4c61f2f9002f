"""Which trainings are the same to the runs of one root, and which are not."""

import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from rich.console import Console
from upath import UPath

from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.records import Annotation, Difficulty
from loop import arms
from loop.arms import Trainings
from loop.config import LoopConfig, MixingConfig
from loop.cross_fit import Fold
from loop.driver import import_real
from loop.hosting.platform import this_platform, unlike
from loop.hosting.records import Platform
from loop.progress import Reporter


@pytest.fixture
def trainings(easy_config, tmp_path):
    """Those of a run below one root, whose config differs in these sections."""

    def make(**sections):
        config = LoopConfig.model_validate({**easy_config, "root": str(tmp_path), **sections})
        return Trainings(config=config, data=import_real(config), reporter=Reporter())

    return make


PLATFORM = Platform(device="cpu", model="A", precision="float32", libraries={"torch": "2.9", "ultralytics": "8.3"})


@pytest.fixture(autouse=True)
def platform(monkeypatch):
    """Sets the platform that workers have; it needs no Ray."""

    def of_workers(one):
        monkeypatch.setattr(arms, "training_platform", lambda *_: one)

    of_workers(PLATFORM)
    return of_workers


def clean_images(trainings, count):
    """Images without objects; no file is read."""
    first = trainings.data.splits["train"][0]
    return tuple(replace(first, id=f"clean/{n}", annotation=Annotation.empty()) for n in range(count))


def with_clean(trainings, count):
    return replace(trainings, data=replace(trainings.data, clean=clean_images(trainings, count)))


def test_controls_depend_on_clean_images_and_their_share_only_where_there_are_some(trainings):
    plain, other = trainings(), trainings(mixing={"clean": 0.3})
    assert places(plain) == places(other)
    found = [places(plain), *(places(with_clean(one, count)) for one in (plain, other) for count in (1, 2))]
    assert len({place for pair in found for place in pair}) == 10


def test_both_arms_and_all_folds_train_on_the_same_clean_images(trainings, tmp_path):
    ours = with_clean(trainings(mixing={"clean": 0.3, "p": 0.5}), 2)
    fold = Fold.of(ours, ours.data.splits["train"][:2]).trainings
    jobs = [
        ours.mix(UPath(tmp_path), 1, mixing=ours.config.mixing),
        ours.mix(UPath(tmp_path), 0),
        fold.mix(UPath(tmp_path), 0),
    ]
    assert [job.mixing.p for job in jobs] == [0.5, 0, 0]
    assert [[image.id for image in job.clean] for job in jobs] == [["clean/0", "clean/1"]] * 3
    assert [job.mixture().clean_share for job in jobs] == [0.3] * 3
    assert len(jobs[2].real) == len(jobs[0].real) - 2


def places(trainings):
    """Where its control and the detector of a fold are kept."""
    held_out = trainings.data.splits["train"][:2]
    return trainings.fingerprint(0), Fold.of(trainings, held_out).place.name


@pytest.mark.parametrize(
    "hosting",
    [{"engine": "ray"}, {"engine": "ray", "train": {"num_workers": 1, "num_cpus": 3}, "fit": {"num_workers": 4}}],
)
def test_one_worker_trains_the_control_and_the_folds_of_this_process(hosting, trainings):
    here = trainings(hosting={"engine": "inline", "train": {"num_workers": 2}})
    assert places(trainings(hosting=hosting)) == places(here)


def test_controls_and_folds_of_more_workers_are_others(trainings):
    """Each normalises by its own part of a batch."""
    hostings = [{"engine": "ray", "train": {"num_workers": number}} for number in (1, 2, 4)]
    of_workers = [places(trainings(hosting=hosting)) for hosting in hostings]
    assert len({place for found in of_workers for place in found}) == 6


@pytest.mark.parametrize(
    "other",
    [
        {"device": "cuda"},
        {"precision": "bfloat16"},
        {"libraries": {**PLATFORM.libraries, "torch": "2.10"}},
        {"libraries": {**PLATFORM.libraries, "ultralytics": "8.4"}},
    ],
)
def test_controls_and_folds_of_another_platform_are_others(other, trainings, platform):
    here = trainings()
    known = places(here)
    platform(replace(PLATFORM, **other))
    assert not set(known) & set(places(here))


def test_the_model_of_the_processor_is_told_but_shares_controls(trainings, platform):
    known = places(trainings())
    other = replace(PLATFORM, model="B", precision="bfloat16")
    platform(replace(PLATFORM, model="B"))
    assert places(trainings()) == known
    assert unlike([PLATFORM, other, PLATFORM]) == ["processor: A and B", "number format: float32 and bfloat16"]
    assert unlike([PLATFORM, PLATFORM]) == []


def test_a_custom_family_names_the_libraries_that_count():
    found = this_platform("cpu", ["numpy"])
    assert found.libraries.keys() == {"torch", "numpy"}
    assert found.precision in {"float32", "bfloat16"}
    assert found.model
    assert UltralyticsConfig.libraries == ("ultralytics",)


def test_a_control_is_known_by_the_content_of_weights_and_not_by_their_path(trainings, easy_config, tmp_path):
    def known(name, content):
        (tmp_path / name).write_bytes(content)
        sections = {key: easy_config[key] for key in ("detector", "training")}
        sections["detector"] = {**sections["detector"], "weights": str(tmp_path / name)}
        sections["training"] = {**sections["training"], "start": "weights"}
        return trainings(**sections).fingerprint(0)

    first = known("a.safetensors", b"one")
    assert known("b.safetensors", b"one") == first
    assert known("a.safetensors", b"other") != first


def test_the_first_training_seed_is_that_of_a_run_with_one(trainings):
    one, three = trainings(), trainings(evaluation={"seeds": 3})
    assert three.fingerprint(0) == one.fingerprint(0)
    assert len({three.fingerprint(0, seed) for seed in range(3)}) == 3
    assert three.mix(UPath("a"), 1).seed == one.mix(UPath("a"), 1).seed != three.mix(UPath("a"), 1, seed=1).seed


def test_each_seed_of_a_round_continues_from_its_own_detector(trainings, easy_config, monkeypatch):
    training = {**easy_config["training"], "start": "previous"}
    of_run = trainings(evaluation={"seeds": 2}, training=training)
    asked = []
    monkeypatch.setattr(Trainings, "arm", lambda _, place, number, **more: asked.append((place, number, more)))
    of_run.arms(UPath("rounds/002"), 2, mixing=MixingConfig(), pool=(), starts=("first", "second"))
    assert [(str(place), more["seed"], more["start"]) for place, _, more in asked] == [
        ("rounds/002", 0, "first"),
        ("rounds/002/seed_2", 1, "second"),
    ]


def test_a_training_says_before_it_starts_that_synthetic_images_are_few(trainings, tmp_path, monkeypatch):
    def started(*_):
        raise InterruptedError

    monkeypatch.setattr(arms, "train", started)
    out = StringIO()
    of_run = replace(trainings(), reporter=Reporter(Console(file=out, width=1000)))
    pool = (None,)  # how many they are is all that counts
    for mixing, told in ((MixingConfig(p=0.5, mode="share", max_repeats=None), True), (MixingConfig(p=0.0), False)):
        with pytest.raises(InterruptedError):
            of_run.arms(UPath(tmp_path / f"{mixing.p}"), 1, mixing=mixing, pool=pool, starts=("",))
        assert ("warning: 1 synthetic image, 50% of the training" in out.getvalue()) == told
        out.truncate(out.seek(0))


@pytest.fixture
def negatives(easy_data, tmp_path):
    """The easy data with other pictures under the same names."""
    folder = tmp_path / "negatives"
    shutil.copytree(easy_data, folder)
    for file in folder.glob("train/*.png"):
        ImageOps.invert(Image.open(file)).save(file)
    return folder


def test_other_pictures_under_the_same_names_have_a_fit_of_their_own(trainings, negatives):
    painter = {"kind": "crop", "size_px": 16, "channels": [8, 16], "fit_batch_size": 4, "fit_steps": 2}
    generator = {"kind": "inpaint", "painter": painter}

    def fitted(**sections):
        of_run = trainings(generator=generator, **sections)
        difficulties = tuple((Difficulty.HARD,) * len(image.annotation) for image in of_run.data.splits["train"])
        return Path(of_run.fit(of_run.config.generator, difficulties, number=1, detector="").checkpoint)

    first = fitted()
    written = first.stat().st_mtime_ns
    others = {"data": {"format": "coco", "root": str(negatives)}}
    second = fitted(**others)
    assert second.read_bytes() != first.read_bytes()
    assert (fitted(), fitted(**others)) == (first, second)
    assert first.stat().st_mtime_ns == written
