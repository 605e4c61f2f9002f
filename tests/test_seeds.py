"""A run with several training seeds: what is trained, what it measures, and that it contains the run with one."""

import json
from pathlib import Path

import pytest

from loop.config import LoopConfig
from loop.driver import run
from loop.progress import Reporter

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(easy_config, new_root):
    """The folders of runs with one and with two seeds below one root. Rounds continue from each other."""
    tree = {**easy_config, "root": str(new_root()), "filters": [], "generation": {"copies": 2}}
    tree["training"] = {**tree["training"], "steps": 12, "epoch_steps": 6, "start": "previous"}

    def go(num_seeds):
        sections = {"name": f"of_{num_seeds}", "evaluation": {**tree["evaluation"], "seeds": num_seeds}}
        return Path(run(LoopConfig.model_validate({**tree, **sections}), Reporter()))

    return go(1), go(2), go


def read(file):
    return json.loads(file.read_text())


def test_the_first_seed_is_the_run_with_one(folders):
    one, two, _ = folders
    for number in (1, 2):
        place = Path("rounds") / f"{number:03d}"
        first, second = two / place, two / place / "seed_2"
        assert (one / place / "detector.safetensors").read_bytes() == (first / "detector.safetensors").read_bytes()
        assert (second / "detector.safetensors").read_bytes() != (first / "detector.safetensors").read_bytes()
    controls = list((one.parent / "controls").iterdir())
    assert len(controls) == 2 * 3  # rounds 0, 1 and 2


def test_metrics_are_means_over_the_seeds(folders):
    one, two, _ = folders
    for of_one, of_two in zip(read(one / "summary.json")["rounds"], read(two / "summary.json")["rounds"], strict=True):
        assert (of_one["seeds"], of_two["seeds"]) == (1, 2)
        assert of_two["ap_by_seed"][0] == of_one["ap"] == of_one["ap_by_seed"][0]
        assert of_two["control_ap_by_seed"][0] == of_one["control_ap"]
        assert of_two["ap"] == pytest.approx(sum(of_two["ap_by_seed"]) / 2)
        assert of_two["gain"] == pytest.approx(of_two["ap"] - of_two["control_ap"])
        assert of_two["gain_ci95"][0] < of_two["gain"] < of_two["gain_ci95"][1]
        assert of_two["seconds"]["train"] > 1.3 * of_one["seconds"]["train"]
    metrics = read(two / "summary.json")["metrics"]
    assert metrics["loop"]["AP"] == read(two / "summary.json")["rounds"][-1]["ap"]
    assert "2 training seeds" in read(two / "summary.json")["conclusion"]


def test_a_lost_training_alone_is_repeated(folders):
    _, two, go = folders
    lost = two / "rounds/002/seed_2"
    known = {file: file.stat().st_mtime_ns for file in two.rglob("detector.safetensors")}
    weights = (lost / "detector.safetensors").read_bytes()
    for name in ("train.json", "evaluate.json", "detector.safetensors"):
        (lost / name).unlink()
    (two / "rounds/002/round.json").unlink()
    go(2)
    assert (lost / "detector.safetensors").read_bytes() == weights
    changed = {file for file, written in known.items() if file.stat().st_mtime_ns != written}
    assert changed == {lost / "detector.safetensors"}


def test_it_is_said_on_which_platform_both_arms_were_trained(folders):
    (platform,) = read(folders[0] / "summary.json")["trained_on"]
    assert platform["device"] == "cpu"
    assert platform["libraries"].keys() == {"torch", "ultralytics"}
    assert read(folders[0] / "rounds/001/train.json")["platform"] == platform
