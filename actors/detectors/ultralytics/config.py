"""The keys of Ultralytics' detectors, YOLO and RT-DETR; ``component`` makes a component of them."""

import re
from pathlib import Path

from pydantic import Field
from typing_extensions import override

from actors.config import Need
from actors.detectors.base import DetectorBase


class UltralyticsSettings(DetectorBase):
    """Any detection model of ultralytics, by its YAML or by a weight file."""

    model: str = "yolo11n.yaml"
    """Architecture: a model YAML of ultralytics or a local one."""
    weights: str | None = None
    """Weights for training.start: weights - one of our checkpoints, a named release (yolo11n.pt), or a local file."""
    trust_pickle: bool = False
    """Load a pickled weight file that is no named release. Unpickling runs code: only for files you made."""
    nms_iou: float = Field(0.7, gt=0.0, le=1.0)
    """Of two detections of one class that overlap more than this, the weaker is suppressed."""

    @override
    def needs(self) -> tuple[Need, ...]:
        place = self.weights
        if place is None:
            return ()
        is_own = self.trust_pickle and Path(place).is_file()
        is_release = re.fullmatch(r"(yolo|rtdetr)[\w.-]*\.pt", place) is not None and not is_own
        return (Need(what="weights of the detector", place=place, is_release=is_release),)
