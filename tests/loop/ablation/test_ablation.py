"""Ablations: what a file asks, what runs share, how a sweep ends - disturbed or not - and what its table says."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from io import BytesIO, StringIO
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import psutil
import pytest
import yaml
from PIL import Image
from rich.console import Console

from actors.checkpoint import read_checkpoint
from actors.hosting import Host
from loop.ablation.config import load_ablation
from loop.ablation.run import ablate, claim
from loop.ablation.table import AblationTable, TrialResult, csv_table, json_rows, markdown, picture
from loop.cache import Remembered
from loop.config import SCHEMA, ConfigError, LoopConfig
from loop.driver import run
from loop.hosting.records import Platform
from loop.progress import Reporter
from loop.tracking.names import flatten

QUICKSTART = Path(__file__).parents[3] / "configs" / "quickstart.yaml"


@pytest.fixture
def asked(tmp_path):
    """Writes an ablation file and loads it over the quickstart."""

    def load(question, *overrides):
        file = tmp_path / "question.yaml"
        file.write_text(yaml.safe_dump({"name": "question", **question}, sort_keys=False))
        return load_ablation([QUICKSTART, file], [f"root={tmp_path}", *overrides])

    return load


def test_an_arm_is_the_run_with_the_arms_own_keys(asked):
    arms = {
        "real": {"rounds": 0},
        "naive": {"filters": [], "training.background_ignore": False},
        "strict": {"filters": [{"kind": "agreement", "iou_threshold": 0.9}], "mining": {"budget": 7}},
    }
    ablation = asked({"seeds": [4, 2], "arms": arms}, "mixing.p=0.4")
    assert ablation.arms == ("real", "naive", "strict")
    assert [(one.arm, one.seed) for one in ablation.trials] == [(arm, seed) for arm in arms for seed in (4, 2)]
    real, _, naive, _, strict, last = [one.config for one in ablation.trials]
    assert [one.config.seed for one in ablation.trials] == [4, 2] * 3
    assert (real.rounds, naive.rounds, strict.rounds) == (0, 1, 1)
    assert (naive.filters, naive.training.background_ignore, naive.training.batch_size) == ((), False, 16)
    assert [one.kind for one in strict.filters] == ["agreement"]
    assert (strict.filters[0].iou_threshold, strict.mining.budget, strict.mining.policy) == (0.9, 7, "ranked")
    assert last.name == "question-strict-s2"
    assert {one.config.mixing.p for one in ablation.trials} == {0.4}
    assert {one.config.hosting.share_candidates for one in ablation.trials} == {True}


def test_axes_are_crossed_with_the_arms(asked):
    axes = {"mixing.p": [0, 0.1], "generation.copies": [1, 2]}
    ablation = asked({"seeds": [0], "arms": {"all": {}, "naive": {"filters": []}}, "axes": axes})
    assert ablation.arms[:2] == (
        "all, mixing.p=0, generation.copies=1",
        "all, mixing.p=0, generation.copies=2",
    )
    points = [(len(c.filters), c.mixing.p, c.generation.copies) for c in (one.config for one in ablation.trials)]
    assert points == [(n, p, copies) for n in (3, 0) for p in (0, 0.1) for copies in (1, 2)]
    assert ablation.trials[0].config.name == "question-all-mixing.p-0-generation.copies-1-s0"
    assert asked({"axes": {"mixing.p": [0, 0.1]}}).arms == ("mixing.p=0", "mixing.p=0.1")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"arms": {"naive": {"minig.budget": 3}}}, r"arm 'naive', cannot be used:\n  minig: unknown key; known here"),
        ({"axes": {"mixing.p": [0.5, 2]}}, r"arm 'mixing.p=2', cannot be used:\n  mixing.p: .* seen: 2"),
        ({"arms": {"one": {"seed": 3}}}, "an arm cannot set seed"),
        ({"arms": {"one": {"tracking.uri": "x"}}}, "an arm cannot set tracking.uri"),
        ({"axes": {"evaluation.seeds": [1, 3]}}, "an arm cannot set evaluation.seeds"),
        ({"arms": {"a b": {}, "a, b": {}}}, "names of arms must differ in more than punctuation"),
        ({"seeds": [1, 1], "arms": {"one": {}}}, "each seed may occur once"),
        ({"seeds": [0]}, "give arms, or axes, or both"),
        ({"arm": {"one": {}}}, "arm: unknown key; known here: arms, axes, max_concurrent, metric, name, seeds"),
    ],
)
def test_what_is_wrong_in_an_ablation_is_said(asked, question, message):
    with pytest.raises(ConfigError, match=message):
        asked(question)


def test_each_run_of_an_ablation_has_one_training_seed(asked):
    ablation = asked({"seeds": [4, 2], "arms": {"real": {}}}, "evaluation.seeds=3", "evaluation.bootstrap_draws=200")
    assert [(one.config.evaluation.seeds, one.config.evaluation.bootstrap_draws) for one in ablation.trials] == [
        (1, 200)
    ] * 2


def test_a_config_of_a_run_is_asked_for():
    with pytest.raises(ConfigError, match="give the run's config first"):
        load_ablation([QUICKSTART])


def test_arms_and_seeds_may_be_added_later_and_nothing_else(asked):
    claim(asked({"seeds": [0], "arms": {"real": {"rounds": 0}}}))
    claim(asked({"seeds": [1, 0], "arms": {"all": {}, "real": {"rounds": 0}}}))
    with pytest.raises(ConfigError, match=r"another config.*\n  arm 'all' is gone\n  seed 1 is gone$"):
        claim(asked({"seeds": [0], "arms": {"real": {"rounds": 0}}}))
    with pytest.raises(ConfigError, match=r"\n  all.mixing.p: 0.5 -> 0.3$"):
        claim(asked({"seeds": [0, 1], "arms": {"real": {"rounds": 0}, "all": {"mixing.p": 0.3}}}))
    with pytest.raises(ConfigError, match=r"\n  all.training.steps: 800 -> 80\n  real.training.steps: 800 -> 80$"):
        claim(asked({"seeds": [0, 1], "arms": {"all": {}, "real": {"rounds": 0}}}, "training.steps=80"))


@pytest.fixture
def table():
    ap = {"real": [0.40, 0.42, 0.44], "all": [0.43, 0.44, 0.48], "late": [0.41, None, 0.41], "once": [None, 0.40, None]}
    results = [
        TrialResult(arm=arm, seed=seed, steps=600, metrics={"AP": value, "AP50": 2 * value})
        for arm, values in ap.items()
        for seed, value in enumerate(values)
        if value is not None
    ]
    failed = {"late, seed 1": "ValueError: no | boxes"}
    return AblationTable(name="q", metric="AP", arms=tuple(ap), results=tuple(results), failed=failed)


def test_the_table_holds_means_and_paired_differences_with_students_interval(table):
    """By hand: differences .03 .02 .04, mean .03, sd .01; t(2 degrees, 97.5 %) = 4.302653, times .01 / sqrt 3."""
    real, every, late, once = table.rows()
    assert (real.seeds, real.mean, real.sd) == pytest.approx((3, 0.42, 0.02))
    assert (real.pairs, real.difference, real.low, real.high) == (0, None, None, None)
    assert (every.seeds, every.mean, every.pairs, every.difference) == pytest.approx((3, 0.45, 3, 0.03))
    assert (every.low, every.high) == pytest.approx((0.03 - 0.024841, 0.03 + 0.024841), abs=1e-6)
    assert (late.seeds, late.pairs, late.difference) == pytest.approx((2, 2, -0.01))  # .01 and -.03: seeds 0 and 2
    assert (once.seeds, once.sd, once.difference, once.low) == (1, None, pytest.approx(-0.02), None)


def test_the_table_is_markdown_in_points_and_csv_in_fractions(table):
    lines = markdown(table).splitlines()
    assert lines[0] == "| arm | seeds | AP | sd | difference to real | 95 % interval |"
    assert lines[2] == "| real | 3 | 42.0 | 2.0 |  |  |"
    assert lines[3] == "| all | 3 | 45.0 | 2.6 | +3.0 | [+0.5, +5.5] |"
    assert lines[5] == "| once | 1 | 40.0 |  | \N{MINUS SIGN}2.0 |  |"
    assert lines[-1] == "- late, seed 1: ValueError: no | boxes"
    rows = list(csv.DictReader(StringIO(csv_table(table))))
    assert [row["arm"] for row in rows] == list(table.arms)
    assert float(rows[1]["difference"]) == pytest.approx(0.03)
    assert rows[3]["low"] == ""
    runs = json.loads(json_rows(table))
    assert runs[3] == {"arm": "all", "seed": 0, "steps": 600, "metrics": {"AP": 0.43, "AP50": 0.86}}
    assert "| all | 3 | 90.0 |" in markdown(replace(table, metric="AP50"))


def test_a_table_of_runs_on_different_platforms_warns(table):
    here = Platform(device="cpu", model="A", precision="float32", libraries={"torch": "2.9"})
    alike = replace(table, results=tuple(replace(one, trained_on=(here,)) for one in table.results))
    assert "Warning" not in markdown(alike)
    other = replace(table.results[0], trained_on=(here, replace(here, precision="bfloat16")))
    said = markdown(replace(alike, results=(*alike.results[1:], other)))
    assert "the runs were not trained alike" in said
    assert "number format: float32 and bfloat16" in said


def test_the_picture_has_a_line_for_each_arm(table):
    few, many = (Image.open(BytesIO(picture(one))) for one in (replace(table, arms=("real", "all")), table))
    assert many.width == few.width
    assert many.height > few.height


class Draw:
    """Draws a row's number; row "bad" fails."""

    def __init__(self, log):
        self.log = log
        log.append("opened")

    def __call__(self, batch):
        self.log.append([row["id"] for row in batch])
        if any(row["id"] == "bad" for row in batch):
            raise ValueError("cannot draw this")
        return [self.columns(row["id"]) for row in batch]

    def columns(self, row_id):
        number = int(row_id)
        return {"pixels": np.full((number + 1, 2, 3), number, np.uint8), "boxes": np.zeros((0, 4), np.float32)} | {
            "canvas": f"a/{row_id}.png",
            "refused": "",
            "scale": 0.5,
        }

    def blank(self):
        return self.columns("0")


def rows(*ids):
    return [{"id": row_id, "error": ""} for row_id in ids]


def test_what_one_run_has_drawn_another_takes_from_there(tmp_path):
    log = []
    first = Remembered(partial(Draw, log), str(tmp_path / "shared"))
    first(rows("1", "2"))
    assert log == ["opened", ["1", "2"]]
    second = Remembered(partial(Draw, log), str(tmp_path / "shared"))
    again = second(rows("2", "1"))
    assert log == ["opened", ["1", "2"]]  # not even opened
    both = second(rows("1", "3"))
    assert log[2:] == ["opened", ["3"]]
    expected = Draw([]).columns("2")
    assert again[0].keys() == expected.keys()
    for name, value in expected.items():
        assert type(again[0][name]) is type(value)
        assert np.array_equal(again[0][name], value)
    assert again[0]["boxes"].dtype == np.float32
    assert [row["pixels"].max() for row in both] == [1, 3]
    assert {file.name for file in (tmp_path / "shared").iterdir()} == {"1.npz", "2.npz", "3.npz"}


def test_what_could_not_be_drawn_is_not_remembered(tmp_path):
    log = []
    host = Host("draw", partial(Remembered, partial(Draw, log), str(tmp_path)))
    done = host.process(rows("1", "bad"))
    assert [row["error"] for row in done] == ["", "draw: ValueError: cannot draw this"]
    assert [file.name for file in tmp_path.iterdir()] == ["1.npz"]


@pytest.fixture(scope="module")
def small_run(easy_config):
    """A run that is over in a second or two."""
    training = {**easy_config["training"], "steps": 12}
    return {**easy_config, "rounds": 1, "training": training}


def start(tree, root, **changes):
    said = StringIO()
    config = LoopConfig.model_validate({**tree, "root": str(root), **changes})
    return Path(run(config, Reporter(Console(file=said, width=200)))), said.getvalue()


@pytest.mark.slow
def test_candidates_are_drawn_once_for_arms_that_judge_and_train_differently(small_run, new_root):
    root, sharing = new_root(), {"engine": "inline", "share_candidates": True}
    alone, _ = start(small_run, root, name="alone")
    first, _ = start(small_run, root, name="first", hosting=sharing, filters=[], mixing={"p": 0.2})
    (shared,) = root.glob("candidates/*")
    drawn = {file: file.stat().st_mtime_ns for file in shared.glob("*/*")}
    num_candidates = len(list(first.glob("rounds/001/*/*.json")))
    assert len(drawn) == 2 * num_candidates > 0
    second, said = start(small_run, root, name="second", hosting=sharing)
    assert {file: file.stat().st_mtime_ns for file in shared.glob("*/*")} == drawn
    assert "\nmine " not in said
    assert samples(second) == samples(alone)
    assert samples(first).keys() != samples(second).keys()  # nothing was dropped there
    assert len(list(root.glob("controls/*"))) == 1


def samples(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.glob("rounds/001/*/*.*")}


@pytest.mark.slow
def test_without_rounds_the_control_alone_is_trained_and_measured(small_run, new_root):
    from mlflow import MlflowClient

    root = new_root()
    control, said = start(small_run, root, name="control", rounds=0)
    looped, _ = start(small_run, root, name="looped")
    summary = json.loads((control / "summary.json").read_text())
    after = json.loads((looped / "summary.json").read_text())
    assert summary["rounds"] == []
    assert summary["metrics"]["control"]["AP"] == after["rounds"][0]["control_ap"]
    assert {"AP", "AP50", "AP/red"} <= summary["metrics"]["control"].keys()
    assert after["metrics"]["loop"]["AP"] == after["rounds"][0]["ap"]
    assert [file.name for file in control.glob("rounds/*/*")] == ["detectors.json"]  # where the control's is
    assert "no rounds: the control alone" in said
    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    (logged,) = client.search_runs([client.get_experiment_by_name("control").experiment_id])
    assert logged.data.metrics["control_AP"] == summary["metrics"]["control"]["AP"]


ARMS = {
    "real": {"rounds": 0},
    "naive": {"filters": [], "training.background_ignore": False, "detector.image_size_px": 32},
    "broken": {"training.overrides.no_such_setting": 1},
}


def sweep(folder, root, arms, seeds):
    """The command of a sweep."""
    question = folder / "q.yaml"
    question.write_text(yaml.safe_dump({"name": "q", "seeds": seeds, "arms": arms}, sort_keys=False))
    detloop = Path(sys.executable).with_name("detloop")
    return [detloop, "ablate", folder / "run.yaml", question, "--set", f"root={root}"]


@pytest.fixture(scope="module")
def folder(small_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "run.yaml").write_text(yaml.safe_dump(small_run))
    return folder


@pytest.fixture(scope="module")
def swept(folder, new_root):
    """The root of a sweep in which one arm fails, its exit status, and what it said."""
    root = new_root()
    done = subprocess.run(sweep(folder, root, ARMS, [0, 1]), check=False, capture_output=True, text=True)  # noqa: S603 - our own
    return root, done.returncode, done.stdout + done.stderr


def runs_of(root):
    return {file.stem: json.loads(file.read_text()) for file in root.glob("ablations/q/trials/*.json")}


def test_a_failed_arm_is_named_and_the_others_are_finished(swept):
    root, status, said = swept
    assert status == 1, said
    assert runs_of(root).keys() == {"q-real-s0", "q-real-s1", "q-naive-s0", "q-naive-s1"}
    table = (root / "ablations/q/table.md").read_text()
    assert table in said
    assert "| broken | 0 |" in table
    assert "- broken, seed 1: ValueError: training.overrides.no_such_setting" in table
    log = (root / "ablations/q/logs/q-broken-s1.txt").read_text()
    assert "Traceback" in log
    assert "ValueError: training.overrides.no_such_setting" in log


def test_the_results_are_those_of_the_runs_and_of_plain_runs(swept, small_run):
    root, _, _ = swept
    for name, result in runs_of(root).items():
        summary = json.loads((root / name / "summary.json").read_text())
        assert result["metrics"] == summary["metrics"]["control" if "real" in name else "loop"]
        assert (result["steps"], result["seed"]) == (12, summary["seed"])
    assert json.loads((root / "ablations/q/rows.json").read_text()) == [
        runs_of(root)[f"q-{arm}-s{seed}"] for arm in ("real", "naive") for seed in (0, 1)
    ]
    changes = {"filters": [], "training": {**small_run["training"], "background_ignore": False}, "seed": 1}
    plain, _ = start(small_run, root, name="plain", **changes, detector={**small_run["detector"], "image_size_px": 32})
    metrics = json.loads((plain / "summary.json").read_text())["metrics"]
    assert metrics["loop"] == runs_of(root)["q-naive-s1"]["metrics"]
    assert len(list(root.glob("controls/*/train.json"))) == 4  # one a seed and image size, the plain run's among them


def test_a_trials_config_is_that_of_its_folder_its_checkpoint_and_mlflow(swept, folder):
    from mlflow import MlflowClient

    root, _, _ = swept
    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    logged = client.search_runs([client.get_experiment_by_name("q").experiment_id])
    (parent,) = [run for run in logged if "mlflow.parentRunId" not in run.data.tags]
    ablation = load_ablation([folder / "run.yaml", folder / "q.yaml"], [f"root={root}"])
    for trial in (one for one in ablation.trials if one.arm != "broken"):  # which is refused before it begins
        config, name = trial.config, trial.config.name
        assert json.loads((root / name / "config.json").read_text()) == {"schema": SCHEMA, **config.science()}
        ids = json.loads((root / name / "mlflow.json").read_text())
        (run,) = [run for run in logged if run.info.run_id == ids["loop"]]
        assert run.data.tags.items() >= {"ablation": "q", "arm": trial.arm}.items()
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        science = flatten(config.science())
        assert {key: value for key, value in run.data.params.items() if key in science} == science
        for file in (root / name).glob("rounds/*/detector.safetensors"):
            header, _ = read_checkpoint(str(file))
            assert (header.model, header.image_size_px) == (Path(config.detector.model).name, 32)


def test_the_ablation_is_one_run_in_mlflow_with_table_and_picture(swept):
    from mlflow import MlflowClient

    root, _, _ = swept
    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    ids = json.loads((root / "ablations/q/mlflow.json").read_text())
    parent = client.get_run(ids["loop"])
    assert parent.info.status == "FAILED"  # an arm did
    row = next(csv.DictReader((root / "ablations/q/table.csv").open()))
    assert parent.data.metrics["AP/mean/real"] == float(row["mean"])
    place = Path(url2pathname(urlparse(parent.info.artifact_uri).path))
    for name in ("table.md", "table.csv", "table.png", "rows.json"):
        assert (place / name).read_bytes() == (root / "ablations/q" / name).read_bytes()


def test_a_sweep_killed_in_the_middle_goes_on_to_the_same_table(swept, folder, new_root):
    root, arms = new_root(), {name: ARMS[name] for name in ("real", "naive")}
    command = sweep(folder, root, arms, [0])
    log = (folder / "said.txt").open("w")
    first = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own
    while not runs_of(root) and first.poll() is None:
        time.sleep(0.01)
    started = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    before = {file: file.stat().st_mtime_ns for name in runs_of(root) for file in (root / name).rglob("*.json")}
    assert len(runs_of(root)) == 1
    second = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own
    _end(started)
    assert second.returncode == 0, second.stderr
    assert {file: file.stat().st_mtime_ns for file in before} == before
    undisturbed = json.loads((swept[0] / "ablations/q/rows.json").read_text())
    assert json.loads((root / "ablations/q/rows.json").read_text()) == [run for run in undisturbed if run["seed"] == 0]
    assert (root / "ablations/q/table.md").read_text() in second.stdout
    assert not list(root.glob("**/.*.lock"))


def test_a_trial_whose_stages_are_on_ray_comes_to_what_an_inline_one_does(swept, folder, new_root):
    """Within Tune's actor, which has next to no CPU of its own: streams of Ray Data's actors, Ray Train's worker."""
    inline, root, place = swept[0], new_root(), "q-naive-s0/rounds/001"
    shutil.copytree(inline / "controls", root / "controls")  # what is there is not waited for
    (root / place).mkdir(parents=True)
    shutil.copy(inline / place / "mine.json", root / place)
    question = {"name": "q", "seeds": [0], "arms": {"naive": ARMS["naive"]}}
    (folder / "ray.yaml").write_text(yaml.safe_dump(question))
    ablation = load_ablation([folder / "run.yaml", folder / "ray.yaml"], [f"root={root}", "hosting.engine=ray"])
    table = ablate(ablation, Reporter(Console(file=StringIO())))
    assert table.failed == {}
    assert (root / place / "train").is_dir()  # Ray Train's
    assert runs_of(root) == {"q-naive-s0": runs_of(inline)["q-naive-s0"]}
    assert samples(root / "q-naive-s0") == samples(inline / "q-naive-s0")


def _end(processes):
    """What a killed driver's Ray leaves where nobody reaps it."""
    for process in psutil.wait_procs(processes, timeout=2)[1]:
        if process.status() != psutil.STATUS_ZOMBIE:
            process.kill()
