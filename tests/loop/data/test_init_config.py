"""`detloop init`: what is found in a folder, and the config that is written for it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from PIL import Image
from upath import UPath

from loop.config_files import load
from loop.data.init_config import dose, image_size, run_name, starter_config, training_steps
from loop.data.survey import describe

CONFIGS = Path(__file__).parents[3] / "configs"
EXAMPLES = {"quickstart": [], "bccd": ["data.root=somewhere"], "deeppcb": ["data.root=somewhere"]}


def folder_of_data(root, num_images: int, sides_px: list[float], size_px: int = 400):
    """COCO data with one box of each side in every image, each its own class."""
    (root / "images").mkdir(parents=True)
    for index in range(num_images):
        Image.new("RGB", (size_px, size_px)).save(root / f"images/{index}.png")
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(num_images)]
    boxes = [
        {"image_id": i, "category_id": k, "bbox": [5, 5, side, side + 9]}
        for i in range(num_images)
        for k, side in enumerate(sides_px)
    ]
    categories = [{"id": k, "name": f"kind: {k} #1"} for k in range(len(sides_px))]
    (root / "all.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return UPath(root)


def test_boxes_are_measured(tmp_path):
    found = describe(folder_of_data(tmp_path / "d", 10, [20, 40, 100]))
    assert (found.format, found.image_size_px) == ("coco", 400)
    assert (found.min_side_px, found.small_side_px, found.median_side_px) == (20, 20, 40)
    assert image_size(found) == 320  # 400 px * 16 / 20
    assert "20 px at least, 40 px in the median" in str(found)


@pytest.mark.parametrize(("side_px", "expected_px"), [(4, 416), (300, 160), (16, 416), (32, 224)])
def test_image_size_keeps_small_boxes_large_enough_within_limits(tmp_path, side_px, expected_px):
    assert image_size(describe(folder_of_data(tmp_path / "d", 2, [side_px]))) == expected_px


def test_steps_grow_with_the_images():
    assert [training_steps(num) for num in (5, 32, 40, 192, 10_000)] == [600, 600, 750, 3600, 6000]


def test_the_config_loads_and_names_what_was_found(tmp_path):
    root = folder_of_data(tmp_path / "my data: #2", 20, [20, 40])
    text = starter_config(root, "mine.yaml")
    (tmp_path / "mine.yaml").write_text(text)
    config = load([tmp_path / "mine.yaml"])
    assert config.name == "my-data-2"
    assert (config.data.format, config.data.root, config.data.val_frac) == ("coco", str(root), 0.2)
    assert config.detector.image_size_px == 320
    assert (config.mining.policy, config.mining.budget) == ("ranked", 400)
    assert (config.generation.copies, config.mixing.p) == (20, 0.5)
    assert "# Images found: train 16, val 4." in text
    assert "detloop run mine.yaml" in text


@pytest.mark.parametrize(("name", "num_images"), [("quickstart", 20), ("bccd", 20), ("deeppcb", 100)])
def test_the_loop_is_set_up_as_in_the_worked_examples(tmp_path, name, num_images):
    """All that is no matter of the data: the generator's hints, sizes, budget and steps are."""
    (tmp_path / "mine.yaml").write_text(starter_config(folder_of_data(tmp_path / "d", 4, [40])))
    mine, example = load([tmp_path / "mine.yaml"]), load([CONFIGS / f"{name}.yaml"], EXAMPLES[name])
    assert (mine.filters, mine.rejected_boxes) == (example.filters, example.rejected_boxes)
    assert (mine.mining.policy, mine.mixing.mode) == (example.mining.policy, example.mixing.mode)
    assert (mine.generator.kind, mine.generator.insert) == (example.generator.kind, example.generator.insert)
    assert mine.generator.painter.kind == example.generator.painter.kind
    assert mine.training.background_ignore == example.training.background_ignore
    assert mine.training.overrides == example.training.overrides
    assert dose(num_images) == (example.generation.copies, example.mixing.p)


def test_many_images_take_fewer_copies_and_less_of_them():
    assert [dose(num) for num in (1, 50, 51, 300, 301, 100_000)] == [(20, 0.5)] * 2 + [(2, 0.3)] * 2 + [(1, 0.2)] * 2


@pytest.mark.parametrize(("num_boxes", "budget"), [(1, 400), (25, 500), (120, 2000)])
def test_the_budget_is_a_fifth_of_the_boxes_within_limits(tmp_path, num_boxes, budget):
    text = starter_config(folder_of_data(tmp_path / "d", 125, [30] * num_boxes))  # 100 train
    assert yaml.safe_load(text)["mining"]["budget"] == budget


@pytest.mark.parametrize(("num_images", "subset"), [(98, None), (100, "20"), (125, "25")])  # 78, 80 and 100 train
def test_a_subset_is_offered_where_there_are_images_for_it(tmp_path, num_images, subset):
    hint = re.search(r"# subset: (\d+)", starter_config(folder_of_data(tmp_path / "d", num_images, [40])))
    assert (hint and hint[1]) == subset


@pytest.mark.parametrize("key", ["subset", "turn_deg", "rotate", "flip", "cutout"])
def test_every_hint_can_be_taken(tmp_path, key):
    text = starter_config(folder_of_data(tmp_path / "d", 125, [40]))
    taken = text.replace(f"  # {key}:", f"  {key}:")
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "taken.yaml").write_text(taken)
    assert load([tmp_path / "taken.yaml"]).fingerprint() != load([tmp_path / "mine.yaml"]).fingerprint()


def test_names_that_yaml_would_misread_stay_names(tmp_path):
    root = folder_of_data(tmp_path / "2024", 4, [20])
    assert yaml.safe_load(starter_config(root))["name"] == "2024"
    assert run_name("/data/_") == "run"


def test_real_folders(real_data, tmp_path):
    for name in ("bccd", "deeppcb"):
        file = tmp_path / f"{name}.yaml"
        file.write_text(starter_config(UPath(real_data / name)))
        config = load([file])
        assert config.name == name
        assert 320 <= config.detector.image_size_px <= 640


def test_folders_without_data_say_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no detection data found here\. Looked for coco: "):
        starter_config(UPath(tmp_path))
