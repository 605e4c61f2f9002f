"""Mining and judging as single steps outside a run. They share files below the root and never change a run's folder."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from upath import UPath

from actors import images
from actors.attributes import attributes
from actors.checkpoint import Checkpoint
from actors.filters.base import DetectorAccess, FilterBase, State
from actors.filters.chain import build_filters
from actors.filters.chain import judge as judge_batch
from actors.filters.rejected import RejectedBoxes
from actors.plain import from_plain, to_plain
from actors.records import Candidate, Detections, Inspected, Instance, Judged, LabeledImage, Lineage, Sample
from actors.rows import Row
from actors.seeds import derive_seed
from actors.storage import exclusive, read_detections, read_record, write_detections
from loop import mining, stages
from loop.adapters import detector_access
from loop.arms import Trainings
from loop.config import LoopConfig, digest
from loop.cross_fit import detect_unseen, held_back
from loop.data.importing import Dataset, import_images
from loop.driver import anchored, import_real, learnt_by_filters
from loop.hosting.engine import engine
from loop.progress import Reporter
from loop.reduce_images import reduce_images
from loop.state import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Mining:
    """The result of mining the real images."""

    data: Dataset
    found: tuple[Instance, ...]  # every box that has an attribute, in the order of images and boxes
    taken: tuple[Instance, ...]  # those that a round would spend its budget on, in its order


def mine(config: LoopConfig, reporter: Reporter, current: Checkpoint | None = None, number: int = 1) -> Mining:
    """Mine as round ``number`` of a run of ``config`` does.

    ``current`` is the checkpoint of the current detector. The default is the control, which is trained if there is none
    below the root. Detections are stored below the root, so that other thresholds and policies need no detector. With
    ``mining.policy: utility``, the run that ``config`` names has finished the rounds before ``number``.

    Raises ValueError or FileNotFoundError if the data, the hosting or the checkpoint cannot be used.
    """
    config = anchored(config)
    data = import_real(config)
    with engine(config.hosting):
        data = reduce_images(data, config, reporter)
        seen = _seen(Trainings(config=config, data=data, reporter=reporter), current)
    found = [
        one for image in data.splits["train"] for one in attributes(image, seen[image.id], **config.mining.attribute())
    ]
    beliefs = RunFolder(UPath(config.root) / config.name).beliefs(config, number, found)
    taken = mining.select(found, config.mining, derive_seed(config.seed, "mine", number - 1), beliefs)
    return Mining(data=data, found=tuple(found), taken=taken)


def _seen(trainings: Trainings, current: Checkpoint | None) -> Mapping[str, Detections]:
    """The detections in each real training image, from the detector that a round would use."""
    config, for_mining = trainings.config, trainings.for_mining()
    if config.mining.cross_fit:
        return detect_unseen(for_mining)[0]
    if current is None or config.mining.detector:
        current = for_mining.control(0).checkpoint
    place = UPath(config.root) / "seen" / f"{_fingerprint(for_mining, current)}.npz"
    with exclusive(place):
        if not place.exists():
            write_detections(place, _detect(for_mining, current))
        return read_detections(place)


def _detect(trainings: Trainings, checkpoint: Checkpoint) -> Mapping[str, Detections]:
    config, train = trainings.config, trainings.data.splits["train"]
    with trainings.reporter.stage("mine", len(train)) as progress:
        return stages.detect(train, config.detector, checkpoint, config.hosting, progress.advance)[0]


def _fingerprint(trainings: Trainings, checkpoint: Checkpoint) -> str:
    """The hash of the detector and the real training images, 16 hex digits. Pixels are identified by their paths."""
    parts = [trainings.config.fingerprint("detector"), hashlib.sha256(UPath(checkpoint).read_bytes()).hexdigest()]
    return digest(to_plain([*parts, trainings.data.splits["train"]]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Samples with new verdicts."""

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]


def judge_run(config: LoopConfig, reporter: Reporter) -> Judgement:
    """Judge the candidates of a run's finished rounds again with the filters of ``config``, which also names the run.

    The samples are ordered by round and id, and judged as they were drawn. A candidate that could not be drawn is
    returned unchanged.

    Raises ValueError if there is no such run, or if a candidate cannot be judged.
    """
    config = anchored(config)
    folder = RunFolder(UPath(config.root) / config.name)
    is_known = config.filters == folder.config().filters and folder.filter_states.exists()
    data = import_real(config)
    with engine(config.hosting):
        data = reduce_images(data, config, reporter)
        trainings = Trainings(config=config, data=data, reporter=reporter)
        states = read_record(folder.filter_states, dict) if is_known else learnt_by_filters(config, data)
        judged = list[Sample]()
        for number in range(1, folder.num_finished() + 1):
            current = trainings.control(0).checkpoint if number == 1 else folder.checkpoint(number - 1)
            judged += _judge(trainings, folder.judged(number), states, current)
    return Judgement(classes=data.classes, samples=tuple(judged))


def judge_images(config: LoopConfig, root: UPath, reporter: Reporter, current: Checkpoint | None = None) -> Judgement:
    """Judge the labelled images in the folder ``root`` with the filters of ``config``; all their boxes count as drawn.

    ``current`` is the checkpoint of the detector that inspects them. The default is the control.

    Raises ValueError or FileNotFoundError if the images cannot be used or have other classes than the data of
    ``config``.
    """
    config = anchored(config)
    data = import_real(config)
    own = import_images(root, data.classes)
    with engine(config.hosting):
        data = reduce_images(data, config, reporter)
        trainings = Trainings(config=config, data=data, reporter=reporter)
        current = current or trainings.control(0).checkpoint
        with reporter.stage("inspect", len(own)) as progress:
            seen, _ = stages.detect(own, config.detector, current, config.hosting, progress.advance)
        samples = [_own_sample(image, seen[image.id]) for image in own]
        judged = tuple(_judge(trainings, samples, learnt_by_filters(config, data), current))
    return Judgement(classes=data.classes, samples=judged)


def _own_sample(image: LabeledImage, seen: Detections) -> Sample:
    return Sample(
        id=image.id,
        uri=image.uri,
        sha256="",
        as_drawn=image.uri,
        width=image.width,
        height=image.height,
        annotation=image.annotation,
        proposed=image.annotation,
        drawn=~image.annotation.ignore,
        restored=np.zeros(len(image.annotation), np.bool_),
        seen=seen,
        verdicts=(),
        dropped="",
        lineage=Lineage(round=0, image_id="", box_indices=(), generator="", seed=0),
    )


def _judge(
    trainings: Trainings, samples: Sequence[Sample], states: Mapping[str, State], current: Checkpoint
) -> Iterator[Sample]:
    """The samples with new verdicts, in the same order. Those without a picture are unchanged."""
    config = trainings.config
    rows = tuple({"id": one.id, "sample": json.dumps(to_plain(one)), "error": ""} for one in samples if one.uri)
    detectors = detector_access(config.detector, current, held_back(trainings))
    opener = partial(Rejudge, config.filters, config.rejected_boxes, states, detectors)
    stage = stages.Stage(name="judge", open_component=opener, role=config.hosting.judge)
    with trainings.reporter.stage("judge", len(rows)) as progress:
        collected = stages.collect(stages.Stream(rows=rows).then(stage), config.hosting, progress.advance)
    stages.refuse_broken(collected)
    judged = {row["id"]: from_plain(Sample, json.loads(row["sample"])) for row in collected.rows}
    return (judged.get(one.id, one) for one in samples)


class Rejudge:
    """Judges the picture of a sample on disk."""

    def __init__(
        self,
        configs: Sequence[FilterBase],
        rejected_boxes: RejectedBoxes,
        states: Mapping[str, State],
        detectors: DetectorAccess,
    ) -> None:
        self.filters = build_filters(configs, states, detectors)
        self.rejected_boxes: RejectedBoxes = rejected_boxes

    def __call__(self, batch: Sequence[Row]) -> list[Row]:
        """The sample with its new verdicts, as JSON."""
        samples = [from_plain(Sample, json.loads(row["sample"])) for row in batch]
        judged = judge_batch(self.filters, [_inspected(sample) for sample in samples], self.rejected_boxes)
        return [
            {"sample": json.dumps(to_plain(_rejudged(sample, one)))}
            for sample, one in zip(samples, judged, strict=True)
        ]

    def blank(self) -> Row:
        """No columns."""
        return {}


def _rejudged(sample: Sample, judged: Judged) -> Sample:
    """The sample with its new verdicts. Its boxes are as they were drawn, since no refiner has seen it."""
    return replace(sample, verdicts=judged.verdicts, dropped=judged.dropped, annotation=judged.annotation, refined=())


def _inspected(sample: Sample) -> Inspected:
    """The candidate behind ``sample``. The mask of painted pixels is not stored on disk and is left empty."""
    pixels = images.read(sample.as_drawn)
    return Inspected(
        candidate=Candidate(
            pixels=pixels,
            annotation=sample.proposed,
            drawn=sample.drawn,
            painted=np.full(pixels.shape[:2], -1, np.int16),
            canvas=sample.canvas,
            lineage=sample.lineage,
            examples=sample.examples,
            refused="" if sample.verdicts or sample.refined else sample.dropped,
        ),
        seen=sample.seen,
    )
