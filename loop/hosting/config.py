"""Config of where a run executes: actors and workers, and their resources."""

from typing import Literal

from pydantic import Field

from actors.config import Config


class RoleConfig(Config):
    """Resources of one kind of actor."""

    num_actors: int = Field(1, ge=1)
    """Number of actors, which share the rows."""
    num_cpus: float = Field(0.5, ge=0.0)
    """Logical CPUs per actor."""
    num_gpus: float = Field(0.0, ge=0.0)
    """GPUs per actor; a fraction lets actors share one."""
    batch_size: int = Field(16, ge=1)
    """Rows per call; no effect on results. In a round, a stage takes no more than the stage before it: candidates are
    judged, written and counted as soon as they are drawn, and an interrupted run loses at most the batches in work."""
    timeout_s: float = Field(1800.0, ge=0.0)
    """Seconds that a row may take, or 0 for no limit. If a batch of n rows takes n times as long, a new component takes
    over, and each row is tried once more, alone, in a new actor. A row that is too slow again is dropped, and counts
    for generation.max_failed_share. With engine: inline the old component is left behind in its thread."""


class TrainRoleConfig(Config):
    """Resources of the workers that train the detector or fit the generator."""

    num_workers: int = Field(1, ge=1)
    """Number of Ray Train workers (data parallel). Each worker of a detector normalises over its own part of a batch,
    so compare arms with the same number."""
    num_cpus: float = Field(1.0, gt=0.0)
    """Logical CPUs per worker; also its number of torch threads."""
    num_gpus: float = Field(0.0, ge=0.0)
    """GPUs per worker."""
    max_failures: int = Field(2, ge=0)
    """Number of worker failures from which a training recovers."""
    keep_every_s: float = Field(60.0, ge=0.0)
    """Seconds between saves of the training state, at the ends of epochs: the time that a lost worker may cost."""


class HostingConfig(Config):
    """Where a run executes. Of its keys, only num_workers of fit and train change results."""

    engine: Literal["ray", "inline"] = "ray"
    """ray: in the actors and workers of Ray. inline: in this process, for a debugger."""
    share_candidates: bool = False
    """Store mined instances and candidates below root, and reuse them in every run that would compute the same, for
    example in the arms of an ablation."""
    num_cpus: int | None = Field(None, ge=1)
    """Logical CPUs of a local Ray; default: those of this machine, at least 4. Not used on a running cluster."""
    scale_up_timeout_s: float = Field(0.0, ge=0.0)
    """Maximum time to wait until an autoscaling cluster has room for every role."""
    generate: RoleConfig = RoleConfig(batch_size=4)
    """Actors that draw candidates."""
    inspect: RoleConfig = RoleConfig()
    """Actors that run the detector, on candidates and on real images."""
    judge: RoleConfig = RoleConfig()
    """Actors that run the filters."""
    refine: RoleConfig = RoleConfig()
    """Actors that move boxes, if there is a refiner."""
    keep: RoleConfig = RoleConfig(num_cpus=0.25)
    """Actors that write samples."""
    fit: TrainRoleConfig = TrainRoleConfig(num_workers=2)
    """Workers that fit the generator and the refiner."""
    train: TrainRoleConfig = TrainRoleConfig()
    """Workers that train the detector."""
