"""Compare the crop painter in pixels and in latents: ``python tests/bench/latent_painter.py --data DIR --vae PLACE``

DIR holds raccoon/, bccd/ and deeppcb/. Both painters are fitted on the same images for as many CPU seconds, each in a
process of its own, and paint the same windows of held-out images, starting from the objects there, with each strength
(the fit is for the largest). A row has the steps of the fit, windows per CPU second, peak memory, the mean change in
the hole (of 255), and its sharpness: the mean absolute Laplacian relative to the original's. Rows go to
``results/latent_painter.json``, sheets and checkpoints to ``--out``.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import cv2
import numpy as np
import torch

from actors.fitting import FitData, Worker
from actors.generators.inpaint.painters.base import CropRule, Window
from actors.generators.inpaint.painters.crop.component import CropConfig
from actors.generators.inpaint.painters.crop.examples import Examples, crops
from actors.generators.inpaint.painters.crop.space import Space
from actors.images import Pixels, encode_png
from actors.records import Difficulty, LabeledImage
from loop.config import LoopConfig
from loop.config_files import validate
from loop.driver import import_real

RESULTS = Path(__file__).parent / "results" / "latent_painter.json"
DATA: dict[str, dict[str, Any]] = {
    "raccoon": {"format": "voc", "subset": 40},
    "bccd": {"format": "voc", "subset": 20},
    "deeppcb": {"format": "coco", "subset": 25},
}
RULE = CropRule(context=1.5, margin=0.1, flip=True, rotate=False)
PIXELS = {"fit_batch_size": 8, "batch_size": 4}  # a step on 32 windows of 256 px would take 13 s
LATENTS = {"channels": (32, 64, 96, 128), "batch_size": 8}
FEW_STEPS, MANY_STEPS = 3, 12  # of sampling, for a strength below 0.1 and above
NUM_WINDOWS = 8
KEYS = ("data", "size_px", "painter", "strength", "seconds")


def real_images(given: argparse.Namespace, name: str) -> tuple[FitData, FitData]:
    """The training and the validation images of a data set, as a run imports them."""
    tree = {
        "name": name,
        "data": {**DATA[name], "root": str(Path(given.data, name).absolute())},
        "hosting": {"engine": "inline"},
    }
    found = import_real(validate(LoopConfig, tree, "the benchmark's config"))
    train, val = (found.splits[split] for split in ("train", "val"))
    return fit_data(found.classes, train), fit_data(found.classes, val)


def fit_data(classes: tuple[str, ...], images: tuple[LabeledImage, ...]) -> FitData:
    """The images as a fit takes them, all boxes hard."""
    hard = tuple((Difficulty.HARD,) * len(image.annotation) for image in images)
    return FitData(classes=classes, images=images, difficulties=hard, seed=0)


def windows_of(painter: CropConfig, val: FitData) -> list[Window]:
    """Different windows around objects of held-out images, classes in turns."""
    in_pixels = painter.model_copy(update={"vae": None})
    found = crops(in_pixels, val.images, val.difficulties, RULE.context, RULE.margin)
    space = Space(in_pixels, torch.device("cpu"))
    examples = Examples(in_pixels, found, space, len(val.classes), val.seed, RULE)
    drawn = {window.pixels.tobytes(): window for window in map(examples.window, range(10 * NUM_WINDOWS))}
    return list(drawn.values())[:NUM_WINDOWS]


def fitted(painter: CropConfig, data: FitData, seconds: float, uri: str) -> dict[str, float]:
    """Fit for about ``seconds`` of CPU time; the steps that fit into it are estimated from a few."""
    probe = painter.model_copy(update={"fit_steps": 16 if painter.vae else 3})
    start, fit = time.process_time(), probe.open_fit(data, Worker(device="cpu"), RULE)
    opening_s = time.process_time() - start
    start = time.process_time()
    for step in range(probe.fit_steps):
        fit.step(step)
    step_s = (time.process_time() - start) / probe.fit_steps
    steps = max(round((seconds - opening_s) / step_s), 1)
    fit = painter.model_copy(update={"fit_steps": steps}).open_fit(data, Worker(device="cpu"), RULE)
    start = time.process_time()
    for step in range(steps):
        fit.step(step)
    spent_s = time.process_time() - start
    fit.save(uri)
    return {
        "fit_cpu_s": round(spent_s + opening_s),
        "steps": steps,
        "examples": steps * painter.fit_batch_size,
        "steps_per_cpu_s": round(steps / spent_s, 3),
        "fit_peak_mb": peak_mb(),
    }


def peak_mb() -> int:
    """The largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def sharpness(pixels: Pixels, mask: Any) -> float:
    """Mean absolute Laplacian in the hole."""
    return float(np.abs(cv2.Laplacian(pixels.astype(np.float32), cv2.CV_32F))[mask].mean())


def measure(
    painter: CropConfig, train: FitData, windows: list[Window], given: argparse.Namespace, uri: str
) -> list[tuple[dict[str, float], list[Pixels]]]:
    """Fit once, for the largest strength, and paint with each; figures, and the windows with painted holes."""
    torch.set_num_threads(1)
    figures = fitted(painter, train, given.seconds, uri)
    return [
        ({"strength": strength, **figures, **paint_figures}, painted)
        for strength in given.strengths
        for paint_figures, painted in [paint(at_strength(painter, strength), train, windows, uri)]
    ]


def paint(
    painter: CropConfig, train: FitData, windows: list[Window], uri: str
) -> tuple[dict[str, float], list[Pixels]]:
    """Fill the windows; the figures, and the windows with painted holes."""
    built = painter.build(train.classes, uri)
    start = time.process_time()
    raw = built.paint(windows)
    spent_s = time.process_time() - start
    painted = [np.where(one.mask[..., None], pixels, one.pixels) for one, pixels in zip(windows, raw, strict=True)]
    change, sharp = [], []
    for one, pixels in zip(windows, painted, strict=True):
        change.append(np.abs(pixels.astype(np.float32) - one.pixels)[one.mask].mean())
        sharp.append(sharpness(pixels, one.mask) / sharpness(one.pixels, one.mask))
    figures = {"change": round(float(np.mean(change)), 1), "sharpness": round(float(np.mean(sharp)), 2)}
    return {"windows_per_cpu_s": round(len(windows) / spent_s, 2), **figures}, painted


def at_strength(painter: CropConfig, strength: float) -> CropConfig:
    """The painter with a strength, and steps of sampling to match."""
    steps = FEW_STEPS if strength < 0.1 else MANY_STEPS
    return painter.model_copy(update={"strength": strength, "sampling_steps": steps})


def sheet(columns: Mapping[str, Any], rows: Sequence[int], side_px: int) -> Pixels:
    """Windows side by side, with the columns' names above."""
    shown = [
        np.concatenate(
            [cv2.resize(c[row], (side_px, side_px), interpolation=cv2.INTER_AREA) for c in columns.values()], 1
        )
        for row in rows
    ]
    heading = np.full((24, shown[0].shape[1], 3), 255, np.uint8)
    for number, name in enumerate(columns):
        place, font = (number * side_px + 4, 17), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(heading, name, place, font, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([heading, *shown], axis=0)


def compare(given: argparse.Namespace, name: str, known: list[dict[str, Any]]) -> None:
    """Measure both painters on one data set, and draw the sheet."""
    train, val = real_images(given, name)
    settings: dict[str, dict[str, Any]] = {"pixels": PIXELS, "latents": {**LATENTS, "vae": given.vae}}
    columns: dict[str, Sequence[Pixels]] = {}
    for kind in given.painters:
        config = CropConfig.model_validate({**settings[kind], "size_px": given.size})
        windows = windows_of(config, val)
        if not columns:
            holes = [np.where(one.mask[..., None], np.uint8(127), one.pixels) for one in windows]
            columns = {"original": [one.pixels for one in windows], "hole": holes}
        uri = str(Path(given.out) / f"{name}-{given.size}-{kind}.safetensors")
        with get_context("spawn").Pool(1) as pool:
            job = at_strength(config, max(given.strengths)), train, windows, given, uri
            measured = pool.apply(measure, job)
        for figures, painted in measured:
            columns[f"{kind}, strength {figures['strength']:g}"] = painted
            row = {"data": name, "size_px": given.size, "seconds": given.seconds, "painter": kind, **figures}
            known[:] = [one for one in known if any(one[key] != row[key] for key in KEYS)] + [row]
            print(json.dumps(row), flush=True)
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    np.savez(windows_file(given, name), **columns)


def windows_file(given: argparse.Namespace, name: str) -> Path:
    """Where the columns of a sheet are kept."""
    return Path(given.out) / f"{name}-{given.size}.npz"


def main() -> None:
    """Measure the chosen data sets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with raccoon/, bccd/ and deeppcb/")
    parser.add_argument("--vae", required=True, help="the autoencoder: folder or hub id")
    parser.add_argument("--out", required=True, help="folder for checkpoints and sheets")
    parser.add_argument("--sets", nargs="+", default=["raccoon", "bccd"], choices=list(DATA))
    parser.add_argument("--painters", nargs="+", default=["pixels", "latents"], choices=["pixels", "latents"])
    parser.add_argument("--strengths", nargs="+", type=float, default=[0.05, 0.2])
    parser.add_argument("--size", type=int, default=256, help="side of the windows, px")
    parser.add_argument("--seconds", type=float, default=180, help="CPU seconds of a fit")
    parser.add_argument("--side", type=int, default=160, help="side of a window on a sheet, px")
    parser.add_argument("--rows", nargs="+", type=int, default=range(NUM_WINDOWS), help="windows on a sheet")
    parser.add_argument("--draw", action="store_true", help="only draw the sheets of what was measured")
    given = parser.parse_args()
    Path(given.out).mkdir(parents=True, exist_ok=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for name in given.sets:
        if not given.draw:
            compare(given, name, known)
        drawn = encode_png(sheet(np.load(windows_file(given, name)), given.rows, given.side))
        windows_file(given, name).with_suffix(".png").write_bytes(drawn)


if __name__ == "__main__":
    main()
