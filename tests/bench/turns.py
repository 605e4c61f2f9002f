"""Timing of calls that take turns in one process, so that other load on the machine affects all of them alike."""

import statistics
import time
from collections.abc import Callable

import torch

NUM_REPEATS = 7


def in_turns(
    num_images: int, calls: dict[str, Callable[[], object]], num_repeats: int = NUM_REPEATS
) -> dict[str, dict[str, float]]:
    """Time each call: the seconds of its first run, and its median speed over ``num_repeats`` rounds of all calls."""
    first_s = {name: seconds(call)[0] for name, call in calls.items()}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for repeat in range(num_repeats):
        for name in sorted(calls, reverse=repeat % 2 == 1):  # the order alternates
            spent[name].append(seconds(calls[name]))
    medians = {
        name: [statistics.median(column) for column in zip(*pairs, strict=True)] for name, pairs in spent.items()
    }
    return {
        name: {
            "images_per_s": round(num_images / wall_s, 2),
            "images_per_cpu_s": round(num_images / cpu_s, 2),
            "first_call_s": round(first_s[name], 2),
        }
        for name, (wall_s, cpu_s) in medians.items()
    }


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock seconds and CPU seconds that the call takes."""
    start = time.perf_counter(), time.process_time()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def ratio_to_best(case: dict[str, dict[str, float]]) -> dict[str, float]:
    """Speed of ours relative to the fastest of the others, for both clocks."""
    return {
        f"{clock}_ratio": round(
            case["ours"][unit] / max(speed[unit] for name, speed in case.items() if name != "ours"), 3
        )
        for clock, unit in (("s", "images_per_s"), ("cpu_s", "images_per_cpu_s"))
    }


def headline(case: dict[str, float]) -> float:
    """The ratio to report: in seconds with a GPU, else in CPU seconds, which depend little on other load."""
    return case["s_ratio" if torch.cuda.is_available() else "cpu_s_ratio"]
