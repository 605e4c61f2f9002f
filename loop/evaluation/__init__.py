"""Metrics of detectors and of generated images."""
