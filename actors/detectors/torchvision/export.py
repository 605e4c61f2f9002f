"""Torchvision's detectors as files of other programs: a state dict of torchvision, TorchScript and ONNX."""

import json
import tempfile
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

from actors.checkpoint import Checkpoint
from actors.detectors.torchvision.config import TorchvisionSettings
from actors.detectors.torchvision.weights import Network

OUTPUTS = ("boxes", "scores", "labels")
OPSET = 17  # of ONNX; RoIAlign needs 16


def export(config: TorchvisionSettings, checkpoint: Checkpoint, fmt: str) -> bytes:
    """The content of the file; see ``DetectorBase.export``.

    ``pth``: ``torch.load(file)["model"]`` is the state dict of torchvision's own class with this backbone (for
    resnet50 with 256 channels that of ``fasterrcnn_resnet50_fpn`` and the like; labels of Faster R-CNN begin at 1).
    Beside it are ``classes``, ``image_size_px``, ``max_picture_px`` and ``anchor_px``. ``torchscript`` and ``onnx``
    take one picture ``[1, 3, H, W]`` in [0, 1], RGB, whose longer side is ``image_size_px`` and whose sides are
    multiples of ``STRIDE_PX``, as ``Letterbox.fit`` makes it. They give boxes ``[n, 4]`` in px of that canvas, scores
    ``[n]`` and labels ``[n]`` (positions in ``names``) after suppression. TorchScript needs torchvision's operators
    loaded.
    """
    config.check_export(fmt)
    if fmt == "pth" and config.is_of_timm:
        raise ValueError(
            f"torchvision has no backbone {config.backbone}: export to torchscript or onnx, or copy the checkpoint"
        )
    network: Network
    network, classes = config.load_checkpoint(checkpoint)
    network.eval().requires_grad_(False)
    if fmt == "pth":
        return _state_dict(network, classes, config)
    return (_torchscript if fmt == "torchscript" else _onnx)(network, classes, config)


def _state_dict(network: Network, classes: tuple[str, ...], config: TorchvisionSettings) -> bytes:
    import torch

    sizes = {"image_size_px": config.image_size_px, "max_picture_px": config.picture_px, "anchor_px": config.anchor_px}
    buffer = BytesIO()
    torch.save({"model": network.state_dict(), "classes": list(classes), **sizes}, buffer)
    return buffer.getvalue()


def _torchscript(network: Network, classes: tuple[str, ...], config: TorchvisionSettings) -> bytes:
    import torch

    from actors.detectors.torchvision.network import OneImage

    buffer, side = BytesIO(), config.image_size_px
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about every branch of the network
        traced = torch.jit.trace(OneImage(network).eval(), torch.rand(1, 3, side, side), check_trace=False)
        torch.jit.save(traced, buffer, _extra_files={"config.txt": json.dumps(_about(classes, config))})
    return buffer.getvalue()


def _onnx(network: Network, classes: tuple[str, ...], config: TorchvisionSettings) -> bytes:
    import onnx
    import torch

    from actors.detectors.torchvision.network import OneImage

    side = config.image_size_px
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about every branch of the network
        file = Path(folder, "detector.onnx")
        torch.onnx.export(
            OneImage(network).eval(),
            (torch.rand(1, 3, side, side),),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(OUTPUTS),
            dynamic_axes={"images": {2: "height", 3: "width"}, **{name: {0: "detections"} for name in OUTPUTS}},
        )
        model = onnx.load(file)
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in _about(classes, config).items()})
    content: bytes = model.SerializeToString()
    return content


def _about(classes: tuple[str, ...], config: TorchvisionSettings) -> dict[str, Any]:
    """Names and image size, as ultralytics' exports have them, and the size to which pictures are reduced first."""
    sizes = {"imgsz": [config.image_size_px] * 2, "max_picture_px": config.picture_px}
    return {"names": dict(enumerate(classes)), **sizes}
