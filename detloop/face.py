"""The functions of ``import detloop``."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from upath import UPath

from actors.checkpoint import Checkpoint
from detloop.loading import Overrides, Source, load_config, run_named
from detloop.result import Place, Result, instance_table, label_table, run_folder, verdict_table
from detloop.use import evaluate, export_model, predict
from loop.config import ConfigError, LoopConfig

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
    "labels",
    "load_config",
    "mine",
    "predict",
    "run",
]
__version__ = version("detloop")


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
        ValueError: The data cannot be used, training.overrides has a setting that the detector's family does not take,
            or weights of a local file do not fit the detector.

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
    result = run_named(source)

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


def labels(
    source: Source,
    overrides: Overrides = (),
    *,
    out: Place | None = None,
    confidence: float = 0.8,
    apply: Sequence[str] = ("box",),
) -> "pd.DataFrame":
    """Find labels of the training images that look wrong, and write corrected ones beside them.

    Detectors are trained on folds of the images, and each looks at the images that it was not trained on. With a
    ``refiner`` that learns, one is fitted for each fold too. Both are kept below the root, so a further call with
    another confidence is fast.

    Args:
        source: A config or a run, as in ``load_config``.
        overrides: Keys set last, as in ``load_config``.
        out: Folder for labels.csv, corrected.json (for ``data.labels``) and the sheets; by default ``labels/NAME``
            below the root. It must be new, empty, or of the same check.
        confidence: Lowest score of the proposals that corrected.json takes over.
        apply: Kinds of questions whose proposals it takes over: "box", "missing", "class", "doubled".

    Returns:
        A row for each question, the surest first: image, box (position in the image's annotation; missing for an object
        without a label), question (its kind), class, new_class, score, applied, x0, y0, x1, y1 (px, of the label),
        new_x0, new_y0, new_x1, new_y1 (of the proposal), uri.

    Raises:
        ConfigError: The config cannot be used.
        ValueError: The data or the hosting cannot be used, ``out`` holds anything else, or an argument is out of range.

    Example:
        >>> asked = detloop.labels("detloop.yaml", confidence=0.9)
        >>> asked.question.value_counts()
        >>> labels = "runs/labels/detloop/corrected.json"
        >>> detloop.run("detloop.yaml", {"name": "corrected", "rounds": 0, "data.labels": labels})
    """
    config = load_config(source, overrides)

    from loop.labels.run import Choice, check_labels
    from loop.progress import Reporter

    place = None if out is None else UPath(out)
    return label_table(check_labels(config, Reporter(), place, Choice(confidence=confidence, kinds=apply)).rows)


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
