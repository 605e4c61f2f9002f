"""Where MLflow keeps what it logs: made whole or not at all, mended if half made, refused if silent."""

import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from loop.config import LoopConfig
from loop.tracking.store import local_store, open_client, refuse_silence, store, ui_command, where_to_compare

QUICKSTART = Path(__file__).parents[3] / "configs" / "quickstart.yaml"


def config(root, **sections) -> LoopConfig:
    return LoopConfig.model_validate({"name": "here", "root": str(root), "data": {"format": "world"}, **sections})


def test_the_store_is_in_the_root_whatever_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = store(config("runs"))
    assert place.uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert place.artifacts == f"file://{tmp_path}/runs/mlartifacts"


def test_a_server_is_taken_as_given():
    place = store(config("s3://bucket/runs", tracking={"uri": "http://tracking:5000"}))
    assert (place.uri, place.artifacts) == ("http://tracking:5000", None)


def test_a_remote_root_needs_a_server():
    with pytest.raises(ValueError, match=r"set tracking\.uri"):
        store(config("memory://runs"))


@pytest.mark.parametrize(
    ("root", "uri", "place"),
    [
        ("runs", None, "detloop ui runs"),
        ("my runs", None, "detloop ui 'my runs'"),
        ("s3://bucket/runs", "https://me:secret@tracking:5000", "https://tracking:5000"),
        ("runs", "postgresql://me:secret@host/mlflow", "detloop ui postgresql://host/mlflow"),
    ],
)
def test_a_run_names_the_place_where_runs_are_compared(root, uri, place):
    assert where_to_compare(config(root, tracking={"uri": uri})) == place


def test_the_ui_is_bound_to_loopback_and_a_server_has_its_own():
    command = ui_command("sqlite:////runs/mlflow.db", port=5001)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--backend-store-uri") + 1] == "sqlite:////runs/mlflow.db"
    with pytest.raises(ValueError, match="open that address"):
        ui_command("https://tracking.example")


def test_the_ui_says_that_there_is_nothing_to_show(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no mlflow\.db: no run was tracked there"):
        ui_command(str(tmp_path))
    with pytest.raises(ValueError, match=r"a remote root log to the server in tracking\.uri"):
        ui_command("s3://bucket/runs")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def half_made(new_root):
    """The file of a process that was killed while MLflow made its tables: it makes the next one fail for good."""
    file = new_root() / "mlflow.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")  # the first of its revisions
        database.execute("DROP TABLE spans")
    return file


def names(file):
    with closing(sqlite3.connect(file)) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_store_that_is_half_made_is_made_anew(half_made):
    client = open_client(local_store(str(half_made.parent)))
    run = client.create_run(client.create_experiment("again"))
    client.log_metric(run.info.run_id, "AP", 0.5)
    assert client.get_run(run.info.run_id).data.metrics == {"AP": 0.5}
    assert "spans" in names(half_made)
    assert [file.name for file in half_made.parent.iterdir()] == ["mlflow.db"]


def test_a_store_that_cannot_be_opened_stays_as_it_is_if_it_holds_a_run(half_made):
    with closing(sqlite3.connect(half_made)) as database, database:
        database.execute("INSERT INTO runs (run_uuid) VALUES ('mine')")
    before = half_made.read_bytes()
    with pytest.raises(ValueError, match=r"which holds 1 run: .*\. Move the file away, or upgrade it"):
        open_client(local_store(str(half_made.parent)))
    assert half_made.read_bytes() == before


def test_a_file_that_is_no_database_is_not_touched(tmp_path):
    file = tmp_path / "mlflow.db"
    file.write_text("notes of mine\n" * 100)
    with pytest.raises(ValueError, match="is no store of MLflow"):
        open_client(local_store(str(tmp_path)))
    assert file.read_text().startswith("notes of mine")


@pytest.fixture
def silent_server():
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_does_not_answer_is_refused_in_seconds(silent_server, monkeypatch):
    monkeypatch.setattr("loop.tracking.store.PROBE_TIMEOUT_S", 0.2)
    start = time.monotonic()
    for uri, reason in ((silent_server, "timed out"), ("http://127.0.0.1:9", "Connection refused")):
        with pytest.raises(ValueError, match=rf"the MLflow server {uri} does not answer \(.*{reason}\): start it"):
            refuse_silence(store(config("runs", tracking={"uri": uri})))
    assert time.monotonic() - start < 5


def test_mlflow_is_imported_only_when_a_run_is_tracked():
    code = "import sys, loop.tracking.tracker; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


def test_runs_that_begin_together_on_a_new_root_share_its_store(tmp_path):
    """MLflow itself makes its tables twice, and one of the runs dies of it."""
    code = (
        "import sys; from upath import UPath; from loop.config_files import load; "
        "from loop.tracking.tracker import Tracker; "
        "Tracker.open(load([sys.argv[1]], ['root=' + sys.argv[2]]), UPath(sys.argv[2]) / sys.argv[3], print)"
    )
    command = [sys.executable, "-c", code, str(QUICKSTART), str(tmp_path / "root")]
    runs = [subprocess.Popen([*command, name], cwd=QUICKSTART.parents[1]) for name in "ab"]  # noqa: S603 - our own
    assert [run.wait() for run in runs] == [0, 0]
