"""The worked example of docs/extending.md: a generator and a filter from outside run on Ray, and resume to the byte."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
DETLOOP = Path(sys.executable).with_name("detloop")


@pytest.fixture(scope="module")
def example(tmp_path_factory, easy_config, new_root):
    """The folder of a user: the page's files, and a config of one round on Ray."""
    folder = tmp_path_factory.mktemp("user")
    blocks = re.findall(r'```\w+ title="([\w.]+)"\n(.*?)```', PAGE.read_text(), re.DOTALL)
    for name, text in blocks:
        (folder / name).write_text(text)
    assert {name for name, _ in blocks} == {"my_components.py", "my_components.yaml"}
    tree = {**easy_config, "rounds": 1, "root": str(new_root()), "hosting": {"engine": "ray"}}
    (folder / "detloop.yaml").write_text(yaml.safe_dump({**tree, "generator": {"kind": "copy_paste"}, "filters": []}))
    return folder


def detloop(folder, command, *options):
    command = [DETLOOP, command, "detloop.yaml", "my_components.yaml", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(place):
    return {file.name: file.read_bytes() for file in place.glob("*/*.*") if file.parent.name in {"kept", "dropped"}}


def test_check_shows_the_classes_and_their_versions(example):
    said = detloop(example, "check")
    assert "import: my_components:FogConfig\n  version: '1'\n  options:\n    density: 0.6" in said
    assert "import: my_components:ExposureConfig" in said


def test_the_example_runs_on_ray_and_an_interrupted_round_ends_in_the_same_bytes(example):
    detloop(example, "run")
    root = Path(yaml.safe_load((example / "detloop.yaml").read_text())["root"])
    place = root / "easy/rounds/001"
    before = files(place)
    samples = [json.loads(file.read_text()) for file in place.glob("*/*.json")]
    assert {sample["lineage"]["generator"] for sample in samples} == {"fog"}
    assert {verdict["filter"] for sample in samples for verdict in sample["verdicts"]} == {"blank", "exposure"}
    assert sum(not sample["dropped"] for sample in samples) > 0
    trained = (place / "detector.safetensors").read_bytes()
    lost = min((place / "kept").glob("*.json"))
    for file in (lost, lost.with_suffix(".png"), *place.glob("*.json"), place / "detector.safetensors"):
        if file.name != "mine.json":
            file.unlink()
    shutil.rmtree(place / "train", ignore_errors=True)
    detloop(example, "run", "--set", "hosting.engine=inline")  # where it runs changes no byte, and this is faster
    assert files(place) == before
    assert (place / "detector.safetensors").read_bytes() == trained


def test_each_example_is_about_twenty_lines_long():
    (code,) = re.findall(r'title="my_components\.py"\n(.*?)```', PAGE.read_text(), re.DOTALL)
    generator, judge = code.split("class ExposureConfig")
    statements = [len([line for line in part.splitlines() if line.strip()]) for part in (generator, judge)]
    assert statements[0] <= 50
    assert statements[1] <= 25
