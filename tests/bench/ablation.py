"""Measure the time saved by ``detloop ablate`` and check its resume: ``python tests/bench/ablation.py [--steps 80]``.

Runs four arms and three seeds of a reduced quickstart in three ways: as twelve separate ``detloop run`` commands, each
with its own storage root; as ``detloop ablate``; and as ``detloop ablate`` that is killed halfway and started again.
Every run uses one process (``hosting.engine: inline``). The times and their ratio are written to
``results/ablation.json``. The tables of the last two ways must be equal byte for byte.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "ablation.json"
QUICKSTART = ROOT / "configs" / "quickstart.yaml"
SEEDS = (0, 1, 2)
ARMS: dict[str, dict[str, Any]] = {
    "restore": {},
    "ignore": {"rejected_boxes": "ignore", "training.background_ignore": True},
    "p=0.1": {"mixing.p": 0.1},
    "unfiltered": {"filters": []},
}
TABLES = ("table.md", "table.csv", "rows.json")


def detloop(*arguments: str) -> subprocess.Popen[bytes]:
    """Start the command in a process of its own with one thread; its output is discarded."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [str(Path(sys.executable).with_name("detloop")), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - our own


def timed(process: subprocess.Popen[bytes]) -> float:
    """Seconds until the process ends. Exits if its status is not 0."""
    start = time.perf_counter()
    if status := process.wait():
        raise SystemExit(f"{process.args}: exit status {status}")
    return time.perf_counter() - start


def overrides(steps: int, root: Path) -> list[str]:
    """Options that reduce the quickstart: short trainings, few candidates, few validation images."""
    keys = {
        "training.steps": steps,
        "training.epoch_steps": steps // 2,
        "data.world.val": 40,
        "generation.copies": 5,
        "generator.painter.fit_steps": steps,
        "root": root,
        "hosting.engine": "inline",
    }
    return [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]


def separate(folder: Path, steps: int) -> float:
    """Total seconds of twelve independent runs, one after the other."""
    seconds = 0.0
    for number, (arm, seed) in enumerate((arm, seed) for arm in ARMS for seed in SEEDS):
        file = folder / f"{number}.yaml"
        file.write_text(yaml.safe_dump(nested(ARMS[arm]) | {"seed": seed}))
        seconds += timed(detloop("run", str(QUICKSTART), str(file), *overrides(steps, folder / str(number))))
    return seconds


def nested(dotted: dict[str, Any]) -> dict[str, Any]:
    """The nested form of dotted keys of at most two levels."""
    tree: dict[str, Any] = {}
    for key, value in dotted.items():
        section, _, name = key.partition(".")
        tree |= {section: {**tree.get(section, {}), name: value}} if name else {key: value}
    return tree


def ablation(folder: Path, steps: int) -> subprocess.Popen[bytes]:
    """Start the same runs as one ablation below ``folder``."""
    folder.mkdir(exist_ok=True)
    file = folder / "bench.yaml"
    file.write_text(yaml.safe_dump({"name": "bench", "seeds": list(SEEDS), "arms": ARMS}, sort_keys=False))
    return detloop("ablate", str(QUICKSTART), str(file), *overrides(steps, folder))


def killed_and_resumed(folder: Path, steps: int, after_s: float) -> None:
    """Start an ablation, kill it with all its processes after ``after_s`` seconds, and run it again to the end."""
    process = ablation(folder, steps)
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    timed(ablation(folder, steps))


def main() -> None:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=80)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        together_s = timed(ablation(folder / "whole", steps))
        killed_and_resumed(folder / "killed", steps, together_s / 2)
        tables = [
            [(folder / one / "ablations/bench" / name).read_bytes() for name in TABLES] for one in ("whole", "killed")
        ]
        separate_s = separate(folder, steps)
    found = {
        "steps": steps,
        "separate_s": round(separate_s, 1),
        "ablation_s": round(together_s, 1),
        "ratio": round(together_s / separate_s, 3),
        "killed_ends_in_the_same_table": tables[0] == tables[1],
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
