"""Results as tables: a run on disk, mined instances, and verdicts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from typing import TYPE_CHECKING, Any

from upath import UPath

from actors.records import WHOLE_IMAGE, Instance, Sample
from actors.storage import read_record
from loop.config import LoopConfig
from loop.report.summary import RoundSummary
from loop.report.table import rounds_table
from loop.state import RunFolder

if TYPE_CHECKING:
    import pandas as pd

    from loop.standalone import Judgement, Mining
    from loop.use.evaluate import Measurement
    from loop.use.predict import Found

Place = str | PathLike[str] | UPath
"""A file or folder: a path, or an fsspec URI (s3://, gs://)."""

ROUND_COLUMNS = (
    *("round", "ap", "control_ap", "gain", "gain_low", "gain_high", "seeds", "training_sd"),
    *("mined", "asked", "drawn", "candidates", "kept", "restored_boxes", "wall_s", "engine_s"),
)
CANDIDATE_COLUMNS = ("round", "id", "kept", "dropped", "image", "boxes", "drawn_boxes", "uri", "width", "height")
INSTANCE_COLUMNS = (
    *("image", "box", "label", "difficulty", "best_score", "best_iou", "rank"),
    *("x0", "y0", "x1", "y1", "uri"),
)
PREDICTION_COLUMNS = ("image", "label", "score", "x0", "y0", "x1", "y1", "uri")
VERDICT_COLUMNS = (
    *("id", "round", "dropped", "filter", "box", "label", "keep", "score", "threshold", "reason"),
    "uri",
)


class Result:
    """A run on disk, finished or not. Every access reads its folder again.

    Attributes:
        folder: Folder or URI of the run.
        config: Config of the run. If the run was opened by its folder, hosting and tracking have their defaults.

    Example:
        >>> result = detloop.Result("runs/quickstart")
        >>> result.rounds[["ap", "control_ap", "gain", "gain_low", "gain_high"]]
        >>> result.metrics["loop"]["AP50"]
    """

    def __init__(self, folder: Place, config: LoopConfig | None = None) -> None:
        """Open the run in ``folder``. ``config`` adds the hosting and tracking that the folder does not hold.

        Raises:
            ValueError: The folder holds no run.
        """
        self.folder = UPath(folder)
        self._run = RunFolder(self.folder)
        self.config = config or self._run.config()

    @property
    def num_rounds(self) -> int:
        """The number of finished rounds."""
        return self._run.num_finished()

    @property
    def rounds(self) -> "pd.DataFrame":
        """A row for each finished round, indexed by round.

        Columns: ap and control_ap (COCO AP on the real validation images, as fractions), gain (ap - control_ap) with
        its 95 % interval gain_low and gain_high, seeds (trainings of each arm), training_sd (estimated standard
        deviation of AP between training seeds), mined (instances), asked and drawn (mined instances requested
        and drawn over all candidates), candidates, kept, restored_boxes, wall_s, engine_s, and ``seconds_<stage>`` for
        each stage.
        """
        import pandas as pd

        rows = [_round_row(one) for one in self._summaries()]
        table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=ROUND_COLUMNS)
        return table.set_index("round")

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        """The metrics after the last finished round: "loop" and "control" (COCO), "drawn" (the generated images).

        A run of no rounds has "control" alone.

        Raises:
            FileNotFoundError: No round has finished.
        """
        if number := self.num_rounds:
            return read_record(self._run.round(number) / "metrics.json", dict[str, dict[str, float]])
        known: dict[str, dict[str, float]] = read_record(self.folder / "summary.json", dict[str, Any])["metrics"]
        return known

    @property
    def candidates(self) -> "pd.DataFrame":
        """A row for each candidate of the finished rounds, by round; the kept ones first.

        Columns: round, id, kept, dropped (the reason, empty if kept), image (the real image it was made from),
        boxes (left after judgement), drawn_boxes, uri, width, height (px).
        """
        import pandas as pd

        rows = [
            _candidate_row(sample) for number in range(1, self.num_rounds + 1) for sample in self._run.judged(number)
        ]
        return pd.DataFrame(rows, columns=CANDIDATE_COLUMNS)

    @property
    def detector(self) -> UPath:
        """The checkpoint of the last finished round's detector.

        Raises:
            FileNotFoundError: No round has finished.
        """
        if not self.num_rounds:
            raise FileNotFoundError(f"{self.folder}: no round has finished, so there is no detector yet")
        return UPath(self._run.checkpoint(self.num_rounds))

    @property
    def page(self) -> UPath:
        """The HTML page with table, curves and contact sheets, written at the end of the run."""
        return self.folder / "summary.html"

    def __repr__(self) -> str:
        return f"Result({str(self.folder)!r})"

    def __str__(self) -> str:
        return rounds_table(self._summaries())

    def _summaries(self) -> list[RoundSummary]:
        numbers = range(1, self.num_rounds + 1)
        return [read_record(self._run.round(number) / "round.json", RoundSummary) for number in numbers]


def run_folder(source: Place | Result) -> UPath:
    """The folder of a run that is named by it or by its result."""
    return source.folder if isinstance(source, Result) else UPath(source)


def label_table(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """The table that ``detloop.labels`` returns."""
    import pandas as pd

    from loop.labels.told import COLUMNS

    return pd.DataFrame(rows, columns=COLUMNS).astype({"box": "Int64", "applied": "boolean"})


def instance_table(mining: "Mining") -> "pd.DataFrame":
    """The table that ``detloop.mine`` returns."""
    import pandas as pd

    ranks = {(one.image_id, one.index): rank for rank, one in enumerate(mining.taken)}
    images = {image.id: image for image in mining.data.splits["train"]}
    rows = [
        _instance_row(one, mining.data.classes[one.label], ranks.get((one.image_id, one.index)))
        | dict(zip(("x0", "y0", "x1", "y1"), images[one.image_id].annotation.boxes[one.index].tolist(), strict=True))
        | {"uri": images[one.image_id].uri}
        for one in mining.found
    ]
    return pd.DataFrame(rows, columns=INSTANCE_COLUMNS).astype({"rank": "Int64"})


def verdict_table(judgement: "Judgement") -> "pd.DataFrame":
    """The table that ``detloop.judge`` returns."""
    import pandas as pd

    rows = [row for sample in judgement.samples for row in _verdict_rows(sample, judgement.classes)]
    return pd.DataFrame(rows, columns=VERDICT_COLUMNS).astype({"box": "Int64", "keep": "boolean"})


def prediction_table(found: "Sequence[Found]", classes: Sequence[str]) -> "pd.DataFrame":
    """The table that ``detloop.predict`` returns."""
    import pandas as pd

    rows = [
        (one.picture.name, classes[label], score, *box, str(one.picture.place))
        for one in found
        for box, label, score in zip(
            one.seen.boxes.tolist(), one.seen.labels.tolist(), one.seen.scores.tolist(), strict=True
        )
    ]
    return pd.DataFrame(rows, columns=PREDICTION_COLUMNS)


def measurement_table(measured: "Measurement") -> "pd.DataFrame":
    """The table that ``detloop.evaluate`` returns."""
    import pandas as pd

    table = pd.DataFrame(measured.metrics)
    if measured.gain_ci95 is not None:
        table["gain"] = table["loop"] - table["control"]
        table.loc["AP", ["gain_low", "gain_high"]] = measured.gain_ci95
    return table


def _round_row(one: RoundSummary) -> dict[str, Any]:
    low, high = one.gain_ci95
    known = asdict(one) | {"gain_low": low, "gain_high": high}
    return {name: known[name] for name in ROUND_COLUMNS} | {f"seconds_{k}": s for k, s in one.seconds.items()}


def _candidate_row(sample: Sample) -> dict[str, Any]:
    return {
        "round": sample.lineage.round,
        "id": sample.id,
        "kept": not sample.dropped,
        "dropped": sample.dropped,
        "image": sample.lineage.image_id,
        "boxes": len(sample.annotation),
        "drawn_boxes": int(sample.drawn.sum()),
        "uri": sample.uri,
        "width": sample.width,
        "height": sample.height,
    }


def _instance_row(one: Instance, label: str, rank: int | None) -> dict[str, Any]:
    return {
        "image": one.image_id,
        "box": one.index,
        "label": label,
        "difficulty": one.difficulty.value,
        "best_score": one.best_score,
        "best_iou": one.best_iou,
        "rank": rank,
    }


def _verdict_rows(sample: Sample, classes: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    common = {"id": sample.id, "round": sample.lineage.round, "dropped": sample.dropped, "uri": sample.uri}
    if not sample.verdicts:
        yield common
    for verdict in sample.verdicts:
        label = None if verdict.box == WHOLE_IMAGE else classes[sample.proposed.labels[verdict.box]]
        yield common | asdict(verdict) | {"label": label}
