"""A detector family from outside the project: it trains, detects, gives its loss, and goes through a round."""

import json
import pickle
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from upath import UPath

from actors import boxes as geometry
from actors.custom import load_component
from actors.detectors.base import DetectorBase
from actors.images import read
from actors.records import Annotation
from loop.config import DataConfig, LoopConfig, MixingConfig, TrainingConfig
from loop.data.importing import import_data
from loop.driver import run
from loop.hosting.config import HostingConfig
from loop.progress import Reporter
from loop.training.base import trainer_of
from loop.training.job import TrainJob
from loop.training.train import train

pytestmark = pytest.mark.slow

OUTSIDE = Path(__file__).parent / "outside"
OPTIONS = {"image_size_px": 64, "channels": 24}
TRAINING = {"steps": 60, "epoch_steps": 20, "batch_size": 8, "overrides": {"rate": 0.02}}


@pytest.fixture
def tiny(monkeypatch) -> DetectorBase:
    monkeypatch.syspath_prepend(OUTSIDE)
    return load_component(DetectorBase, "tiny_detectors:TinyConfig", OPTIONS)


@pytest.fixture
def job(tiny, easy_data, tmp_path) -> TrainJob:
    data = import_data(DataConfig(format="coco", root=str(easy_data)), UPath(easy_data), 0)
    return TrainJob(
        detector=tiny,
        training=TrainingConfig(**TRAINING),
        mixing=MixingConfig(),
        classes=data.classes,
        real=data.splits["train"],
        pool=(),
        seed=0,
        start=None,
        checkpoint=str(tmp_path / "tiny.safetensors"),
        name="tiny",
        storage=str(tmp_path),
    )


def test_it_trains_to_the_same_bytes_and_detects(job):
    result = train(job, HostingConfig(engine="inline"))
    first = Path(job.checkpoint).read_bytes()
    train(job, HostingConfig(engine="inline"))
    assert Path(job.checkpoint).read_bytes() == first
    assert [entry["step"] for entry in result.losses] == [20, 40, 60]
    detector = job.detector.load(job.checkpoint)
    assert detector.classes == job.classes
    for image in job.real:
        (seen,) = detector.detect([read(image.uri)])
        best = geometry.pairwise_iou(image.annotation.boxes, seen.boxes[:2]).argmax(axis=1)
        assert (seen.labels[best] == image.annotation.labels).all()


def test_its_loss_is_a_function_of_its_parameters(job):
    train(job, HostingConfig(engine="inline"))
    loss = job.detector.open_loss(job.checkpoint)
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    annotations = [job.real[0].annotation, Annotation.empty()]
    assert set(loss.parameters) == {"1.weight", "1.bias"}
    names, values = zip(*loss.parameters.items(), strict=True)
    slopes = torch.autograd.grad(loss(loss.parameters, images, annotations), values, create_graph=True)
    stepped = {name: value - 1e-3 * slope for name, value, slope in zip(names, values, slopes, strict=True)}
    (by_images,) = torch.autograd.grad(loss(stepped, torch.rand(1, 3, 64, 64), [job.real[1].annotation]), images)
    assert (by_images != 0).any()


def test_it_starts_from_weights_for_other_classes_but_for_their_rows(job, tiny):
    train(job, HostingConfig(engine="inline"))
    config = tiny.model_copy(update={"weights": job.checkpoint})
    body, _ = tiny.load_checkpoint(job.checkpoint)
    network = config.architecture(3)
    assert config.load_weights(network, ("a", "b", "c")).counts == {"loaded": 7, "other_shape": 2}
    assert torch.equal(network["body"][0].weight, body["body"][0].weight)


def test_its_settings_are_its_own(job):
    with pytest.raises(ValueError, match="unknown to tiny; known: rate"):
        trainer_of(job.detector).check_settings({"lr0": 0.1})


@pytest.mark.parametrize(
    ("module", "words"), [("no_such_training", "cannot be imported"), ("json", "lacks check_settings and train")]
)
def test_a_trainer_that_is_none_is_refused(module, words):
    with pytest.raises(ValueError, match=f"tiny is trained by {module}, which {words}"):
        trainer_of(SimpleNamespace(kind="tiny", trainer=module))


def test_it_goes_through_a_round_of_the_loop(tiny, easy_config, new_root):
    root = new_root()
    component = {"kind": "custom", "import": "tiny_detectors:TinyConfig", "options": OPTIONS}
    changes = {"rounds": 1, "detector": component, "training": TRAINING, "root": str(root)}
    folder = Path(run(LoopConfig.model_validate({**easy_config, **changes}), Reporter(Console(file=StringIO()))))
    assert json.loads((folder / "config.json").read_text())["detector"]["import"] == "tiny_detectors:TinyConfig"
    assert tiny.load_checkpoint(str(folder / "rounds/001/detector.safetensors"))[1] == ("blue", "red")
    (line,) = json.loads((folder / "summary.json").read_text())["rounds"]
    assert line["ap"] > 0.05


def test_another_family_loads_nothing_of_ultralytics(job):
    code = f"""
import pickle, sys
sys.path.append({str(OUTSIDE)!r})
import actors.custom, loop.training.train
from loop.training.train import train
from loop.hosting.config import HostingConfig
job = pickle.load(sys.stdin.buffer)
train(job, HostingConfig(engine="inline"))
job.detector.load(job.checkpoint)
job.detector.open_loss(job.checkpoint)
print([name for name in sys.modules if name.startswith("ultralytics")])
"""
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(job), capture_output=True, check=False)  # noqa: S603 - our own
    assert done.stdout.decode().strip() == "[]", done.stderr.decode()
