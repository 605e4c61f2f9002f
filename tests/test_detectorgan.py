"""A shrunken copy of configs/detectorgan.yaml, with a tiny backbone, runs a whole round."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from loop.config_files import load
from loop.driver import run
from loop.progress import Reporter

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[1] / "configs/detectorgan.yaml"
SHRUNKEN = (
    *("detector.backbone=timm:test_resnet", "detector.backbone_weights=null", "training.start=scratch"),
    *("detector.image_size_px=64", "detector.fpn_channels=64", "detector.anchor_px=8"),
    *("generator.size_px=32", "generator.channels=[8, 16]", "generator.judge_channels=[8, 16]"),
    *("generator.fit.steps=4", "generator.fit.batch_size=4", "generator.fit.warmup_steps=2"),
    *("generator.fit.detector_batch_size=2", "generator.fit.view_px=64", "evaluation.bootstrap_draws=100"),
    *("training.steps=4", "training.epoch_steps=2", "training.batch_size=4", "hosting.engine=inline"),
)


def test_a_shrunken_copy_runs_a_whole_round(easy_data, new_root, tmp_path):
    for number in range(3):
        grey = np.random.default_rng(number).normal(110, 12, (64, 64, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / f"{number}.png")
    places = (f"data.root={easy_data}", f"data.clean={tmp_path}", f"root={new_root()}")
    config = load([CONFIG], [*SHRUNKEN, *places])
    folder = Path(run(config, Reporter(Console(file=StringIO(), width=200))))
    samples = [json.loads(file.read_text()) for file in folder.glob("rounds/001/kept/*.json")]
    assert samples
    for sample in samples:
        assert sample["canvas"] in {"clean/0.png", "clean/1.png", "clean/2.png"}
        assert all(sample["drawn"])
    assert (folder / "rounds/001/detector.safetensors").exists()
    assert list(folder.parent.glob("fits/*/sheets/*.png"))
