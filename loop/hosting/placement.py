"""Placement checks before a run starts: roles that do not fit the cluster, and networks that would run on the CPU.

Ray would silently wait forever for a place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from actors.counted import counted
from loop.config import LoopConfig
from loop.hosting.config import HostingConfig, TrainRoleConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The resources of one actor, all on one node."""

    role: str
    cpus: float
    gpus: float


@dataclass(slots=True, kw_only=True)
class Node:
    """The free resources of one node."""

    cpus: float
    gpus: float

    def take(self, actor: Actor) -> bool:
        """Place the actor on this node. Returns False if it does not fit."""
        fits = actor.cpus <= self.cpus + 1e-9 and actor.gpus <= self.gpus + 1e-9
        if fits:
            self.cpus -= actor.cpus
            self.gpus -= actor.gpus
        return fits


STREAM = ("generate", "inspect", "judge", "keep")
"""The roles whose actors run in one stream of a run without a refiner."""


def stream_roles(config: LoopConfig) -> tuple[str, ...]:
    """The roles whose actors run in one stream."""
    return (*STREAM[:-1], "refine", *STREAM[-1:]) if config.refines else STREAM


def gangs(hosting: HostingConfig, roles: Sequence[str] = STREAM) -> dict[str, tuple[Actor, ...]]:
    """The groups of actors that are alive at the same time, by name, largest actors first. ``roles`` share a stream."""
    stream = [
        Actor(role=name, cpus=role.num_cpus, gpus=role.num_gpus)
        for name in roles
        for role in [getattr(hosting, name)]
        for _ in range(role.num_actors)
    ]
    workers = {
        name: (Actor(role=name, cpus=role.num_cpus, gpus=role.num_gpus),) * role.num_workers
        for name in ("fit", "train")
        for role in [getattr(hosting, name)]
    }
    return {
        " + ".join(roles): tuple(sorted(stream, key=lambda actor: (actor.gpus, actor.cpus), reverse=True)),
        **workers,
    }


def unplaced(hosting: HostingConfig, nodes: Sequence[Node], roles: Sequence[str] = STREAM) -> str:
    """An error message if an actor does not fit, with the remedy; empty if all fit."""
    total = f"the cluster has {_told(nodes)}"
    for gang, actors in gangs(hosting, roles).items():
        free = [Node(cpus=node.cpus, gpus=node.gpus) for node in nodes]
        for actor in actors:
            if not any(node.take(actor) for node in free):
                return (
                    f"hosting.{actor.role}: an actor of {_told([actor])} has no place. "
                    f"{gang} asks for {_told(actors)} at once, {total} on "
                    f"{counted(len(nodes), 'node')}. Lower num_actors, num_cpus or num_gpus (hosting.num_cpus "
                    "raises the logical CPUs of a local run), or add nodes."
                )
    return ""


def _told(places: Sequence[Node | Actor]) -> str:
    cpus, gpus = (sum(getattr(place, kind) for place in places) for kind in ("cpus", "gpus"))
    return f"{counted(f'{cpus:g}', 'CPU')} and {counted(f'{gpus:g}', 'GPU')}"


def num_gangs(role: TrainRoleConfig, nodes: Sequence[Node]) -> int:
    """The number of trainings, each with all workers of ``role``, that fit at the same time."""
    worker = Actor(role="", cpus=role.num_cpus, gpus=role.num_gpus)
    free = [Node(cpus=node.cpus, gpus=node.gpus) for node in nodes]
    num_workers = 0
    while any(node.take(worker) for node in free):
        num_workers += 1
    return num_workers // role.num_workers


def without_gpu(config: LoopConfig, nodes: Sequence[Node]) -> str:
    """A warning if roles run a network on the CPU although there are GPUs; empty if none does."""
    runs_network = {
        "generate": config.generator.runs_network,
        "inspect": True,
        "judge": any(one.runs_network for one in config.filters),
        "refine": config.refines and config.refiner.runs_network,
        "fit": config.generator.learns or config.refiner.learns,
        "train": True,
    }
    slow = [name for name, runs in runs_network.items() if runs and not getattr(config.hosting, name).num_gpus]
    gpus = sum(node.gpus for node in nodes)
    if not gpus or not slow:
        return ""
    return (
        f"hosting: {', '.join(slow)} will run on the CPU, but the cluster has {counted(f'{gpus:g}', 'GPU')}; set "
        "num_gpus for them (fractions share one), as in configs/hosting/gpu.yaml"
    )
