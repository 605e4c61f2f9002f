"""The config of an ablation and its runs: a row of the table per arm, a run per row and seed.

An ablation file::

    name: components
    metric: AP                # of the last round's detector; any metric of loop.evaluation.coco
    seeds: [0, 1, 2]
    arms:                     # overrides of each arm, by dotted key; the first arm is the reference
      real: {rounds: 0}
      naive: {filters: [], training.background_ignore: false}
    axes:                     # instead of arms, or crossed with them: rows "naive, mixing.p=0.1", ...
      mixing.p: [0.1, 0.2]
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from upath import UPath

from actors.config import Config
from loop.config import SCHEMA, ConfigError, LoopConfig
from loop.config_files import nest, overlay, read_tree, validate

Overrides = dict[str, Any]  # by dotted key
NOT_FOR_ARMS = {"name", "root", "seed", "evaluation.seeds", "tracking"}


class AblationConfig(Config):
    """The config of an ablation."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder of the ablation below root/ablations, and prefix of the names of its runs."""
    metric: str = "AP"
    """Metric to compare: AP, AP50, AP75, AP_small, AP/<class>, ... of the last round's detector; of the control in an
    arm without rounds."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    """Seeds with which every arm is run; differences are paired by seed."""
    arms: dict[str, Overrides] = Field(default_factory=dict)
    """Overrides of each arm, by dotted key. The first row is the reference for the others."""
    axes: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Values by dotted key, crossed with each other and with the arms."""
    max_concurrent: int | None = Field(None, ge=1)
    """Maximum number of concurrent runs; default: limited by CPUs and GPUs for inline runs, 1 for others."""

    @model_validator(mode="after")
    def _has_rows(self) -> Self:
        if not self.arms and not self.axes:
            raise ValueError("give arms, or axes, or both")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"each seed may occur once: {list(self.seeds)}")
        keys = {key for overrides in (*self.arms.values(), self.axes) for key in overrides}
        taken = sorted(key for key in keys if {key, key.split(".")[0]} & NOT_FOR_ARMS)
        if taken:
            raise ValueError(f"an arm cannot set {', '.join(taken)}: the ablation sets it")
        slugs = [slug(row) for row in self.rows()]
        if len(set(slugs)) < len(slugs):
            raise ValueError(f"names of arms must differ in more than punctuation; as folders they are {slugs}")
        return self

    def rows(self) -> dict[str, Overrides]:
        """The overrides of each row of the table, by name, in order."""
        rows = dict[str, Overrides]()
        for (arm, overrides), *values in product(self.arms.items() or [("", {})], *self.axes.values()):
            point = dict(zip(self.axes, values, strict=True))
            words = [arm] if arm else []
            rows[", ".join([*words, *(f"{key}={_text(value)}" for key, value in point.items())])] = overrides | point
        return rows


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def slug(row: str) -> str:
    """The name of a row for use in folder names and MLflow keys."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", row).strip("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run of the loop."""

    arm: str  # name of its row
    seed: int
    config: LoopConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """An ablation and all its runs.

    The runs are stored beside other runs below the root, as ``<ablation>-<arm>-s<seed>``, and share worlds, controls,
    mined instances and candidates with them.
    """

    config: AblationConfig
    base: LoopConfig
    trials: tuple[Trial, ...]  # arm by arm: neighbours have different seeds, so they do not wait for each other

    @property
    def arms(self) -> tuple[str, ...]:
        """The rows of the table, the reference first."""
        return tuple(self.config.rows())

    @property
    def folder(self) -> UPath:
        """Folder of the tables and the trials' results."""
        return UPath(self.base.root) / "ablations" / self.config.name

    def science(self) -> dict[str, Any]:
        """The parts that affect the results: the seeds, and each arm's resolved config without its seed."""
        of_arms = {trial.arm: {**trial.config.science(), "seed": None} for trial in self.trials}
        return {"schema": SCHEMA, "seeds": list(self.config.seeds), "arms": of_arms}


def load_ablation(files: Sequence[str | Path], overrides: Sequence[str] = (), seeds: Sequence[int] = ()) -> Ablation:
    """The ablation in the last of ``files``; the others and the ``--set`` overrides give the config of the runs.

    ``seeds`` replace those of the file. Raises ConfigError, which names file or arm, key, value and choices.
    """
    *runs, question = files
    if not runs:
        raise ConfigError(f"{question}: give the run's config first, then the ablation's")
    own = [f"seeds={list(seeds)}"] if seeds else []
    config = validate(AblationConfig, read_tree([question], own), str(question))
    tree = read_tree(runs, overrides)
    base = validate(LoopConfig, tree, " + ".join(map(str, runs)))
    base = base.model_copy(update={"root": str(UPath(base.root).absolute())})
    of_arms = {arm: _arm(tree, changes, f"{question}, arm {arm!r},") for arm, changes in config.rows().items()}
    trials = [_trial(config, base, arm, one, seed) for arm, one in of_arms.items() for seed in config.seeds]
    return Ablation(config=config, base=base, trials=tuple(trials))


def _arm(base: Mapping[str, Any], changes: Overrides, source: str) -> LoopConfig:
    tree = overlay(dict(base), nest("guard.folds", 0))  # arms are compared as they are, unless they ask for a guard
    for key, value in changes.items():
        tree = overlay(tree, nest(key, value))
    return validate(LoopConfig, tree, source)


def _trial(ablation: AblationConfig, base: LoopConfig, arm: str, config: LoopConfig, seed: int) -> Trial:
    tags = {**base.tracking.tags, "ablation": ablation.name, "arm": arm}
    tracking = {"experiment": base.tracking.experiment or ablation.name, "tags": tags}
    changes = {
        "name": f"{ablation.name}-{slug(arm)}-s{seed}",
        "root": base.root,
        "seed": seed,
        "evaluation": config.evaluation.model_copy(update={"seeds": 1}),  # the trial is one of several seeds
        "hosting": config.hosting.model_copy(update={"share_candidates": True}),
        "tracking": config.tracking.model_copy(update=tracking),
    }
    return Trial(arm=arm, seed=seed, config=config.model_copy(update=changes))
