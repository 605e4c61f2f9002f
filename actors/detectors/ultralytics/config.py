"""The keys of Ultralytics' detectors, YOLO and RT-DETR; ``component`` makes a component of them."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator
from typing_extensions import override

from actors.config import Need
from actors.detectors.base import DetectorBase
from actors.detectors.ultralytics.model_file import check_model_file, find_model_file
from actors.detectors.ultralytics.releases import is_release


class UltralyticsSettings(DetectorBase):
    """Any detection model of ultralytics, by its YAML or by a weight file."""

    export_formats: ClassVar = ("pt", "onnx", "torchscript")

    model: str = "yolo11n.yaml"
    """Architecture: a model YAML of ultralytics or a local one. A local one may name known layers and activations only,
    with plain numbers: ultralytics would run code in it."""
    weights: str | None = None
    """Weights for training.start: weights - a named release (yolo11n.pt), one of our checkpoints, or a file of the same
    architecture: .safetensors with ultralytics' names, or .pt with trust_pickle."""
    trust_pickle: bool = False
    """Load a pickled weight file that is no named release. Unpickling runs code: only for files you made."""
    nms_iou: float = Field(0.7, gt=0.0, le=1.0)
    """Of two detections of one class that overlap more than this, the weaker is suppressed."""

    @field_validator("model")
    @classmethod
    def _known_layers(cls, model: str) -> str:
        if Path(model).exists():
            check_model_file(Path(model))
        return model

    @override
    def check_architecture(self) -> None:
        check_model_file(find_model_file(self.model))

    @override
    def needs(self) -> tuple[Need, ...]:
        """Raises ValueError if ``weights`` is neither a release nor a file that may be read."""
        if self.weights is None:
            return ()
        named = is_release(self.weights, trust_pickle=self.trust_pickle)
        return (Need(what="weights of the detector", place=self.weights, is_release=named),)
