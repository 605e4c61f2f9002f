"""The functions of ``import detloop`` that use the detector of a run."""

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

from upath import UPath

from detloop.result import Place, Result, measurement_table, prediction_table, run_folder

if TYPE_CHECKING:
    import pandas as pd


def export_model(
    source: Place | Result, fmt: str, out: Place, *, round_number: int | None = None, control: bool = False
) -> UPath:
    """Write the detector of a run as a file of other programs.

    The file gives the boxes of ``predict`` for pictures that are prepared as docs/use.md says.

    Args:
        source: The run: its folder or its result.
        fmt: A format of the detector's family; for ultralytics "pt", "onnx" or "torchscript".
        out: File to write; it must not exist.
        round_number: Round of the detector; by default, the one with the best validation AP.
        control: Use the control, trained on the real images alone.

    Returns:
        ``out``.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: The detector's checkpoint is gone.
        ValueError: There is no such run or round, or the detector's family cannot be exported to ``fmt``.

    Example:
        >>> detloop.export_model("runs/quickstart", "pt", "detector.pt")
        >>> ultralytics.YOLO("detector.pt").predict("picture.jpg")
    """
    from loop.use.export import export_model as export_chosen

    export_chosen(run_folder(source), fmt, UPath(out), round_number, control=control)
    return UPath(out)


def predict(
    source: Place | Result,
    images: Place | Sequence[Place],
    *,
    score: float = 0.25,
    round_number: int | None = None,
    control: bool = False,
) -> "pd.DataFrame":
    """Detect objects in pictures with the detector of a run.

    Args:
        source: The run: its folder or its result.
        images: Pictures: a file, a folder, a pattern such as ``"shots/*.jpg"``, or several of these.
        score: Lowest score of a detection.
        round_number: Round of the detector; by default, the one with the best validation AP.
        control: Use the control, trained on the real images alone.

    Returns:
        A row for each detection, by picture and falling score: image (path below the folder that holds all pictures),
        label, score, x0, y0, x1, y1 (px of the upright picture), uri. A warning names each picture that cannot be read.

    Raises:
        FileNotFoundError: There is no picture, or the detector's checkpoint is gone.
        ValueError: There is no such run or round, or the score is not in [0, 1].

    Example:
        >>> found = detloop.predict("runs/quickstart", "shots", score=0.5)
        >>> found.groupby("image").label.value_counts()
    """
    from loop.progress import Reporter
    from loop.use.chosen import choose
    from loop.use.predict import find_pictures, open_detector, predict_reported

    several = [images] if isinstance(images, str | PathLike | UPath) else images
    chosen, found = choose(run_folder(source), round_number), find_pictures([str(place) for place in several])
    detector = open_detector(chosen, score, control=control)
    return prediction_table(predict_reported(detector, found, Reporter()), chosen.classes())


def evaluate(
    source: Place | Result, *, split: str = "test", data: Place | None = None, round_number: int | None = None
) -> "pd.DataFrame":
    """Measure the detector of a run and its control on a split, and record the measurement in the run's folder.

    Warnings say how many of the images the run was trained or validated on, and how often the same test images were
    measured before, in any run below the storage root.

    Args:
        source: The run: its folder or its result.
        split: "test" or "val".
        data: Config file or folder of other data, whose classes are matched by name; by default, the run's own data.
        round_number: Round of the detector; by default, the one with the best validation AP.

    Returns:
        A row for each COCO metric, as fractions. Columns: loop, control, gain (loop - control), and for AP the gain's
        95 % interval gain_low and gain_high. A run without a finished round has the control alone.

    Raises:
        ConfigError: The config file cannot be used.
        FileNotFoundError: There is no such folder, or a detector's checkpoint is gone.
        ValueError: There is no such run, round or split, its images or classes cannot be used, or all of them are the
            run's training images.

    Example:
        >>> detloop.evaluate("runs/quickstart", split="val").loc["AP"]
    """
    from loop.progress import Reporter
    from loop.use.chosen import choose
    from loop.use.evaluate import measure_split

    reporter = Reporter()
    measured = measure_split(
        choose(run_folder(source), round_number), split, reporter, None if data is None else str(data)
    )
    for warning in measured.warnings():
        reporter.warn(warning)
    return measurement_table(measured)
