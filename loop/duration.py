"""The time of a run, estimated before it starts: from earlier runs below its root, else from the sizes of its parts."""

import os
from collections.abc import Iterator
from typing import Any

from upath import UPath

from actors.storage import read_record
from loop.config import LoopConfig
from loop.state import Pooled
from loop.training.job import TrainResult

MANY_S = 3 * 3600
"""Seconds from which on a time is told in hours."""


def told(config: LoopConfig, num_steps: int, num_candidates: int) -> str:
    """The time of ``num_steps`` training steps, and of ``num_candidates`` candidates in each round, in words."""
    earlier = list(_earlier(config))
    num_images = num_steps * config.training.batch_size
    lines = [_training(config, num_images, earlier)]
    if config.rounds and num_candidates:
        lines.append(_drawing(config, config.rounds * num_candidates, earlier))
    return "; ".join(lines)


def _earlier(config: LoopConfig) -> Iterator[UPath]:
    """The folders of rounds below the root, of runs with the same detector."""
    for run in UPath(config.root).glob("*/config.json"):
        if _has_same(run, config, "detector"):
            yield from run.parent.glob("rounds/*")


def _has_same(run: UPath, config: LoopConfig, section: str) -> bool:
    """Whether a stored config has the same section; one that today's code refuses is compared as well."""
    return bool(read_record(run, dict[str, Any]).get(section) == config.science()[section])


def _training(config: LoopConfig, num_images: int, earlier: list[UPath]) -> str:
    records = [read_record(place / "train.json", TrainResult) for place in earlier if (place / "train.json").exists()]
    if rates := [one.images_per_s for one in records]:
        rate = max(rates)
        return f"about {_minutes(num_images / rate)} of training at {rate:.0f} images/s, as in earlier runs here"
    image_s = _image_s(config)
    if image_s is None:
        return "unknown for training before the first round with this detector below this root"
    time_s = num_images * image_s
    return (
        f"about {_minutes(time_s)} of training on an idle machine, estimated from the sizes of model and images "
        f"({_range(time_s / 2, time_s * 2)}, by processor)"
    )


def _image_s(config: LoopConfig) -> float | None:
    """Seconds of training for an image; None where that is unknown: for other models, and on GPUs."""
    role = config.hosting.train
    image_s = None if role.num_gpus else config.detector.image_s()
    num_threads = min(role.num_cpus * role.num_workers, os.cpu_count() or 1)
    return image_s and image_s / max(num_threads, 1)


def _drawing(config: LoopConfig, num_candidates: int, earlier: list[UPath]) -> str:
    costs = [
        read_record(place / "pool.json", Pooled).cost
        for place in earlier
        if (place / "pool.json").exists() and _has_same(place.parent.parent / "config.json", config, "generator")
    ]
    if rates := [cost.num_items / cost.wall_s for cost in costs if cost.num_items]:
        rate = max(rates)
        return f"about {_minutes(num_candidates / rate)} to draw and judge candidates at {rate:.1f}/s, as in those runs"
    return "fit and candidates come on top"


def _range(least_s: float, most_s: float) -> str:
    least, most = _minutes(least_s), _minutes(most_s)
    return f"{least} to {most}" if least != most else "under 2 min"


def _minutes(seconds: float) -> str:
    """Minutes, or hours where these are many."""
    return f"{max(seconds / 60, 1):.0f} min" if seconds < MANY_S else f"{seconds / 3600:.0f} h"
