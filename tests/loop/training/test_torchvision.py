"""Training of torchvision's detectors: settings, augmentation, schedule, and a whole round without ultralytics."""

import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from actors.letterbox import GREY
from actors.records import Annotation, LabeledImage
from loop.config import LoopConfig, MixingConfig
from loop.driver import run
from loop.mixing import Draw, Mixture
from loop.progress import Reporter
from loop.training.batches import MixedImages, MixtureSampler
from loop.training.image_cache import Pictures
from loop.training.torchvision.images import Images, collate
from loop.training.torchvision.optimizer import build_average, build_optimizer, build_schedule
from loop.training.torchvision.settings import Settings, read_settings
from loop.training.torchvision.train import check_settings

SIZE_PX = 64
TINY = {"backbone": "timm:test_resnet", "fpn_channels": 64, "roi_samples": 16, "image_size_px": SIZE_PX}
STILL = Settings(flip=0.0, scale=0.0, color=0.0)
WILD = Settings(flip=0.5, flip_vertical=0.5, scale=0.5, color=0.0)
COLOURS = [(250, 0, 0), (0, 0, 250)]


@pytest.fixture
def picture(tmp_path) -> LabeledImage:
    """128 x 96 px: a red box, and a blue one that is flagged ignore."""
    pixels = np.full((96, 128, 3), 40, np.uint8)
    boxes = np.array([[16, 16, 56, 48], [72, 40, 112, 80]], np.float32)
    for (left, top, right, bottom), colour in zip(boxes.astype(int), COLOURS, strict=True):
        pixels[top:bottom, left:right] = colour
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    annotation = Annotation(boxes=boxes, labels=np.array([1, 0]), ignore=np.array([False, True]))
    return LabeledImage(id="picture", uri=str(tmp_path / "picture.png"), width=128, height=96, annotation=annotation)


def mixed(picture: LabeledImage, settings: Settings, num_draws: int = 8) -> MixedImages:
    return MixedImages({"real": Images(Pictures([picture], SIZE_PX, 1 << 20), settings)}, num_draws)


# Settings


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lr0": 0.1}, r"training.overrides.lr0: .* no such setting; near it: lr"),
        ({"fliplr": 0.1}, r"near it: flip"),
        ({"flip": 2.0}, r"training.overrides.flip: .* less than or equal to 1; seen: 2.0"),
        ({"optimizer": "adam"}, r"training.overrides.optimizer: .*'adamw' or 'sgd'; seen: 'adam'"),
    ],
)
def test_settings_that_cannot_be_given_are_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        check_settings(overrides)


def test_the_learning_rate_of_sgd_follows_the_batch():
    rates = [read_settings({"optimizer": "sgd"}).learning_rate(batch_size) for batch_size in (16, 4)]
    assert rates == pytest.approx([0.02, 0.005])
    assert read_settings({"optimizer": "sgd", "lr": 0.3}).learning_rate(4) == 0.3


def test_the_forward_pass_is_in_float32_on_the_cpu_unless_another_format_is_named():
    assert [read_settings({}).format_on(device) for device in ("cpu", "cuda")] == [False, True]
    assert [read_settings({"amp": "bf16"}).format_on(device) for device in ("cpu", "cuda")] == ["bf16", "bf16"]


# Images


def test_without_augmentation_a_picture_lies_where_detection_puts_it(picture):
    sample = mixed(picture, STILL)[Draw("real", 0, 7)]
    image, annotation = sample["image"], sample["annotation"]
    assert image.shape == (3, SIZE_PX, SIZE_PX)
    assert annotation.boxes.tolist() == [[8, 16, 28, 32], [36, 28, 56, 48]]  # halved, 8 px below the grey
    assert (annotation.labels.tolist(), annotation.ignore.tolist()) == ([1, 0], [False, True])
    assert image[:, 24, 18].tolist() == [250, 0, 0]
    assert (image[:, :8] == GREY).all()
    assert (image[:, 56:] == GREY).all()


def test_boxes_and_their_flags_go_along_with_the_pixels(picture):
    images, seen = mixed(picture, WILD), []
    for seed in range(40):
        sample = images[Draw("real", 0, seed)]
        annotation = sample["annotation"]
        for box, label, ignore in zip(annotation.boxes, annotation.labels, annotation.ignore, strict=True):
            left, top, right, bottom = box.round().astype(int)
            inside = sample["image"][:, top + 1 : bottom - 1, left + 1 : right - 1].float()
            if min(inside.shape) < 3:
                continue
            assert inside.mean(dim=(1, 2)).tolist() == pytest.approx(COLOURS[int(ignore)], abs=12)
            assert label == 1 - ignore
            seen.append((left, top, bool(ignore)))
    assert len(set(seen)) > 40
    assert {ignore for *_, ignore in seen} == {False, True}


def test_an_image_depends_on_the_seed_of_its_draw_alone_and_leaves_the_global_numbers(picture):
    images = mixed(picture, Settings())
    first = images[Draw("real", 0, 3)]["image"]
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    found = [torch.rand(1)]
    assert torch.equal(images[Draw("real", 0, 3)]["image"], first)
    assert not torch.equal(images[Draw("real", 0, 4)]["image"], first)
    found.append(torch.rand(1))
    assert torch.equal(torch.cat(found), expected)


def test_images_do_not_depend_on_the_number_of_loaders(picture):
    mixture = Mixture(num_real=1, num_synthetic=0, num_steps=4, batch_size=2, mixing=MixingConfig(), seed=3)
    alone, helped = (
        torch.utils.data.DataLoader(
            mixed(picture, Settings()),
            batch_size=2,
            sampler=MixtureSampler(mixture, 4, 0, 1),
            num_workers=num_loaders,
            collate_fn=collate,
        )
        for num_loaders in (0, 2)
    )
    for mine, theirs in zip(alone, helped, strict=True):
        assert torch.equal(mine.images, theirs.images)
        assert all(map(same_boxes, mine.annotations, theirs.annotations))


def same_boxes(one: Annotation, other: Annotation) -> bool:
    return np.array_equal(one.boxes, other.boxes)


# Schedule and average


def rates(settings: Settings, steps: int) -> list[float]:
    """The learning rate of each step."""
    optimizer = build_optimizer(nn.Linear(1, 1), settings, 16)
    schedule, found = build_schedule(optimizer, settings, steps), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_learning_rate_rises_and_falls():
    found = rates(Settings(lr=1.0, warmup=0.2, schedule="cosine"), 20)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[12] == pytest.approx(0.5)  # half of the way down, which takes 16 steps
    assert found[-1] == pytest.approx((1 + np.cos(np.pi * 15 / 16)) / 2)
    assert rates(Settings(lr=1.0, warmup=0.0, schedule="cosine"), 2) == pytest.approx([1.0, 0.5])


def test_the_learning_rate_falls_in_steps():
    found = rates(Settings(lr=1.0, warmup=0.0, schedule="step"), 18)
    assert found == pytest.approx([1.0] * 12 + [0.1] * 4 + [0.01] * 2)
    assert rates(Settings(lr=1.0, warmup=1 / 9, schedule="step"), 18)[2:] == pytest.approx(found[2:])


@pytest.mark.parametrize(("ema", "expected"), [(0.0, 4.0), (0.5, 1 / 4 + 2 / 4 + 4 / 2)])
def test_the_average_begins_with_the_first_step(ema, expected):
    network = nn.Linear(1, 1, bias=False)
    average = build_average(network, Settings(ema=ema), 4)
    for value in (1.0, 2.0, 4.0):
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)
    assert average.module.weight.item() == pytest.approx(expected)


def test_the_documentation_has_every_setting():
    text = (Path(__file__).parents[3] / "docs/concepts.md").read_text()
    rows = text.partition("| setting | default | meaning |\n")[2].partition("\n\n")[0].splitlines()
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])] == list(Settings.model_fields)


# Whole rounds

REFUSING = """
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ultralytics":
            raise ImportError(f"{name} is refused")
sys.meta_path.insert(0, Refusing())
from loop import cli
for line in sys.stdin.read().splitlines():
    sys.argv = ["detloop", *line.split("\\t")]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, line
"""


@pytest.fixture
def round_of(easy_config, new_root):
    """The config of a round with a model: a handful of steps from random weights."""

    def make(model: str, **mining: int):
        changes = {
            "detector": {"kind": "torchvision", "model": model, **TINY},
            "mining": {"budget": 8, **mining},
            "filters": [{"kind": "blank"}],
            "training": {"steps": 4, "epoch_steps": 2, "batch_size": 4, "overrides": {"optimizer": "sgd"}},
        }
        return {**easy_config, **changes, "rounds": 1, "root": str(new_root())}

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "folds", "terms"),
    [
        ("fasterrcnn", 2, {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}),
        ("retinanet", 0, {"classification", "bbox_regression"}),
    ],
)
def test_a_model_goes_through_a_round_from_the_weights_of_a_backbone(model, folds, terms, round_of, tmp_path):
    tree, file, said = round_of(model, cross_fit=folds), tmp_path / "backbone.pth", StringIO()
    torch.save(timm.create_model(TINY["backbone"].removeprefix("timm:")).state_dict(), file)
    tree["detector"]["backbone_weights"] = str(file)
    tree["training"]["start"] = "weights"
    folder = Path(run(LoopConfig.model_validate(tree), Reporter(Console(file=said, width=200))))
    assert re.search(
        r"weights: \d+ of \d+ tensors from .*, \d+ start fresh \(\d+ outside the backbone\)", said.getvalue()
    )
    (line,) = json.loads((folder / "summary.json").read_text())["rounds"]
    assert (line["mined"] > 0, line["kept"] >= 5, line["not_trained"]) == (True, True, "")
    assert len(list((folder.parent / "folds").glob("*/*.safetensors"))) == folds
    trained = json.loads((folder / "rounds/001/train.json").read_text())
    assert terms | {"step", "lr"} == set(trained["losses"][-1])


@pytest.mark.slow
def test_a_run_and_what_follows_it_import_nothing_of_ultralytics(round_of, easy_data, tmp_path):
    tree, config, out = round_of("fcos"), tmp_path / "fcos.yaml", tmp_path / "out"
    config.write_text(json.dumps(tree))
    folder = f"{tree['root']}/{tree['name']}"
    lines = [
        ("init", easy_data, "--detector", "torchvision", "--out", tmp_path / "init.yaml"),
        *[("check", tmp_path / "init.yaml"), ("check", config), ("run", config)],
        ("export-model", folder, "--out", tmp_path / "model.pt"),
        ("predict", folder, easy_data / "val", "--out", out),
        ("evaluate", folder, "--split", "val"),
    ]
    told = "\n".join("\t".join(map(str, line)) for line in lines)
    done = subprocess.run([sys.executable, "-c", REFUSING], input=told, text=True, capture_output=True, check=False)  # noqa: S603 - our own
    assert done.returncode == 0, done.stderr
    assert (out / "predictions.json").exists()
    assert LoopConfig.model_validate(tree).detector.load_checkpoint(f"{folder}/rounds/001/detector.safetensors")
