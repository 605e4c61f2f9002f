"""`detloop init`: what is found in a folder, and the config that is written for it."""

import json

import pytest
import yaml
from PIL import Image
from upath import UPath

from loop.config_files import load
from loop.data.sniff import describe
from loop.data.starter import image_size, run_name, starter_config, training_steps


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
    assert [training_steps(num) for num in (5, 192, 320, 10_000)] == [600, 600, 1000, 3000]


def test_the_config_loads_and_names_what_was_found(tmp_path):
    root = folder_of_data(tmp_path / "my data: #2", 20, [20, 40])
    text = starter_config(root, "mine.yaml")
    (tmp_path / "mine.yaml").write_text(text)
    config = load([tmp_path / "mine.yaml"])
    assert config.name == "my-data-2"
    assert (config.data.format, config.data.root, config.data.val_frac) == ("coco", str(root), 0.2)
    assert config.detector.image_size_px == 320
    assert config.mining.budget == 20
    assert [one.kind for one in config.filters] == ["blank", "duplicate", "naturalness", "agreement"]
    assert "# Images found: train 16, val 4." in text
    assert "detloop run mine.yaml" in text


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
