"""The schedule of training that ``detloop init`` writes.

The comments of the written file state these rules:

* From weights: 40 passes over the training images at batch size 16, 400 to 3000 steps. Ultralytics plans 100 passes
  for any data set and picks the best; here the last step counts. Images are at least 256 px: the weights were learnt
  on objects of 640 px images.
* From random weights: 300 passes, 600 to 6000 steps. Synthetic images help such a detector only once it has learnt the
  real ones ("Does it help?" in the README: gains at 640 passes and more, a loss at 160).

Steps are multiples of 50, the steps of an epoch.
"""

import math
from dataclasses import dataclass

from actors.detectors.base import Starter

BATCH_SIZE = 16
EPOCH_STEPS = 50

_FROM_WEIGHTS = """\
  start: weights ## every training starts from the weights above (scratch: random ones)
  # Per round; the control trains for the same number.
  steps: {steps} ## {passes} passes over {num_images} images"""

_FROM_SCRATCH = """\
  start: scratch ## from random weights; with weights above: weights
  # Per round; the control trains for the same number. With far fewer passes, the detector is still learning from its
  # real images. The synthetic ones, which replace some of them in each batch, then do more harm than good.
  steps: {steps} ## {passes} passes over {num_images} images; from weights {fewer} are enough"""

_REST = """
  epoch_steps: {epoch_steps}
  batch_size: {batch_size}
  background_ignore: false ## with restored boxes, no object is unlabelled
  overrides: {overrides}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Limits of a schedule."""

    passes: int
    least_steps: int
    most_steps: int
    least_size_px: int  # of the detector's input

    def steps(self, num_images: int) -> int:
        """Optimiser steps per round for this many training images."""
        wanted = self.passes * num_images / BATCH_SIZE
        return math.ceil(min(max(wanted, self.least_steps), self.most_steps) / EPOCH_STEPS) * EPOCH_STEPS


FROM_WEIGHTS = Schedule(passes=40, least_steps=400, most_steps=3000, least_size_px=256)
FROM_SCRATCH = Schedule(passes=300, least_steps=600, most_steps=6000, least_size_px=160)


def schedule(starter: Starter) -> Schedule:
    """The schedule for what the detector starts from."""
    return FROM_WEIGHTS if starter.weights else FROM_SCRATCH


def training_section(starter: Starter, num_images: int) -> str:
    """The lines of the section training; comments follow ``##``."""
    steps = schedule(starter).steps(num_images)
    return ((_FROM_WEIGHTS if starter.weights else _FROM_SCRATCH) + _REST).format(
        steps=steps,
        passes=round(steps * BATCH_SIZE / num_images),
        num_images=num_images,
        fewer=FROM_WEIGHTS.steps(num_images),
        epoch_steps=EPOCH_STEPS,
        batch_size=BATCH_SIZE,
        overrides=starter.overrides,
    )
