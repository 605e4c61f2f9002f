"""A generator that is fitted again: in which rounds, from where on, and what is shown of it."""

import json
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image
from rich.console import Console

from loop import arms, stages
from loop.config import LoopConfig
from loop.driver import run
from loop.progress import Reporter
from loop.training.fit import EPOCH_STEPS

pytestmark = pytest.mark.slow

PAINTER = {"kind": "crop", "size_px": 16, "channels": [8, 16], "fit_steps": 2 * EPOCH_STEPS, "fit_batch_size": 4}


@pytest.fixture(scope="module")
def start(easy_config, new_root):
    """Starts three rounds with a fit in the first and the third; the run's folder, its fits, and what it drew with."""
    changes = {
        "root": str(new_root()),
        "rounds": 3,
        "generator": {"kind": "inpaint", "painter": PAINTER},
        "fit": {"every": 2},
        "generation": {"copies": 1},
        "filters": [],
        "training": {**easy_config["training"], "steps": 4, "epoch_steps": 2},
    }

    def begin():
        jobs, fitted, fit, generate = [], [], arms.fit, stages.Generate
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arms, "fit", lambda job, *rest: (jobs.append(job), fit(job, *rest))[1])
            opened = lambda config, sources: (fitted.append(sources.generator), generate(config, sources))[1]  # noqa: E731
            patch.setattr(stages, "Generate", opened)
            folder = run(LoopConfig.model_validate(easy_config | changes), Reporter(Console(file=StringIO())))
        return Path(folder), jobs, fitted

    return begin


@pytest.fixture(scope="module")
def three_rounds(start):
    return start()


def test_each_round_draws_with_the_last_fit_which_goes_on_from_the_one_before(three_rounds):
    _, (first, third), fitted = three_rounds
    assert fitted == [first.checkpoint, first.checkpoint, third.checkpoint]
    assert first.start is None
    assert third.start.checkpoint == first.checkpoint
    assert third.start.fingerprint == first.fingerprint() != third.fingerprint()
    assert third.data.seed != first.data.seed  # other examples


def test_the_fit_is_told_the_difficulties_of_its_round(three_rounds):
    folder, jobs, _ = three_rounds
    for number, job in zip((1, 3), jobs, strict=True):
        found = json.loads((folder / f"rounds/{number:03d}/mine.json").read_text())["found"]
        told = [difficulty for image in job.data.difficulties for difficulty in image]
        assert told == [instance["difficulty"] for instance in found]


def test_rounds_with_a_fit_show_what_the_generator_draws(three_rounds):
    folder, jobs, _ = three_rounds
    client = MlflowClient(tracking_uri=f"sqlite:///{folder.parent}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("easy").experiment_id], "tags.round != ''")
    for child in runs:
        logged = {file.path for file in client.list_artifacts(child.info.run_id)}
        assert ({"fit", "fit.png"} <= logged) == (child.data.tags["round"] in "13")
        assert child.data.metrics["fit/boxes_cut"] == 0
        if "fit" in logged:
            names = [file.path for file in client.list_artifacts(child.info.run_id, "fit")]
            assert names == [f"fit/{EPOCH_STEPS:07d}.png"]  # the first half; fit.png is the second
    for number, job in zip((1, 3), jobs, strict=True):
        sheets = [file.read_bytes() for file in sorted((Path(job.checkpoint).parent / "sheets").iterdir())]
        assert len(set(sheets)) == len(sheets) == 2
        assert (folder / f"rounds/{number:03d}/fit.png").read_bytes() == sheets[-1]
        assert Image.open(BytesIO(sheets[-1])).width > 3 * 200  # real, easy, hard


def test_started_again_it_goes_on_where_it_was(three_rounds, start):
    folder, (_, third), _ = three_rounds
    assert start()[1:] == ([], [])
    bytes_then = Path(third.checkpoint).read_bytes()
    for file in ("rounds/003/round.json", "rounds/003/pool.json"):
        (folder / file).unlink()
    (Path(third.checkpoint).parent / "fit.json").unlink()  # it had not finished
    _, (again,), fitted = start()
    assert again.fingerprint() == third.fingerprint()
    assert fitted == [third.checkpoint]
    assert Path(third.checkpoint).read_bytes() == bytes_then
