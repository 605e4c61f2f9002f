"""Writes a first config for a folder of data: commented, and ready to run.

The comments of the written file state these rules:

* Image size: in the class with the smallest boxes, the 10th percentile of the shorter sides becomes at least 16 px (two
  cells of the finest feature map). It is rounded up to a multiple of 32, at least 160 px (256 px from weights), at most
  640 px and the images' own size.
* Budget: a fifth of the training boxes, 400 to 2000. Small data sets are mined completely.
* Copies and p: the fewer real images, the more synthetic ones. 20 and 0.5 up to 50 training images (as in
  quickstart.yaml and bccd.yaml), 2 and 0.3 up to 300, else 1 and Gen2Det's 0.2.
"""

import json
import math
import os
import re

import yaml
from upath import UPath

from actors.counted import counted
from actors.detectors.base import SCRATCH, Starter
from actors.detectors.ultralytics.component import UltralyticsConfig
from loop.data.init_generator import generator_section
from loop.data.init_training import FROM_SCRATCH, schedule, training_section
from loop.data.survey import Found, describe
from loop.run_names import is_shared

_TARGET_SIDE_PX = 16
_LARGEST_PX = 640
_LEAST_SUBSET = 20

_COMMENT_COLUMN = 30

_VAL_FRAC = "  val_frac: 0.2 ## there is no validation split: this fraction of the training images is held out\n"
_TOLD = {"clean": " ## pictures without any object: generators draw into them, both arms train on them"}
_CLEAN = f"  # clean: FOLDER{_TOLD['clean']}\n"
_SUBSET = "  # subset: {size} ## the low-data setting: a quarter of the training images, sampled with the seed\n"

_LEAST_FOR_FOLDS = 12
_CROSS_FIT = "  cross_fit: 3 ## what is hard is said by detectors that were not trained on it, those of the guard\n"
_GUARD = """\
guard:
  # The round's detector is control, loop or the average of their weights, whichever is best on training images that
  # were held back. This trains six more detectors, each for two thirds of the steps. 0 turns it off.
  folds: 3

"""

_TEMPLATE = """\
# detloop: {summary}
# Written by `detloop init`. Check it with `detloop check {file}` (prints every key with its default),
# start it with `detloop run {file}`.

name: {name} ## folder of the run, below `root` (default: runs)
seed: 0 ## of every split, subset, candidate and batch
rounds: 1 ## of mine, generate, judge, train and evaluate; a finished run goes on if you raise it

data:
  format: {format}
  root: {root}
{keys}  # Images found: {counts}. Boxes or images left out: {num_dropped}, changed: {num_noted};
  # `detloop data validate` lists them.
{clean}{val_frac}{subset}
detector:
{detector}
  # Images are {own_size_px} px on the longer side. The median of the boxes' shorter sides is {median:.0f} px.
  # In the class with the smallest boxes, a tenth are below {small:.0f} px: {scaled:.0f} px at this size{limit}.
  image_size_px: {image_size_px} ## a multiple of 32, at least {least_size_px}

mining:
  policy: ranked ## hard boxes first, then those with the lowest scores
  budget: {budget} ## boxes per round: a fifth of the {num_boxes} training boxes, 400 to 2000
{cross_fit}
{generator}

generation:
  copies: {copies} ## candidates per image with mined boxes: 20 up to 50 images, 2 up to 300, else 1

filters: ## applied in this order; they reject
  - kind: blank ## images without content
  - kind: duplicate ## near-duplicates of training images and of held-out ones (leaks)
  - kind: agreement ## boxes that the detector does not find
rejected_boxes: restore ## a rejected box gets its real pixels back

mixing:
  # With few kept images p is lowered: none is shown more often than a real one to the control (max_repeats).
  p: {p} ## fraction of synthetic images, at most: 0.5 up to 50 real images, 0.3 up to 300, else 0.2
  mode: share ## of every batch

training:
{training}

{guard}evaluation:
  seeds: 1 ## trainings of each arm: 3 make the interval of the gain half as wide, and training three times as long

hosting:
  train:
    num_cpus: {num_cpus} ## torch threads of a training: those of this machine, at most 4
"""


def starter_config(folder: UPath, file: str = "config.yaml", starter: Starter | None = None) -> str:
    """The YAML text of a config for the data in ``folder``; ``file`` is its name in the comments.

    ``starter`` is what the detector starts from; default: random weights.
    """
    return render(describe(folder), file, starter)


def render(found: Found, file: str = "config.yaml", starter: Starter | None = None) -> str:
    """The YAML text of a config for the surveyed data; see ``starter_config``."""
    starter = starter or UltralyticsConfig.starter(SCRATCH)
    report = found.dataset.report
    train = report.splits["train"]
    copies, p = dose(train.images)
    size_px = image_size(found, schedule(starter).least_size_px)
    text = _TEMPLATE.format(
        summary=_summary(found),
        file=file,
        name=_quoted(run_name(found.root)),
        format=found.format,
        root=_quoted(found.root),
        counts=", ".join(f"{name} {counts.images}" for name, counts in report.splits.items()),
        keys=_keys(found),
        num_dropped=len(report.dropped),
        num_noted=len(report.noted),
        clean="" if "clean" in found.keys else _CLEAN,
        val_frac=_VAL_FRAC if found.dataset.val_is_drawn else "",
        subset=_SUBSET.format(size=train.images // 4) if train.images >= 4 * _LEAST_SUBSET else "",
        detector=starter.section,
        training=training_section(starter, train.images),
        own_size_px=found.image_size_px,
        median=found.median_side_px,
        small=found.small_side_px,
        scaled=found.small_side_px * size_px / found.image_size_px,
        limit=_limit(found, size_px),
        image_size_px=size_px,
        least_size_px=schedule(starter).least_size_px,
        budget=min(max(round(train.boxes / 5), 400), 2000),
        num_boxes=train.boxes,
        copies=copies,
        p=p,
        generator=generator_section(found),
        **_folds(train.images),
        num_cpus=min(os.cpu_count() or 1, 4),
    )
    return "\n".join(map(_aligned, text.splitlines())) + "\n"


def image_size(found: Found, least_px: int = FROM_SCRATCH.least_size_px) -> int:
    """The detector's input size in px: a multiple of 32 at which small boxes keep 16 px, within the limits."""
    wanted = found.image_size_px * _TARGET_SIDE_PX / found.small_side_px
    return _multiple(min(max(wanted, least_px), _LARGEST_PX, max(found.image_size_px, 32)), 32)


def dose(num_images: int) -> tuple[int, float]:
    """Number of candidates per image with mined boxes, and the fraction of synthetic images in training."""
    if num_images <= 50:
        return 20, 0.5
    return (2, 0.3) if num_images <= 300 else (1, 0.2)


def _folds(num_images: int) -> dict[str, str]:
    """The fields of the template for the folds of the training images; empty with too few images."""
    enough = num_images >= _LEAST_FOR_FOLDS
    return {"cross_fit": _CROSS_FIT if enough else "", "guard": _GUARD if enough else ""}


def _limit(found: Found, size_px: int) -> str:
    """Why small boxes do not keep their 16 px; empty if they do."""
    if found.small_side_px * size_px >= found.image_size_px * _TARGET_SIDE_PX:
        return ""
    if size_px < _LARGEST_PX:
        return ", the images' own"
    return ", the largest that init sets"


def _keys(found: Found) -> str:
    """The lines of the keys of data that were given; JSON is YAML."""
    given = {key: json.dumps(value, ensure_ascii=False) for key, value in found.keys.items() if key != "format"}
    return "".join(f"  {key}: {value}{_TOLD.get(key, '')}\n" for key, value in given.items())


def run_name(root: str) -> str:
    """A valid run name made from the folder's name."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", UPath(root).name).strip("-._") or "run"
    return f"{name}-run" if is_shared(name) else name


def _multiple(value: float, of: int) -> int:
    return math.ceil(value / of) * of


def _quoted(text: str) -> str:
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10_000).strip()


def _summary(found: Found) -> str:
    classes = found.dataset.classes
    names = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
    printable = "".join(letter if letter.isprintable() else " " for letter in names)
    return f"{counted(len(classes), 'class', 'classes')} ({printable}), found as {found.format.upper()}"


def _aligned(line: str) -> str:
    """The line with its comment, if any, moved to the comment column."""
    value, mark, comment = line.rpartition(" ## ")
    return f"{value:<{_COMMENT_COLUMN - 1}} # {comment}" if mark else line
