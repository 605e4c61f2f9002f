"""Torchvision's detectors: detections and features do not depend on the other images of a batch."""

import numpy as np
import pytest
import torch
from tiny_torchvision import CLASSES, MODELS, tiny, write

from actors import boxes as geometry
from actors.detectors.torchvision.detector import TorchvisionDetector
from actors.records import Detections


@pytest.fixture(scope="module", params=MODELS)
def detector(request, tmp_path_factory) -> TorchvisionDetector:
    config = tiny(request.param, image_size_px=96)
    return TorchvisionDetector(config, write(config, tmp_path_factory.mktemp("weights")), "cpu")


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def to_bytes(seen: Detections) -> tuple[bytes, ...]:
    return seen.boxes.tobytes(), seen.labels.tobytes(), seen.scores.tobytes()


def test_a_picture_is_seen_the_same_to_the_last_bit_in_any_company(detector):
    images = pictures(*[(60, 80)] * 9, (80, 60), (30, 120))
    together = [to_bytes(seen) for seen in detector.detect(images)]
    assert len(set(together)) == len(images)  # else equality below would mean nothing
    assert [to_bytes(detector.detect([image])[0]) for image in images[-3:]] == together[-3:]
    assert [to_bytes(seen) for seen in detector.detect(images[::-1])][::-1] == together
    features = detector.features(images)
    assert features.shape == (len(images), 64)
    assert torch.equal(detector.features(images[::-1]).flip(0), features)
    assert torch.equal(detector.features(images[:1]), features[:1])


def test_the_number_of_threads_changes_no_bit(detector):
    images, threads = pictures((60, 80), (60, 80)), torch.get_num_threads()
    once = [to_bytes(seen) for seen in detector.detect(images)]
    torch.set_num_threads(2)
    assert [to_bytes(seen) for seen in detector.detect(images)] == once
    torch.set_num_threads(threads)


def test_detections_are_in_the_picture_and_strongest_first(detector):
    sizes = [(60, 80), (50, 200)]
    for (height, width), seen in zip(sizes, detector.detect(pictures(*sizes)), strict=True):
        assert 0 < len(seen) <= detector.config.max_detections
        assert seen.boxes.dtype == np.float32
        assert (seen.boxes == geometry.clip(seen.boxes, width, height)).all()
        assert (np.diff(seen.scores) <= 0).all()
        assert (seen.scores >= detector.config.min_score).all()
        assert set(seen.labels) <= set(range(len(CLASSES)))


def test_torchvisions_own_forward_sees_the_same(detector):
    """On a picture that fills its canvas."""
    pixels = pictures((96, 96))[0]
    with torch.no_grad():
        theirs = detector._network([torch.from_numpy(pixels).permute(2, 0, 1) / 255])[0]
    seen = detector.detect([pixels])[0]
    assert len(seen) == len(theirs["boxes"]) > 10
    np.testing.assert_allclose(seen.scores, theirs["scores"].numpy(), atol=1e-3)


def test_no_images_give_no_detections_and_no_features(detector):
    assert detector.detect([]) == []
    assert len(detector.features([])) == 0


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)])
def test_what_is_no_rgb_picture_is_refused(detector, image):
    with pytest.raises(ValueError, match="uint8 RGB"):
        detector.detect([image])
