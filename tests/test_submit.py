"""The documented way onto a cluster, tried on one: `ray start --head`, `ray job submit`, with token authentication."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil
import pytest

ROOT = Path(__file__).parents[1]
RAY = Path(sys.executable).with_name("ray")
DETLOOP = ["uv", "run", "detloop", "run", "configs/quickstart.yaml", "configs/hosting/laptop.yaml"]
TINY = [
    "rounds=1",
    "data.world.train=8",
    "data.world.val=6",
    "detector.image_size_px=64",
    "mining.budget=4",
    "generator.kind=copy_paste",
    "generation.copies=1",
    "mixing.min_pool=1000",  # one training is enough: the control's
    "training.steps=4",
    "training.epoch_steps=4",
    "training.batch_size=4",
    "evaluation.bootstrap_draws=100",
]

pytestmark = [
    pytest.mark.skipif(not shutil.which("uv"), reason="uv is not on PATH: pip install uv"),
    pytest.mark.timeout(1800),
    pytest.mark.ray,
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """What a shell of somebody has who has used neither Ray nor detloop before, but for uv's cache."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    for name in ("PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "OMP_NUM_THREADS"):
        inherited.pop(name, None)
    cache = subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607
    home = tmp_path_factory.mktemp("home")
    return inherited | {"HOME": str(home), "UV_CACHE_DIR": cache, "RAY_AUTH_MODE": "token", "RAY_COLOR_MODE": "false"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The working tree as a clone has it, and a run of a hundred megabytes beside it, which git ignores."""
    copy = tmp_path_factory.mktemp("checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    (copy / "runs").mkdir()
    with (copy / "runs" / "large.bin").open("wb") as file:
        file.truncate(100 * 1024 * 1024)
    return copy


@pytest.fixture(scope="module")
def cluster(environment):
    """A cluster of one node, on ports of its own: the environment to submit with, and the node's folder."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: sockets lie in it
    gcs, dashboard, agent, client = free_ports(4)
    run([RAY, "get-auth-token", "--generate"], environment)
    command = [RAY, "start", "--head", "--block", "--num-cpus=4", "--disable-usage-stats", f"--temp-dir={folder}"]
    command += [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--ray-client-server-port={client}", "--min-worker-port=0", "--max-worker-port=0"]
    command += ["--dashboard-host=127.0.0.1"]
    address = f"http://127.0.0.1:{dashboard}"
    with (folder / "head.log").open("wb") as log:
        head = psutil.Popen([str(word) for word in command], env=environment, stdout=log, stderr=log)
    try:
        wait_for(address, Path(environment["HOME"]) / ".ray" / "auth_token", head)
        yield environment | {"RAY_ADDRESS": address}, folder
    finally:
        stop(head)
        # uv made two environments of 60,000 files each: deleting them takes half a minute, and nothing waits for it
        psutil.Popen(["rm", "-rf", str(folder)], start_new_session=True)


def test_the_quickstart_runs_as_a_job(cluster, checkout, tmp_path):
    environment, folder = cluster
    submitted = submit(TINY, tmp_path, checkout, environment)
    assert submitted.returncode == 0, submitted.stdout
    assert "Dropped:" in submitted.stdout
    assert "kept/candidates" in submitted.stdout  # the table's header
    summary = json.loads((tmp_path / "quickstart" / "summary.json").read_text())
    assert len(summary["rounds"]) == 1
    assert summary["rounds"][0]["candidates"] > 0
    assert summary["rounds"][0]["control_ap"] is not None
    assert (tmp_path / "quickstart" / "rounds" / "001" / "detector.safetensors").exists()
    assert_small_upload(folder)


def test_a_job_runs_from_a_folder_with_a_loop_and_actors_of_its_own(cluster, tmp_path):
    """Their folder comes first on the path of the driver and of the workers; detloop is installed beside Ray."""
    environment, _ = cluster
    project = tmp_path / "project"
    (project / "actors").mkdir(parents=True)
    for shadow in ("loop.py", "actors/__init__.py"):
        (project / shadow).touch()
    shutil.copytree(ROOT / "configs", project / "configs")
    command = ["env", "RAY_ENABLE_UV_RUN_RUNTIME_ENV=0", RAY.with_name("detloop"), *DETLOOP[3:]]
    submitted = submit([*TINY, "rounds=0"], tmp_path, project, environment, command)
    assert submitted.returncode == 0, submitted.stdout
    assert "no rounds: the control alone" in submitted.stdout


def test_a_job_with_a_broken_config_fails_and_says_why(cluster, checkout, tmp_path):
    environment, _ = cluster
    submitted = submit(["mining.bugdet=3"], tmp_path, checkout, environment)
    assert submitted.returncode != 0
    assert "mining.bugdet: unknown key; known here: budget" in submitted.stdout
    assert not (tmp_path / "quickstart").exists()


def test_nobody_without_the_token_gets_in(cluster, checkout, tmp_path):
    environment, _ = cluster
    stranger = environment | {"RAY_AUTH_TOKEN": "0" * 64}
    submitted = submit(TINY, tmp_path, checkout, stranger)
    assert submitted.returncode != 0
    assert "401" in submitted.stdout or "authentication" in submitted.stdout.lower()
    assert not (tmp_path / "quickstart").exists()


def assert_small_upload(folder):
    """What the node unpacked, for the driver and maybe again for its workers: our files, neither git's nor a run's."""
    packages = list(folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/"))
    assert packages
    for unpacked in packages:
        assert (unpacked / "pyproject.toml").exists()
        assert not (unpacked / "runs" / "large.bin").exists()
        made = {".venv", "__pycache__", "uv.lock"}  # on the node
        files = [file for file in unpacked.rglob("*") if file.is_file() and not made & {*file.parts}]
        assert sum(file.stat().st_size for file in files) < 5e6


def submit(overrides, root, folder, environment, detloop=DETLOOP):
    sets = [word for override in [*overrides, f"root={root}"] for word in ("--set", override)]
    command = [RAY, "job", "submit", "--working-dir", ".", "--", *detloop, *sets]
    return run(command, environment, cwd=folder)


def run(command, environment, cwd=None):
    words = [str(word) for word in command]
    return subprocess.run(  # noqa: S603 - our own command
        words, env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def wait_for(address, token, head):
    """Until the job server answers those who hold the token."""
    request = Request(f"{address}/api/version", headers={"Authorization": f"Bearer {token.read_text()}"})  # noqa: S310
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert head.poll() is None, "ray start has ended"
        try:
            with urlopen(request, timeout=5):  # noqa: S310 - loopback
                return
        except (URLError, OSError):
            time.sleep(0.5)
    pytest.fail("the job server does not answer")


def stop(head):
    """End the node's processes, and no others."""
    processes = [head, *head.children(recursive=True)]
    head.terminate()
    _, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        process.kill()
    head.wait(15)


def free_ports(count):
    """Ports of the loopback that nobody listens on just now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
