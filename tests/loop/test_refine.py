"""The stage between judge and keep that moves boxes: one candidate, and a whole round with a refiner that is fitted."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from upath import UPath

from actors import rows
from actors.records import Annotation, Detections, Judged, Lineage, Refinement, Sample
from actors.refiners.base import RefinerBase
from actors.storage import read_record
from loop import arms, stages
from loop.adapters import Refine, Sources
from loop.check import describe
from loop.config import LoopConfig
from loop.driver import run
from loop.keep import Keep
from loop.progress import Reporter
from loop.tracking.store import local_store, open_client

OWN, DRAWN, SEEN = [0, 0, 9, 9], [20, 20, 30, 30], [24, 20, 34, 30]
SOURCES = Sources(classes=("object",), real="", filter_states="", detector="", generator=None)


class Shift(RefinerBase):
    """Moves every box to the right."""

    kind: str = "shift"
    by: float = 4.0

    def build(self, detector, checkpoint=None):
        assert (detector, checkpoint) == (None, SOURCES.refiner)
        return self

    def refine(self, pictures, annotations):
        assert [one.shape for one in pictures] == [(40, 40, 3)] * len(annotations)
        move = np.array([self.by, 0, self.by, 0], np.float32)
        return [Refinement(boxes=one.boxes + move, confidence=np.ones(len(one), np.float32)) for one in annotations]


def judged_row(*, dropped=""):
    pixels = np.full((40, 40, 3), 7, np.uint8)
    boxes = np.array([OWN, DRAWN], np.float32)
    labels = Annotation(boxes=boxes, labels=np.zeros(2, np.int64), ignore=np.zeros(2, np.bool_))
    scores = np.ones(1, np.float32)
    judged = Judged(
        pixels=pixels,
        as_drawn=pixels,
        annotation=Annotation.empty() if dropped else labels,
        proposed=labels,
        drawn=np.array([False, True]),
        restored=np.zeros(2, np.bool_),
        seen=Detections(boxes=np.array([SEEN], np.float32), labels=np.zeros(1, np.int64), scores=scores),
        verdicts=(),
        dropped=dropped,
        lineage=Lineage(round=1, image_id="a.png", box_indices=(0,), generator="g", seed=len(dropped)),
        canvas="a.png",
        examples=(),
    )
    return rows.lineage_row(judged.lineage) | rows.judged_columns(judged)


def test_the_sample_on_disk_has_the_moved_box_and_the_record_of_it(tmp_path):
    refined = Refine(Shift(), None, SOURCES)([judged_row(), judged_row(dropped="f: no")])
    Keep(str(tmp_path))([judged_row() | refined[0], judged_row(dropped="f: no") | refined[1]])
    sample, dropped = (
        read_record(UPath(next((tmp_path / fate).glob("*.json"))), Sample) for fate in ("kept", "dropped")
    )
    assert sample.annotation.boxes.tolist() == [OWN, SEEN]
    assert sample.proposed.boxes.tolist() == [OWN, DRAWN]
    (record,) = sample.refined
    assert (record.box, record.fate, record.seen_after) == (1, "moved", 1.0)
    assert (dropped.refined, dropped.dropped) == ((), "f: no")


def test_without_a_refiner_there_is_no_stage_no_column_and_nothing_of_it_on_disk(tmp_path):
    """Then a round's pool has the bytes that it had before there were refiners."""
    config = LoopConfig(name="r", data={"format": "world"})
    stream = stages.Stream(rows=())
    assert stages.refine(stream, config, SOURCES) is stream
    refining = config.model_copy(update={"refiner": Shift()})
    assert [stage.name for stage in stages.refine(stream, refining, SOURCES).stages] == ["refine"]
    assert "refined" not in judged_row()
    Keep(str(tmp_path))([judged_row()])
    (file,) = (tmp_path / "kept").glob("*.json")
    assert "refined" not in json.loads(file.read_text())


def test_a_candidate_that_cannot_be_refined_is_dropped_for_its_error():
    from actors.hosting import Host

    class Broken(Refine):
        def __call__(self, batch):
            raise RuntimeError(f"no memory for {len(batch)}")

    (row,) = Host("refine", lambda: Broken(Shift(), None, SOURCES)).process([judged_row()])
    assert (row["error"], row["dropped"]) == ("refine: RuntimeError: no memory for 1", "error")


SSDDET = {
    "kind": "ssddet",
    "min_agreement": 0.2,
    "width": 8,
    "hidden": 16,
    "sides": [1.0, 1.2],
    "fit": {"steps": 4, "batch_size": 2, "negatives": 8},
}


def start(easy_config, root, **changes):
    """The run's folder and what was said."""
    said = StringIO()
    config = LoopConfig.model_validate({**easy_config, "root": str(root), "rounds": 1, **changes})
    return Path(run(config, Reporter(Console(file=said, width=200)))), said.getvalue()


@pytest.fixture(scope="module")
def refined(easy_config, new_root):
    """A round with a refiner: the root, the fits that were run, the run's folder, and what was said."""
    jobs, fit, root = [], arms.fit, new_root()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "fit", lambda job, *rest: (jobs.append(job), fit(job, *rest))[1])
        return root, jobs, *start(easy_config, root, refiner=SSDDET)


def samples(folder):
    return [json.loads(file.read_text()) for file in sorted((folder / "rounds/001").glob("*/*.json"))]


@pytest.mark.slow
def test_the_refiner_is_fitted_on_the_real_images_through_the_rounds_detector(refined):
    root, (job,), folder, said = refined
    assert (Path(job.checkpoint).name, Path(job.checkpoint).parents[1]) == ("refiner.safetensors", root / "fits")
    controls = list((root / "controls").glob("*/detector.safetensors"))
    assert [job.data.detector.uri] == [str(control) for control in controls]
    assert {image.id for image in job.data.images} == {f"train/{number}.png" for number in range(1, 9)}
    assert set(job.data.difficulties) == {()}  # so that its fingerprint does not depend on mining
    assert "\nfit refiner " in said
    assert folder.exists()


@pytest.mark.slow
def test_every_drawn_box_that_was_kept_has_a_record_and_the_counts_agree(refined):
    _, _, folder, said = refined
    found = samples(folder)
    records = [one for sample in found for one in sample.get("refined", ())]
    summary = json.loads((folder / "summary.json").read_text())["rounds"][0]["refined"]
    for fate in ("moved", "kept", "ignored"):
        assert summary[fate] == sum(one["fate"] == fate for one in records)
    assert len(records) > 0
    assert summary["iou_shift"] == pytest.approx(np.mean([one["seen_after"] - one["seen_before"] for one in records]))
    for sample in found:
        if sample["dropped"].startswith("refiner"):
            assert {one["fate"] for one in sample["refined"]} == {"ignored"}
        elif not sample["dropped"]:
            moved = [list(one["corners"]) for one in sample["refined"] if one["fate"] == "moved"]
            assert all(box in sample["annotation"]["boxes"] for box in moved)
            num_ignored = sum(one["fate"] == "ignored" for one in sample["refined"])
            assert sum(sample["annotation"]["ignore"]) == num_ignored
    assert f"{summary['moved']:.0f} moved, {summary['kept']:.0f} kept, {summary['ignored']:.0f} ignored" in said
    assert "boxes refined" in (folder / "summary.html").read_text()
    assert "warning: the boxes of generator copy_paste are exact; a refiner can only move them away" in said


@pytest.mark.slow
def test_mlflow_has_the_counts_and_the_shift(refined):
    root, _, folder, _ = refined
    client = open_client(local_store(str(root)))
    experiment = client.get_experiment_by_name("easy").experiment_id
    (child,) = client.search_runs([experiment], "tags.round = '1'")
    summary = json.loads((folder / "summary.json").read_text())["rounds"][0]["refined"]
    logged = {key.removeprefix("refined/"): v for key, v in child.data.metrics.items() if key.startswith("refined/")}
    assert logged == pytest.approx(summary)
    assert child.data.metrics["seconds/refine"] > 0


@pytest.mark.slow
def test_a_round_that_was_interrupted_goes_on_with_the_same_refiner_and_gives_the_same_samples(refined, easy_config):
    root, _, folder, _ = refined
    before = {file: file.read_bytes() for file in (folder / "rounds/001").glob("*/*.*")}
    for file in sorted(before)[::2]:
        file.unlink()
    for name in ("pool.json", "round.json"):
        (folder / "rounds/001" / name).unlink()
    _, said = start(easy_config, root, refiner=SSDDET)
    assert "\nfit refiner " not in said
    assert {file: file.read_bytes() for file in before} == before


def test_the_plan_names_the_fit_of_the_refiner():
    config = LoopConfig(name="r", data={"format": "world"}, refiner=SSDDET, generator={"kind": "copy_paste"})
    assert "fit refiner  the refiner first, 4 steps of 2 on the real boxes" in describe(config)
    assert "fit refiner" not in describe(config.model_copy(update={"rounds": 0}))


@pytest.mark.parametrize(
    ("refiner", "generator", "expected"),
    [("ssddet", "copy_paste", True), ("ssddet", "inpaint", False), ("identity", "copy_paste", False)],
)
def test_a_refiner_of_exact_boxes_is_warned_of(refiner, generator, expected):
    parts = {"refiner": {"kind": refiner}, "generator": {"kind": generator}}
    config = LoopConfig(name="r", data={"format": "world"}, **parts)
    assert ("a refiner can only move them away" in describe(config)) == expected
    assert "can only move them away" not in describe(config.model_copy(update={"rounds": 0}))
