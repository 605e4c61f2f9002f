"""The check of a model YAML before ultralytics builds it.

Ultralytics evaluates ``activation`` as Python code and looks up the names of modules and arguments in its own
namespace. A file passes if it holds numbers and the names of known layers and activations, and nothing else.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from actors.yaml_text import parse_yaml

HEADS = ("Detect", "v10Detect", "RTDETRDecoder")
"""The last layer of a detector."""

LAYERS = frozenset(
    {
        *HEADS,
        *("A2C2f", "AConv", "ADown", "AIFI", "Bottleneck", "BottleneckCSP", "C1", "C2", "C2f", "C2fCIB", "C2fPSA"),
        *("C2PSA", "C3", "C3Ghost", "C3TR", "C3k2", "C3x", "CBFuse", "CBLinear", "Concat", "Conv", "Conv2"),
        *("ConvTranspose", "DWConv", "DWConvTranspose2d", "ELAN1", "Focus", "GhostBottleneck", "GhostConv", "HGBlock"),
        *("HGStem", "PSA", "RepC3", "RepConv", "RepNCSPELAN4", "ResNetLayer", "SCDown", "SPP", "SPPELAN", "SPPF"),
        *("nn.BatchNorm2d", "nn.Conv2d", "nn.ConvTranspose2d", "nn.Identity", "nn.MaxPool2d", "nn.Upsample"),
        "nn.ZeroPad2d",
    }
)
"""The modules that a layer may name."""

WORDS = frozenset({"nc", "None", "True", "False", "nearest", "bilinear", "bicubic"})
"""The strings among the arguments of layers; nc stands for the number of classes."""

ACTIVATIONS = frozenset(
    {
        *("CELU", "ELU", "GELU", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "Mish", "PReLU", "ReLU", "ReLU6"),
        *("SELU", "SiLU", "Sigmoid", "Softplus", "Tanh"),
    }
)
"""The classes of torch.nn that ``activation`` may name."""

_ACTIVATION_NAMES = frozenset(f"{package}.{name}" for package in ("nn", "torch.nn") for name in ACTIVATIONS)

NUMBERS = frozenset({"nc", "depth_multiple", "width_multiple", "reg_max", "end2end"})
KEYS = NUMBERS | {"activation", "scales", "backbone", "head"}
NAMES = frozenset({"scale", "yaml_file"})
"""Keys that ultralytics adds, from the name of the file, and replaces where they are given."""


def find_model_file(name: str) -> Path:
    """The model YAML that ultralytics takes for ``name``: a local file or one of the package, which is not imported.

    Raises ValueError if the name is not one of a YAML, FileNotFoundError if there is none.
    """
    if not name.endswith((".yaml", ".yml")) or "://" in name:
        raise ValueError(f"detector.model: {name!r} is no model YAML; weight files go into detector.weights")
    if Path(name).exists():
        return Path(name)
    package = importlib.util.find_spec("ultralytics")
    files = (Path(package.origin).parent / "cfg/models").rglob("*.yaml") if package and package.origin else ()
    known = {file.name: file for file in files}
    p6 = re.sub(r"(yolov[58][nsmlx])6\.yaml$", r"\1-p6.yaml", name)
    for one in (name, re.sub(r"(\d+)[nslmx](.*)$", r"\1\2", p6)):  # yolo11n.yaml is a scale of yolo11.yaml
        if one in known:
            return known[one]
    raise FileNotFoundError(
        f"detector.model: no file {name!r} and no model of ultralytics; examples: yolo11n.yaml, yolo26s.yaml, "
        "yolov8m.yaml, rtdetr-l.yaml"
    )


def check_model_file(path: Path) -> None:
    """Raise ValueError if the file is no model YAML that ``check_model`` accepts.

    The loader in C, which ultralytics uses, ends the process at a file that is nested too deeply; this one raises.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no regular file")
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}") from error
    check_model(tree, str(path))


def check_model(tree: object, name: str) -> None:
    """Raise ValueError, with the first fault, if ``tree`` holds more than a detector of known parts.

    Args:
        tree: The content of a model YAML.
        name: The file, for the message.
    """
    for fault in _faults(tree):
        raise ValueError(f"{name}: {fault}")


def _faults(tree: object) -> Iterator[str]:
    if not isinstance(tree, Mapping) or not all(isinstance(tree.get(part), list) for part in ("backbone", "head")):
        yield "not a model YAML: it needs the lists backbone and head"
        return
    yield from (f"unknown key {key!r}; known: {', '.join(sorted(KEYS))}" for key in tree if key not in KEYS | NAMES)
    yield from (f"{key}: {tree[key]!r} is no number" for key in NUMBERS & tree.keys() if not _is_number(tree[key]))
    yield from _scale_faults(tree.get("scales"))
    if tree.get("activation") is not None and not is_activation(tree["activation"]):
        yield f"activation: {tree['activation']!r} is none of nn.{', nn.'.join(sorted(ACTIVATIONS))} with numbers"
    match tree["head"]:
        case [*_, [_, _, str() as last, _]] if last in HEADS:
            pass
        case _:
            yield f"no detector: its last layer is none of {', '.join(HEADS)}; try yolo11n.yaml"
    yield from (fault for layer in [*tree["backbone"], *tree["head"]] for fault in _layer_faults(layer))


def _scale_faults(scales: object) -> Iterator[str]:
    if scales is None:
        return
    if not isinstance(scales, Mapping) or not all(isinstance(key, str) for key in scales):
        yield f"scales: {scales!r} is no mapping of names to [depth, width, max_channels]"
        return
    for key, values in scales.items():
        match values:
            case [depth, width, max_channels] if all(map(_is_number, (depth, width, max_channels))):
                pass
            case _:
                yield f"scales.{key}: {values!r} is not [depth, width, max_channels]"


def _layer_faults(layer: object) -> Iterator[str]:
    match layer:
        case [int() | list() as source, int(), str() as module, list() as arguments]:
            if not all(isinstance(index, int) for index in (source if isinstance(source, list) else [source])):
                yield f"layer {module}: from {source!r} is no number of a layer, and no list of them"
            if module not in LAYERS:
                yield f"layer {module!r} is not known; known: {', '.join(sorted(LAYERS))}"
            yield from (f"layer {module}: argument {one!r}" for one in arguments if not _is_argument(one))
        case _:
            yield f"layer {layer!r} is not [from, repeats, module, [arguments]]"


def _is_argument(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_number, value))
    return value is None or _is_number(value) or (isinstance(value, str) and value in WORDS)


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float)


def is_activation(text: object) -> bool:
    """Whether ``text`` is a call such as nn.LeakyReLU(0.1) of one of ``ACTIVATIONS``, with numbers only."""
    try:
        call: Any = ast.parse(text if isinstance(text, str) else "", mode="eval").body
        if not isinstance(call, ast.Call) or ast.unparse(call.func) not in _ACTIVATION_NAMES:
            return False
        arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
        return all(map(_is_number, map(ast.literal_eval, arguments))) and all(word.arg for word in call.keywords)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
