"""Writes a first config for a folder of data: commented, and ready to run.

The comments of the written file state these rules:

* Image size: in the class with the smallest boxes, the 10th percentile of the shorter sides becomes at least 16 px (two
  cells of the finest feature map). It is rounded up to a multiple of 32, at least 160 px, at most 640 px and the
  images' own size.
* Budget: a fifth of the training boxes, 400 to 2000. Small data sets are mined completely.
* Copies and p: the fewer real images, the more synthetic ones. 20 and 0.5 up to 50 training images (as in
  quickstart.yaml and bccd.yaml), 2 and 0.3 up to 300 (as in deeppcb.yaml), else 1 and Gen2Det's 0.2.
* Steps: 300 passes over the training images at batch size 16, 600 to 6000, in multiples of 50. Synthetic images help a
  detector trained from scratch only once it has learnt the real ones ("Does it help?" in the README: gains at 640
  passes and more, a loss at 160).
"""

import math
import re

import yaml
from upath import UPath

from actors.detectors.base import DetectorBase
from actors.detectors.ultralytics.component import UltralyticsConfig
from loop.data.survey import Found, describe

_TARGET_SIDE_PX = 16
_BATCH_SIZE = 16
_EPOCH_STEPS = 50

_LEAST_SUBSET = 20

_COMMENT_COLUMN = 30

_VAL_FRAC = "  val_frac: 0.2 ## there is no validation split: this fraction of the training images is held out\n"
_SUBSET = "  # subset: {size} ## the low-data setting: a quarter of the training images, sampled with the seed\n"

_TEMPLATE = """\
# detloop: {summary}
# Written by `detloop init`. Check it with `detloop check {file}` (prints every key with its default),
# start it with `detloop run {file}`.

name: {name} ## folder of the run, below `root` (default: runs)
seed: 0 ## of every split, subset, candidate and batch
rounds: 2 ## number of rounds of mine, generate, judge, train and evaluate

data:
  format: {format}
  root: {root}
  # Images found: {counts}. Boxes or images left out: {num_dropped}; `detloop data validate` lists them.
{val_frac}{subset}
detector:
{detector}
  # Images are {own_size_px} px on the longer side. The median of the boxes' shorter sides is {median:.0f} px. In the
  # class with the smallest boxes, a tenth are below {small:.0f} px: these should still have {target} px.
  image_size_px: {image_size_px} ## a multiple of 32

mining:
  policy: ranked ## hard boxes first, then those with the lowest scores
  budget: {budget} ## boxes per round: a fifth of the {num_boxes} training boxes, 400 to 2000

generator:
  kind: inpaint ## paints into the real images
  insert: 0.5 ## half of the mined boxes are repainted in place, half are painted at new places
  further: 1 ## each is also painted at one more place
  painter: {{kind: crop}} ## fitted on the training images first; downloads nothing
  # These options depend on the images:
  # turn_deg: 45 ## for objects seen from above, at any angle
  # rotate: false ## for objects with an upright position: no quarter turns
  # flip: false ## for objects whose mirror image is wrong, such as text
  # cutout: box ## for marks on a surface, such as scratches (not with turn_deg)

generation:
  copies: {copies} ## candidates per image with mined boxes: 20 up to 50 images, 2 up to 300, else 1

filters: ## applied in this order; they reject
  - kind: blank ## images without content
  - kind: duplicate ## near-duplicates of training images and of held-out ones (leaks)
  - kind: agreement ## boxes that the detector does not find
rejected_boxes: restore ## a rejected box gets its real pixels back

mixing:
  p: {p} ## fraction of synthetic images: 0.5 up to 50 real images, 0.3 up to 300, else 0.2
  mode: share ## of every batch

training:
  # Per round; the control trains for the same number. With far fewer passes, the detector is still learning from its
  # real images. The synthetic ones, which replace some of them in each batch, then do more harm than good.
  steps: {steps} ## {passes} passes over {num_train} images
  epoch_steps: {epoch_steps}
  batch_size: {batch_size}
  background_ignore: false ## with restored boxes, no object is unlabelled
  overrides: {overrides}

evaluation:
  seeds: 1 ## trainings of each arm: 3 make the interval of the gain half as wide, and training three times as long
"""


def starter_config(folder: UPath, file: str = "config.yaml") -> str:
    """The YAML text of a config for the data in ``folder``; ``file`` is its name in the comments."""
    return render(describe(folder), file)


def render(found: Found, file: str = "config.yaml", family: type[DetectorBase] = UltralyticsConfig) -> str:
    """The YAML text of a config for the surveyed data. Raises ValueError if ``family`` has no starter."""
    if family.starter is None:
        raise ValueError(f"no config can be written for the detectors of {family.__name__}: it has no starter")
    report = found.dataset.report
    train = report.splits["train"]
    steps = training_steps(train.images)
    copies, p = dose(train.images)
    text = _TEMPLATE.format(
        summary=_summary(found),
        file=file,
        name=_quoted(run_name(found.root)),
        format=found.format,
        root=_quoted(found.root),
        counts=", ".join(f"{name} {counts.images}" for name, counts in report.splits.items()),
        num_dropped=len(report.dropped),
        val_frac=_VAL_FRAC if found.dataset.val_is_drawn else "",
        subset=_SUBSET.format(size=train.images // 4) if train.images >= 4 * _LEAST_SUBSET else "",
        detector=family.starter.section,
        overrides=family.starter.overrides,
        own_size_px=found.image_size_px,
        median=found.median_side_px,
        small=found.small_side_px,
        target=_TARGET_SIDE_PX,
        image_size_px=image_size(found),
        budget=min(max(round(train.boxes / 5), 400), 2000),
        num_boxes=train.boxes,
        copies=copies,
        p=p,
        steps=steps,
        passes=round(steps * _BATCH_SIZE / train.images),
        num_train=train.images,
        epoch_steps=_EPOCH_STEPS,
        batch_size=_BATCH_SIZE,
    )
    return "\n".join(map(_aligned, text.splitlines())) + "\n"


def image_size(found: Found) -> int:
    """The detector's input size in px: a multiple of 32 at which small boxes keep 16 px, within the limits."""
    wanted = found.image_size_px * _TARGET_SIDE_PX / found.small_side_px
    return _multiple(min(max(wanted, 160), 640, max(found.image_size_px, 32)), 32)


def training_steps(num_images: int) -> int:
    """Optimiser steps per round: 300 passes over the images, 600 to 6000."""
    return _multiple(min(max(300 * num_images / _BATCH_SIZE, 600), 6000), _EPOCH_STEPS)


def dose(num_images: int) -> tuple[int, float]:
    """Number of candidates per image with mined boxes, and the fraction of synthetic images in training."""
    if num_images <= 50:
        return 20, 0.5
    return (2, 0.3) if num_images <= 300 else (1, 0.2)


def run_name(root: str) -> str:
    """A valid run name made from the folder's name."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", UPath(root).name).strip("-._")
    return name or "run"


def _multiple(value: float, of: int) -> int:
    return math.ceil(value / of) * of


def _quoted(text: str) -> str:
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10_000).strip()


def _summary(found: Found) -> str:
    classes = found.dataset.classes
    names = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
    printable = "".join(letter if letter.isprintable() else " " for letter in names)
    return f"{len(classes)} classes ({printable}), found as {found.format.upper()}"


def _aligned(line: str) -> str:
    """The line with its comment, if any, moved to the comment column."""
    value, mark, comment = line.rpartition(" ## ")
    return f"{value:<{_COMMENT_COLUMN - 1}} # {comment}" if mark else line
