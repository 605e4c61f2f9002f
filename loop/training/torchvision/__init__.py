"""Training of torchvision's detectors: Faster R-CNN, RetinaNet and FCOS."""
