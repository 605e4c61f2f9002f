"""Model YAMLs: those of ultralytics pass, strings that it would evaluate or look up do not."""

import importlib.util
from pathlib import Path

import pytest
import torch
import yaml

from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.detectors.ultralytics.model_file import (
    ACTIVATIONS,
    HEADS,
    LAYERS,
    check_model,
    find_model_file,
    is_activation,
)
from actors.detectors.ultralytics.weights import import_ultralytics

GOOD = """\
nc: 80
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [[0, 1], 1, Detect, [nc]]
"""


def package_files():
    folder = Path(importlib.util.find_spec("ultralytics").origin).parent / "cfg/models"
    trees = {file.name: yaml.safe_load(file.read_text()) for file in folder.rglob("*.yaml")}
    return {name: tree for name, tree in trees.items() if tree["head"][-1][2] in HEADS}


def test_every_detector_of_ultralytics_passes():
    files = package_files()
    assert len(files) > 25
    for name, tree in files.items():
        check_model(tree, name)


@pytest.mark.parametrize(
    "name", ["yolo11n.yaml", "yolo26x.yaml", "yolov8m-p2.yaml", "yolov5n6.yaml", "yolov10s.yaml", "rtdetr-l.yaml"]
)
def test_a_model_of_ultralytics_is_found_as_the_package_finds_it(name):
    import_ultralytics()
    from ultralytics.nn.tasks import yaml_model_load

    layers = yaml.safe_load(find_model_file(name).read_text())
    loaded = yaml_model_load(name)
    assert {key: loaded[key] for key in layers} == layers


def test_the_known_layers_and_activations_are_networks():
    import_ultralytics()
    from ultralytics.nn import tasks

    classes = [getattr(torch.nn if name.startswith("nn.") else tasks, name.removeprefix("nn.")) for name in LAYERS]
    classes += [getattr(torch.nn, name) for name in ACTIVATIONS]
    assert all(issubclass(one, torch.nn.Module) for one in classes)


CODE = "[__import__('pathlib').Path({marker!r}).touch(), torch.nn.SiLU()][1]"
CHANGES = {
    "activation": (GOOD + 'activation: "{code}"\n', "activation"),
    "activation as a list": (GOOD + 'activation: ["{code}"]\n', "activation"),
    "called argument": (GOOD + 'activation: "nn.SiLU({code})"\n', "activation"),
    "module of the package": (GOOD.replace("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, __import__, [os]]"), "__import__"),
    "function of torch": (GOOD.replace("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, nn.init.warnings.warn, [a]]"), "warn"),
    "torchvision": (GOOD.replace("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, TorchVision, [8, resnet18, DEFAULT]]"), "Torch"),
    "local of the parser": (GOOD.replace("[16, 3, 2]", "[16, 3, ast]"), "'ast'"),
    "mapping as an argument": (GOOD.replace("[16, 3, 2]", "[16, 3, {{a: 1}}]"), "argument"),
    "deep list": (GOOD.replace("[16, 3, 2]", "[16, [[3]], 2]"), "argument"),
    "text for a width": (GOOD + 'width_multiple: "{code}"\n', "width_multiple"),
    "text for a scale": (GOOD + 'scales: {{n: [1, "{code}", 1]}}\n', "scales.n"),
    "unknown key": (GOOD + "text_model: clip:x\n", "text_model"),
    "python tag": (GOOD + "reg_max: !!python/object/apply:os.getpid []\n", "cannot be read as YAML"),
    "no tree": ("- 1\n", "backbone and head"),
    "no head": (GOOD.split("head", maxsplit=1)[0] + "head: []\n", "no detector"),
    "short layer": (GOOD.replace("[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, Conv]"), "layer"),
    "very deep": ("backbone: " + "[" * 100_000, "cannot be read as YAML"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_hostile_model_is_refused_and_none_of_its_code_runs(tmp_path, change):
    marker = tmp_path / "code_ran"
    text, words = CHANGES[change]
    model = tmp_path / "model.yaml"
    model.write_text(text.format(code=CODE.format(marker=str(marker)), nc="nc"))
    with pytest.raises(ValueError, match=words):
        UltralyticsConfig(model=str(model))
    unchecked = UltralyticsConfig().model_copy(update={"model": str(model)})  # as if the file had changed since
    with pytest.raises(ValueError, match=words):
        unchecked.architecture(2)
    assert not marker.exists()


def test_a_model_with_an_activation_of_torch_is_built(tmp_path):
    (tmp_path / "model.yaml").write_text(GOOD + "activation: torch.nn.LeakyReLU(negative_slope=0.1)\n")
    network = UltralyticsConfig(model=str(tmp_path / "model.yaml")).architecture(2)
    assert isinstance(network.model[0].act, torch.nn.LeakyReLU)


@pytest.mark.parametrize("text", ["nn.SiLU()", "torch.nn.ReLU()", "nn.LeakyReLU(0.1)", "nn.ELU(alpha=-1.5)"])
def test_activations_with_numbers_are_known(text):
    assert is_activation(text)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nn.SiLU",
        "SiLU()",
        "nn.Module()",
        "nn.ReLU(*[1])",
        "nn.ReLU(**{})",
        "nn.ReLU(x := 1)",
        "nn.ReLU('a')",
        "nn.ReLU(())",
        "nn.ReLU().train()",
        "(nn.ReLU(), print())",
        "nn.ReLU(\n" + "(" * 500,
        "os.nn.ReLU()",
    ],
)
def test_other_activations_are_not(text):
    assert not is_activation(text)
