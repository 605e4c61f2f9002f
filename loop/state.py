"""The folder of a run: one folder per round, one file per finished stage, written last and atomically.

``runs/<name>/``::

    config.json  data.json  train.json  filters.json     config, identity of the data, real images, filter states
    clean.json                                            images without objects, if there are any
    rounds/001/mine.json  pool.json  train.json  evaluate.json  round.json        one per finished stage
    rounds/001/kept/  dropped/                            samples: picture and record
    rounds/001/detector.safetensors  val.npz              the detector and its detections in the validation images
    rounds/001/guard.json  guard/  unguarded/             with a guard: its choice, its detectors, the loop's own
    rounds/001/detectors.json                             where the round's detectors are: those of loop and control
    evaluations/001.json                                  a measurement by ``detloop evaluate``
    manifest.json  summary.json  summary.html             at the end of the run

Starting the same run again reads these files and does the rest.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from upath import UPath

from actors.checkpoint import Checkpoint
from actors.fitting import Fitted
from actors.plain import differences
from actors.records import Instance, Sample
from actors.storage import is_local, read_record, write_record
from loop.bandit import UNKNOWN, Beliefs, learn
from loop.config import SCHEMA, ConfigError, LoopConfig
from loop.config_files import validate
from loop.keep import Fate
from loop.mining import ClassDifficulty

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of a stage."""

    seconds: dict[str, float]  # by step: mean busy time of its actors; steps of a stream overlap
    wall_s: float
    engine_s: float  # of the wall time: starting actors and workers, moving rows
    num_items: int  # images or candidates processed


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """The result of mining."""

    instances: tuple[Instance, ...]  # those that the budget was spent on
    found: tuple[Instance, ...]  # every box that has an attribute, in the order of images and boxes
    shares: tuple[ClassDifficulty, ...]  # easy and hard boxes by class
    cost: Cost
    beliefs: Beliefs = field(default=UNKNOWN, metadata={"omit_default": True})  # with mining.policy utility


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """The ids of a round's judged candidates. The samples themselves are stored beside this record."""

    kept: tuple[str, ...]  # sample ids, sorted
    dropped: tuple[str, ...]
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state that a round starts from."""

    round: int  # rounds finished
    detectors: tuple[Checkpoint, ...]  # the last trainings, one for each training seed
    generator: Fitted | None  # the fitted generator; None before the first round, or if it does not learn
    refiner: Fitted | None  # likewise the refiner
    pool: tuple[Sample, ...]  # kept samples of all rounds so far, by round and id

    @property
    def detector(self) -> Checkpoint:
        """The current detector: the training with the run's own seed."""
        return self.detectors[0]

    def next(
        self,
        *,
        detectors: tuple[Checkpoint, ...],
        generator: Fitted | None,
        refiner: Fitted | None,
        pool: tuple[Sample, ...],
    ) -> "State":
        """The state after one more round."""
        return State(round=self.round + 1, detectors=detectors, generator=generator, refiner=refiner, pool=pool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectors:
    """The detectors of a round, as paths below the storage root, which may move."""

    loop: tuple[str, ...]  # none in round 0
    control: tuple[str, ...]


def check_schema(folder: UPath, written: Mapping[str, Any]) -> None:
    """Raise ConfigError if ``written``, the config in a folder, has another schema."""
    if (schema := written.get("schema")) != SCHEMA:
        raise ConfigError(
            f"{folder} was written by another version of detloop (schema {schema}; this one writes {SCHEMA}); choose "
            "another name, or use that version"
        )


def once(path: UPath, kind: type[Record], compute: Callable[[], Record]) -> Record:
    """The record at ``path``, which is computed and written if it does not exist."""
    if not path.exists():
        write_record(path, compute())
    return read_record(path, kind)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: UPath

    @classmethod
    def claim(cls, config: LoopConfig) -> "RunFolder":
        """The folder of the run that ``config`` names, new or from an earlier start of the same run.

        The number of rounds may grow, since no round depends on it. Raises ConfigError, which names the differing keys,
        if the folder belongs to a run of another config, unless that run ended before it had a detector: then the
        folder is claimed anew. Hold the lock of the folder, see ``exclusive``.
        """
        folder, science = cls(UPath(config.root) / config.name), {"schema": SCHEMA, **config.science()}
        file = folder.path / "config.json"
        known = once(file, dict[str, Any], lambda: science)
        check_schema(folder.path, known)
        changed = differences({**known, "rounds": max(known["rounds"], config.rounds)}, science)
        if changed and folder._has_nothing():
            folder._forget()
            write_record(file, science)
        elif changed:
            raise ConfigError(
                f"{folder.path} holds a run of another config; choose another name, or restore its keys "
                "(stored -> given; only rounds may grow):\n  " + "\n  ".join(changed)
            )
        if known["rounds"] < config.rounds:
            if not known["rounds"]:
                folder.filter_states.unlink(missing_ok=True)  # without rounds, no filter was fitted
            write_record(file, science)
        return folder

    def claim_data(self, identity: dict[str, str]) -> None:
        """Record the identity of the run's real images, see ``Dataset.identity``.

        Raises ValueError, which names the splits, if an earlier start of the run had other images and a detector.
        """
        file = self.path / "data.json"
        if file.exists() and read_record(file, dict[str, str]) != identity and self._has_nothing():
            self._forget()
        known = once(file, dict[str, str], lambda: identity)
        changed = differences(known, identity)
        if changed:
            raise ValueError(
                f"the data of {self.path} have changed since it was started; give the run another name, or restore "
                "the data (then -> now):\n  " + "\n  ".join(changed)
            )

    def _has_nothing(self) -> bool:
        """Whether the run ended before it had a detector. False in a remote root, where no lock keeps others out."""
        return is_local(self.path) and not (self.path / "rounds").exists()

    def _forget(self) -> None:
        """Delete what was derived from the config and the data before the first training."""
        for name in ("data.json", "data_notes.json", "train.json", "clean.json", "filters.json", "mlflow.json"):
            (self.path / name).unlink(missing_ok=True)

    def config(self) -> LoopConfig:
        """The config of the run in this folder. Keys that do not affect results are at their defaults.

        Raises ValueError if the folder holds no run, ConfigError if the run has another schema or a component that is
        not installed.
        """
        file = self.path / "config.json"
        if not file.exists():
            raise ValueError(f"{self.path} holds no run: there is no config.json in it")
        science = read_record(file, dict[str, Any])
        check_schema(self.path, science)
        del science["schema"]
        return validate(LoopConfig, {**science, "name": self.path.name, "root": str(self.path.parent)}, str(file))

    def num_finished(self) -> int:
        """The number of finished rounds."""
        number = 0
        while (self.round(number + 1) / "round.json").exists():
            number += 1
        return number

    def round(self, number: int) -> UPath:
        """The folder of round ``number``, from 1."""
        return self.path / "rounds" / f"{number:03d}"

    def checkpoint(self, number: int) -> Checkpoint:
        """The detector trained in round ``number``, from 1."""
        return Checkpoint(str(self.round(number) / "detector.safetensors"))

    def record_detectors(self, number: int, loop: Sequence[Checkpoint], control: Sequence[Checkpoint]) -> None:
        """Record the detectors of round ``number``; those of round 0 are the controls that the loop starts from."""
        root = self.path.parent
        below = [tuple(UPath(one).relative_to(root).as_posix() for one in arm) for arm in (loop, control)]
        file, record = self.round(number) / "detectors.json", Detectors(loop=below[0], control=below[1])
        if not file.exists() or read_record(file, Detectors) != record:  # a control may be trained anew elsewhere
            write_record(file, record)

    def detectors(self, number: int) -> tuple[tuple[Checkpoint, ...], tuple[Checkpoint, ...]]:
        """The detectors of loop and control of round ``number``, one for each training seed.

        Raises FileNotFoundError if none is trained yet or a file is gone.
        """
        if not (file := self.round(number) / "detectors.json").exists():
            raise FileNotFoundError(f"{self.path}: no detector yet; start the run again, it continues where it stopped")
        known = read_record(file, Detectors)
        arms = [[self.path.parent / below for below in arm] for arm in (known.loop, known.control)]
        if gone := [str(file) for arm in arms for file in arm if not file.exists()]:
            raise FileNotFoundError(f"{self.path}: the detectors of round {number} are gone: {', '.join(gone)}")
        loop, control = (tuple(Checkpoint(str(file)) for file in arm) for arm in arms)
        return loop, control

    @property
    def train_records(self) -> UPath:
        """Records of the real training images, for the actors that read them."""
        return self.path / "train.json"

    @property
    def clean_records(self) -> UPath:
        """Likewise of the images without objects, if there are any."""
        return self.path / "clean.json"

    @property
    def filter_states(self) -> UPath:
        """The states of the filters, learnt from the real images."""
        return self.path / "filters.json"

    def sample_ids(self, number: int, fate: Fate) -> tuple[str, ...]:
        """The ids of the complete samples of a round, sorted."""
        return tuple(sorted(file.stem for file in (self.round(number) / fate).glob("*.json")))

    def samples(self, number: int, fate: Fate) -> tuple[Sample, ...]:
        """The complete samples of a round, by id. Their URIs are absolute."""
        return tuple(self._read_sample(number, fate, sample_id) for sample_id in self.sample_ids(number, fate))

    def judged(self, number: int) -> tuple[Sample, ...]:
        """All samples of a round: the kept ones by id, then the dropped ones."""
        return tuple(sample for fate in Fate for sample in self.samples(number, fate))

    def beliefs(self, config: LoopConfig, number: int, found: Iterable[Instance]) -> Beliefs:
        """The beliefs with which round ``number`` spreads its budget over the instances ``found``.

        ``UNKNOWN`` unless ``mining.policy`` is utility. All earlier rounds have to be finished.
        """
        if config.mining.policy != "utility":
            return UNKNOWN
        past = (
            (read_record(self.round(earlier) / "mine.json", Mined).instances, self.judged(earlier))
            for earlier in range(1, number)
        )
        return learn(found, config.generator.hard_modes, past)

    def _read_sample(self, number: int, fate: Fate, sample_id: str) -> Sample:
        sample = read_record(self.round(number) / fate / f"{sample_id}.json", Sample)
        if not sample.uri:
            return sample
        place = self.round(number)
        return replace(sample, uri=str(place / sample.uri), as_drawn=str(place / sample.as_drawn))
