"""Training and measuring: the trainer under Ray Train, background ignore, COCO metrics."""
