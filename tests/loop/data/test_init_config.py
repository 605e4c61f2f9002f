"""`detloop init`: what is found in a folder, and the config that is written for it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from upath import UPath

from actors.checkpoint import Header, write_checkpoint
from actors.detectors.ultralytics import starter
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.detectors.ultralytics.releases import releases_folder
from loop.config_files import load
from loop.data.init_config import dose, image_size, render, run_name, starter_config
from loop.data.init_training import FROM_SCRATCH, FROM_WEIGHTS
from loop.data.survey import describe

CONFIGS = Path(__file__).parents[3] / "configs"
EXAMPLES = {"quickstart": [], "bccd": ["data.root=somewhere"]}


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
    numbers = (5, 32, 40, 192, 10_000)
    assert [FROM_SCRATCH.steps(num) for num in numbers] == [600, 600, 750, 3600, 6000]
    assert [FROM_WEIGHTS.steps(num) for num in numbers] == [400, 400, 400, 500, 3000]


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (64, 4)])
def test_a_training_uses_the_cores_of_the_machine(tmp_path, monkeypatch, cores, threads):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    text = starter_config(folder_of_data(tmp_path / "d", 20, [30]))
    assert yaml.safe_load(text)["hosting"]["train"]["num_cpus"] == threads


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


@pytest.mark.parametrize(("name", "num_images", "part"), [("quickstart", 20, 2), ("bccd", 20, 1)])
def test_the_loop_is_set_up_as_in_the_worked_examples(tmp_path, name, num_images, part):
    """All that is no matter of the data: the generator's hints, sizes, budget and steps are. The quickstart is quick:
    it draws half of the copies."""
    (tmp_path / "mine.yaml").write_text(starter_config(folder_of_data(tmp_path / "d", 4, [40])))
    mine, example = load([tmp_path / "mine.yaml"]), load([CONFIGS / f"{name}.yaml"], EXAMPLES[name])
    assert (mine.filters, mine.rejected_boxes) == (example.filters, example.rejected_boxes)
    assert (mine.mining.policy, mine.mixing.mode) == (example.mining.policy, example.mixing.mode)
    assert mine.training.background_ignore == example.training.background_ignore
    assert mine.training.overrides == example.training.overrides
    assert dose(num_images) == (part * example.generation.copies, example.mixing.p)


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


@pytest.mark.parametrize("key", ["subset", "further"])
def test_every_hint_can_be_taken(tmp_path, key):
    text = starter_config(folder_of_data(tmp_path / "d", 125, [40]))
    taken = text.replace(f"  # {key}:", f"  {key}:")
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "taken.yaml").write_text(taken)
    assert load([tmp_path / "taken.yaml"]).fingerprint() != load([tmp_path / "mine.yaml"]).fingerprint()


def test_objects_stand_upright_where_nothing_else_can_be_measured(tmp_path):
    text = starter_config(folder_of_data(tmp_path / "d", 4, [40]))
    (tmp_path / "mine.yaml").write_text(text)
    generator = load([tmp_path / "mine.yaml"]).generator
    assert (generator.kind, generator.rotate, generator.flip) == ("copy_paste", False, True)
    assert "# undecided, so off (not measured: 0 crops with contrast are too few)" in text


def test_the_poses_of_the_objects_are_written_with_their_measure(tmp_path):
    root = folder_of_data(tmp_path / "d", 40, [120])
    for index, file in enumerate(sorted((tmp_path / "d/images").iterdir())):
        pixels = np.random.default_rng(index).integers(60, 90, (400, 400, 3)).astype(np.uint8)
        pixels[20:40, 15:115], pixels[40:120, 55:75] = 230, 230  # a T
        Image.fromarray(pixels).save(file)
    text = starter_config(root)
    assert re.search(r"rotate: false +# turned objects look different \(\d+% of pairs told, \+/- \d+, 32 crops\)", text)


def of_weights(place, weights):
    """The config for a folder of data and these weights."""
    root = folder_of_data(place / "d", 4, [100])
    file = place / "mine.yaml"
    file.write_text(starter_config(root, "mine.yaml", UltralyticsConfig.starter(weights)))
    return load([file])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of named releases, empty, on a machine without a network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(starter, "_is_reachable", lambda _: False)
    releases_folder().mkdir(parents=True)
    return releases_folder()


def test_a_release_that_is_at_hand_is_fine_tuned(tmp_path, cache):
    (cache / "yolo11n.pt").touch()
    config = of_weights(tmp_path, None)
    assert (config.detector.weights, config.training.start) == ("yolo11n.pt", "weights")
    assert (config.training.steps, config.training.overrides) == (400, {})
    assert config.detector.image_size_px == 256


@pytest.mark.usefixtures("cache")
def test_a_release_that_can_be_downloaded_is_fine_tuned(tmp_path, monkeypatch):
    monkeypatch.setattr(starter, "_is_reachable", lambda url: url.endswith("/yolo11n.pt"))
    assert of_weights(tmp_path, None).detector.weights == "yolo11n.pt"


def test_without_a_release_the_detector_starts_from_random_weights_and_that_is_said(tmp_path, cache):
    note = UltralyticsConfig.starter().note
    assert f"yolo11n.pt is not in {cache} and cannot be downloaded now" in note
    config = of_weights(tmp_path, None)
    assert (config.detector.weights, config.training.start) == (None, "scratch")
    assert (config.training.steps, config.training.overrides["lr0"]) == (600, 0.002)
    assert of_weights(tmp_path / "none", "none").fingerprint("training") == config.fingerprint("training")


@pytest.mark.parametrize(
    ("name", "model"),
    [("yolov5su.pt", "yolov5s.yaml"), ("yolo26m.pt", "yolo26m.yaml"), ("rtdetr-l.pt", "rtdetr-l.yaml")],
)
def test_the_model_is_that_of_the_weights(tmp_path, name, model):
    config = of_weights(tmp_path, name)
    assert (config.detector.weights, config.detector.model) == (name, model)


def test_files_of_weights_are_named_by_their_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    header = Header(family="ultralytics", model="yolo11s.yaml", classes=("a",), image_size_px=64)
    write_checkpoint("own.safetensors", header, {"w": torch.ones(1)})
    save_file({"w": torch.ones(1)}, "yolov8m-plain.safetensors")
    (tmp_path / "best.pt").touch()
    models = {"own.safetensors": "yolo11s", "yolov8m-plain.safetensors": "yolov8m", "best.pt": "yolo11n"}
    for name, model in models.items():
        detector = of_weights(tmp_path / f"of {name}", name).detector
        assert (detector.weights, detector.model) == (str(tmp_path / name), f"{model}.yaml")
        assert detector.trust_pickle == (name == "best.pt")


@pytest.mark.parametrize("name", ["nowhere.safetensors", "runs/nowhere.pt", "yolo11n-seg.pt"])
def test_weights_that_are_not_there_are_refused(name):
    with pytest.raises((FileNotFoundError, ValueError), match=name):
        UltralyticsConfig.starter(name)


def test_names_that_yaml_would_misread_stay_names(tmp_path):
    root = folder_of_data(tmp_path / "2024", 4, [20])
    assert yaml.safe_load(starter_config(root))["name"] == "2024"
    assert run_name("/data/_") == "run"


@pytest.mark.parametrize("folder", ["labels", "Pictures"])
def test_a_folder_named_as_one_that_runs_share_gives_another_name(tmp_path, folder):
    config = tmp_path / "detloop.yaml"
    config.write_text(starter_config(folder_of_data(tmp_path / folder, 4, [20])))
    assert load([config]).name == f"{folder}-run"


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


@pytest.mark.parametrize(
    ("side_px", "size_px", "said"),
    [(4, 400, "4 px at this size, the images' own."), (3, 2000, "1 px at this size, the largest that init sets.")],
)
def test_the_size_of_small_boxes_that_is_written_is_the_one_they_get(tmp_path, side_px, size_px, said):
    text = starter_config(folder_of_data(tmp_path / "d", 2, [side_px], size_px))
    assert f"a tenth are below {side_px} px: {said}" in text
    assert "16 px at this size." in starter_config(folder_of_data(tmp_path / "e", 2, [20]))


def test_the_keys_of_the_data_that_were_given_are_written(tmp_path):
    root = folder_of_data(tmp_path / "d", 4, [40])
    keys = {"train": "all", "classes": ["kind: 0 #1"], "follow_links": True}
    (tmp_path / "mine.yaml").write_text(render(describe(root, keys=keys)))
    data = load([tmp_path / "mine.yaml"]).data
    assert (data.train, data.classes, data.follow_links) == ("all", ("kind: 0 #1",), True)


def test_the_root_is_written_without_detours(tmp_path):
    root = folder_of_data(tmp_path / "d", 4, [40])
    (tmp_path / "mine.yaml").write_text(starter_config(root / ".." / "d"))
    assert load([tmp_path / "mine.yaml"]).data.root == str(tmp_path / "d")


def pictures(folder, num=2):
    """A folder of pictures without labels."""
    folder.mkdir(parents=True)
    for number in range(num):
        noise = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


def of_clean(place, root, clean=None):
    """The folder of pictures without objects in the config for ``root``, as it is read back."""
    (place / "mine.yaml").write_text(render(describe(root, clean=clean)))
    return load([place / "mine.yaml"]).data.clean


def test_the_folder_clean_of_a_data_set_is_taken_for_its_pictures_without_objects(tmp_path):
    root = folder_of_data(tmp_path / "d", 4, [40])
    assert of_clean(tmp_path, root) is None
    pictures(tmp_path / "d" / "clean")
    assert of_clean(tmp_path, root) == "clean"
    assert of_clean(tmp_path, root, "none") is None
    elsewhere = str(pictures(tmp_path / "elsewhere"))
    assert of_clean(tmp_path, root, elsewhere) == elsewhere


def test_a_folder_clean_that_cannot_be_used_is_told_and_left_out(tmp_path):
    root = folder_of_data(tmp_path / "d", 4, [40])
    (tmp_path / "d" / "clean").mkdir()
    assert "The folder clean is not used as data.clean. " in str(describe(root))
    assert of_clean(tmp_path, root) is None
    with pytest.raises(FileNotFoundError, match="holds no picture"):
        describe(root, clean="clean")


def marked(folder, num_images, side_px, ground, mark):
    """The folder with one box of this side an image: ``mark`` is drawn into it, on ``ground``."""
    root = folder_of_data(folder, num_images, [side_px])
    for index, file in enumerate(sorted((folder / "images").iterdir())):
        pixels = ground(np.random.default_rng(index))
        mark(pixels[5 : 14 + side_px, 5 : 5 + side_px])
        Image.fromarray(pixels).save(file)
    return root


def noise(rng):
    return rng.integers(0, 255, (400, 400, 3), dtype=np.uint8)


def plain(_):
    return np.full((400, 400, 3), 90, np.uint8)


def disc(crop):
    y, x = np.indices(crop.shape[:2])
    crop[np.hypot(2 * x / crop.shape[1] - 1, 2 * y / crop.shape[0] - 1) < 0.95] = (220, 60, 60)


@pytest.mark.parametrize(
    ("side_px", "ground", "mark", "cutout"),
    [(30, plain, disc, "object"), (30, noise, lambda _: None, "box"), (200, noise, lambda _: None, "object")],
    ids=["objects", "marks", "large"],
)
def test_small_objects_without_outlines_are_cut_out_as_boxes(tmp_path, side_px, ground, mark, cutout):
    text = starter_config(marked(tmp_path / "d", 25, side_px, ground, mark))
    assert yaml.safe_load(text)["generator"]["cutout"] == cutout


def test_too_few_objects_are_not_measured(tmp_path):
    text = starter_config(marked(tmp_path / "d", 4, 30, noise, lambda _: None))
    assert "  cutout: object              # along the outline; 3 objects are too few to measure" in text


def test_objects_are_pasted_into_pictures_without_objects_where_there_are_any(tmp_path):
    root = folder_of_data(tmp_path / "d", 4, [40])
    assert "clean" not in yaml.safe_load(render(describe(root)))["generator"]
    pictures(tmp_path / "d" / "images" / "clean")
    assert yaml.safe_load(render(describe(root)))["generator"]["clean"] == 1.0


@pytest.mark.parametrize(("num_images", "folds"), [(12, None), (15, 3)])  # 9 and 12 train
def test_a_guard_needs_some_images(tmp_path, num_images, folds):
    config = yaml.safe_load(starter_config(folder_of_data(tmp_path / "d", num_images, [40])))
    assert config.get("guard", {}).get("folds") == config["mining"].get("cross_fit") == folds


def test_a_labelled_folder_clean_does_not_replace_the_data_set(tmp_path):
    root = folder_of_data(tmp_path / "d", 4, [40])
    pictures(tmp_path / "d" / "clean")
    labelled = {"images": [{"id": 0, "file_name": "0.png"}], "annotations": [], "categories": [{"id": 0, "name": "a"}]}
    (tmp_path / "d" / "clean" / "_annotations.coco.json").write_text(json.dumps(labelled))
    found = describe(root)
    assert sum(len(images) for images in found.dataset.splits.values()) == 4
    assert "is a labelled data set" in found.unused_clean
    assert of_clean(tmp_path, root) is None


def test_a_folder_clean_with_labelled_pictures_is_not_taken_by_itself(tmp_path):
    root = marked(tmp_path / "d", 4, 40, noise, disc)
    (pictures(tmp_path / "d" / "clean") / "again.png").write_bytes((root / "images/0.png").read_bytes())
    assert "1 of its pictures has labelled objects, such as clean/again.png" in describe(root).unused_clean
    assert of_clean(tmp_path, root) is None
    assert of_clean(tmp_path, root, "clean") == "clean"
