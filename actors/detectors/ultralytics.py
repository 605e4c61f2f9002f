"""Ultralytics detectors: YOLO and RT-DETR (the package is AGPL-3.0; nothing else here loads it)."""

from typing import Literal

from pydantic import Field

from actors.config import Config


class UltralyticsConfig(Config):
    """Any detection model of ultralytics, by its YAML or by a weight file."""

    kind: Literal["ultralytics"] = "ultralytics"
    model: str = "yolo11n.yaml"
    """Architecture: a model YAML of ultralytics or a local one."""
    weights: str | None = None
    """Weights for training.start: weights - one of our checkpoints, a named release (yolo11n.pt), or a local file."""
    trust_pickle: bool = False
    """Load a pickled weight file that is no named release. Unpickling runs code: only for files you made."""
    image_size_px: int = Field(320, ge=32)
    """Longer side that images are resized to; a multiple of 32."""
    min_score: float = Field(0.001, ge=0.0, le=1.0)
    """Detections below this are not reported."""
    nms_iou: float = Field(0.7, gt=0.0, le=1.0)
    """Of two detections of one class that overlap more than this, the weaker is suppressed."""
    max_detections: int = Field(300, ge=1)
    """Detections reported for an image, strongest first."""
