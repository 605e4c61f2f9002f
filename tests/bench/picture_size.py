"""The cost of every stage by picture size: ``python tests/bench/picture_size.py OUT [--image-size 640]``.

The same made scenes are written as JPEGs of 640 px and of 3, 12 and 48 megapixels. For each size and generator, the
loop runs one round in this process on one thread, with the config that ``detloop init`` writes, except that trainings
are short and copies few. All seconds are CPU seconds. ``ratio`` is the time per candidate (generate, inspect, judge,
keep) at 640 px over that at this size; ``ratio_with_reduction`` includes the import and the reduction of the images,
which are done once. Results are written to OUT/picture_size.json.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from upath import UPath

from actors.storage import read_record
from loop.config_files import load
from loop.data.init_config import starter_config
from loop.driver import import_real, run
from loop.progress import Reporter, StageProgress
from loop.state import Pooled

WIDTHS = {"0.3 MP": 640, "3 MP": 2000, "12 MP": 4000, "48 MP": 8000}  # px; images are 4:3
NUM_IMAGES = {"train": 4, "val": 2}
GENERATORS = {
    "inpaint": ["generator.painter={kind: crop, fit_steps: 4, fit_batch_size: 4}"],  # otherwise as init writes it
    "copy_paste": ["generator={kind: copy_paste}"],
    "layout": [
        "generator={kind: layout, sampling_steps: 2, prompt: {grid: [8, 8], max_tokens: 40}}",
        "generator.network={kind: small, size_px: 64, channels: [16, 32]}",
        "generator.fit={steps: 4, batch_size: 4}",
        "rejected_boxes=drop_image",
    ],
}
SHORT = [
    "rounds=1",
    "training={steps: 2, epoch_steps: 2, batch_size: 4}",
    "evaluation.bootstrap_draws=100",
    "generation.copies=4",
]
DRAW = "generate and judge"  # the stage that draws, inspects, judges and keeps candidates


def scene(rng: np.random.Generator) -> tuple[NDArray[np.float32], list[list[float]]]:
    """A picture ``[480, 640, 3]`` of a smooth background with three textured objects, and their xywh boxes."""
    picture = _texture(rng, (480, 640), 6)
    boxes = []
    for column in rng.permutation(3):
        width, height = (int(side) for side in rng.integers((60, 60), (200, 300)))
        left, top = int(column * 210 + rng.integers(0, 210 - width + 1)), int(rng.integers(4, 476 - height))
        mask = np.zeros((height, width), np.uint8)
        cv2.ellipse(mask, (width // 2, height // 2), (width // 2, height // 2), 0, 0, 360, 1, -1)
        region = picture[top : top + height, left : left + width]
        region[mask > 0] = _texture(rng, (height, width), 12)[mask > 0]
        boxes.append([float(left), float(top), float(width), float(height)])
    return picture, boxes


def _texture(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> NDArray[np.float32]:
    coarse = rng.uniform(20, 235, (cells, cells, 3)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def write_data(folder: Path, width: int) -> None:
    """The scenes as a COCO folder of JPEGs ``width`` px wide, with grain at every size."""
    for seed, (split, number) in enumerate(NUM_IMAGES.items()):
        rng, factor = np.random.default_rng(seed), width / 640
        (folder / split).mkdir(parents=True)
        (folder / "annotations").mkdir(exist_ok=True)
        images, annotations = [], []
        for index in range(1, number + 1):
            picture, boxes = scene(rng)
            large = cv2.resize(picture, (width, width * 3 // 4), interpolation=cv2.INTER_CUBIC)
            grain = cv2.randn(np.empty_like(large), (0, 0, 0), (4, 4, 4))
            pixels = np.clip(large + grain, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{index}.jpg", quality=92)
            images.append({"id": index, "file_name": f"{index}.jpg", "width": width, "height": width * 3 // 4})
            annotations += [
                {"id": len(annotations) + place, "image_id": index, "category_id": 1, "iscrowd": 0}
                | {"bbox": [side * factor for side in box], "area": box[2] * box[3] * factor**2}
                for place, box in enumerate(boxes, start=1)
            ]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))


class Clock(Reporter):
    """Keeps the CPU seconds of each stage, by label."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, label: str, total: int) -> Iterator[StageProgress]:
        """As in the base class."""
        start = time.process_time()
        with super().stage(label, total) as progress:
            yield progress
        self.seconds[label] = time.process_time() - start


def measure(data: Path, root: Path, generator: str, image_size_px: int | None) -> dict[str, Any]:
    """Seconds of each stage of a run with ``generator`` on ``data``."""
    root.mkdir(parents=True)
    file = root / "init.yaml"
    file.write_text(starter_config(UPath(data), file.name))
    size = [] if image_size_px is None else [f"detector.image_size_px={image_size_px}"]
    config = load([file], [*SHORT, *size, *GENERATORS[generator], f"root={root}", "hosting.engine=inline"])
    clock, start = Clock(), time.process_time()
    import_real(config)
    clock.seconds["import"] = time.process_time() - start
    place = run(config, clock) / "rounds" / "001"
    pooled = read_record(place / "pool.json", Pooled)
    num, spent = pooled.cost.num_items, clock.seconds
    once = spent["import"] + sum(seconds for label, seconds in spent.items() if label.startswith("reduce"))
    return {
        "image_size_px": config.detector.image_size_px,
        "picture_px": config.detector.picture_px,
        "candidates": num,
        "s_per_candidate": spent[DRAW] / num,
        "s_per_candidate_with_reduction": (spent[DRAW] + once) / num,
        "s_per_candidate_by_step": {name: seconds / num for name, seconds in pooled.cost.seconds.items()},  # wall clock
        "stages_s": spent,
        "num_by_fate": {fate: len(getattr(pooled, fate)) for fate in ("kept", "dropped")},
    }


def main() -> None:
    """Measure all sizes and generators."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="an empty folder for the scenes, the runs and the results")
    parser.add_argument("--image-size", type=int, help="detector.image_size_px; default: what init writes")
    parser.add_argument("--sizes", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--generators", nargs="+", choices=GENERATORS, default=list(GENERATORS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for size in given.sizes:
        data = given.out / "data" / size.replace(" ", "_")
        write_data(data, WIDTHS[size])
        for generator in given.generators:
            one = measure(data, given.out / "runs" / data.name / generator, generator, given.image_size)
            first = results.setdefault(generator, {}).setdefault(given.sizes[0], one)
            keys = {"ratio": "s_per_candidate", "ratio_with_reduction": "s_per_candidate_with_reduction"}
            results[generator][size] = one | {name: first[key] / one[key] for name, key in keys.items()}
    (given.out / "picture_size.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
