"""Judging and keeping: the sample that is written of a candidate one of whose boxes is rejected, by policy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from upath import UPath

from actors import rows
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.filters.agreement import AgreementConfig
from actors.filters.alignment import AlignmentConfig
from actors.filters.base import RealImages
from actors.filters.chain import fit_filters
from actors.images import encode_png, read
from actors.records import Annotation, Candidate, Detections, LabeledImage, Lineage, Sample
from actors.storage import read_record, write_record
from loop.adapters import Judge, Sources, detector_access
from loop.check import describe
from loop.config import LoopConfig
from loop.data.config import DataConfig
from loop.data.importing import import_data
from loop.keep import Keep

SOURCE = np.random.default_rng(0).integers(0, 200, (16, 16, 3), np.uint8)
OWN, ADDED = [1, 1, 7, 7], [9, 9, 15, 15]


def annotation(*boxes):
    count = len(boxes)
    return Annotation(
        boxes=np.array(boxes, np.float32), labels=np.zeros(count, np.int64), ignore=np.zeros(count, np.bool_)
    )


@pytest.fixture
def folder(tmp_path):
    """A run's folder with one real image in it."""
    (tmp_path / "canvas.png").write_bytes(encode_png(SOURCE))
    uri = str(tmp_path / "canvas.png")
    image = LabeledImage(id="canvas.png", uri=uri, width=16, height=16, annotation=annotation(OWN))
    write_record(UPath(tmp_path / "train.json"), (image,))
    write_record(UPath(tmp_path / "filters.json"), {"agreement": {}})
    return tmp_path


def sources(folder):
    """What a judge opens: the records and what the filters learnt."""
    real, states = str(folder / "train.json"), str(folder / "filters.json")
    return Sources(classes=("object",), real=real, filter_states=states, detector="", generator=None)


def row(found):
    """A candidate with its own box repainted and one added, of which the detector has found one."""
    pixels, painted = SOURCE.copy(), np.full((16, 16), -1, np.int16)
    for index, (left, top, right, bottom) in enumerate((OWN, ADDED)):
        pixels[top:bottom, left:right], painted[top:bottom, left:right] = 250, index
    lineage = Lineage(round=1, image_id="source.png", box_indices=(0,), generator="g", seed=1)
    drawn = np.ones(2, np.bool_)
    candidate = Candidate(
        pixels=pixels,
        annotation=annotation(OWN, ADDED),
        drawn=drawn,
        painted=painted,
        canvas="canvas.png",
        lineage=lineage,
    )
    seen = Detections(boxes=np.array([found], np.float32), labels=np.zeros(1, np.int64), scores=np.ones(1, np.float32))
    return {**rows.lineage_row(lineage), **rows.candidate_columns(candidate), **rows.detections_columns(seen)}


def written(folder, policy, found):
    """The sample that is written, and its picture."""
    judge = Judge((AgreementConfig(),), policy, sources(folder))
    (judged,) = judge([row(found)])
    one = {**row(found), **judged}
    assert Keep(str(folder / "round"))([one]) == [{"dropped": judged["dropped"]}]
    place = folder / "round" / ("dropped" if judged["dropped"] else "kept")
    return read_record(UPath(place / f"{one['id']}.json"), Sample), read(str(place / f"{one['id']}.png"))


def test_restored_the_picture_on_disk_is_the_source_outside_kept_boxes(folder):
    sample, pixels = written(folder, "restore", found=ADDED)
    expected = SOURCE.copy()
    expected[9:15, 9:15] = 250
    assert np.array_equal(pixels, expected)
    assert sample.annotation.boxes.tolist() == [OWN, ADDED]
    assert (sample.drawn.tolist(), sample.restored.tolist()) == ([True, True], [True, False])
    _, pixels = written(folder, "restore", found=OWN)
    assert np.array_equal(pixels[9:15, 9:15], SOURCE[9:15, 9:15])


def test_the_picture_as_drawn_is_kept_where_a_box_was_restored(folder):
    sample, _ = written(folder, "restore", found=ADDED)
    assert sample.as_drawn == f"as_drawn/{sample.id}.png"
    assert np.array_equal(read(str(folder / "round" / sample.as_drawn)), row(ADDED)["pixels"])
    sample, _ = written(folder, "ignore", found=ADDED)
    assert (sample.as_drawn, sample.canvas) == (sample.uri, "canvas.png")


def test_gen2det_sec_3_2_ignored_the_picture_on_disk_is_the_candidate(folder):
    sample, pixels = written(folder, "ignore", found=ADDED)
    assert np.array_equal(pixels, row(ADDED)["pixels"])
    assert sample.annotation.boxes.tolist() == [ADDED]
    assert not sample.restored.any()


def test_drop_image_names_the_filter_and_its_reason(folder):
    sample, pixels = written(folder, "drop_image", found=ADDED)
    assert (sample.dropped, len(sample.annotation)) == ("agreement: not_detected", 0)
    assert np.array_equal(pixels, row(ADDED)["pixels"])


def config(**keys):
    return LoopConfig(name="r", root="nowhere", data={"format": "world"}, **keys)


def test_the_policy_is_part_of_what_decides_results():
    policies = ("ignore", "restore", "drop_image")
    assert len({config(rejected_boxes=policy).fingerprint() for policy in policies}) == 3
    assert config().rejected_boxes == "ignore"


def test_the_plan_says_when_background_ignore_is_not_needed():
    plans = [describe(config(rejected_boxes=policy)) for policy in ("ignore", "restore")]
    assert ["background_ignore is not needed" in plan for plan in plans] == [False, True]
    assert "background_ignore is not needed" not in describe(
        config(rejected_boxes="restore", training={"background_ignore": False})
    )


@pytest.mark.parametrize(
    ("policy", "filters", "background_ignore", "expected"),
    [
        ("ignore", ["blank", "agreement"], False, True),
        ("ignore", ["alignment"], False, True),
        ("ignore", ["agreement"], True, False),
        ("ignore", ["blank", "duplicate"], False, False),  # they judge whole images
        ("restore", ["agreement"], False, False),
        ("drop_image", ["agreement"], False, False),
    ],
)
def test_the_plan_says_when_objects_are_trained_as_background(policy, filters, background_ignore, expected):
    judges = [{"kind": kind} for kind in filters]
    keys = {"rejected_boxes": policy, "filters": judges, "training": {"background_ignore": background_ignore}}
    assert ("trained as background" in describe(config(**keys))) is expected
    assert "trained as background" not in describe(config(**keys, rounds=0))


def test_alignment_looks_through_the_rounds_detector(easy_data, small_model, tmp_path):
    """Even an untrained detector's features tell red boxes from blue ones."""
    data = import_data(DataConfig(format="coco", root=str(easy_data)), UPath(easy_data), 0)
    detector, filters = UltralyticsConfig(model=str(small_model), image_size_px=64), (AlignmentConfig(crop_px=32),)
    checkpoint = str(tmp_path / "detector.safetensors")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector.save_checkpoint(detector.architecture(len(data.classes)), data.classes, checkpoint)
    train, val = (data.splits[split] for split in ("train", "val"))
    write_record(UPath(tmp_path / "train.json"), (*train, *val))
    write_record(UPath(tmp_path / "filters.json"), fit_filters(filters, RealImages(train=train, classes=data.classes)))
    judge = Judge(filters, "ignore", sources(tmp_path), detector_access(detector, checkpoint))
    right = judge([all_drawn(image, image.annotation.labels, seed=0) for image in val])
    wrong = judge([all_drawn(image, 1 - image.annotation.labels, seed=1) for image in val])
    assert sum(not row["dropped"] for row in right) >= len(val) - 1
    assert sum(bool(row["dropped"]) for row in wrong) >= len(val) - 1


def all_drawn(image, labels, seed):
    """A real image as a candidate, all of its boxes drawn, under other labels."""
    pixels = read(image.uri)
    candidate = Candidate(
        pixels=pixels,
        annotation=replace(image.annotation, labels=labels),
        drawn=np.ones(len(labels), np.bool_),
        painted=np.full(pixels.shape[:2], -1, np.int16),
        canvas=image.id,
        lineage=Lineage(round=1, image_id=image.id, box_indices=(0,), generator="g", seed=seed),
    )
    lineage = rows.lineage_row(candidate.lineage)
    return {**lineage, **rows.candidate_columns(candidate), **rows.detections_columns(Detections.empty())}
