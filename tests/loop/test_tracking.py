"""MLflow on a real sqlite store: two levels, resumed without doubles, names that it accepts."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

from loop.config import LoopConfig
from loop.tracking import Tracker, flatten, legal_keys, store, ui_command

FIGURES = {"AP": 0.31, "AP/mouse bite (small)": 0.2, "gain": -0.01, "seconds/wall": 90.0, "dropped/agreement/no": 3}

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """One store for all tests here: creating its tables takes seconds."""
    return tmp_path_factory.mktemp("runs of mine")


def config(root, name, **sections) -> LoopConfig:
    tree = {"name": name, "root": str(root), "data": {"format": "world"}, "filters": [{"kind": "agreement"}]}
    return LoopConfig.model_validate({**tree, **sections})


def rounds_of(tracker):
    found = tracker.client.search_runs([tracker.run_ids["experiment"]], "tags.round != ''")
    return sorted(found, key=lambda run: run.data.tags["round"])


def steps_of(tracker, run_id, key):
    return [(point.step, point.value) for point in tracker.client.get_metric_history(run_id, key)]


def test_a_loop_is_a_run_with_a_child_for_each_round(root):
    with Tracker.open(config(root, "two-levels")) as tracker:
        tracker.log_round(1, FIGURES, {"contact_sheet.png": b"png", "curves/pr.png": b"curve"})
        tracker.log_round(2, {**FIGURES, "AP": 0.35}, {})
    loop, rounds = tracker.client.get_run(tracker.run_ids["loop"]), rounds_of(tracker)
    assert [run.data.tags["mlflow.parentRunId"] for run in rounds] == [loop.info.run_id] * 2
    assert [run.info.status for run in [loop, *rounds]] == ["FINISHED"] * 3
    assert rounds[0].data.metrics == {
        "AP": 0.31,
        "AP/mouse bite _small_": 0.2,
        "gain": -0.01,
        "seconds/wall": 90,
        "dropped/agreement/no": 3,
    }
    assert rounds[0].info.end_time - rounds[0].info.start_time >= 90_000
    assert steps_of(tracker, loop.info.run_id, "AP") == [(1, 0.31), (2, 0.35)]
    folder = Path(url2pathname(urlparse(rounds[0].info.artifact_uri).path))
    assert (folder / "contact_sheet.png").read_bytes() == b"png"
    assert (folder / "curves" / "pr.png").read_bytes() == b"curve"
    assert root / "mlartifacts" in folder.parents


def test_params_tags_and_config_are_on_the_loop(root):
    settings = config(root, "described")
    tracker = Tracker.open(settings)
    loop = tracker.client.get_run(tracker.run_ids["loop"])
    assert loop.info.status == "RUNNING"
    assert loop.data.params["training.steps"] == "600"
    assert loop.data.params["filters.agreement.position"] == "0"
    assert loop.data.tags["fingerprint"] == settings.fingerprint()
    assert {file.path for file in tracker.client.list_artifacts(loop.info.run_id)} == {"config.yaml"}


def test_a_resumed_loop_goes_on_in_the_same_runs_without_doubles(root):
    first = Tracker.open(config(root, "resumed"))
    first.log_round(1, FIGURES, {})
    again = Tracker.open(config(root, "resumed", hosting={"num_cpus": 8}), dict(first.run_ids))
    again.log_round(1, {**FIGURES, "seconds/wall": 2.0}, {})
    again.log_round(2, FIGURES, {})
    loop = again.client.get_run(first.run_ids["loop"])
    assert again.run_ids == first.run_ids
    assert len(rounds_of(again)) == 2
    assert steps_of(again, loop.info.run_id, "seconds/wall") == [(1, 90.0), (2, 90.0)]
    assert loop.data.params["hosting.num_cpus"] == "null"
    assert loop.data.tags["resumed_with"] == "hosting.num_cpus: null -> 8"


def test_a_round_whose_logging_was_cut_short_is_completed_once(root):
    tracker = Tracker.open(config(root, "cut-short"))
    child = tracker._create_round(1, FIGURES)  # the driver died here, with some figures written ...
    tracker._log_metrics(child.info.run_id, {"AP": 0.31}, 1)
    tracker._log_metrics(tracker.run_ids["loop"], {"AP": 0.31}, 1)
    Tracker.open(config(root, "cut-short"), tracker.run_ids).log_round(1, FIGURES, {})  # ... and came back
    (only,) = rounds_of(tracker)
    assert only.info.status == "FINISHED"
    for run_id in (child.info.run_id, tracker.run_ids["loop"]):
        assert steps_of(tracker, run_id, "AP") == [(1, 0.31)]
        assert steps_of(tracker, run_id, "gain") == [(1, -0.01)]


def test_an_error_inside_the_loop_marks_its_run_failed(root):
    with pytest.raises(RuntimeError, match="worker lost"), Tracker.open(config(root, "failing")) as tracker:
        raise RuntimeError("worker lost")
    assert tracker.client.get_run(tracker.run_ids["loop"]).info.status == "FAILED"


def test_a_run_that_the_store_lost_is_begun_anew_with_a_warning(root, caplog):
    tracker = Tracker.open(config(root, "lost"), {"experiment": "1", "loop": "0" * 32})
    assert tracker.run_ids["loop"] != "0" * 32
    assert "no longer has run" in caplog.text


def test_a_deleted_experiment_is_an_error_that_says_what_to_do(root):
    tracker = Tracker.open(config(root, "deleted"))
    tracker.client.delete_experiment(tracker.run_ids["experiment"])
    with pytest.raises(ValueError, match=r"tracking\.experiment"):
        Tracker.open(config(root, "deleted"))


def test_the_store_is_in_the_root_whatever_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = store(config("runs", "here"))
    assert place.uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert place.artifacts == f"file://{tmp_path}/runs/mlartifacts"


def test_a_server_is_taken_as_given():
    place = store(config("s3://bucket/runs", "there", tracking={"uri": "http://tracking:5000"}))
    assert (place.uri, place.artifacts) == ("http://tracking:5000", None)


def test_a_remote_root_needs_a_server():
    with pytest.raises(ValueError, match=r"set tracking\.uri"):
        store(config("memory://runs", "there"))


def test_the_ui_is_bound_to_loopback_and_a_server_has_its_own():
    command = ui_command("sqlite:////runs/mlflow.db", port=5001)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    with pytest.raises(ValueError, match="open that address"):
        ui_command("https://tracking.example")


def test_keys_are_made_legal_and_stay_apart():
    assert legal_keys(["AP/a+b", "AP/a*b", "AP/..", "AP//x", "dropped/agreement/not_detected"]) == [
        "AP/a_b",
        "AP/a_b_2",
        "AP/_",
        "AP/_/x",
        "dropped/agreement/not_detected",
    ]
    assert len(legal_keys(["k" * 400])[0]) <= 250


def test_a_config_tree_becomes_dotted_keys():
    tree = {"a": {"b": 1, "c": None}, "parts": [{"kind": "x", "min": 0.5}], "text": "yes", "list": [1, 2]}
    assert flatten(tree) == {
        "a.b": "1",
        "a.c": "null",
        "parts.x.kind": "x",
        "parts.x.min": "0.5",
        "parts.x.position": "0",
        "text": "yes",
        "list": "[1, 2]",
    }


def test_mlflow_is_imported_only_when_a_run_is_tracked():
    code = "import sys, loop.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


def test_runs_that_begin_together_on_a_new_root_share_its_store(tmp_path):
    """MLflow itself makes its tables twice, and one of the runs dies of it."""
    code = (
        "import sys; from pathlib import Path; from loop.config_files import load; from loop.tracking import Tracker; "
        "Tracker.open(load([Path(sys.argv[1])], ['root=' + sys.argv[2]]))"
    )
    command = [sys.executable, "-c", code, str(QUICKSTART), str(tmp_path / "root")]
    runs = [subprocess.Popen(command, cwd=QUICKSTART.parents[1]) for _ in range(2)]  # noqa: S603 - our own
    assert [run.wait() for run in runs] == [0, 0]
