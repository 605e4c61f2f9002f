"""Exported files: other programs get our own detector's boxes from them."""

import json
from io import BytesIO

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from recipe import prepare
from tiny_torchvision import CLASSES, MODELS, tiny, write
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from actors.boxes import clip
from actors.detectors.base import Reducing
from actors.detectors.torchvision.detector import TorchvisionDetector
from actors.records import Detections

pytestmark = pytest.mark.slow

SIZE_PX, MAX_PICTURE_PX, CHANNELS, NUM_SEEN = 64, 80, 64, 40
MAX_BOX_PX, MAX_SCORE = 0.01, 1e-4  # largest differences allowed


@pytest.fixture(scope="module", params=MODELS)
def detector(request, tmp_path_factory) -> TorchvisionDetector:
    sizes = {"image_size_px": SIZE_PX, "max_picture_px": MAX_PICTURE_PX, "anchor_px": 8}
    config = tiny(request.param, backbone="resnet18", **sizes)
    checkpoint = write(config, tmp_path_factory.mktemp("weights"))
    found = TorchvisionDetector(config, checkpoint, "cpu")
    scores = np.sort(np.concatenate([seen.scores for seen in predicted(found)]))
    few = config.model_copy(update={"min_score": float(scores[-NUM_SEEN - 1 : -NUM_SEEN + 1].mean())})
    return TorchvisionDetector(few, checkpoint, "cpu")


def pictures() -> list[np.ndarray]:
    """Pictures of blocks: a square, a wide and a high one, a smaller one, and two larger ones with shifted blocks."""
    rng = np.random.default_rng(0)
    shapes = [(16, 16, 4), (8, 16, 4), (16, 8, 4), (6, 10, 4), (12, 16, 11), (16, 7, 9)]  # rows, columns, px each
    found = [
        np.kron(rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8), np.ones((side, side, 1), np.uint8))
        for rows, columns, side in shapes
    ]
    return [*found[:-2], *(np.roll(one, 1, axis=(0, 1)) for one in found[-2:])]


def predicted(detector: TorchvisionDetector) -> list[Detections]:
    """What ``detloop predict`` finds in the pictures."""
    return Reducing(detector, detector.config.picture_px).detect(pictures())


def assert_same(detector: TorchvisionDetector, run, max_picture_px: int, image_size_px: int) -> None:
    """Each of our detections is there once, and no other; detections of nearly equal scores may change places."""
    expected = predicted(detector)
    assert sum(map(len, expected)) == NUM_SEEN
    assert len(expected[-2]) + len(expected[-1])  # in pictures that are reduced
    for pixels, ours in zip(pictures(), expected, strict=True):
        canvas, shift, factor = prepare(pixels, max_picture_px, image_size_px)
        boxes, scores, labels = (np.asarray(one) for one in run(torch.from_numpy(canvas)))
        boxes = clip((boxes - shift) * factor, *pixels.shape[1::-1])
        assert len(ours) == len(boxes)
        distance = np.abs(ours.boxes[:, None] - boxes[None]).max(axis=2) / MAX_BOX_PX
        distance = np.maximum(distance, np.abs(ours.scores[:, None] - scores[None]) / MAX_SCORE)
        distance[ours.labels[:, None] != labels[None]] = np.inf
        if len(ours):
            assert sorted(distance.argmin(axis=1)) == list(range(len(ours)))
            assert distance.min(axis=1).max() <= 1


def exported(detector: TorchvisionDetector, fmt: str) -> bytes:
    return detector.config.export(detector.checkpoint, fmt)


def test_the_onnx_file_gives_our_boxes_and_holds_names_and_size(detector):
    session = onnxruntime.InferenceSession(exported(detector, "onnx"), providers=["CPUExecutionProvider"])
    about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert (tuple(about["names"].values()), about["imgsz"]) == (CLASSES, [SIZE_PX, SIZE_PX])
    assert_same(
        detector, lambda images: session.run(None, {"images": images.numpy()}), about["max_picture_px"], SIZE_PX
    )


def test_the_torchscript_file_gives_our_boxes_and_holds_names_and_size(detector):
    about = {"config.txt": ""}
    network = torch.jit.load(BytesIO(exported(detector, "torchscript")), _extra_files=about)
    known = json.loads(about["config.txt"])
    assert (tuple(known["names"].values()), known["imgsz"]) == (CLASSES, [SIZE_PX, SIZE_PX])
    assert_same(detector, network, known["max_picture_px"], SIZE_PX)


def test_torchvisions_own_class_takes_the_state_dict_and_gives_our_boxes(detector):
    content = torch.load(BytesIO(exported(detector, "pth")), weights_only=True)
    side, config = content["image_size_px"], detector.config
    options = {"min_size": side, "max_size": side}
    network = {"fasterrcnn": faster_rcnn, "retinanet": retinanet, "fcos": fcos}[config.model](content, options)
    network.load_state_dict(content["model"])
    first = int(config.model == "fasterrcnn")
    part = network.roi_heads if first else network
    part.score_thresh, part.nms_thresh = config.min_score, config.nms_iou
    part.detections_per_img = config.max_detections

    def run(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            seen = network.eval()(list(images))[0]
        return seen["boxes"], seen["scores"], seen["labels"] - first

    assert content["classes"] == list(CLASSES)
    assert_same(detector, run, content["max_picture_px"], side)


def pyramid(first: int, extra: ExtraFPNBlock) -> torch.nn.Module:
    """On the layers of a ResNet from ``first`` on."""
    names = {f"layer{index}": str(index - first) for index in range(first, 5)}
    channels = [64, 128, 256, 512][first - 1 :]
    return BackboneWithFPN(torchvision.models.resnet18(), names, channels, CHANNELS, extra_blocks=extra)


def faster_rcnn(content, options) -> torch.nn.Module:
    anchors = AnchorGenerator(tuple((content["anchor_px"] * 2**level,) for level in range(5)), ((0.5, 1.0, 2.0),) * 5)
    return FasterRCNN(
        pyramid(1, LastLevelMaxPool()),
        rpn_anchor_generator=anchors,
        box_head=TwoMLPHead(CHANNELS * 49, 4 * CHANNELS),
        box_predictor=FastRCNNPredictor(4 * CHANNELS, len(content["classes"]) + 1),
        **options,
    )


def dense_pyramid() -> torch.nn.Module:
    return pyramid(2, LastLevelP6P7(CHANNELS, CHANNELS))


def retinanet(content, options) -> torch.nn.Module:
    firsts = [content["anchor_px"] * 2**level for level in range(5)]
    sizes = tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in firsts)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    return RetinaNet(dense_pyramid(), len(content["classes"]), anchor_generator=anchors, **options)


def fcos(content, options) -> torch.nn.Module:
    return FCOS(dense_pyramid(), len(content["classes"]), **options)


def test_equal_detectors_give_equal_state_dicts(detector):
    assert exported(detector, "pth") == exported(detector, "pth")


def test_what_cannot_be_exported_is_told(detector):
    with pytest.raises(ValueError, match=r"cannot be exported to 'pt'; choose one of torchscript, pth, onnx"):
        exported(detector, "pt")
    with pytest.raises(ValueError, match="torchvision has no backbone timm:resnet18: export to torchscript or onnx"):
        tiny("fcos", backbone="timm:resnet18").export(detector.checkpoint, "pth")
