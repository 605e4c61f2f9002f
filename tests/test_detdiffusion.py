"""A shrunken copy of configs/detdiffusion.yaml, with a tiny random Stable Diffusion, runs a whole round."""

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from tiny_pipelines import tiny_networks, tiny_text

from loop.config_files import load
from loop.driver import run
from loop.progress import Reporter

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[1] / "configs/detdiffusion.yaml"
SHRUNKEN = (
    *("detector.image_size_px=64", "generator.network.size_px=32", "generator.prompt.grid=[8, 8]"),
    *("generator.fit.steps=2", "generator.fit.batch_size=4", "generator.sampling_steps=2"),
    *("training.steps=4", "training.epoch_steps=2", "training.batch_size=4", "evaluation.bootstrap_draws=100"),
    *("training.overrides={optimizer: Adam, warmup_epochs: 0, mosaic: 0.0, close_mosaic: 0}", "hosting.engine=inline"),
)


@pytest.fixture
def stable_diffusion(tmp_path):
    from diffusers import StableDiffusionPipeline

    torch.manual_seed(0)
    bare = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    networks = tiny_text(tmp_path / "text") | tiny_networks(in_channels=4)
    StableDiffusionPipeline(**networks, **bare).save_pretrained(tmp_path / "stable_diffusion")
    return tmp_path / "stable_diffusion"


def test_a_shrunken_copy_runs_a_whole_round(stable_diffusion, easy_data, small_model, new_root):
    places = (f"data.root={easy_data}", f"detector.model={small_model}", f"root={new_root()}")
    config = load([CONFIG], [*SHRUNKEN, *places, f"generator.network.model={stable_diffusion}"])
    folder = Path(run(config, Reporter(Console(file=StringIO(), width=200))))
    kept = [json.loads(file.read_text()) for file in sorted(folder.glob("rounds/001/kept/*.json"))]
    assert len(kept) == 8  # one for each real image
    for sample in kept:
        with Image.open(folder / "rounds/001" / sample["uri"]) as picture:
            assert picture.size == (64, 64)
        assert sample["drawn"] == [True, True]
        assert sample["annotation"]["ignore"] == [False, False]
    assert (folder / "rounds/001/detector.safetensors").exists()
    assert {sample["lineage"]["strategy"] for sample in kept} == {"hard"}
    assert "yolo_score/hard" in (folder / "rounds/001/metrics.json").read_text()
