"""A user's own `loop.py` and `actors/` in the working directory do not get in the way of a run's processes."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
ENVIRONMENTS = ["checkout", "wheel"]

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

PROBE = """\
import detloop
import ray
from loop.hosting.engine import started_ray

def found():
    import actors, loop, own_package
    return [module.__file__ for module in (loop, actors, own_package)]

with started_ray(2):
    print(*ray.get(ray.remote(found).remote()), sep="\\n")
"""
"""A script beside the shadows, which is what a notebook there would type."""


@pytest.fixture
def shadows(tmp_path):
    """A working directory with a `loop.py`, an empty package `actors`, and a package of the user's own."""
    folder = tmp_path / "project"
    for package in ("actors", "own_package"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()
    (folder / "loop.py").write_text("for number in range(3):\n    print(number)\n")
    (folder / "probe.py").write_text(PROBE)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The scripts' folder of an environment with detloop's wheel, and this environment's other packages."""
    if not (uv := shutil.which("uv")):
        pytest.skip("uv is not on PATH: pip install uv")
    folder = tmp_path_factory.mktemp("wheel")
    run([uv, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT], folder)
    run([uv, "venv", "--quiet", "--python", sys.executable, folder / "env"], folder)
    python = folder / "env/bin/python"
    run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, *folder.glob("*.whl")], folder)
    site = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))  # without its .pth files: one names the checkout
    return folder / "env/bin"


@pytest.fixture(params=ENVIRONMENTS)
def scripts(request):
    """The folder of `python` and `detloop`, and the one that `loop` and `actors` belong in."""
    if request.param == "checkout":
        return Path(sys.executable).parent, ROOT
    bin_folder = request.getfixturevalue("wheel")
    return bin_folder, next(bin_folder.parent.glob("lib/python*/site-packages"))


def run(command, folder, **variables):
    """A command's output; fails with all that it said."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
    done = subprocess.run(  # noqa: S603 - our own
        [str(word) for word in command],
        cwd=folder,
        env=environment | {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_run_beside_shadows_reaches_its_table(wheel, shadows, easy_config, new_root, tmp_path):
    """Of the wheel; what workers import in a checkout is the next test's."""
    root = new_root()
    config = easy_config | {"root": str(root), "hosting": {"engine": "ray"}}
    config |= {"rounds": 1, "mining": {"cross_fit": 0}, "generation": {"copies": 1}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    assert "real images" in run([wheel / "detloop", "check", tmp_path / "run.yaml"], shadows)
    said = run([wheel / "detloop", "run", tmp_path / "run.yaml"], shadows)
    assert "kept/candidates" in said  # the table's header
    assert json.loads((root / "easy/summary.json").read_text())["rounds"][0]["candidates"] > 0


def test_workers_import_ours_and_the_users_own_package(scripts, shadows):
    bin_folder, home = scripts
    said = run([bin_folder / "python", "probe.py"], shadows, PYTHONPATH=".").splitlines()
    assert [Path(line) for line in said[-3:]] == [
        home / "loop/__init__.py",
        home / "actors/__init__.py",
        shadows / "own_package/__init__.py",
    ]


def test_the_command_line_starts_where_the_working_directory_is_on_the_path(shadows):
    detloop = Path(sys.executable).with_name("detloop")
    assert "measure" in run([detloop, "--help"], shadows, PYTHONPATH=".")
    assert "measure" in run([sys.executable, "-m", "detloop", "--help"], shadows)


def test_a_name_that_is_taken_is_named_with_its_file(shadows):
    code = "import loop\ntry:\n    import detloop\nexcept ImportError as error:\n    print(error)"
    said = run([sys.executable, "-c", code], shadows)
    assert f"the name is taken by {shadows / 'loop.py'}; import detloop before your own 'loop'" in said


def test_what_every_worker_imports_first_loads_no_library():
    said = run([sys.executable, "-c", "import detloop, sys; print(*sys.modules)"], ROOT)
    assert not {name.split(".")[0] for name in said.split()} & {"numpy", "pydantic", "ray", "torch", "typer"}
