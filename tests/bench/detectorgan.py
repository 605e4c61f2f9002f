"""Measure DetectorGAN: ``python tests/bench/detectorgan.py deeppcb|world --weights FILE [--data DIR] ...``

The paper's arms beside copy-paste and the crop painter, on canvases with and without objects, with and without a choice
among the candidates. Rows go to ``results/detectorgan.json``; the table of ``docs/evidence.md`` is written from that
file (see ``evidence.py``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from evidence import Evidence, Question
from evidence_tables import SEEDS, Rows, command, compared, folder_of, heading, sections, sentence

MARKS = "detectorgan"
OF_WORLD = (
    "data.world.clean=100",
    "detector.weights=yolo11n.pt",
    "detector.image_size_px=256",
    "generation={copies: 8, keep: 100}",
    "mixing.p=0.3",
    "training={start: weights, steps: 400, epoch_steps: 50, batch_size: 8, background_ignore: false}",
    "hosting.train.num_cpus=1",
)
"""The short fine-tuning of configs/deeppcb.yaml on the quickstart's scenes."""
QUESTIONS = {
    "deeppcb": Question(data="deeppcb", base="deeppcb.yaml", ablation="detectorgan_deeppcb.yaml"),
    "world": Question(data="world", base="quickstart.yaml", ablation="detectorgan_world.yaml", overrides=OF_WORLD),
}
ARMS = {
    "real": "control: real images only",
    "copy_paste": "copy-paste into other training images",
    "copy_paste_clean": "copy-paste into images without objects; a random choice joins the pool",
    "copy_paste_agreement": "`copy_paste_clean`; the candidates that the detector agrees with most join the pool",
    "copy_paste_utility": "`copy_paste_clean`; the candidates of highest utility join the pool",
    "crop": "the crop painter, in training images",
    "crop_clean": "the crop painter, in images without objects; a random choice joins the pool",
    "crop_agreement": "`crop_clean`; the candidates that the detector agrees with most join the pool",
    "crop_utility": "`crop_clean`; the candidates of highest utility join the pool",
    "gan": "DetectorGAN's generator, fitted without the detector",
    "gan_syn": "`gan` with L_syn: drawn objects are to be detected",
    "gan_unroll": "`gan_syn` with L_unroll: a training step on them is to lower the loss on real images",
    "real_4x": "real images only, four times as many",
}
PAIRS = (
    ("copy_paste_clean", "copy_paste"),
    ("crop_clean", "crop"),
    ("copy_paste_utility", "copy_paste_clean"),
    ("copy_paste_utility", "copy_paste_agreement"),
    ("crop_utility", "crop_clean"),
    ("crop_utility", "crop_agreement"),
    ("gan_syn", "gan"),
    ("gan_unroll", "gan_syn"),
    ("gan_unroll", "copy_paste_clean"),
)
NOTE = """\
AP and AP50 are those of the last round's detector on the real validation images, in points (x100). All arms train for
the same number of optimiser steps, and show the same images without objects as images without boxes. "vs" columns are
paired by seed; brackets hold the 95 % interval (Student's t over the seeds)."""


def section(results: dict[str, Any]) -> str:
    """The text between the marks in ``docs/evidence.md``."""
    return sections(results, NOTE, ARMS, _data_set)


def _data_set(data: str, run: Mapping[str, Any], rows: Rows, arms: Sequence[str]) -> list[str]:
    return [
        heading(data, run["config"]),
        compared(rows, arms, ARMS, ("real", "copy_paste")),
        "\n".join(line for pair in PAIRS if (line := sentence(rows, *pair))),
        command(MARKS, f"{data}{folder_of(data)} --weights FILE", SEEDS[data]),
    ]


EVIDENCE = Evidence(name=MARKS, questions=QUESTIONS, columns={"ap": "AP", "ap50": "AP50"}, sections={MARKS: section})


if __name__ == "__main__":
    EVIDENCE.main(__doc__ or "")
