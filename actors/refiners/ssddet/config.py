"""The keys of SSD-Det; ``component`` makes a component of them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from actors.config import Config


class SSDDetFitConfig(Config):
    """Fit of the refiner on the real images."""

    steps: int = Field(200, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(4, ge=1)
    """Images per step, over all workers."""
    max_boxes: int = Field(8, ge=1)
    """Boxes of an image that a step uses, chosen at random."""
    learning_rate: float = Field(1e-3, gt=0.0)
    """Peak rate of AdamW: linear warm-up over the first twentieth of the steps, then cosine decay to 0."""
    negatives: int = Field(64, ge=0)
    """Random boxes of an image that are tried as background proposals (released code: 500)."""
    mil_weight: float = Field(0.25, ge=0.0)
    """Weight of the losses of both stages (released code; the paper has 1 in its stead)."""
    spsd_weight: float = Field(0.25, ge=0.0)
    """Weight of the losses of spatial position self-distillation."""
    sisd_weight: float = Field(5.0, ge=0.0)
    """Weight of the loss of spatial identity self-distillation (released code; paper: 0.25)."""
    joint: bool = False
    """Train the detector's weights as well, on the refined boxes: the paper's end-to-end training. The refiner then
    reads the features of the trained copy; the run's own detector stays as it is."""
    detector_weight: float = Field(4.0, ge=0.0)
    """Weight of the detector's loss on the refined boxes, with ``joint``."""
    detector_learning_rate: float = Field(1e-4, gt=0.0)
    """Peak rate of the detector's weights, with ``joint``."""


class SSDDetSettings(Config):
    """Bags, network and fit of SSD-Det."""

    noise: float = Field(0.4, ge=0.0, lt=1.0)
    """r of the noise protocol, applied once to the boxes that the fit reads, so that it learns to refine as inaccurate
    ones. 0 takes them as they are, for labels that are inaccurate already."""
    stages: Literal[1, 2] = 2
    """Stages of multiple-instance learning."""
    spsd: bool = True
    """Spatial position self-distillation: proposals are moved before they are scored."""
    sisd: bool = True
    """Spatial identity self-distillation: the predicted IoU of a proposal with the object counts in its score."""
    sides: tuple[float, ...] = Field((1.0, 1.3, 0.7), min_length=1)
    """Factors of width and height of the proposals around a box; all pairs are used, each at five places: 45 proposals.
    The released code has [1, 1.2, 1.3, 0.8, 0.7] for r of 0.3 and 0.4, 125 proposals, and [1, 1.1, 0.9] below."""
    shift: float = Field(0.2, ge=0.0, lt=1.0)
    """Each proposal is also shifted left, right, up and down by this share of its size."""
    top_k: int = Field(7, ge=1)
    """Number of proposals whose weighted mean is the refined box."""
    image_size_px: int | None = Field(None, ge=32, multiple_of=32)
    """Longer side that images are resized to before their features are read; default: the detector's. With a larger
    side, small boxes are refined on a finer grid."""
    roi_size: int = Field(7, ge=1)
    """Cells along each side of a proposal's features."""
    width: int = Field(64, ge=1)
    """Channels of the feature maps (paper: 256)."""
    hidden: int = Field(256, ge=1)
    """Width of the fully connected layers (paper: 1024)."""
    fit: SSDDetFitConfig = SSDDetFitConfig()

    @model_validator(mode="after")
    def _identity_in_stage_two(self) -> Self:
        if self.sisd and self.stages == 1:
            raise ValueError("sisd works on the second stage: set stages to 2, or sisd to false")
        return self
