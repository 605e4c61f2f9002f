"""The platform of trainings: of this process, and of the workers that ``hosting`` asks for."""

import os
import platform
from collections.abc import Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

from loop.hosting.config import HostingConfig
from loop.hosting.engine import in_an_actor
from loop.hosting.records import Platform


def this_platform(device: str, libraries: Sequence[str]) -> Platform:
    """The platform of a training in this process on ``device``, "cpu" or "cuda"."""
    import torch

    from actors.precision import native_dtypes

    return Platform(
        device=device,
        model=torch.cuda.get_device_name() if device == "cuda" else _processor(),
        precision=str(native_dtypes(torch.device(device))[0]).removeprefix("torch."),
        libraries={name: version(name) for name in ("torch", *libraries)},
    )


def training_platform(hosting: HostingConfig, libraries: Sequence[str]) -> Platform:
    """The platform on which ``hosting`` trains a detector whose family uses ``libraries``. Ray must have been started.

    On a cluster of several kinds of nodes, it is that of one node which has room for a worker.
    """
    return _probe(hosting, tuple(libraries), os.environ.get("RAY_ADDRESS"))


@cache
def _probe(hosting: HostingConfig, libraries: tuple[str, ...], _cluster: str | None) -> Platform:
    device = "cuda" if hosting.train.num_gpus else "cpu"
    return in_an_actor(partial(this_platform, device, libraries), hosting, hosting.train)


def unlike(platforms: Sequence[Platform]) -> list[str]:
    """The differences between ``platforms``, as phrases; none if all are equal."""
    names = sorted({name for one in platforms for name in one.libraries})
    found = {
        "device": [one.device for one in platforms],
        "processor": [one.model for one in platforms],
        "number format": [one.precision for one in platforms],
        **{name: [one.libraries.get(name, "none") for one in platforms] for name in names},
    }
    kinds = {what: list(dict.fromkeys(values)) for what, values in found.items()}
    return [f"{what}: {' and '.join(values)}" for what, values in kinds.items() if len(values) > 1]


def _processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
