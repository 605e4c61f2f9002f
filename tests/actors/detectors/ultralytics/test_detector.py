"""The ultralytics adapter: detections and features do not depend on the other images of a batch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from actors import boxes as geometry
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.detectors.ultralytics.detector import UltralyticsDetector
from actors.records import Detections

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
    config.save_checkpoint(lively(config.architecture(len(CLASSES))), CLASSES, uri)
    return UltralyticsDetector(config, uri, "cpu")


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
    theirs.model = yolo.config.load_checkpoint(yolo.checkpoint)[0].eval()
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
