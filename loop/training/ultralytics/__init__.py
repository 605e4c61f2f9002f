"""Training of Ultralytics' detectors. The package is AGPL-3.0."""
