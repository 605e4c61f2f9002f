"""Config of Ultralytics' detectors."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from actors.config import Component, Need


class UltralyticsConfig(Component):
    """Any detection model of ultralytics, by its YAML or by a weight file."""

    kind: Literal["ultralytics"] = "ultralytics"
    model: str = "yolo11n.yaml"
    """Architecture: a model YAML of ultralytics or a local one."""
    weights: str | None = None
    """Weights for training.start: weights - one of our checkpoints, a named release (yolo11n.pt), or a local file."""
    trust_pickle: bool = False
    """Load a pickled weight file that is no named release. Unpickling runs code: only for files you made."""
    image_size_px: int = Field(320, ge=32, multiple_of=32)
    """Longer side that images are resized to; a multiple of 32."""
    min_score: float = Field(0.001, ge=0.0, le=1.0)
    """Detections below this are not reported."""
    nms_iou: float = Field(0.7, gt=0.0, le=1.0)
    """Of two detections of one class that overlap more than this, the weaker is suppressed."""
    max_detections: int = Field(300, ge=1)
    """Detections reported for an image, strongest first."""

    def needs(self) -> tuple[Need, ...]:
        """The weights, for trainings that start from them. A release is told by its bare name."""
        place = self.weights
        if place is None:
            return ()
        is_own = self.trust_pickle and Path(place).is_file()
        is_release = re.fullmatch(r"(yolo|rtdetr)[\w.-]*\.pt", place) is not None and not is_own
        return (Need(what="weights of the detector", place=place, is_release=is_release),)
