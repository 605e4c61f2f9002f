"""MLflow on a real sqlite store: two levels, resumed without doubles, names that it accepts."""

import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest
from mlflow import MlflowClient
from upath import UPath

from loop.config import LoopConfig
from loop.tracking.names import flatten, legal_keys
from loop.tracking.tracker import Tracker

FIGURES = {"AP": 0.31, "AP/mouse bite (small)": 0.2, "gain": -0.01, "seconds/wall": 90.0, "dropped/agreement/no": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """One store for all tests here: creating its tables takes seconds."""
    return tmp_path_factory.mktemp("runs of mine")


def config(root, name, **sections) -> LoopConfig:
    tree = {"name": name, "root": str(root), "data": {"format": "world"}, "filters": [{"kind": "agreement"}]}
    return LoopConfig.model_validate({**tree, **sections})


def opened(settings, warn=pytest.fail):
    """The tracker of a run, which may not warn unless ``warn`` takes it."""
    return Tracker.open(settings, UPath(settings.root) / settings.name, warn)


def rounds_of(tracker):
    found = tracker.client.search_runs([tracker.run_ids["experiment"]], "tags.round != ''")
    return sorted(found, key=lambda run: run.data.tags["round"])


def steps_of(tracker, run_id, key):
    return [(point.step, point.value) for point in tracker.client.get_metric_history(run_id, key)]


def test_a_loop_is_a_run_with_a_child_for_each_round(root):
    with opened(config(root, "two-levels")) as tracker:
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
    tracker = opened(settings)
    loop = tracker.client.get_run(tracker.run_ids["loop"])
    assert loop.info.status == "RUNNING"
    assert loop.data.params["training.steps"] == "600"
    assert loop.data.params["filters.agreement.position"] == "0"
    assert loop.data.tags["fingerprint"] == settings.fingerprint()
    assert {file.path for file in tracker.client.list_artifacts(loop.info.run_id)} == {"config.yaml"}


def test_a_resumed_loop_goes_on_in_the_same_runs_without_doubles(root):
    first = opened(config(root, "resumed"))
    first.log_round(1, FIGURES, {})
    again = opened(config(root, "resumed", hosting={"num_cpus": 8}))
    again.log_round(1, {**FIGURES, "seconds/wall": 2.0}, {})
    again.log_round(2, FIGURES, {})
    loop = again.client.get_run(first.run_ids["loop"])
    assert again.run_ids == first.run_ids
    assert len(rounds_of(again)) == 2
    assert steps_of(again, loop.info.run_id, "seconds/wall") == [(1, 90.0), (2, 90.0)]
    assert loop.data.params["hosting.num_cpus"] == "null"
    assert loop.data.tags["resumed_with"] == "hosting.num_cpus: null -> 8"


def test_a_round_whose_logging_was_cut_short_is_completed_once(root):
    tracker = opened(config(root, "cut-short"))
    child = tracker._create_round(1, FIGURES)  # the driver died here, with some figures written ...
    tracker._log_metrics(child.info.run_id, {"AP": 0.31}, 1)
    tracker._log_metrics(tracker.run_ids["loop"], {"AP": 0.31}, 1)
    opened(config(root, "cut-short")).log_round(1, FIGURES, {})  # ... and came back
    (only,) = rounds_of(tracker)
    assert only.info.status == "FINISHED"
    for run_id in (child.info.run_id, tracker.run_ids["loop"]):
        assert steps_of(tracker, run_id, "AP") == [(1, 0.31)]
        assert steps_of(tracker, run_id, "gain") == [(1, -0.01)]


def test_an_error_inside_the_loop_marks_its_run_failed(root):
    with pytest.raises(RuntimeError, match="worker lost"), opened(config(root, "failing")) as tracker:
        raise RuntimeError("worker lost")
    assert tracker.client.get_run(tracker.run_ids["loop"]).info.status == "FAILED"


def test_a_run_that_the_store_lost_is_begun_anew_with_a_warning(root):
    (root / "lost").mkdir()
    (root / "lost/mlflow.json").write_text(json.dumps({"experiment": "1", "loop": "0" * 32}))
    warned = []
    tracker = opened(config(root, "lost"), warned.append)
    assert tracker.run_ids["loop"] != "0" * 32
    assert "no longer has run" in warned[0]


@pytest.fixture
def dead_server(monkeypatch) -> MlflowClient:
    """A client of a server that is gone."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return MlflowClient(tracking_uri="http://127.0.0.1:9")


def test_a_run_goes_on_without_its_server_and_logs_all_when_it_is_back(root, dead_server):
    warned = []
    tracker = opened(config(root, "outage"), warned.append)
    with replace(tracker, client=dead_server) as cut_off:
        cut_off.log_round(1, FIGURES, {"contact_sheet.png": b"png"})
        cut_off.log_round(2, FIGURES, {})
        cut_off.log_run({"control_AP": 0.2}, {"summary.json": b"{}"})
    assert rounds_of(tracker) == []
    begin, end = warned
    assert re.search(r"MLflow failed, and the run goes on: .* waits in .*outage/unlogged.*Connection refused", begin)
    assert end.startswith("3 records are not in MLflow yet; the same command logs what waits")
    back = opened(config(root, "outage"))
    back.log_round(2, FIGURES, {})
    back.close()
    loop, rounds = back.client.get_run(back.run_ids["loop"]), rounds_of(back)
    assert [run.info.status for run in [loop, *rounds]] == ["FINISHED"] * 3
    assert steps_of(back, loop.info.run_id, "AP") == [(1, 0.31), (2, 0.31)]
    assert loop.data.metrics["control_AP"] == 0.2
    assert [file.path for file in back.client.list_artifacts(rounds[0].info.run_id)] == ["contact_sheet.png"]
    assert not (root / "outage/unlogged").exists()


def test_a_store_that_fails_at_the_end_does_not_hide_why_a_run_failed(root, dead_server):
    warned = []
    tracker = replace(opened(config(root, "both"), warned.append), client=dead_server)
    with pytest.raises(RuntimeError, match="worker lost"), tracker:
        raise RuntimeError("worker lost")
    assert warned == []


def test_a_deleted_experiment_is_an_error_that_says_what_to_do(root):
    tracker = opened(config(root, "deleted"))
    tracker.client.delete_experiment(tracker.run_ids["experiment"])
    with pytest.raises(ValueError, match=r"tracking\.experiment"):
        opened(config(root, "deleted"), print)


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
