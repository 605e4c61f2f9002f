"""Torchvision's detectors with a feature pyramid: Faster R-CNN, RetinaNet and FCOS."""
