"""Kills runs in the first seconds of a new storage root, and starts each again: does every one end well?

    uv run python tests/bench/kill_fresh_root.py
    uv run python tests/bench/kill_fresh_root.py --kills 10 --within 2 --from-store

A run is killed (SIGKILL) at a random moment of its first ten seconds, in which it renders its data, fits its filters,
makes MLflow's store and trains its control. Then the same command runs to its end. The processes are forks of one that
has imported everything, so that no kill falls into the imports.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import yaml

LAYERS = """\
nc: 80
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [48, 3, 2]]
  - [-1, 1, Conv, [64, 3, 2]]
head:
  - [[2, 3, 4], 1, Detect, [nc]]
"""

STORE_BEGUN = ".mlflow.db.*.part/mlflow.db"

CONFIG = {
    "name": "run",
    "rounds": 1,
    "data": {"format": "world", "world": {"train": 6, "val": 4}},
    "detector": {"image_size_px": 64},
    "mining": {"budget": 4},
    "generator": {"kind": "copy_paste"},
    "generation": {"copies": 1},
    "filters": [{"kind": "blank"}],
    "training": {"steps": 8, "epoch_steps": 4, "batch_size": 4},
    "evaluation": {"bootstrap_draws": 100},
    "hosting": {"engine": "inline"},
}


def import_all() -> None:
    """Import what a run imports."""
    from actors.detectors.ultralytics.weights import import_ultralytics

    for name in ("matplotlib.pyplot", "mlflow", "pycocotools.cocoeval", "scipy.ndimage", "loop.driver"):
        import_module(name)
    import_ultralytics()


def start(log: Path, *arguments: str) -> int:
    """Start ``detloop`` in a fork whose output goes to ``log``. Returns its process id."""
    if pid := os.fork():
        return pid
    from loop.cli import main

    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1), os.dup2(said, 2)
    sys.argv = ["detloop", *arguments]
    status = 1
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(status)


def wait(pid: int) -> int:
    """The exit status of a process, negative if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def reached(root: Path) -> str:
    """How far the killed run was."""
    marks = {"control trained": "controls/*/detector.safetensors", "in MLflow": "run/mlflow.json"}
    marks |= {"making the store": STORE_BEGUN, "store made": "mlflow.db", "begun": "run"}
    return next((name for name, pattern in marks.items() if any(root.glob(pattern))), "nothing written")


def main() -> None:
    """Kill, start again, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--within", type=float, default=10.0, metavar="S", help="seconds")
    parser.add_argument("--from-store", action="store_true", help="count from when MLflow's tables are begun")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder, rng = Path(tempfile.mkdtemp(prefix="kill_fresh_root_")), np.random.default_rng(options.seed)
    (folder / "small.yaml").write_text(LAYERS)
    CONFIG["detector"] |= {"model": str(folder / "small.yaml")}
    (folder / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    import_all()
    num_well = 0
    for number in range(options.kills):
        root, moment_s, log = folder / f"root{number}", rng.uniform(0, options.within), folder / f"{number}.txt"
        command = ("run", str(folder / "run.yaml"), "--set", f"root={root}")
        pid = start(log, *command)
        while options.from_store and not any(root.glob(STORE_BEGUN)):
            time.sleep(0.001)
        time.sleep(moment_s)
        os.kill(pid, signal.SIGKILL)
        killed, where = wait(pid), reached(root)
        status = wait(start(log, *command))
        num_well += status == 0 and (root / "run" / "summary.json").exists()
        print(f"{moment_s:5.2f} s  {where:<18} killed: {killed}, then: {status}", flush=True)
        if status:
            print(log.read_text())
    print(f"{num_well} of {options.kills} went on to their end")
    shutil.rmtree(folder)
    sys.exit(num_well < options.kills)


if __name__ == "__main__":
    main()
