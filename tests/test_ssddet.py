"""A shrunken copy of configs/ssddet.yaml, with a tiny backbone, runs a whole round."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from loop.config_files import load
from loop.driver import run
from loop.progress import Reporter

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[1] / "configs/ssddet.yaml"
SHRUNKEN = (
    *("detector.backbone=timm:test_resnet", "detector.backbone_weights=null", "training.start=scratch"),
    *("detector.image_size_px=64", "detector.fpn_channels=64", "detector.roi_samples=16", "detector.anchor_px=8"),
    *("generator={kind: copy_paste}", "filters=[{kind: blank}]", "refiner.min_agreement=0.0"),
    *("refiner.width=16", "refiner.hidden=32", "refiner.roi_size=3", "refiner.fit.negatives=8"),
    *("refiner.fit.steps=4", "refiner.fit.batch_size=4", "evaluation.bootstrap_draws=100", "hosting.engine=inline"),
    *("training.steps=4", "training.epoch_steps=2", "training.batch_size=4"),
)


def test_a_shrunken_copy_runs_a_whole_round(easy_data, new_root):
    config = load([CONFIG], [*SHRUNKEN, f"data.root={easy_data}", f"root={new_root()}"])
    folder = Path(run(config, Reporter(Console(file=StringIO(), width=200))))
    samples = [json.loads(file.read_text()) for file in folder.glob("rounds/001/kept/*.json")]
    refined = [box for sample in samples for box in sample["refined"]]
    assert refined
    assert {box["fate"] for box in refined} <= {"moved", "kept", "ignored"}
    assert sum(sum(sample["drawn"]) for sample in samples) == len(refined)
    assert (folder / "rounds/001/detector.safetensors").exists()
