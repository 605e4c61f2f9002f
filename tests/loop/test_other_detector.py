"""Attributes by another detector than the one that is helped (DetDiffusion, arXiv 2403.13304)."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from actors.attributes import attributes
from loop import stages
from loop.arms import Trainings
from loop.check import describe
from loop.config import LoopConfig
from loop.driver import import_real, run
from loop.progress import Reporter

OTHER_PX = 96
TRAINING = {"steps": 24, "epoch_steps": 12, "batch_size": 8}


def config(easy_config, root, other_px=OTHER_PX, **sections):
    """A round without generated images whose attributes come from a detector that differs in its image size."""
    other = {**easy_config["detector"], "image_size_px": other_px}
    mining = {**easy_config["mining"], "detector": other}
    training = {**easy_config["training"], **TRAINING}
    tree = {**easy_config, "root": str(root), "rounds": 1, "mining": mining, "training": training, "filters": []}
    return LoopConfig.model_validate({**tree, **sections})


def said_by(trainings):
    """What a detector trained as the control is makes of every box."""
    given, images = trainings.config, trainings.data.splits["train"]
    checkpoint = trainings.control(0).checkpoint
    seen, _ = stages.detect(images, given.detector, checkpoint, given.hosting, lambda _: None)
    return {
        (found.image_id, found.index): (found.difficulty, found.best_score)
        for image in images
        for found in attributes(image, seen[image.id], **given.mining.attribute())
    }


@pytest.mark.slow
def test_the_other_detector_says_what_is_easy_and_the_own_one_is_helped(easy_config, new_root):
    given = config(easy_config, new_root())
    silent = Reporter(Console(file=StringIO()))
    folder = Path(run(given, silent))
    trainings = Trainings(config=given, data=import_real(given), reporter=silent)
    found = json.loads((folder / "rounds/001/mine.json").read_text())["found"]
    assert {(one["image_id"], one["index"]): (one["difficulty"], one["best_score"]) for one in found} == said_by(
        trainings.for_mining()
    )
    assert said_by(trainings.for_mining()) != said_by(trainings)
    assert trainings.for_mining().config.detector.image_size_px == OTHER_PX
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["mining_detector_seconds"].keys() == {"train", "evaluate"}


def test_without_another_detector_nothing_changes(easy_config, tmp_path):
    given = LoopConfig.model_validate({**easy_config, "root": str(tmp_path)})
    trainings = Trainings(config=given, data=None, reporter=None)
    assert trainings.for_mining() is trainings
    assert given.science()["mining"]["detector"] is None
    assert config(easy_config, tmp_path).science()["mining"]["detector"]["image_size_px"] == OTHER_PX


def test_check_counts_the_other_training(easy_config, tmp_path):
    plan = describe(config(easy_config, tmp_path))
    assert f"small.yaml at {OTHER_PX} px, trained as the control is, decides what is easy" in plan
    assert "trainings    3 of 24 steps" in plan
    assert "trainings    1 of 24 steps" in describe(config(easy_config, tmp_path, rounds=0))


def test_trainings_that_start_from_weights_need_those_of_both(easy_config, tmp_path):
    detector = {**easy_config["detector"], "weights": "here.safetensors"}
    training = {**easy_config["training"], "start": "weights"}
    with pytest.raises(ValueError, match=r"and those of mining\.detector"):
        config(easy_config, tmp_path, detector=detector, training=training)
