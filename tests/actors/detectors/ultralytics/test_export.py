"""Exported files: other programs get our own detector's boxes from them."""

import json
from io import BytesIO

import numpy as np
import onnxruntime
import pytest
import torch

from actors.detectors.base import DetectorBase
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.detectors.ultralytics.detector import UltralyticsDetector
from actors.letterbox import to_tensor

pytestmark = pytest.mark.slow

CLASSES = ("it's", '"crack" {x}', "红\n螺母")
SIZES = ((60, 80), (80, 60), (96, 96), (30, 120))  # height, width: four canvases
MAX_BOX_PX, MAX_SCORE = 0.01, 1e-4  # largest differences allowed


@pytest.fixture(scope="module", params=[("yolo11n.yaml", 0.002), ("yolo26n.yaml", 0.002), ("small_detr", 0.5)], ids=str)
def detector(request, tmp_path_factory) -> UltralyticsDetector:
    model, scale = request.param
    model = str(request.getfixturevalue(model)) if model == "small_detr" else model
    config = UltralyticsConfig(model=model, image_size_px=96)
    torch.manual_seed(0)
    network = config.architecture(len(CLASSES))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # as after training: else every picture gives the same tiny output
    with torch.no_grad():
        network(torch.rand(4, 3, 96, 96))
        for weight in network.parameters():
            if len(weight) == len(CLASSES):  # of the scores, which shall not all be 1
                weight.mul_(scale)
    checkpoint = str(tmp_path_factory.mktemp("weights") / "detector.safetensors")
    config.save_checkpoint(network, CLASSES, checkpoint)
    found = UltralyticsDetector(config, checkpoint, "cpu")
    scores = np.sort(np.concatenate([seen.scores for seen in found.detect(pictures())]))
    few = config.model_copy(update={"min_score": float(scores[-60:-58].mean())})  # 59 detections, and none at the limit
    return UltralyticsDetector(few, checkpoint, "cpu")


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8) for height, width in SIZES]
    return [
        np.kron(one, np.ones((6, 6, 1), np.uint8))[:height, :width]
        for one, (height, width) in zip(small, SIZES, strict=True)
    ]


def exported(detector: UltralyticsDetector, fmt: str) -> bytes:
    return detector.config.export(detector.checkpoint, fmt)


def detections(detector: UltralyticsDetector, run) -> list:
    """The detections that an exported network gives behind the detector's own letterbox and suppression."""
    found = []
    for pixels in pictures():
        place = detector._place(pixels)
        canvas = np.full((1, *place.canvas, 3), 114, np.uint8)
        place.draw(pixels, canvas[0])
        output = torch.as_tensor(run(to_tensor(canvas).contiguous()))
        if not detector._is_detr:  # ours gives corners
            middle, half = output[:, :2], output[:, 2:4] / 2
            output = torch.cat([middle - half, middle + half, output[:, 4:]], dim=1)
        boxes, scores, labels = detector._candidates(output, place.canvas)
        found.append(detector._detections(boxes[0], scores[0], labels[0], place))
    return found


def assert_same(found, expected):
    assert sum(map(len, expected)) == 59
    for ours, theirs in zip(expected, found, strict=True):
        assert_same_boxes(ours, theirs.boxes, theirs.scores, theirs.labels)


def assert_same_boxes(ours, boxes, scores, labels):
    """Each of our detections is there once, and no other; detections of nearly equal scores may change places."""
    assert len(ours) == len(boxes)
    distance = np.abs(ours.boxes[:, None] - boxes[None]).max(axis=2) / MAX_BOX_PX
    distance = np.maximum(distance, np.abs(ours.scores[:, None] - scores[None]) / MAX_SCORE)
    distance[ours.labels[:, None] != labels[None]] = np.inf
    if len(ours):
        assert sorted(distance.argmin(axis=1)) == list(range(len(ours)))
        assert distance.min(axis=1).max() <= 1


def test_the_onnx_file_gives_our_boxes_and_holds_names_size_and_licence(detector):
    session = onnxruntime.InferenceSession(exported(detector, "onnx"), providers=["CPUExecutionProvider"])
    assert_same(
        detections(detector, lambda x: session.run(None, {"images": x.numpy()})[0]), detector.detect(pictures())
    )
    about = session.get_modelmeta().custom_metadata_map
    assert about["names"] == str(dict(enumerate(CLASSES)))
    assert (about["imgsz"], about["license"][:8]) == ("[96, 96]", "AGPL-3.0")


def test_the_torchscript_file_gives_our_boxes_and_holds_names_and_size(detector):
    about = {"config.txt": ""}
    network = torch.jit.load(BytesIO(exported(detector, "torchscript")), _extra_files=about)
    assert_same(detections(detector, network), detector.detect(pictures()))
    known = json.loads(about["config.txt"])
    assert (list(known["names"].values()), known["imgsz"]) == (list(CLASSES), [96, 96])


def test_the_pt_file_opens_in_ultralytics_and_gives_our_boxes(detector, tmp_path):
    from ultralytics import YOLO

    file = tmp_path / "ours.pt"
    file.write_bytes(exported(detector, "pt"))
    model = YOLO(file)
    assert (model.names, model.overrides["imgsz"]) == (dict(enumerate(CLASSES)), 96)
    for pixels, ours in zip(pictures(), detector.detect(pictures()), strict=True):
        (theirs,) = model.predict(
            pixels[..., ::-1], conf=detector.config.min_score, iou=0.7, device="cpu", verbose=False
        )
        boxes, scores, labels = theirs.boxes.xyxy, theirs.boxes.conf, theirs.boxes.cls
        assert_same_boxes(ours, boxes.numpy(), scores.numpy(), labels.int().numpy())
    content = torch.load(file, weights_only=False)
    assert (content["license"][:8], content["train_args"]["imgsz"]) == ("AGPL-3.0", 96)


def test_equal_detectors_give_equal_pt_files(detector):
    assert exported(detector, "pt") == exported(detector, "pt")


def test_an_unknown_format_and_a_family_without_export_are_told(detector):
    with pytest.raises(ValueError, match=r"cannot be exported to 'tflite'; choose one of pt, onnx, torchscript"):
        exported(detector, "tflite")
    with pytest.raises(ValueError, match="ultralytics detectors cannot be exported to 'pt'"):
        DetectorBase.export(detector.config, detector.checkpoint, "pt")
