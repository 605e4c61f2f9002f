"""Compare how hard drawn objects are to see, by their pixels: ``python tests/bench/drawn_factors.py RUN_EASY RUN_HARD``

``--sheet FILE.png`` writes a sheet of some layouts: the real image and the pictures of both runs.

No detector is involved. Two runs that drew the same layouts, one as easy and one as hard, are compared box by box.
Differences are averaged over the boxes and copies of each real image; the interval is Student's t over the real images.
The objects themselves are unknown, so three of the rendered scenes' factors are estimated from the pixels in and around
each box, wherever no other box overlaps:

* ``contrast``: RMS difference to the mean colour around the box, over the half of its pixels that differ most, as a
  share of full scale. Low means hard.
* ``seen_px``: square root of the number of pixels that differ from that colour by more than the scenes' contrast limit:
  the visible size of the object. Low means hard.
* ``edge_px``: range of the colours over their steepest change (95th percentile), after light smoothing: the width of an
  edge. High means blurred, which is hard.

Occlusion and tilt cannot be measured: a drawn picture does not say which object covers which. The pictures are read
from the run's folder as they were drawn, before rejected boxes got their real pixels back.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from evidence_tables import Difference, mean_of, table
from numpy.typing import NDArray
from upath import UPath

from actors.attributes import difficulties
from actors.boxes import Boxes
from actors.fitting import Preview
from actors.images import Pixels, read
from actors.records import Difficulty, LabeledImage, Sample
from actors.storage import read_record
from loop.data.world import HARD
from loop.report.fit_sheet import fit_sheet
from loop.state import Mined, RunFolder

FACTORS = {"contrast": "low", "seen_px": "low", "edge_px": "high"}
"""The factors, in the order of the columns, and which end of each is hard."""
MARGIN_PX = 6  # around a box, as in the world's own measure of contrast
MIN_PIXELS = 16  # of a box and of the ground around it; with fewer nothing is measured
SMOOTHING_PX = 0.7  # sigma
SHEET_ROWS = 5
Values = NDArray[np.float64]  # [n, 3], NaN where nothing can be measured
Mask = NDArray[np.bool_]


def measure(pixels: Pixels, boxes: Boxes) -> Values:
    """``FACTORS`` of each of the boxes ``[n, 4]`` px of an image ``[H, W, 3]``; NaN if too few pixels are free."""
    shape = pixels.shape[:2]
    inside = [_mask(box, shape) for box in boxes]
    covered = np.sum(inside, axis=0) if inside else np.zeros(shape, np.int64)
    colours = pixels.astype(np.float64) / 255
    found = [_of_box(colours, box, own, covered) for box, own in zip(boxes, inside, strict=True)]
    return np.array(found, np.float64).reshape(-1, len(FACTORS))


def _mask(box: NDArray[np.float32], shape: tuple[int, ...]) -> Mask:
    """``[H, W]``: the pixels of a box."""
    mask = np.zeros(shape, np.bool_)
    mask[_around(box, 0)] = True
    return mask


def _around(box: NDArray[np.float32], margin: int) -> tuple[slice, slice]:
    """Rows and columns of a box with ``margin`` pixels around it."""
    left, top, right, bottom = (int(edge) for edge in np.rint(box))
    return slice(max(top - margin, 0), max(bottom + margin, 0)), slice(max(left - margin, 0), max(right + margin, 0))


def _of_box(colours: Values, box: NDArray[np.float32], own: Mask, covered: NDArray[np.int64]) -> tuple[float, ...]:
    near = _around(box, MARGIN_PX)
    around, alone, ground = colours[near], own[near] & (covered[near] == 1), covered[near] == 0
    if min(alone.sum(), ground.sum()) < MIN_PIXELS:
        return (np.nan,) * len(FACTORS)
    squares = np.mean((around[alone] - around[ground].mean(0)) ** 2, axis=-1)
    foremost = np.sort(squares)[len(squares) // 2 :]
    seen_px = np.sqrt(np.count_nonzero(squares > HARD.contrast**2))
    return float(np.sqrt(foremost.mean())), float(seen_px), _edge_px(around, alone)


def _edge_px(around: Values, alone: Mask) -> float:
    """The width of an edge among the pixels ``alone`` ``[h, w]`` of ``around`` ``[h, w, 3]``; NaN of a flat colour."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(around, (SMOOTHING_PX, SMOOTHING_PX, 0))
    down, right = np.diff(smooth, axis=0)[:, :-1], np.diff(smooth, axis=1)[:-1]
    steepness = np.sqrt(np.mean(down**2 + right**2, axis=-1))[alone[:-1, :-1]]
    low, high = np.quantile(smooth[alone], (0.02, 0.98), axis=0)
    steepest = np.quantile(steepness, 0.95) if len(steepness) else 0.0
    return float(np.sqrt(np.mean((high - low) ** 2)) / steepest) if steepest > 0 else np.nan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """A generated image and its measured factors."""

    image_id: str  # the real image that its layout comes from
    boxes: Boxes  # [n, 4] px, the requested ones
    values: Values  # [n, 3]


Key = tuple[int, str, int]


def of_run(folder: UPath) -> dict[Key, Drawn]:
    """All images that a finished run drew, kept or not, by round, real image and seed: the same keys in equal plans.

    Raises ValueError if the folder holds no run.
    """
    run = RunFolder(folder)
    run.config()
    samples = [sample for number in range(1, run.num_finished() + 1) for sample in run.judged(number) if sample.uri]
    return {_key(sample): _drawn(sample) for sample in samples}


def _key(sample: Sample) -> Key:
    return sample.lineage.round, sample.lineage.image_id, sample.lineage.seed


def _drawn(sample: Sample) -> Drawn:
    boxes = sample.proposed.boxes[sample.drawn & ~sample.proposed.ignore]
    return Drawn(image_id=sample.lineage.image_id, boxes=boxes, values=measure(read(sample.as_drawn), boxes))


def means(drawn: Mapping[Key, Drawn]) -> dict[str, float]:
    """The mean of each factor over all boxes of a run in which it could be measured."""
    values = np.concatenate([one.values for one in drawn.values()]) if drawn else np.zeros((0, len(FACTORS)))
    of_factors = {factor: column[~np.isnan(column)] for factor, column in zip(FACTORS, values.T, strict=True)}
    return {factor: float(column.mean()) for factor, column in of_factors.items() if len(column)}


def compare(easy: Mapping[Key, Drawn], hard: Mapping[Key, Drawn]) -> dict[str, Difference]:
    """Hard minus easy on the layouts that both have; ``seeds`` of a difference counts real images.

    Raises ValueError if they have none in common, or if a layout differs between them.
    """
    shared = sorted(easy.keys() & hard.keys())
    if not shared:
        raise ValueError("the two runs drew no layout in common; they must have the same data, seed, mining and copies")
    differences: dict[str, list[Values]] = {}
    for key in shared:
        first, second = easy[key], hard[key]
        if not np.array_equal(first.boxes, second.boxes):
            raise ValueError(f"layout {key}: the two runs drew different boxes; they may differ in the strategy only")
        differences.setdefault(first.image_id, []).append(second.values - first.values)
    of_images = [np.concatenate(parts) for parts in differences.values()]
    of_factors = {factor: _image_means(of_images, place) for place, factor in enumerate(FACTORS)}
    return {factor: mean_of(values) for factor, values in of_factors.items() if values}


def _image_means(of_images: list[Values], place: int) -> list[float]:
    """The mean of one column in each image; images without a value are left out."""
    columns = [values[:, place][~np.isnan(values[:, place])] for values in of_images]
    return [float(column.mean()) for column in columns if len(column)]


def sheet(easy: UPath, hard: UPath) -> bytes:
    """A PNG file of some layouts that both runs drew in the first round, spread evenly over the real images.

    Raises ValueError if there is none.
    """
    run = RunFolder(easy)
    images = read_record(run.train_records, tuple[LabeledImage, ...])
    found = difficulties(images, read_record(run.round(1) / "mine.json", Mined).found)
    real = {image.id: (image, attribute) for image, attribute in zip(images, found, strict=True)}
    drawn = [{_key(sample): sample for sample in RunFolder(folder).judged(1) if sample.uri} for folder in (easy, hard)]
    first = {key[1]: key for key in sorted(drawn[0].keys() & drawn[1].keys(), reverse=True)}
    previews = []
    for name in sorted(first)[:: max(len(first) // SHEET_ROWS, 1)][:SHEET_ROWS]:
        image, attribute = real[name]
        pictures = {str(asked): read(one[first[name]].as_drawn) for asked, one in zip(Difficulty, drawn, strict=True)}
        previews.append(
            Preview(real=read(image.uri), annotation=image.annotation, difficulties=attribute, drawn=pictures)
        )
    return fit_sheet(previews, "each layout drawn as easy and as hard")


def number(value: float, *, sign: bool = False) -> str:
    """The value of a factor, formatted."""
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def report(easy: Mapping[Key, Drawn], hard: Mapping[Key, Drawn]) -> str:
    """The comparison as a table."""
    first, second = means(easy), means(hard)
    lines = [
        [
            f"`{factor}`",
            FACTORS[factor],
            number(first[factor]),
            number(second[factor]),
            found.shown(lambda value: number(value, sign=True)),
            str(found.seeds),
            found.verdict,
        ]
        for factor, found in compare(easy, hard).items()
    ]
    return table(["factor", "hard means", "easy", "hard", "hard vs easy", "real images", "verdict"], 2, lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("easy", help="folder of the run that drew easy variants")
    parser.add_argument("hard", help="folder of the run that drew hard variants")
    parser.add_argument("--sheet", type=Path, help="PNG file to write: some layouts as drawn by both runs")
    given = parser.parse_args()
    try:
        print(report(of_run(UPath(given.easy)), of_run(UPath(given.hard))))
        if given.sheet:
            given.sheet.write_bytes(sheet(UPath(given.easy), UPath(given.hard)))
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
