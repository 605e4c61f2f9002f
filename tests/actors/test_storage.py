"""Files of a run: whole or not there, on a disk and behind a URI."""

import os
import subprocess
import sys
import threading
from uuid import uuid4

import numpy as np
import pytest
from upath import UPath

from actors.records import Annotation, Detections
from actors.storage import (
    exclusive,
    read_arrays,
    read_detections,
    read_record,
    write_arrays,
    write_bytes,
    write_detections,
    write_record,
)
from loop.config import ConfigError, LoopConfig
from loop.keep import Fate
from loop.state import RunFolder, once


@pytest.fixture(params=["disk", "uri of a disk", "memory"])
def root(request, tmp_path):
    roots = {"disk": str(tmp_path), "uri of a disk": tmp_path.as_uri(), "memory": f"memory://{uuid4().hex}"}
    return UPath(roots[request.param])


def seen(num_boxes, seed=0):
    rng = np.random.default_rng(seed)
    return Detections(
        boxes=rng.random((num_boxes, 4)).astype(np.float32),
        labels=rng.integers(0, 5, num_boxes),
        scores=rng.random(num_boxes).astype(np.float32),
    )


def test_bytes_go_in_and_out_and_leave_nothing_beside(root):
    path = root / "a" / "b" / "file.bin"
    write_bytes(path, b"first")
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert [one.name for one in path.parent.iterdir()] == ["file.bin"]


def test_records_go_in_and_out(root):
    known = Annotation(boxes=np.eye(4, dtype=np.float32), labels=np.arange(4), ignore=np.ones(4, np.bool_))
    write_record(root / "known.json", (known, Annotation.empty()))
    back = read_record(root / "known.json", tuple[Annotation, ...])
    assert np.array_equal(back[0].boxes, known.boxes)
    assert back[1].boxes.shape == (0, 4)


@pytest.mark.parametrize("text", [b"", b"{", b'{"boxes": []}', b"[1, 2]", b'"text"', b"\xff\xfe"])
def test_a_file_that_is_no_record_is_named(root, text):
    write_bytes(root / "broken.json", text)
    with pytest.raises(ValueError, match=r"broken\.json: not a readable Annotation record"):
        read_record(root / "broken.json", Annotation)


def test_a_missing_record_is_no_broken_one(root):
    with pytest.raises(FileNotFoundError):
        read_record(root / "missing.json", Annotation)


@pytest.mark.parametrize("counts", [(3, 0, 2), (0,), (0, 0), (1,)])
def test_detections_go_in_and_out(root, counts):
    found = {f"b/{len(counts) - number}.png": seen(count, number) for number, count in enumerate(counts)}
    write_detections(root / "val.npz", found)
    back = read_detections(root / "val.npz")
    assert back.keys() == found.keys()
    for name, one in found.items():
        for field in ("boxes", "labels", "scores"):
            ours, theirs = getattr(back[name], field), getattr(one, field)
            assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())


def test_a_reader_never_sees_half(tmp_path):
    """One writes long and short files over each other while another reads: each read is whole."""
    path = UPath(tmp_path / "file.bin")
    versions = [bytes([number]) * size for number, size in enumerate((10, 200_000, 50_000))]
    write_bytes(path, versions[0])
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for version in versions:
                write_bytes(path, version)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        read = [path.read_bytes() for _ in range(300)]
    finally:
        stop.set()
        writer.join()
    assert set(read) <= set(versions)


def test_a_writer_killed_in_the_middle_leaves_the_old_file(tmp_path):
    path = UPath(tmp_path / "state.json")
    write_record(path, {"round": 1})
    dies = "import os, sys; os.fsync = lambda _: os._exit(9)\n"  # the file beside is written, not yet renamed
    code = dies + "from upath import UPath; from actors.storage import write_record\n"
    code += "write_record(UPath(sys.argv[1]), {'round': 2})"
    command = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(command, check=False).returncode == 9  # noqa: S603 - our own
    assert read_record(path, dict[str, int]) == {"round": 1}
    assert list(UPath(tmp_path).glob("*.json")) == [path]  # what lies beside is not taken for a record
    assert len(os.listdir(tmp_path)) == 2  # noqa: PTH208 - hidden ones too


def test_once_computes_once(root):
    calls = []

    def compute():
        calls.append(1)
        return {"a": 1}

    assert once(root / "stage.json", dict[str, int], compute) == {"a": 1}
    assert once(root / "stage.json", dict[str, int], compute) == {"a": 1}
    assert len(calls) == 1


def test_once_that_fails_leaves_nothing(root):
    def compute():
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        once(root / "stage.json", dict, compute)
    assert not (root / "stage.json").exists()


def config(root, **changes):
    return LoopConfig.model_validate({"name": "run", "root": str(root), "data": {"format": "world"}} | changes)


def test_a_run_folder_is_claimed_again_by_the_same_run(root):
    first = RunFolder.claim(config(root))
    again = RunFolder.claim(config(root, hosting={"engine": "inline"}))  # where it runs is no part of a run
    assert again == first
    assert again.path.name == "run"


def test_a_run_folder_of_another_config_is_refused_with_the_keys(root):
    RunFolder.claim(config(root)).record_detectors(0, (), ())
    with pytest.raises(ConfigError, match=r"(?s)another config.*\n  mixing\.p: 0\.2 -> 0\.5\n  seed: 0 -> 3"):
        RunFolder.claim(config(root, mixing={"p": 0.5}, seed=3))


def test_a_round_without_samples_has_none(root):
    assert RunFolder.claim(config(root)).samples(1, Fate.KEPT) == ()


def test_arrays_and_plain_values_come_back_as_what_they_were(root):
    values = {"boxes": np.zeros((0, 4), np.float32), "flags": np.array([True]), "name": "a/b.png", "none": "", "s": 0.5}
    write_arrays(root / "one.npz", values)
    read = read_arrays(root / "one.npz")
    assert {name: type(value) for name, value in read.items()} == {name: type(value) for name, value in values.items()}
    assert (read["boxes"].shape, read["boxes"].dtype, read["flags"].dtype) == ((0, 4), np.float32, np.bool_)
    assert (read["name"], read["none"], read["s"]) == ("a/b.png", "", 0.5)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        write_arrays(root / "two.npz", {"objects": np.array([None, {}], dtype=object)})


WAITING = """\
import sys
from upath import UPath
from actors.storage import exclusive
with exclusive(UPath(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.readline()
"""


def test_what_is_exclusive_is_entered_by_one_at_a_time_and_a_killed_one_does_not_block_it(tmp_path):
    path = tmp_path / "shared" / "place"
    command = [sys.executable, "-c", WAITING, str(path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
    assert holder.stdout.readline() == "in\n"
    entered = threading.Event()

    def enter():
        with exclusive(UPath(path)):
            entered.set()

    waiting = [threading.Thread(target=enter, daemon=True) for _ in range(3)]
    for one in waiting:
        one.start()
    assert not entered.wait(0.3)
    holder.kill()
    for one in waiting:
        one.join(timeout=10)
    assert entered.is_set()
    assert not [one for one in waiting if one.is_alive()]
    assert list(path.parent.iterdir()) == []


def test_who_does_not_wait_is_told_what_is_taken(tmp_path):
    told = pytest.raises(BlockingIOError, match=r"another process is using .*/run: wait until it ends")
    with exclusive(UPath(tmp_path / "run")), told, exclusive(UPath(tmp_path / "run"), wait=False):
        pass
    with exclusive(UPath(tmp_path / "run"), wait=False):
        assert (tmp_path / ".run.lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_counter_behind_exclusive_loses_no_step(tmp_path):
    """Eight threads, whose lock file is taken away by each that leaves: whoever waits must not hold a dead one."""
    file = tmp_path / "count"
    file.write_text("0")

    def step():
        for _ in range(50):
            with exclusive(UPath(file)):
                file.write_text(str(int(file.read_text()) + 1))

    threads = [threading.Thread(target=step) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert file.read_text() == "400"
