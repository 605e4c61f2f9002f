"""Architectures, checkpoints, weights to start from: what a file says is checked, what it brings is not run."""

import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from actors.checkpoint import Header, read_checkpoint, write_checkpoint
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.detectors.ultralytics.releases import MODELS, releases_folder
from actors.detectors.ultralytics.weights import import_ultralytics

CLASSES = ("bolt", "crack", "dent")
CONFIG = UltralyticsConfig(image_size_px=96)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    torch.manual_seed(0)
    uri = str(tmp_path_factory.mktemp("weights") / "model.safetensors")
    CONFIG.save_checkpoint(CONFIG.architecture(len(CLASSES)), CLASSES, uri)
    return uri


# Architecture and checkpoints


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"model": "yolo11n.pt"}, ValueError, "detector.weights"),
        ({"model": "yolo99n.yaml"}, FileNotFoundError, "yolo99n.yaml"),
        ({"model": "yolo11n-seg.yaml"}, ValueError, "no detector"),
        ({"model": "yolov8n-p6.yaml", "image_size_px": 96}, ValueError, "multiple of 64"),
    ],
)
def test_an_architecture_that_cannot_be_is_said(settings, error, words):
    with pytest.raises(error, match=words):
        UltralyticsConfig(**settings).architecture(3)


def test_a_local_yaml_is_an_architecture(tmp_path):
    import_ultralytics()
    from ultralytics.nn.tasks import yaml_model_load
    from ultralytics.utils import YAML

    layers = yaml_model_load("yolo11n.yaml") | {"scales": {"n": [0.33, 0.125, 256]}}
    YAML.save(tmp_path / "tiny.yaml", layers)
    model = UltralyticsConfig(model=str(tmp_path / "tiny.yaml")).architecture(3)
    assert sum(weight.numel() for weight in model.parameters()) < 400_000


def test_checkpoints_come_back_and_are_the_same_bytes_twice(checkpoint, tmp_path):
    model, classes = CONFIG.load_checkpoint(checkpoint)
    CONFIG.save_checkpoint(model, CLASSES, str(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == Path(checkpoint).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.safetensors"]
    assert classes == CLASSES


def test_checkpoints_go_through_a_uri_and_hold_float32():
    header = Header(family="f", model="m", classes=("a",), image_size_px=32)
    write_checkpoint("memory://weights/a.safetensors", header, {"w": torch.ones(2, dtype=torch.float16)})
    found, tensors = read_checkpoint("memory://weights/a.safetensors")
    assert found == header
    assert tensors["w"].dtype == torch.float32


def test_a_checkpoint_of_another_architecture_is_refused(checkpoint):
    with pytest.raises(ValueError, match=r"yolo11n\.yaml.*yolov8n\.yaml"):
        UltralyticsConfig(model="yolov8n.yaml").load_checkpoint(checkpoint)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 64])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="not a checkpoint"):
        UltralyticsConfig().load_checkpoint(str(tmp_path / "a.safetensors"))


def test_plain_safetensors_without_our_header_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="not a checkpoint of detloop"):
        read_checkpoint(str(tmp_path / "a.safetensors"))


# Weights to start from


def test_weights_of_another_class_count_give_the_body_and_leave_the_rest_of_the_head_fresh(checkpoint):
    torch.manual_seed(1)
    config = CONFIG.model_copy(update={"weights": checkpoint})
    model = config.architecture(7)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = config.load_weights(model, ["0"] * 7)
    _, given = read_checkpoint(checkpoint)
    assert report.counts == {"loaded": len(fresh) - 6, "other_shape": 6}  # three levels: weight and bias of a row each
    left = {name for name, _ in report.left_fresh}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name in left else given[name])


def test_rows_of_classes_are_taken_over_for_the_same_classes_alone(checkpoint):
    config = CONFIG.model_copy(update={"weights": checkpoint})
    model = config.architecture(3)
    assert config.load_weights(model, ("bolt", "dent", "crack")).counts["other_classes"] == 6
    assert config.load_weights(model, CLASSES).left_fresh == ()


def test_weights_of_another_architecture_are_refused_and_change_nothing(checkpoint):
    config = UltralyticsConfig(model="yolo11s.yaml", weights=checkpoint)
    model = config.architecture(3)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="another architecture"):
        config.load_weights(model, CLASSES)
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in model.state_dict().items())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def pickled_release(folder: Path, name: str) -> Path:
    """A file as ultralytics writes it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    model = UltralyticsConfig().architecture(80)
    model.args = dict(vars(model.args))
    torch.save({"model": model.half(), "ema": None, "train_args": {}}, path)
    return path


def test_a_pickled_file_needs_trust(tmp_path):
    path = pickled_release(tmp_path, "mine.pt")
    config = UltralyticsConfig(weights=str(path))
    model = config.architecture(3)
    with pytest.raises(ValueError, match=r"runs code.*trust_pickle: true"):
        config.load_weights(model, CLASSES)
    assert config.model_copy(update={"trust_pickle": True}).load_weights(model, CLASSES).num_loaded > 400


def test_a_release_is_taken_by_its_name_from_its_folder_and_never_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pickled_release(releases_folder(), "yolo11n.pt")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolo11n.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    config = UltralyticsConfig(weights="yolo11n.pt")
    model = config.architecture(3)
    report = config.load_weights(model, CLASSES)
    assert report.counts["loaded"] > 400
    assert all(weight.dtype == torch.float32 for weight in model.parameters())
    with pytest.raises(ValueError, match="trust_pickle"):
        UltralyticsConfig(weights="./yolo11n.pt").load_weights(model, CLASSES)
    assert not (tmp_path / "ran").exists()


def test_a_file_under_a_releases_name_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    releases_folder().mkdir(parents=True)
    torch.save({"model": Bomb(tmp_path / "ran")}, releases_folder() / "yolo11n.pt")
    config = UltralyticsConfig(weights="yolo11n.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        config.load_weights(config.architecture(3), CLASSES)
    assert not (tmp_path / "ran").exists()


def test_without_a_network_a_missing_release_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    import_ultralytics()
    from ultralytics.utils import downloads

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(downloads, "safe_download", offline)
    config = UltralyticsConfig(weights="yolo11n.pt")
    with pytest.raises(FileNotFoundError, match=str(releases_folder())):
        config.load_weights(config.architecture(3), CLASSES)


def test_needs_tell_releases_from_files_without_the_package(tmp_path, monkeypatch):
    import_ultralytics()
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

    monkeypatch.chdir(tmp_path)
    releases = set(MODELS)
    assert {"yolo11n.pt", "yolov5nu.pt", "rtdetr-l.pt"} <= releases <= GITHUB_ASSETS_NAMES
    files = {"./yolo11n.pt", "runs/yolo11n.pt", "s3://bucket/yolo11n.pt", "yolo11n.safetensors"}
    needs = [need for name in releases | files for need in UltralyticsConfig(weights=name).needs()]
    assert {need.place for need in needs if need.is_release} == releases
    assert {need.place for need in needs if not need.is_release} == files
    assert UltralyticsConfig().needs() == ()
    (tmp_path / "yolo-mine.pt").touch()
    (need,) = UltralyticsConfig(weights="yolo-mine.pt", trust_pickle=True).needs()
    assert not need.is_release


def test_the_model_of_every_release_is_a_detector_of_ultralytics():
    import_ultralytics()
    from ultralytics.nn.tasks import yaml_model_load

    for model in set(MODELS.values()):
        assert yaml_model_load(model)["head"][-1][2] in {"Detect", "v10Detect", "RTDETRDecoder"}


@pytest.mark.parametrize("trust_pickle", [False, True])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yolov5n.pt", "no release of ultralytics; try yolov5nu.pt"),
        ("yolo11n-seg.pt", "for segmentation and not for detection; try yolo11n.pt"),
        ("yolo11n-cls.pt", "for classification and not for detection; try yolo11n.pt"),
        ("yolo11s-pose.pt", "for poses and not for detection; try yolo11s.pt"),
        ("yolo11n-obb.pt", "for rotated boxes and not for detection; try yolo11n.pt"),
        ("yolov11n.pt", "no release of ultralytics; try yolo11n.pt"),
        ("mine.pt", "no file mine.pt, and it is no release of ultralytics"),
    ],
)
def test_a_name_that_is_no_release_of_a_detector_is_told_before_a_run(name, words, trust_pickle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        UltralyticsConfig(weights=name, trust_pickle=trust_pickle).needs()


def test_a_pickled_file_without_trust_is_told_before_a_run(tmp_path):
    (tmp_path / "mine.pt").touch()
    with pytest.raises(ValueError, match=r"runs code.*trust_pickle: true"):
        UltralyticsConfig(weights=str(tmp_path / "mine.pt")).needs()


@pytest.mark.parametrize("name", ["yolov5n.pt", "it's mine.pt"])
def test_a_trusted_file_is_read_whatever_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import_ultralytics()
    from ultralytics.utils import downloads

    monkeypatch.setattr(downloads, "safe_download", lambda **_: pytest.fail("it downloads another file"))
    pickled_release(tmp_path, name)
    config = UltralyticsConfig(weights=name, trust_pickle=True)
    assert config.load_weights(config.architecture(3), CLASSES).num_loaded > 400


@pytest.mark.parametrize("prefix", ["", "model.", "model.model.", "module.model."])
def test_plain_safetensors_are_taken_under_the_names_that_ultralytics_gives_them(prefix, checkpoint, tmp_path):
    from safetensors.torch import save_file

    _, tensors = read_checkpoint(checkpoint)
    file = tmp_path / "plain.safetensors"
    save_file({name.replace("model.", prefix, 1): tensor.half() for name, tensor in tensors.items()}, file)
    config = CONFIG.model_copy(update={"weights": str(file)})
    model = config.architecture(3)
    report = config.load_weights(model, CLASSES)
    assert report.counts == {"loaded": len(tensors) - 6, "other_classes": 6}  # the file does not name its classes
    assert torch.equal(model.state_dict()["model.0.conv.weight"], tensors["model.0.conv.weight"].half().float())


# The import


@pytest.mark.parametrize("first", ["import_ultralytics()", "UltralyticsConfig().open_loss('nowhere.safetensors')"])
def test_whatever_imports_the_package_leaves_the_users_settings_and_environment_alone_and_says_nothing(first, tmp_path):
    script = f"""
import contextlib, json, os
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.detectors.ultralytics.weights import import_ultralytics
with contextlib.suppress(FileNotFoundError):
    {first}
from ultralytics.utils import LOGGER, ONLINE, SETTINGS
from ultralytics.utils.events import Events
on = [name for name in ("sync", "mlflow", "raytune", "comet", "clearml", "dvc", "wandb") if SETTINGS[name]]
exists = os.path.exists(os.environ.get("YOLO_CONFIG_DIR", "/"))
print(json.dumps([on, ONLINE, Events().enabled, os.environ.get("OMP_NUM_THREADS"), exists, LOGGER.level]))
"""
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[4])}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    on, online, events, threads, exists, level = json.loads(run.stdout)
    assert (on, online, events, threads, level) == ([], False, False, None, logging.ERROR)
    assert not exists  # a worker that Ray kills leaves nothing behind
    assert not (tmp_path / ".config").exists()
