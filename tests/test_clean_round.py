"""A round with images without objects: they are drawn into and trained on, judged, shown, exported, and resumed."""

import json
from collections import Counter
from copy import deepcopy
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from upath import UPath

from actors.records import Sample
from actors.storage import read_record
from loop.config import LoopConfig
from loop.driver import export_run, run
from loop.progress import Reporter


@pytest.fixture(scope="module")
def clean_folder(tmp_path_factory) -> Path:
    """Four pictures of the ground of ``easy_data``: unrelated to any of its images, and without a box."""
    folder = tmp_path_factory.mktemp("clean")
    for number in range(4):
        pixels = np.random.default_rng(50 + number).normal(110, 12, (64, 64, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def start(tree, root, **sections):
    tree = deepcopy(tree) | {"rounds": 1, "root": str(root)}
    for name, keys in sections.items():
        tree[name] = {**tree[name], **keys}
    said = StringIO()
    return Path(run(LoopConfig.model_validate(tree), Reporter(Console(file=said, width=200)))), said.getvalue()


def samples(folder: Path) -> list[Sample]:
    files = [file for fate in ("kept", "dropped") for file in sorted((folder / "rounds/001" / fate).glob("*.json"))]
    return [read_record(UPath(file), Sample) for file in files]


@pytest.fixture(scope="module")
def with_clean(easy_config, clean_folder, new_root):
    """The folder of a run with clean images, and what it said. Rejected boxes get the pixels of clean images back."""
    tree = {**easy_config, "rejected_boxes": "restore"}
    return start(tree, new_root(), data={"clean": str(clean_folder)}, mixing={"clean": 0.25})


def test_candidates_are_drawn_into_clean_images_and_restored_from_them(with_clean):
    found = samples(with_clean[0])
    into = [one for one in found if one.canvas.startswith("clean/")]
    assert 0.2 * len(found) < len(into) < 0.8 * len(found)
    assert {one.lineage.image_id.split("/")[0] for one in into} == {"train"}
    assert all(one.drawn.all() for one in into)
    restored = [one for one in into if one.restored.any() and not one.dropped]
    assert restored, "no rejected box in a clean image: the test shows nothing"
    for one in restored:
        assert len(one.annotation) == len(one.proposed) - int(one.restored.sum())


def test_both_arms_see_as_many_clean_images_as_asked_for_and_the_report_says_so(with_clean):
    folder, said = with_clean
    summary = json.loads((folder / "summary.json").read_text())
    (row,) = summary["rounds"]
    trained = json.loads((folder / "rounds/001/train.json").read_text())
    (control,) = [json.loads(file.read_text()) for file in folder.parent.glob("controls/*/train.json")]
    assert abs(control["num_clean_shown"] - 0.25 * control["num_real_shown"]) <= 1
    assert abs(trained["num_clean_shown"] - 0.25 * trained["num_real_shown"]) <= 1
    into = [one for one in samples(folder) if one.canvas.startswith("clean/")]
    told = {"shown": trained["num_clean_shown"], "control_shown": control["num_clean_shown"]}
    assert row["clean"] == {"candidates": len(into), "kept": sum(not one.dropped for one in into), **told}
    assert f"shown {told['shown']} times to the loop, {told['control_shown']} times to the control" in said
    assert "images without objects" in (folder / "summary.html").read_text()
    assert (folder / "rounds/001/contact_sheet.png").exists()


def test_clean_images_are_exported_as_empty_training_images(with_clean, tmp_path):
    export_run(UPath(with_clean[0]), "coco", UPath(tmp_path / "out"))
    content = json.loads((tmp_path / "out/annotations/train.json").read_text())
    num_boxes = Counter(one["image_id"] for one in content["annotations"])
    empty = {one["file_name"] for one in content["images"] if not num_boxes[one["id"]]}
    assert {f"clean__{number}.png" for number in range(4)} <= empty


def test_the_run_is_the_same_again_and_refuses_other_clean_images(with_clean, easy_config, clean_folder):
    folder = with_clean[0]
    before = (folder / "manifest.json").read_bytes()
    sections = {"data": {"clean": str(clean_folder)}, "mixing": {"clean": 0.25}}
    tree = {**easy_config, "rejected_boxes": "restore"}
    start(tree, folder.parent, **sections)
    assert (folder / "manifest.json").read_bytes() == before
    kept_aside = (clean_folder / "3.png").read_bytes()
    (clean_folder / "3.png").unlink()
    try:
        with pytest.raises(ValueError, match=r"clean: '4 images .* -> '3 images"):
            start(tree, folder.parent, **sections)
    finally:
        (clean_folder / "3.png").write_bytes(kept_aside)


def test_without_clean_images_their_shares_change_no_byte(easy_config, new_root):
    tree = {**easy_config, "filters": [], "training": {**easy_config["training"], "steps": 4, "epoch_steps": 2}}
    plain, _ = start(tree, new_root())
    other, said = start(tree, new_root(), generator={"clean": 0.9}, mixing={"clean": 0.9})
    assert (plain / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()
    pictures = [
        {file.name: file.read_bytes() for file in (one / "rounds/001/kept").iterdir()} for one in (plain, other)
    ]
    assert pictures[0] == pictures[1]
    detectors = [(one / "rounds/001/detector.safetensors").read_bytes() for one in (plain, other)]
    assert detectors[0] == detectors[1]
    names = [{file.parent.name for file in one.parent.glob("controls/*/train.json")} for one in (plain, other)]
    assert names[0] == names[1]
    assert "images without objects" not in said
    assert not (other / "clean.json").exists()
