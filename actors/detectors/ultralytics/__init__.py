"""Ultralytics' detectors, YOLO and RT-DETR. The package is AGPL-3.0."""
