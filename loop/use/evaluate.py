"""Measurement of a run's detector on a split, such as the test images, with a record of every measurement.

Test images are evidence only as long as nothing is chosen by them. So each measurement says how often the same images
were measured before, in any run below the storage root.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from upath import UPath

from actors.checkpoint import Checkpoint
from actors.counted import counted
from actors.seeds import derive_seed
from actors.storage import exclusive, read_record, write_record
from loop import stages
from loop.config import LoopConfig
from loop.config_files import read_tree, validate
from loop.data.config import DataConfig
from loop.data.copies import same_files
from loop.data.importing import Dataset, import_split
from loop.data.leaks import near_copies
from loop.driver import import_real
from loop.evaluation.bootstrap import gain
from loop.evaluation.coco import Evaluation, Repeated, evaluate
from loop.hosting.config import HostingConfig
from loop.progress import Reporter
from loop.report.summary import points
from loop.use.chosen import Chosen

SPLITS = ("test", "val")
OWN = {
    "training": ("is a training image of the run", "are training images of the run"),
    "validation": ("is a validation image of the run", "are validation images of the run"),
    "near_copies": ("is a near-copy of a training image", "are near-copies of its training images"),
}
"""Kinds of images that a run has seen, in words for one and for several. The first two are equal files."""
IN_PROCESS = HostingConfig(engine="inline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measurement. The fields are the keys of its record."""

    when: str  # UTC, ISO 8601
    detloop: str  # version
    split: str
    data: str  # folder or URI of the images
    images: str  # their number, and a hash of names, sizes and labels
    earlier: Mapping[str, int]  # measurements of the same images before this one, by run
    own: Mapping[str, int] | None  # images that the run has seen, by kind (see OWN); None: its data cannot be read
    round: int
    fingerprint: str  # of the run's config
    metrics: Mapping[str, Mapping[str, float]]  # COCO metrics of "loop" and "control", means over the training seeds
    gain: float | None  # in AP; None without a loop
    gain_ci95: tuple[float, float] | None
    is_control: bool  # the loop's detectors are copies of the controls, and were measured once

    def __str__(self) -> str:
        keys = [key for key in self.metrics["control"] if key in {"AP", "AP50", "AP75"} or key.startswith("AP/")]
        arms = [arm for arm in self.metrics if arm == "control" or not self.is_control]
        rows = [
            f"{self.split}: {counted(self.images.split()[0], 'image')} of {self.data}; AP in points (x100)",
            "  " + "".join(f"{arm:>9}" for arm in arms),
            *("  " + self._cells(key, arms) + f"  {key.removeprefix('AP/')}" for key in keys),
        ]
        if self.is_control:
            rows.append("the loop's detector is the control, which was kept: neither gain nor loss")
        elif self.gain is not None and self.gain_ci95 is not None:
            gain, low, high = (points(value, sign=True) for value in (self.gain, *self.gain_ci95))
            rows.append(
                f"gain over the control: {gain} points AP, 95 % interval [{low}, {high}] (images and training seeds)"
            )
        return "\n".join(rows)

    def _cells(self, key: str, arms: Sequence[str]) -> str:
        return "".join(f"{points(self.metrics[arm][key]):>9}" for arm in arms)

    def warnings(self) -> Iterator[str]:
        """Why the figures may be too good: the run has seen the images, or they were measured before."""
        if self.own is None:
            yield "the run's own data cannot be read, so whether these images are among them was not checked"
        elif self.own:
            kinds = ", ".join(counted(number, *OWN[kind]) for kind, number in self.own.items())
            yield (
                f"of {counted(self.images.split()[0], f'{self.split} image')}, {kinds}: the figures are too "
                "good. Measure on images that the run has not seen"
            )
        if self.split != "val" and self.earlier:
            runs = ", ".join(f"{run} ({times})" for run, times in self.earlier.items())
            yield (
                f"earlier measurements of these images: {sum(self.earlier.values())}, in {runs}. If a setting was "
                "chosen by that, they are validation images now, and this figure is too good"
            )


def measure_split(chosen: Chosen, split: str, reporter: Reporter, data: str | None = None) -> Measurement:
    """Measure the detectors of a round, loop and control, on a split of the run's data or of other data.

    ``data`` is a config file or the folder of a data set, whose classes are matched by name. The measurement is
    recorded in the run's folder, below ``evaluations``.

    Raises ValueError or FileNotFoundError if there is no such split, if its images or classes cannot be used, or if all
    of them are the run's training images.
    """
    if split not in SPLITS:
        raise ValueError(f"split: {' or '.join(SPLITS)}, not {split!r}")
    dataset = _dataset(chosen, split, data)
    reporter.say(f"{dataset.report}\n")
    own = _own(chosen, dataset, split, is_other=data is not None)
    arms = {"loop": () if chosen.is_control else chosen.loop, "control": chosen.control}
    results = {
        arm: [_evaluated(chosen.config, dataset, split, one, arm, reporter) for one in checkpoints]
        for arm, checkpoints in arms.items()
        if checkpoints
    }
    if chosen.is_control:
        results = {"loop": results["control"], **results}
    return _record(chosen, dataset, split, results, own)


def _dataset(chosen: Chosen, split: str, data: str | None) -> Dataset:
    config = chosen.config
    if data is None:
        known = import_real(config)
        if split not in known.splits:
            raise ValueError(
                f"the run's data have no {split} split, only {', '.join(known.splits)}; give others with --data"
            )
        return known
    other = _data_config(data)
    if other.format == "world":
        return import_real(config.model_copy(update={"data": other}))
    return import_split(other, UPath(str(other.root)).absolute(), split, chosen.classes())


def _data_config(data: str) -> DataConfig:
    """The data of a config file, or those in a folder."""
    if Path(data).suffix not in {".yaml", ".yml"}:
        return DataConfig(root=data)
    tree = read_tree([data]).get("data")
    if tree is None:
        raise ValueError(f"{data} has no section `data`; give a config of detloop, or the folder of the data set")
    return validate(DataConfig, tree, f"{data}, section data")


def _own(chosen: Chosen, dataset: Dataset, split: str, *, is_other: bool) -> dict[str, int] | None:
    """The numbers of images that the run has seen, by kind; None where its data cannot be read.

    Raises ValueError if all are its training images.
    """
    known = _data_of_run(chosen) if is_other else dataset
    if known is None:
        return None
    images, train = dataset.splits[split], known.real
    trained = set(same_files(images, train))
    if len(trained) == len(images):
        raise ValueError(
            f"all {len(images)} {split} images are training images of the run, so they measure nothing; give images "
            "that it was not trained on"
        )
    validated = set(same_files(images, known.splits["val"] if split == "test" else ())) - trained
    others = [image for image in images if image.id not in trained | validated]
    copies = {} if chosen.config.data.format == "world" else near_copies(train, others)
    counts = {"training": len(trained), "validation": len(validated), "near_copies": len(copies)}
    return {kind: number for kind, number in counts.items() if number}


def _data_of_run(chosen: Chosen) -> Dataset | None:
    try:
        return import_real(chosen.config.model_copy(update={"root": str(chosen.run.path.parent)}))
    except (OSError, ValueError):
        return None


def _evaluated(
    config: LoopConfig, data: Dataset, split: str, checkpoint: Checkpoint, arm: str, reporter: Reporter
) -> Evaluation:
    images = data.splits[split]
    with reporter.stage(f"evaluate {arm}", len(images)) as progress:
        seen, _ = stages.detect(images, config.detector, checkpoint, IN_PROCESS, progress.advance)
    return evaluate(images, seen, data.classes)


def _record(
    chosen: Chosen,
    data: Dataset,
    split: str,
    results: Mapping[str, Sequence[Evaluation]],
    own: Mapping[str, int] | None,
) -> Measurement:
    config, images = chosen.config, data.identity()[split]
    difference = None
    if "loop" in results:
        seed = derive_seed(config.seed, "bootstrap", chosen.round)
        difference = gain(results["loop"], results["control"], config.evaluation.bootstrap_draws, seed)
        if chosen.is_control:
            difference = difference.of_control()
    folder = chosen.run.path / "evaluations"
    with exclusive(folder):
        measured = Measurement(
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            detloop=version("detloop"),
            split=split,
            data=data.report.root,
            images=images,
            earlier=_earlier(chosen.run.path.parent, images),
            own=own,
            round=chosen.round,
            fingerprint=config.fingerprint(),
            metrics={arm: Repeated(each=tuple(evaluations)).metrics for arm, evaluations in results.items()},
            gain=difference.value if difference else None,
            gain_ci95=(difference.low, difference.high) if difference else None,
            is_control=chosen.is_control,
        )
        write_record(folder / f"{len(list(folder.glob('*.json'))) + 1:03d}.json", measured)
    return measured


def _earlier(root: UPath, images: str) -> dict[str, int]:
    """How often the images were measured, by the name of the run."""
    times: dict[str, int] = {}
    for file in sorted(root.glob("*/evaluations/*.json")):
        if read_record(file, dict[str, Any])["images"] == images:
            run = file.parent.parent.name
            times[run] = times.get(run, 0) + 1
    return times
