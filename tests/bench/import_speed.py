"""Time and memory of an import at the size of COCO: 118,287 training and 5,000 validation images, 7.3 boxes each.

    uv run python tests/bench/import_speed.py [--images 118287] [--formats coco yolo]

The data set is made in a temporary folder. All pictures are links to a few PNG files of 640 x 480 px: the disk holds
no pictures, but every header is read and every box is checked. Each step runs in a process of its own and reports its
seconds and the process's peak memory:

* import: annotations, headers and boxes to records
* survey: the sizes of images and boxes, and the text of the config that `detloop init` writes
* advise: classes, tiny boxes and leaks, for which a sample of the pictures is decoded
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from upath import UPath

from loop.data.advice import advise
from loop.data.config import DataConfig
from loop.data.importing import import_data
from loop.data.init_config import render
from loop.data.survey import describe

WIDTH, HEIGHT, NUM_CLASSES = 640, 480, 80
BOXES_PER_IMAGE = 7.3
MAX_LINKS = 50_000  # to one file; ext4 has room for 65,000
VAL_FRAC = 5000 / 118_287


def make(root: Path, fmt: str, num_images: int) -> None:
    """A data set in ``root`` with annotations in one format."""
    rng = np.random.default_rng(0)
    source = Image.fromarray(rng.integers(0, 255, (1, 1, 3), np.uint8)).resize((WIDTH, HEIGHT))
    for split, number in (("train", num_images), ("val", max(1, round(num_images * VAL_FRAC)))):
        (root / "images" / split).mkdir(parents=True)
        names = [f"{index:012}" for index in range(number)]
        for index, name in enumerate(names):
            picture = root / f"images/{split}/{name}.png"
            if index % MAX_LINKS == 0:
                first = picture
                source.save(first)
            else:
                os.link(first, picture)
        size = rng.uniform(0.02, 0.6, (round(number * BOXES_PER_IMAGE), 2))
        low = rng.uniform(0, 1 - size)
        rows = np.concatenate([rng.integers(0, NUM_CLASSES, (len(low), 1)), low, size], axis=1)
        owners = rng.integers(0, number, len(low))
        (write_coco if fmt == "coco" else write_yolo)(root, split, names, owners, rows)


def write_coco(root: Path, split: str, names: list[str], owners: np.ndarray, rows: np.ndarray) -> None:
    """``rows`` are a class and ``x y width height`` in fractions; ``owners`` are indices of ``names``."""
    images = [{"id": i, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names)]
    px = (rows[:, 1:] * [WIDTH, HEIGHT, WIDTH, HEIGHT]).round(2).tolist()
    boxes = [
        {"id": i, "image_id": owner, "category_id": int(row[0]), "bbox": box, "iscrowd": 0}
        for i, (owner, row, box) in enumerate(zip(owners.tolist(), rows.tolist(), px, strict=True))
    ]
    categories = [{"id": i, "name": f"class {i}"} for i in range(NUM_CLASSES)]
    tree = {"images": images, "annotations": boxes, "categories": categories}
    (root / "annotations").mkdir(exist_ok=True)
    (root / f"annotations/instances_{split}.json").write_text(json.dumps(tree))


def write_yolo(root: Path, split: str, names: list[str], owners: np.ndarray, rows: np.ndarray) -> None:
    """As ``write_coco``."""
    lines: list[list[str]] = [[] for _ in names]
    for owner, (label, x, y, width, height) in zip(owners.tolist(), rows.tolist(), strict=True):
        lines[owner].append(f"{int(label)} {x + width / 2:.6f} {y + height / 2:.6f} {width:.6f} {height:.6f}\n")
    (root / "labels" / split).mkdir(parents=True)
    for name, own in zip(names, lines, strict=True):
        (root / f"labels/{split}/{name}.txt").write_text("".join(own))
    classes = "".join(f"  {i}: class {i}\n" for i in range(NUM_CLASSES))
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{classes}")


def import_step(root: UPath) -> str:
    """Import the data set."""
    data = import_data(DataConfig(root=str(root)), root, 0)
    return ", ".join(
        f"{name} {counts.images} images, {counts.boxes} boxes" for name, counts in data.report.splits.items()
    )


def survey_step(root: UPath) -> str:
    """What `detloop init` does, without its advice."""
    return f"{len(render(describe(root)))} characters"


def advise_step(root: UPath) -> str:
    """Import the data set and look for what is said before a run."""
    return f"{len(list(advise(import_data(DataConfig(root=str(root)), root, 0), 640)))} notes"


def measured(step: Callable[[UPath], str], root: UPath) -> tuple[float, float, str]:
    """Seconds, peak memory in GB, and what the step found."""
    start = time.perf_counter()
    found = step(root)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--formats", nargs="+", default=["coco", "yolo"], choices=["coco", "yolo"])
    options = parser.parse_args()
    print("| format | step | s | peak GB | found |\n|---|---|---:|---:|---|")
    for fmt in options.formats:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), fmt, options.images)
            for step in (import_step, survey_step, advise_step):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    seconds, peak, found = pool.apply(measured, (step, UPath(folder)))
                name = step.__name__.removesuffix("_step")
                print(f"| {fmt} | {name} | {seconds:.1f} | {peak:.2f} | {found} |", flush=True)


if __name__ == "__main__":
    main()
