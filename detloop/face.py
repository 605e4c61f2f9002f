"""The functions of ``import detloop``."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from os import PathLike
from typing import TYPE_CHECKING, Any

from upath import UPath

from actors.checkpoint import Checkpoint
from detloop.result import Place, Result, instance_table, run_folder, verdict_table
from detloop.use import evaluate, export_model, predict
from loop.config import ConfigError, LoopConfig
from loop.config_files import nest, overlay, read_tree, validate

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ConfigError",
    "LoopConfig",
    "Result",
    "check",
    "evaluate",
    "export",
    "export_model",
    "judge",
    "load_config",
    "mine",
    "predict",
    "run",
]
__version__ = version("detloop")

Layer = Place | Mapping[str, Any] | LoopConfig | Result
"""Keys of a config: a YAML file, a mapping, a config, or a run (its folder or its result), whose config is used."""
Source = Layer | Sequence[Layer]
"""One layer, or several of which a later one overrides the earlier ones."""
Overrides = Mapping[str, Any] | Sequence[str]
"""Single keys: ``{"mining.budget": 20}``, or as on the command line, ``["mining.budget=20"]``."""


def load_config(source: Source, overrides: Overrides = ()) -> LoopConfig:
    """Load a config from files, mappings or a run, and override single keys.

    Args:
        source: One layer or several; see ``Source``. The folder of a run holds no hosting and no tracking: these
            sections have their defaults.
        overrides: Keys set last; see ``Overrides``.

    Returns:
        The validated config with all defaults.

    Raises:
        ConfigError: A file cannot be read, a key is unknown, or a value is out of range. The message names file, key,
            value and choices, as on the command line.

    Example:
        >>> config = detloop.load_config(["detloop.yaml", "configs/hosting/gpu.yaml"], {"training.steps": 300})
        >>> config.training.steps
        300
    """
    layers = [source] if isinstance(source, str | PathLike | UPath | Mapping | LoopConfig | Result) else list(source)
    tree: dict[str, Any] = {}
    for layer in [*map(_tree, layers), *_override_trees(overrides)]:
        tree = overlay(tree, layer)
    return validate(LoopConfig, tree, " + ".join(map(_name, layers)))


def run(source: Source, overrides: Overrides = ()) -> Result:
    """Run the loop, or continue an interrupted run.

    Args:
        source: Config of the run, as in ``load_config``.
        overrides: Keys set last, as in ``load_config``.

    Returns:
        The finished run.

    Raises:
        ConfigError: The config cannot be used, or the run's folder belongs to another config.
        BlockingIOError: Another process runs in the same folder.
        ValueError: The data or the hosting cannot be used, or too many candidates failed.

    Example:
        >>> result = detloop.run("detloop.yaml", {"rounds": 1, "hosting.engine": "inline"})
        >>> print(result)
    """
    config = load_config(source, overrides)  # before anything heavy is imported

    from loop.driver import run as run_loop
    from loop.progress import Reporter

    return Result(run_loop(config, Reporter()), config)


def check(source: Source, overrides: Overrides = ()) -> str:
    """Describe what a run would do: images, trainings, disk, time, missing weights, and the resolved config.

    Starts nothing and writes nothing.

    Args:
        source: Config of the run, as in ``load_config``.
        overrides: Keys set last, as in ``load_config``.

    Returns:
        The text that ``detloop check`` prints.

    Raises:
        ConfigError: The config cannot be used.
        ValueError: The data cannot be used.

    Example:
        >>> print(detloop.check("detloop.yaml"))
    """
    config = load_config(source, overrides)

    from loop.check import describe

    return describe(config)


def mine(source: Source, overrides: Overrides = (), *, detector: Place | None = None) -> "pd.DataFrame":
    """Find the ground-truth boxes of the training images that a detector gets wrong.

    Mines as a round does, by the config's ``mining`` section. The detector of a config is its control, which is
    trained first if its storage root has none yet. The detector of a run is that of its last finished round. The
    detections are stored below the root, so further calls with other thresholds or policies are fast.

    Args:
        source: A config or a run, as in ``load_config``.
        overrides: Keys set last, as in ``load_config``.
        detector: Checkpoint (.safetensors) of a detloop detector to use instead.

    Returns:
        A row for each box that is not flagged ignore, in the order of images and boxes: image, box (position in the
        image's annotation), label, difficulty ("easy" or "hard"), best_score, best_iou, rank (position among the
        instances on which a round would spend its budget, from 0; missing for the others), x0, y0, x1, y1 (px), uri.

    Raises:
        ConfigError: The config cannot be used.
        FileNotFoundError: There is no such checkpoint.
        ValueError: The data, the hosting or the checkpoint cannot be used.

    Example:
        >>> boxes = detloop.mine("detloop.yaml", {"mining.score_threshold": 0.5})
        >>> boxes.groupby("label").difficulty.value_counts()
    """
    config = load_config(source, overrides)
    result = _run_named(source)

    from loop.progress import Reporter
    from loop.standalone import mine as mine_alone

    number = result.num_rounds if result else 0
    current = Checkpoint(str(result.detector)) if result and number else None
    if detector is not None:
        config = load_config(config, {"mining": {"cross_fit": 0, "detector": None}})
        current = Checkpoint(str(detector))
    return instance_table(mine_alone(config, Reporter(), current, number + 1))


def judge(
    source: Source,
    overrides: Overrides = (),
    *,
    images: Place | None = None,
    detector: Place | None = None,
) -> "pd.DataFrame":
    """Judge candidates with the filters of a config: those of a run again, or images of your own.

    Without ``images``, judges the candidates of all finished rounds of the run that the source names, with the filters
    of the source. This shows which candidates other filters or thresholds would keep. The run does not change. Boxes
    that the run restored are not judged, since their pixels are gone.

    With ``images``, judges the labelled images of a folder, which another tool may have generated. Every box that is
    not flagged ignore counts as drawn.

    Args:
        source: A config or a run, as in ``load_config``.
        overrides: Keys set last, as in ``load_config``.
        images: Folder of images and annotations in COCO, YOLO or VOC format, with classes of the source's data.
        detector: Checkpoint (.safetensors) of the detloop detector that inspects ``images``; the config's control by
            default.

    Returns:
        A row for each verdict: id, round, dropped ("filter: reason" if the candidate is dropped, else empty),
        filter, box (position in the candidate's annotation, -1 for the whole image), label, keep, score, threshold,
        reason, uri. A candidate without a verdict has one row, in which filter is missing.

    Raises:
        ConfigError: The config cannot be used.
        FileNotFoundError: There is no such folder or checkpoint.
        ValueError: There is no such run, or a candidate or image cannot be used.

    Example:
        >>> strict = detloop.judge("runs/quickstart", {"filters": [{"kind": "agreement", "iou_threshold": 0.7}]})
        >>> (strict.groupby("id").dropped.first() == "").mean()
        >>> detloop.judge("detloop.yaml", images="my_images").query("not keep")
    """
    if detector is not None and images is None:
        raise ValueError(
            "detector is only used with images: the candidates of a run were inspected when they were drawn"
        )
    config = load_config(source, overrides)

    from loop.progress import Reporter
    from loop.standalone import judge_images, judge_run

    if images is None:
        return verdict_table(judge_run(config, Reporter()))
    current = None if detector is None else Checkpoint(str(detector))
    return verdict_table(judge_images(config, UPath(images), Reporter(), current))


def export(source: Place | Result, out: Place, *, fmt: str = "coco") -> UPath:
    """Write the real and synthetic images of a run as one data set, with lineage and a data set card.

    Args:
        source: The run: its folder or its result.
        out: Folder to write, new or empty.
        fmt: "coco", "yolo" or "voc".

    Returns:
        The data set card, ``README.md`` in the folder.

    Raises:
        ValueError: There is no such run, the format is unknown, or ``out`` is not empty.

    Example:
        >>> detloop.export("runs/quickstart", "dataset", fmt="yolo")
    """
    from loop.driver import export_run

    return export_run(run_folder(source), fmt, UPath(out))


def _run_named(source: Source) -> Result | None:
    """The run that a source names by its folder or result; None for a config."""
    if isinstance(source, Result):
        return source
    return Result(source) if isinstance(source, str | PathLike | UPath) and UPath(source).is_dir() else None


def _tree(layer: Layer) -> dict[str, Any]:
    """The keys of one layer as plain values."""
    if isinstance(layer, Mapping):
        return {key: _plain(value) for key, value in layer.items()}
    if isinstance(layer, LoopConfig):
        return layer.model_dump(mode="json")
    if run_named := _run_named(layer):
        return run_named.config.model_dump(mode="json")
    return read_tree([str(layer)])


def _override_trees(overrides: Overrides) -> Iterator[dict[str, Any]]:
    if isinstance(overrides, Mapping):
        yield from (nest(key, _plain(value)) for key, value in overrides.items())
        return
    for text in [overrides] if isinstance(overrides, str) else overrides:
        yield read_tree((), [text])


def _plain(value: object) -> object:
    """``value`` with paths as text, as in a config."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, PathLike | UPath) else value


def _name(layer: Layer) -> str:
    """The layer's name in messages."""
    if isinstance(layer, Mapping | LoopConfig):
        return "the given config"
    return str(layer.folder if isinstance(layer, Result) else layer)
