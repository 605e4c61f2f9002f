"""The driver killed at every stage, and the same command started again: the same end, and nothing done twice."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from loop.config import ConfigError, LoopConfig
from loop.state import RunFolder

pytestmark = pytest.mark.slow

SERVER = """\
import json, os, sys
import matplotlib.pyplot, mlflow, pycocotools.cocoeval, scipy.ndimage
from actors.detectors.ultralytics.weights import import_ultralytics
from loop import driver
from loop.cli import main

import_ultralytics()
for line in sys.stdin:
    log, *arguments = json.loads(line)
    pid = os.fork()
    if pid == 0:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1), os.dup2(said, 2)
        sys.argv = ["detloop", *arguments]
        try:
            main()
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code or 0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Runs command lines in processes of their own, which need not import everything anew."""

STAGES = {
    "rendering the world": "worlds/*/images/train/000002.png",
    "fitting the filters": "run/train.json",
    "making MLflow's tables": ".mlflow.db.*.part/mlflow.db",
    "training the control": "run/mlflow.json",
    "the control is trained, which is not noted yet": "controls/*/detector.safetensors",
    "mining": "controls/*/evaluate.json",
    "generating": "run/rounds/001/*/*.json",
    "training": "run/rounds/001/pool.json",
    "evaluating": "run/rounds/001/val.npz",
    "reporting": "mlartifacts/*/artifacts/pr_curve.png",
    "generating in round 2": "run/rounds/002/*/*.json",
    "concluding": "run/summary.json",
}
"""Where the driver is killed, in this order: as soon as there is such a file."""

MARKED = {
    "train.json": ["detector.safetensors"],
    "evaluate.json": ["val.npz"],
    "round.json": ["pr_curve.png", "contact_sheet.png"],
}
"""What a stage has written when its marker is there."""


class Server:
    """Starts ``detloop`` and, if asked to, kills it."""

    def __init__(self, folder):
        self.log = folder / "said.txt"
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, *arguments, kill_at=None):
        """Exit status, negative where killed, and what was said. ``kill_at`` is a folder and a pattern below it."""
        self.process.stdin.write(json.dumps([str(self.log), *map(str, arguments)]) + "\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        if kill_at is not None:
            folder, pattern = kill_at
            known = set(folder.glob(pattern))
            while set(folder.glob(pattern)) <= known and not _is_over(pid):
                time.sleep(0.001)
            os.kill(pid, signal.SIGKILL)
        return int(self.process.stdout.readline()), self.log.read_text()


def _is_over(pid):
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.process.stdin.close()
    server.process.wait()


@pytest.fixture(scope="module")
def config(small_model, tmp_path_factory):
    """A config file: two rounds on a small world, in which two candidates of three are kept or so."""
    tree = {
        "name": "run",
        "rounds": 2,
        "data": {"format": "world", "world": {"train": 6, "val": 4}},
        "detector": {"model": str(small_model), "image_size_px": 64},
        "mining": {"budget": 8},
        "generator": {"kind": "copy_paste"},
        "generation": {"copies": 4},
        "filters": [{"kind": "blank"}, {"kind": "duplicate"}, {"kind": "naturalness", "quantile": 0.2}],
        "mixing": {"p": 0.5},
        "training": {"steps": 8, "epoch_steps": 4, "batch_size": 4},
        "evaluation": {"bootstrap_draws": 100},
        "hosting": {"engine": "inline", "generate": {"batch_size": 2}, "inspect": {"batch_size": 2}}
        | {"judge": {"batch_size": 2}, "keep": {"batch_size": 2}},
    }
    file = tmp_path_factory.mktemp("config") / "run.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.fixture(scope="module")
def undisturbed(server, config, new_root):
    root = new_root()
    status, said = server.start("run", config, "--set", f"root={root}")
    assert status == 0, said
    return root


def finished(root):
    """Every file that a finished stage has written, and when."""
    files = [*root.glob("run/filters.json"), *root.glob("run/rounds/*/*/*.json")]
    files += [file.with_suffix(".png") for file in root.glob("run/rounds/*/*/*.json")]
    for marker in [*root.glob("run/rounds/*/*.json"), *root.glob("controls/*/*.json")]:
        files += [marker, *(marker.with_name(name) for name in MARKED.get(marker.name, []))]
    return {file: file.stat().st_mtime_ns for file in files}


def rewritten(before):
    return [str(file) for file, written in before.items() if file.stat().st_mtime_ns != written]


def results(root):
    """What a run came to, by file, without what depends on the clock or on the name of the root."""
    files = {file.relative_to(root): file.read_bytes() for file in root.glob("run/rounds/*/*.safetensors")}
    files |= {file.relative_to(root): file.read_bytes() for file in root.glob("run/rounds/*/*/[!.]*")}
    summary = json.loads((root / "run/summary.json").read_text())
    rounds = [{k: v for k, v in one.items() if k not in {"seconds", "wall_s", "engine_s"}} for one in summary["rounds"]]
    return {"files": files, "manifest": (root / "run/manifest.json").read_text(), "rounds": rounds}


def logged(root):
    """The runs in MLflow: for each, its round, its status, how often each of its figures is there, and its files."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    found = []
    for run in client.search_runs([one.experiment_id for one in client.search_experiments()]):
        steps = {key: [p.step for p in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics}
        files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
        found.append((run.data.tags.get("round", ""), run.info.status, steps, files))
    return sorted(found, key=lambda one: one[0])


def leave_litter(folder):
    """What a writer leaves that is killed in the middle of a file."""
    for name in ("mine.json", "pool.json", "0123456789abcdef.json", "detector.safetensors"):
        (folder / f".{name}.0123.part").write_bytes(b'{"half')


@pytest.fixture(scope="module")
def killed(server, config, undisturbed, tmp_path_factory):
    """The root of a run whose driver was killed at every stage, what each start found finished, and what it said."""
    del undisturbed
    root, starts = tmp_path_factory.mktemp("root"), []
    for stage, pattern in STAGES.items():
        before = finished(root)
        status, said = server.start("run", config, "--set", f"root={root}", kill_at=(root, pattern))
        assert status == -signal.SIGKILL, f"{stage}: {said}"
        starts.append((stage, before, said))
        for folder in root.glob("run/rounds/*"):
            leave_litter(folder)
    return root, starts


def test_a_run_killed_at_every_stage_ends_as_if_it_had_not_been(killed, config, undisturbed):
    root, _ = killed
    before = finished(root)
    command = [Path(sys.executable).with_name("detloop"), "run", config, "--set", f"root={root}"]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    last = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)  # noqa: S603 - our own
    assert last.returncode == 0, last.stderr
    assert results(root) == results(undisturbed)
    assert not rewritten(before)
    assert logged(root) == logged(undisturbed)


def test_no_start_does_again_what_an_earlier_one_has_finished(killed):
    _, starts = killed
    assert not [(stage, lines) for stage, before, _ in starts if (lines := rewritten(before))]
    num_finished = [len(before) for _, before, _ in starts]
    assert num_finished == sorted(num_finished)
    assert num_finished[0] == 0 < num_finished[4] < num_finished[-1]


def test_candidates_that_are_whole_are_not_drawn_again(killed):
    root, starts = killed
    number = {stage: index for index, (stage, _, _) in enumerate(starts)}
    index = number["generating"] + 1
    _, before, said = starts[index]
    num_whole = len([file for file in before if file.match("run/rounds/001/*/*.json")])
    num_all = len([*root.glob("run/rounds/001/*/[!.]*.json")])
    assert 0 < num_whole < num_all
    line = next(line for line in said.splitlines() if line.startswith("generate and judge"))
    assert int(line.split()[3]) == num_all - num_whole


def test_another_config_under_the_same_name_is_refused_with_the_keys(server, config, undisturbed):
    before = {file: file.stat().st_mtime_ns for file in undisturbed.rglob("run/**/*.*")}
    changes = ("--set", "mining.budget=7", "--set", "seed=3")
    status, said = server.start("run", config, "--set", f"root={undisturbed}", *changes)
    assert status == 2
    assert "holds a run of another config" in said
    assert "mining.budget: 8 -> 7\n  seed: 0 -> 3" in said
    assert "rounds:" not in said
    assert {file: file.stat().st_mtime_ns for file in undisturbed.rglob("run/**/*.*")} == before


def test_rounds_may_grow_and_not_shrink(easy_config, tmp_path):
    def claim(rounds, **changes):
        config = LoopConfig.model_validate({**easy_config, "root": str(tmp_path), "rounds": rounds, **changes})
        folder = RunFolder.claim(config)
        folder.record_detectors(0, (), ())  # before, the folder would be claimed anew
        return folder.config().rounds

    assert [claim(rounds) for rounds in (1, 1, 3)] == [1, 1, 3]
    with pytest.raises(ConfigError, match=r"only rounds may grow\):\n  rounds: 3 -> 2$"):
        claim(2)
    with pytest.raises(ConfigError, match=r":\n  seed: 0 -> 1$"):
        claim(4, seed=1)
    assert claim(3) == 3  # what was refused has changed nothing


def test_where_a_run_is_hosted_may_change(server, config, undisturbed):
    before = finished(undisturbed)
    changes = ("--set", "hosting.generate.batch_size=5", "--set", "hosting.train.max_failures=0")
    status, said = server.start("run", config, "--set", f"root={undisturbed}", *changes)
    assert status == 0, said
    assert not rewritten(before)


def test_data_that_changed_since_the_first_start_are_refused(server, config, undisturbed, tmp_path):
    root = tmp_path / "moved"
    shutil.copytree(undisturbed / "run", root / "run")
    (world,) = undisturbed.glob("worlds/*")
    shutil.copytree(world, root / "worlds" / world.name)
    annotations = root / "worlds" / world.name / "annotations" / "train.json"
    content = json.loads(annotations.read_text())
    del content["annotations"][0]
    annotations.write_text(json.dumps(content))
    before = finished(root)
    status, said = server.start("run", config, "--set", f"root={root}")
    assert status == 2
    assert "have changed since it was started" in said
    assert re.search(r"^  train: '6 images \w{12}' -> '6 images \w{12}'$", said, re.MULTILINE)
    assert "val:" not in said
    assert not rewritten(before)
