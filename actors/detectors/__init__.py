"""Detectors behind one protocol, and the union of their configs."""

from actors.detectors.base import Detector
from actors.detectors.ultralytics.config import UltralyticsConfig

DetectorConfig = UltralyticsConfig


def load_detector(config: DetectorConfig, checkpoint: str, device: str | None = None) -> Detector:
    """The detector of ``config`` with the weights of one of our own checkpoints (a path or an fsspec URI).

    ``device`` is a torch device; by default the GPU that this process was given, else the CPU.
    """
    from actors.detectors.ultralytics.detector import UltralyticsDetector

    return UltralyticsDetector(config, checkpoint, device)
