"""A first config for a folder of data: commented, and able to run as it is.

The rules are few and stated in the comments of the file they write. Image size: the smallest tenth of the boxes of
the smallest class should still be 16 px (two cells of the finest feature map) on their shorter side, rounded up to a
multiple of 32, at least 160 px, at most 640 px and the images' own size. Budget: a fifth of the training boxes, 400
to 2000, so that few are all taken. Copies and p: the fewer real images there are, the more a detector takes from
synthetic ones; 20 and 0.5 up to 50 training images (as in quickstart.yaml and bccd.yaml), 2 and 0.3 up to 300 (as in
deeppcb.yaml), else 1 and Gen2Det's 0.2. Steps: 300 passes over the training images at batch 16, 600 to 6000, in whole
fifties: drawn images help a detector from scratch once it has run out of the real ones ("Does it help?" in the README:
gains at 640 passes and more, a loss at 160).
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

_VAL_FRAC = "  val_frac: 0.2 ## there is no validation split: this share of the training images is held out\n"
_SUBSET = "  # subset: {size} ## the low-data setting: a quarter of the training images, drawn by the seed\n"

_TEMPLATE = """\
# detloop: {summary}
# Written by `detloop init`. Look it over with `detloop check {file}` (it prints every key with its default),
# start it with `detloop run {file}`.

name: {name} ## folder of the run, below `root` (default: runs)
seed: 0 ## draws every split, subset, candidate and batch
rounds: 2 ## mine, generate, judge, train, evaluate: so many times

data:
  format: {format}
  root: {root}
  # Images found: {counts}. Boxes or images left out: {num_dropped}; `detloop data validate` lists them.
{val_frac}{subset}
detector:
{detector}
  # Images are {own_size_px} px on the longer side. The shorter side of the boxes is {median:.0f} px in the median,
  # and below {small:.0f} px for a tenth of the smallest class: those should still be {target} px here.
  image_size_px: {image_size_px} ## a multiple of 32

mining:
  policy: ranked ## hard boxes first, then the least sure of the others
  budget: {budget} ## boxes taken a round: a fifth of the {num_boxes} training boxes, 400 to 2000

generator:
  kind: inpaint ## paints into the real images
  insert: 0.5 ## half of the mined boxes are painted anew where they are, half at new places
  further: 1 ## each is painted at one more place besides
  painter: {{kind: crop}} ## fitted on the training images first; downloads nothing
  # What follows depends on what the images show.
  # turn_deg: 45 ## where things are seen from above and lie at any angle
  # rotate: false ## where they are not: no quarter turns
  # flip: false ## where a mirror image is wrong, as of writing
  # cutout: box ## for marks that belong to what they are on, as scratches do (not with turn_deg)

generation:
  copies: {copies} ## candidates for each image with mined boxes: 20 up to 50 images, 2 up to 300, else 1

filters: ## judges, in this order
  - kind: blank ## pictures with nothing in them
  - kind: duplicate ## near-copies of training images, and of held-out ones (leaks)
  - kind: agreement ## boxes that the detector cannot find
rejected_boxes: restore ## where a filter rejects a box, the real pixels come back

mixing:
  p: {p} ## share of synthetic images: 0.5 up to 50 real images, 0.3 up to 300, else 0.2
  mode: share ## of every batch

training:
  # A round, and as many for the control. With much fewer passes the detector still learns from its real images, and
  # then the drawn ones, which take their places in training, cost more than they bring.
  steps: {steps} ## {passes} passes over {num_train} images
  epoch_steps: {epoch_steps}
  batch_size: {batch_size}
  background_ignore: false ## restoring rejected boxes leaves nothing unlabelled
  overrides: {overrides}
"""


def starter_config(folder: UPath, file: str = "config.yaml") -> str:
    """The YAML text of a config for the data in ``folder``; ``file`` is what its comments call it."""
    return render(describe(folder), file)


def render(found: Found, file: str = "config.yaml", family: type[DetectorBase] = UltralyticsConfig) -> str:
    """The YAML text of a config for surveyed data. Raises ValueError where ``family`` has no lines for one."""
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
    """The detector's input in px: a multiple of 32 at which small boxes keep 16 px, as far as that can be had."""
    wanted = found.image_size_px * _TARGET_SIDE_PX / found.small_side_px
    return _multiple(min(max(wanted, 160), 640, max(found.image_size_px, 32)), 32)


def training_steps(num_images: int) -> int:
    """Optimiser steps a round: 300 passes over the images, 600 to 6000."""
    return _multiple(min(max(300 * num_images / _BATCH_SIZE, 600), 6000), _EPOCH_STEPS)


def dose(num_images: int) -> tuple[int, float]:
    """Candidates for each image that holds mined boxes, and the share of synthetic images in training."""
    if num_images <= 50:
        return 20, 0.5
    return (2, 0.3) if num_images <= 300 else (1, 0.2)


def run_name(root: str) -> str:
    """The folder's name, made fit to name a run."""
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
    """The line with its comment, if it has one, in the comments' column."""
    value, mark, comment = line.rpartition(" ## ")
    return f"{value:<{_COMMENT_COLUMN - 1}} # {comment}" if mark else line
