"""Exported files: other programs get our own detector's boxes from them."""

import json
from dataclasses import replace
from io import BytesIO

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from recipe import prepare

from actors.boxes import clip
from actors.detectors.base import DetectorBase, Reducing
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.detectors.ultralytics.detector import UltralyticsDetector
from actors.images import reduced
from actors.letterbox import Letterbox

pytestmark = pytest.mark.slow

CLASSES = ("it's", '"crack" {x}', "红\n螺母")
SIZES = ((60, 80, 6), (80, 60, 6), (96, 96, 6), (30, 120, 6), (238, 238, 14), (198, 160, 13))
"""Height, width and the side of a block, px: four canvases. The last two pictures are reduced first."""
MAX_PICTURE_PX = 120
MAX_BOX_PX, MAX_SCORE = 0.01, 1e-4  # largest differences allowed


@pytest.fixture(scope="module", params=[("yolo11n.yaml", 0.002), ("yolo26n.yaml", 0.002), ("small_detr", 0.5)], ids=str)
def detector(request, tmp_path_factory) -> UltralyticsDetector:
    model, scale = request.param
    model = str(request.getfixturevalue(model)) if model == "small_detr" else model
    config = UltralyticsConfig(model=model, image_size_px=96, max_picture_px=MAX_PICTURE_PX)
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
    scores = np.sort(np.concatenate([seen.scores for seen in predicted(found)]))
    few = config.model_copy(update={"min_score": float(scores[-60:-58].mean())})  # 59 detections, and none at the limit
    return UltralyticsDetector(few, checkpoint, "cpu")


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (height // side, width // side, 3), dtype=np.uint8) for height, width, side in SIZES]
    return [
        np.kron(one, np.ones((side, side, 1), np.uint8))[:height, :width]
        for one, (height, width, side) in zip(small, SIZES, strict=True)
    ]


def exported(detector: UltralyticsDetector, fmt: str) -> bytes:
    return detector.config.export(detector.checkpoint, fmt)


def predicted(detector: UltralyticsDetector) -> list:
    """What ``detloop predict`` finds in the pictures."""
    return Reducing(detector, detector.config.picture_px).detect(pictures())


def detections(detector: UltralyticsDetector, run, max_picture_px: int) -> list:
    """What an exported network gives behind the documented preparation and the detector's own suppression."""
    found = []
    for pixels in pictures():
        if detector._is_detr:
            square = cv2.resize(reduced(pixels, max_picture_px), (96, 96), interpolation=cv2.INTER_LINEAR)
            canvas, shift, _ = prepare(square, max_picture_px, 96)
            factor = np.array([*pixels.shape[1::-1]] * 2) / 96
        else:
            canvas, shift, factor = prepare(pixels, max_picture_px, 96)
        output = torch.as_tensor(run(torch.from_numpy(canvas)))
        if not detector._is_detr:  # ours gives corners
            middle, half = output[:, :2], output[:, 2:4] / 2
            output = torch.cat([middle - half, middle + half, output[:, 4:]], dim=1)
        sides = canvas.shape[2:]
        boxes, scores, labels = detector._candidates(output, sides)
        place = Letterbox(source=sides, canvas=sides, inner=sides, offset=(0, 0))
        seen = detector._detections(boxes[0], scores[0], labels[0], place)
        found.append(replace(seen, boxes=clip((seen.boxes - shift) * factor, *pixels.shape[1::-1])))
    return found


def assert_same(found, expected):
    assert sum(map(len, expected)) == 59
    assert len(expected[-2]) + len(expected[-1])  # in pictures that are reduced
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
    about = session.get_modelmeta().custom_metadata_map
    limit_px = int(about["max_picture_px"])
    assert_same(
        detections(detector, lambda x: session.run(None, {"images": x.numpy()})[0], limit_px), predicted(detector)
    )
    assert about["names"] == str(dict(enumerate(CLASSES)))
    assert (about["imgsz"], about["license"][:8]) == ("[96, 96]", "AGPL-3.0")


def test_the_torchscript_file_gives_our_boxes_and_holds_names_and_size(detector):
    about = {"config.txt": ""}
    network = torch.jit.load(BytesIO(exported(detector, "torchscript")), _extra_files=about)
    known = json.loads(about["config.txt"])
    assert_same(detections(detector, network, known["max_picture_px"]), predicted(detector))
    assert (list(known["names"].values()), known["imgsz"]) == (list(CLASSES), [96, 96])


def test_the_pt_file_opens_in_ultralytics_and_gives_our_boxes(detector, tmp_path):
    from ultralytics import YOLO

    file = tmp_path / "ours.pt"
    file.write_bytes(exported(detector, "pt"))
    model = YOLO(file)
    assert (model.names, model.overrides["imgsz"]) == (dict(enumerate(CLASSES)), 96)
    content = torch.load(file, weights_only=False)
    smaller = [reduced(pixels, content["max_picture_px"]) for pixels in pictures()]
    for pixels, ours in zip(smaller, detector.detect(smaller), strict=True):
        (theirs,) = model.predict(
            pixels[..., ::-1], conf=detector.config.min_score, iou=0.7, device="cpu", verbose=False
        )
        boxes, scores, labels = theirs.boxes.xyxy, theirs.boxes.conf, theirs.boxes.cls
        assert_same_boxes(ours, boxes.numpy(), scores.numpy(), labels.int().numpy())
    assert (content["license"][:8], content["train_args"]["imgsz"]) == ("AGPL-3.0", 96)


def test_equal_detectors_give_equal_pt_files(detector):
    assert exported(detector, "pt") == exported(detector, "pt")


def test_an_unknown_format_and_a_family_without_export_are_told(detector):
    with pytest.raises(ValueError, match=r"cannot be exported to 'tflite'; choose one of pt, onnx, torchscript"):
        exported(detector, "tflite")
    with pytest.raises(ValueError, match="ultralytics detectors cannot be exported to 'pt'"):
        DetectorBase.export(detector.config, detector.checkpoint, "pt")
