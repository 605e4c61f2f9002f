"""The ultralytics adapter: what it sees does not depend on company, what it loads runs no code."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from actors import boxes as geometry
from actors.detectors import load_detector
from actors.detectors.checkpoint import Header, read_checkpoint, write_checkpoint
from actors.detectors.letterbox import Letterbox, MicroBatch
from actors.detectors.suppression import strongest, suppress
from actors.detectors.ultralytics import (
    UltralyticsConfig,
    architecture,
    import_ultralytics,
    load_checkpoint,
    load_weights,
    releases_folder,
    save_checkpoint,
)
from actors.detectors.ultralytics_detector import UltralyticsDetector
from actors.records import Annotation, Detections

MODELS = ["yolo11n.yaml", "yolov8n.yaml", "yolo26n.yaml", "yolov10n.yaml", "yolo12n.yaml", "rtdetr-resnet50.yaml"]
CLASSES = ("bolt", "crack", "dent")


def lively(model):
    """Normalisation as after training: else fresh weights give every picture the same tiny output."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.rand(4, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="module", params=MODELS)
def detector(request, tmp_path_factory) -> UltralyticsDetector:
    return make_detector(tmp_path_factory.mktemp("weights"), model=request.param)


@pytest.fixture(scope="module")
def yolo(tmp_path_factory) -> UltralyticsDetector:
    return make_detector(tmp_path_factory.mktemp("weights"), model="yolo11n.yaml")


def make_detector(folder: Path, **settings) -> UltralyticsDetector:
    config = UltralyticsConfig(image_size_px=96, **settings)
    torch.manual_seed(0)
    uri = str(folder / "model.safetensors")
    save_checkpoint(lively(architecture(config, len(CLASSES))), config, CLASSES, uri)
    return load_detector(config, uri, "cpu")


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def to_bytes(seen: Detections) -> tuple[bytes, ...]:
    return seen.boxes.tobytes(), seen.labels.tobytes(), seen.scores.tobytes()


# Detections


def test_a_picture_is_seen_the_same_to_the_last_bit_in_any_company(detector):
    images = pictures(*[(60, 80)] * 9, (80, 60), (96, 96), (30, 120))
    together = [to_bytes(seen) for seen in detector.detect(images)]
    assert len(set(together)) == len(images)  # else equality below would mean nothing
    assert [to_bytes(detector.detect([image])[0]) for image in images[-4:]] == together[-4:]
    assert [to_bytes(seen) for seen in detector.detect(images[::-1])][::-1] == together
    features = detector.features(images)
    assert torch.equal(detector.features(images[::-1]).flip(0), features)
    assert torch.equal(detector.features(images[:1]), features[:1])


def test_the_number_of_threads_changes_no_bit_and_is_left_as_it_was(yolo):
    images, threads = pictures((60, 80), (60, 80)), torch.get_num_threads()
    once = [to_bytes(seen) for seen in yolo.detect(images)]
    torch.set_num_threads(2)
    assert [to_bytes(seen) for seen in yolo.detect(images)] == once
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


def test_detections_are_in_the_picture_and_strongest_first(detector):
    for (height, width), seen in zip(
        [(60, 80), (50, 200)], detector.detect(pictures((60, 80), (50, 200))), strict=True
    ):
        assert 0 < len(seen) <= detector.config.max_detections
        assert seen.boxes.dtype == np.float32
        assert (seen.boxes == geometry.clip(seen.boxes, width, height)).all()
        assert (np.diff(seen.scores) <= 0).all()
        assert (seen.scores >= detector.config.min_score).all()
        assert set(seen.labels) <= {0, 1, 2}


def test_yolo_sees_what_ultralytics_predict_sees(yolo):
    from ultralytics import YOLO

    theirs = YOLO("yolo11n.yaml")
    theirs.model = load_checkpoint(yolo.config, yolo.checkpoint).eval()
    image = pictures((72, 96))[0]
    settings = {"imgsz": 96, "conf": 0.001, "iou": 0.7, "max_det": 300, "verbose": False}
    boxes = theirs.predict([image[..., ::-1]], **settings)[0].boxes.cpu()
    seen = yolo.detect([image])[0]
    assert len(seen) == len(boxes) > 10
    np.testing.assert_allclose(seen.scores, boxes.conf.numpy(), atol=1e-4)
    overlap = geometry.pairwise_iou(seen.boxes, boxes.xyxy.numpy())
    assert (overlap.max(axis=1) > 0.99).mean() > 0.95


def test_no_images_give_no_detections_and_no_features(yolo):
    assert yolo.detect([]) == []
    assert len(yolo.features([])) == 0


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)])
def test_what_is_no_rgb_picture_is_refused(yolo, image):
    with pytest.raises(ValueError, match="uint8 RGB"):
        yolo.detect([image])


# Suppression


def test_suppression_is_within_a_class_and_strict():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10.0]])
    scores, labels = torch.tensor([0.5, 0.9, 0.8, 0.1]), torch.tensor([0, 0, 0, 0])
    assert suppress(boxes, scores, labels, 0.5).tolist() == [1, 2, 3]  # an IoU of 0.5 is not more than 0.5
    assert suppress(boxes, scores, labels, 0.49).tolist() == [1, 3]
    assert suppress(boxes, scores, torch.tensor([1, 0, 2, 0]), 0.49).tolist() == [1, 2, 0, 3]
    assert suppress(boxes[:2], torch.tensor([0.5, 0.5]), labels[:2], 0.5).tolist() == [0]
    assert suppress(boxes[:0], scores[:0], labels[:0], 0.5).tolist() == []


def test_of_equal_scores_the_lower_label_comes_first_then_the_box_to_the_left():
    boxes = np.array([[5, 0, 9, 9], [1, 0, 9, 9], [0, 0, 9, 9], [7, 0, 9, 9]], np.float32)
    found = strongest(boxes, np.array([0.5, 0.5, 0.5, 0.9], np.float32), np.array([0, 0, 1, 2]), 3)
    assert found.boxes[:, 0].tolist() == [7, 1, 5]
    assert found.labels.tolist() == [2, 0, 0]


# Letterbox


def test_letterbox_pads_to_the_next_multiple_of_the_stride_evenly():
    place = Letterbox.fit((300, 640), 320, 32)  # halved: 150 x 320; 10 px are missing to 160
    assert (place.canvas, place.inner, place.offset) == ((160, 320), (150, 320), (5, 0))
    assert Letterbox.fit((100, 100), 320, 32).canvas == (320, 320)  # enlarged
    assert Letterbox.fit((1, 1000), 320, 32).inner == (1, 320)
    canvas = np.full((160, 320, 3), 114, np.uint8)
    place.draw(np.zeros((300, 640, 3), np.uint8), canvas)
    assert (canvas[5:155] == 0).all()
    assert (canvas[:5] == 114).all()
    assert (canvas[155:] == 114).all()


def test_boxes_come_back_into_the_pixels_of_the_picture():
    place = Letterbox.fit((300, 640), 320, 32)
    boxes = np.array([[10, 5, 110, 80], [300, 100, 330, 160]], np.float32)
    assert place.to_source(boxes).tolist() == [[20, 0, 220, 150], [600, 190, 640, 300]]  # the second is cut


def test_stretching_gives_each_axis_its_own_scale():
    place = Letterbox.stretch((100, 400), 320)
    assert place.to_source(np.array([[80, 80, 160, 160]], np.float32)).tolist() == [[100, 25, 200, 50]]


def test_micro_batches_are_full_whatever_is_asked_for():
    policy = MicroBatch(max_images=8, max_px=5 * 64 * 64)
    assert policy.size((64, 64)) == 4  # 5 fit
    assert policy.size((640, 640)) == 1
    images = pictures((64, 64), (32, 64), (64, 64))
    places = [Letterbox.fit(image.shape[:2], 64, 32) for image in images]
    parts = list(policy.batches(images, places))
    assert [(part, batch.shape) for part, batch in parts] == [([0, 2], (4, 64, 64, 3)), ([1], (8, 32, 64, 3))]
    assert (parts[0][1][1] == images[2]).all()
    assert (parts[0][1][2:] == 114).all()


# Loss


def annotation(*boxes, ignore=()):
    flags = np.array([index in ignore for index in range(len(boxes))], bool)
    return Annotation(boxes=np.array(boxes, np.float32).reshape(-1, 4), labels=np.arange(len(boxes)), ignore=flags)


def test_loss_leads_to_the_pixels_of_every_image_and_to_no_weight(detector):
    images = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = detector.loss(images, [annotation([8, 8, 40, 60]), annotation()])
    assert loss.shape == ()
    loss.backward()
    assert (images.grad.abs().amax(dim=(1, 2, 3)) > 0).all()
    assert torch.isfinite(images.grad).all()


def test_loss_is_repeatable_and_leaves_the_detector_as_it_is(detector):
    image, images = pictures((96, 96)), torch.rand(1, 3, 96, 96)
    before = to_bytes(detector.detect(image)[0])
    losses = [detector.loss(images, [annotation([8, 8, 40, 60])]).item() for _ in range(2)]
    assert losses[0] == losses[1]
    assert to_bytes(detector.detect(image)[0]) == before


def test_ignored_boxes_are_left_out_of_the_loss(yolo):
    images = torch.rand(1, 3, 96, 96)
    kept = yolo.loss(images, [annotation([8, 8, 40, 60])])
    ignored = yolo.loss(images, [annotation([8, 8, 40, 60], [30, 30, 90, 90], ignore={1})])
    both = yolo.loss(images, [annotation([8, 8, 40, 60], [30, 30, 90, 90])])
    assert kept == ignored != both


def test_loss_refuses_sizes_that_the_model_cannot_take(yolo):
    with pytest.raises(ValueError, match="multiples of 32"):
        yolo.loss(torch.rand(1, 3, 90, 96), [annotation()])
    with pytest.raises(ValueError, match="2 annotations"):
        yolo.loss(torch.rand(1, 3, 96, 96), [annotation(), annotation()])


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
        architecture(UltralyticsConfig(**settings), 3)


def test_a_local_yaml_is_an_architecture(tmp_path):
    import_ultralytics()
    from ultralytics.nn.tasks import yaml_model_load
    from ultralytics.utils import YAML

    layers = yaml_model_load("yolo11n.yaml") | {"scales": {"n": [0.33, 0.125, 256]}}
    YAML.save(tmp_path / "tiny.yaml", layers)
    model = architecture(UltralyticsConfig(model=str(tmp_path / "tiny.yaml")), 3)
    assert sum(weight.numel() for weight in model.parameters()) < 400_000


def test_checkpoints_come_back_and_are_the_same_bytes_twice(yolo, tmp_path):
    model = load_checkpoint(yolo.config, yolo.checkpoint)
    save_checkpoint(model, yolo.config, CLASSES, str(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == Path(yolo.checkpoint).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.safetensors"]
    assert tuple(model.names.values()) == CLASSES == yolo.classes


def test_checkpoints_go_through_a_uri_and_hold_float32():
    header = Header(family="f", model="m", classes=("a",), image_size_px=32)
    write_checkpoint("memory://weights/a.safetensors", header, {"w": torch.ones(2, dtype=torch.float16)})
    found, tensors = read_checkpoint("memory://weights/a.safetensors")
    assert found == header
    assert tensors["w"].dtype == torch.float32


def test_a_checkpoint_of_another_architecture_is_refused(yolo):
    with pytest.raises(ValueError, match=r"yolo11n\.yaml.*yolov8n\.yaml"):
        load_checkpoint(UltralyticsConfig(model="yolov8n.yaml"), yolo.checkpoint)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 64])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(UltralyticsConfig(), str(tmp_path / "a.safetensors"))


def test_plain_safetensors_without_our_header_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="not a checkpoint of detloop"):
        read_checkpoint(str(tmp_path / "a.safetensors"))


# Weights to start from


def test_weights_of_another_class_count_give_the_body_and_leave_the_rest_of_the_head_fresh(yolo):
    torch.manual_seed(1)
    config = yolo.config.model_copy(update={"weights": yolo.checkpoint})
    model = architecture(config, 7)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = load_weights(model, config)
    _, given = read_checkpoint(yolo.checkpoint)
    assert report.counts == {"loaded": len(fresh) - 6, "other_shape": 6}  # three levels: weight and bias of a row each
    left = {name for name, _ in report.left_fresh}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name in left else given[name])


def test_rows_of_classes_are_taken_over_for_the_same_classes_alone(yolo):
    config = yolo.config.model_copy(update={"weights": yolo.checkpoint})
    model = architecture(config, 3)
    model.names = dict(enumerate(["bolt", "dent", "crack"]))
    assert load_weights(model, config).counts["other_classes"] == 6
    model.names = dict(enumerate(CLASSES))
    assert load_weights(model, config).left_fresh == ()


def test_weights_of_another_architecture_are_refused_and_change_nothing(yolo):
    config = UltralyticsConfig(model="yolo11s.yaml", weights=yolo.checkpoint)
    model = architecture(config, 3)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="another architecture"):
        load_weights(model, config)
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
    model = architecture(UltralyticsConfig(), 80)
    model.args = dict(vars(model.args))
    torch.save({"model": model.half(), "ema": None, "train_args": {}}, path)
    return path


def test_a_pickled_file_needs_trust(tmp_path):
    path = pickled_release(tmp_path, "mine.pt")
    config = UltralyticsConfig(weights=str(path))
    model = architecture(config, 3)
    with pytest.raises(ValueError, match=r"runs code.*trust_pickle: true"):
        load_weights(model, config)
    assert load_weights(model, config.model_copy(update={"trust_pickle": True})).num_loaded > 400


def test_a_release_is_taken_by_its_name_from_its_folder_and_never_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pickled_release(releases_folder(), "yolo11n.pt")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolo11n.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    config = UltralyticsConfig(weights="yolo11n.pt")
    model = architecture(config, 3)
    report = load_weights(model, config)
    assert report.counts["loaded"] > 400
    assert all(weight.dtype == torch.float32 for weight in model.parameters())
    with pytest.raises(ValueError, match="trust_pickle"):
        load_weights(model, UltralyticsConfig(weights="./yolo11n.pt"))
    assert not (tmp_path / "ran").exists()


def test_a_file_under_a_releases_name_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    releases_folder().mkdir(parents=True)
    torch.save({"model": Bomb(tmp_path / "ran")}, releases_folder() / "yolo11n.pt")
    config = UltralyticsConfig(weights="yolo11n.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        load_weights(architecture(config, 3), config)
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
        load_weights(architecture(config, 3), config)


# The import


def test_the_import_leaves_the_users_settings_and_environment_alone(tmp_path):
    script = """
import json, os
from actors.detectors.ultralytics import import_ultralytics
import_ultralytics()
from ultralytics.utils import ONLINE, SETTINGS
from ultralytics.utils.events import Events
on = [name for name in ("sync", "mlflow", "raytune", "comet", "clearml", "dvc", "wandb") if SETTINGS[name]]
print(json.dumps([on, ONLINE, Events().enabled, os.environ.get("OMP_NUM_THREADS"), os.environ["YOLO_CONFIG_DIR"]]))
"""
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    on, online, events, threads, folder = json.loads(run.stdout)
    assert (on, online, events, threads) == ([], False, False, None)
    assert not Path(folder).exists()  # gone with the process
    assert not (tmp_path / ".config").exists()
