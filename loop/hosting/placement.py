"""Whether the roles of ``hosting`` fit the cluster, said before a run starts: Ray would wait for ever, in silence.

And whether they leave its GPUs alone, which is as silent, and slow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from loop.config import HostingConfig, LoopConfig, TrainRoleConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """What one actor of a role asks for; it cannot be spread over nodes."""

    role: str
    cpus: float
    gpus: float


@dataclass(slots=True, kw_only=True)
class Node:
    """What is free on one node."""

    cpus: float
    gpus: float

    def take(self, actor: Actor) -> bool:
        """Whether the actor fits; if so, its share is taken."""
        fits = actor.cpus <= self.cpus + 1e-9 and actor.gpus <= self.gpus + 1e-9
        if fits:
            self.cpus -= actor.cpus
            self.gpus -= actor.gpus
        return fits


STREAM = ("generate", "inspect", "judge", "keep")
"""The roles whose actors hand candidates on to each other."""


def gangs(hosting: HostingConfig) -> dict[str, tuple[Actor, ...]]:
    """The actors that are alive at the same time, by what they do together, largest first."""
    stream = [
        Actor(role=name, cpus=role.num_cpus, gpus=role.num_gpus)
        for name in STREAM
        for role in [getattr(hosting, name)]
        for _ in range(role.num_actors)
    ]
    workers = {
        name: (Actor(role=name, cpus=role.num_cpus, gpus=role.num_gpus),) * role.num_workers
        for name in ("fit", "train")
        for role in [getattr(hosting, name)]
    }
    return {
        " + ".join(STREAM): tuple(sorted(stream, key=lambda actor: (actor.gpus, actor.cpus), reverse=True)),
        **workers,
    }


def unplaced(hosting: HostingConfig, nodes: Sequence[Node]) -> str:
    """What does not fit, and what to change; empty where everything fits."""
    total = f"the cluster has {sum(n.cpus for n in nodes):g} CPUs and {sum(n.gpus for n in nodes):g} GPUs"
    for gang, actors in gangs(hosting).items():
        free = [Node(cpus=node.cpus, gpus=node.gpus) for node in nodes]
        for actor in actors:
            if not any(node.take(actor) for node in free):
                return (
                    f"hosting.{actor.role}: an actor of {actor.cpus:g} CPUs and {actor.gpus:g} GPUs has no place. "
                    f"{gang} asks for {sum(a.cpus for a in actors):g} CPUs and {sum(a.gpus for a in actors):g} GPUs at "
                    f"once, {total} on {len(nodes)} node(s). Lower num_actors, num_cpus or num_gpus (hosting.num_cpus "
                    "raises the logical CPUs of a local run), or add nodes."
                )
    return ""


def num_gangs(role: TrainRoleConfig, nodes: Sequence[Node]) -> int:
    """How many trainings, each with all the workers of ``role``, have a place at the same time."""
    worker = Actor(role="", cpus=role.num_cpus, gpus=role.num_gpus)
    free = [Node(cpus=node.cpus, gpus=node.gpus) for node in nodes]
    num_workers = 0
    while any(node.take(worker) for node in free):
        num_workers += 1
    return num_workers // role.num_workers


def without_gpu(config: LoopConfig, nodes: Sequence[Node]) -> str:
    """Which roles run a network on the CPU though there are GPUs, and what to change; empty where none does."""
    runs_network = {
        "generate": config.generator.runs_network,
        "inspect": True,
        "judge": any(one.runs_network for one in config.filters),
        "fit": config.generator.learns,
        "train": True,
    }
    slow = [name for name, runs in runs_network.items() if runs and not getattr(config.hosting, name).num_gpus]
    gpus = sum(node.gpus for node in nodes)
    if not gpus or not slow:
        return ""
    return (
        f"hosting: {', '.join(slow)} will run on the CPU, and there are {gpus:g} GPU(s); give them num_gpus (fractions "
        "share one), as configs/hosting/gpu.yaml does"
    )
