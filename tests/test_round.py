"""The loop end to end: what a run leaves behind, that its figures agree, and that it can be repeated to the byte."""

import hashlib
import json
import os
import re
import shutil
import signal
import threading
import time
from collections import Counter
from contextlib import nullcontext
from copy import deepcopy
from io import StringIO
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from rich.console import Console
from upath import UPath

from actors.checkpoint import read_checkpoint, write_checkpoint
from actors.storage import exclusive
from loop import arms, driver
from loop.check import describe
from loop.config import LoopConfig
from loop.driver import run
from loop.hosting.config import HostingConfig
from loop.hosting.placement import Node, unplaced
from loop.progress import Reporter
from loop.state import RunFolder
from loop.tracking.store import local_store, open_client

STAGES = {"mine", "generate", "inspect", "judge", "keep", "train", "evaluate"}
OTHER_BATCHES = {"generate": {"batch_size": 3}, "inspect": {"batch_size": 5}, "judge": {"batch_size": 1}}
OTHER_BATCHES["keep"] = {"batch_size": 4}


def start(tree, root, **changes):
    """Run ``tree`` in ``root`` with changes by dotted key (``__`` for a dot); the run's folder and what was said."""
    tree = deepcopy(tree)
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = tree
        for section in sections:
            place = place[section]
        place[last] = value
    said = StringIO()
    config = LoopConfig.model_validate({**tree, "root": str(root)})
    return Path(run(config, Reporter(Console(file=said, width=200)))), said.getvalue()


def read(file):
    return json.loads(file.read_text())


def of_mlflow(run_folder):
    """The MLflow runs of a run and of its rounds."""
    client = open_client(local_store(str(run_folder.parent)))
    return client.search_runs([read(run_folder / "mlflow.json")["experiment"]])


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def samples(round_folder):
    """Every file of a round's samples, by its place below the round's folder; not what a killed writer left beside."""
    files = [file for fate in ("kept", "dropped") for file in (round_folder / fate).iterdir()]
    return {f"{file.parent.name}/{file.name}": file.read_bytes() for file in files if file.suffix != ".part"}


def results(run_folder, num_rounds):
    """What must not depend on where and how a run was hosted: pools, pictures, weights, what the weights see."""
    found = {}
    for number in range(1, num_rounds + 1):
        folder = run_folder / f"rounds/{number:03d}"
        mined = read(folder / "mine.json")
        found[number] = {
            "mined": (mined["instances"], mined["shares"]),
            "samples": samples(folder),
            "detector": digest(folder / "detector.safetensors"),
            "seen": [array.tolist() for array in np.load(folder / "val.npz").values()],
        }
    return found


def figures(run_folder):
    """The rounds of summary.json without what they cost."""
    costs = {"seconds", "wall_s", "engine_s"}
    return [{k: v for k, v in one.items() if k not in costs} for one in read(run_folder / "summary.json")["rounds"]]


@pytest.fixture(scope="module")
def two_rounds(easy_config, new_root):
    """The folder of a run of two rounds, and what it said."""
    return start(easy_config, new_root())


@pytest.fixture(scope="module")
def folder(two_rounds):
    return two_rounds[0]


def test_the_summary_has_its_figures_and_they_agree(folder):
    summary = read(folder / "summary.json")
    assert (summary["name"], summary["seed"], summary["steps"]) == ("easy", 0, 24)
    assert [one["round"] for one in summary["rounds"]] == [1, 2]
    for one in summary["rounds"]:
        assert one["gain"] == pytest.approx(one["ap"] - one["control_ap"], abs=1e-12)
        assert one["gain_ci95"][0] <= one["gain"] <= one["gain_ci95"][1]
        assert one["kept"] + sum(one["dropped"].values()) == one["candidates"]
        assert one["mined"] <= 12
        assert one["seconds"].keys() == STAGES
        assert all(seconds > 0 for seconds in one["seconds"].values())
        assert 0 < one["engine_s"] < one["wall_s"]
    assert summary["rounds"][0]["control_ap"] == summary["rounds"][1]["control_ap"] > 0.05
    assert sum(one["kept"] for one in summary["rounds"]) > 0
    assert sum(sum(one["dropped"].values()) for one in summary["rounds"]) > 0


def test_the_counts_are_those_of_the_files(folder):
    for one in read(folder / "summary.json")["rounds"]:
        place = folder / f"rounds/{one['round']:03d}"
        kept, dropped = ([read(file) for file in (place / fate).glob("*.json")] for fate in ("kept", "dropped"))
        mined = read(place / "mine.json")["instances"]
        assert (len(mined), len(kept)) == (one["mined"], one["kept"])
        assert Counter(sample["dropped"] for sample in dropped) == one["dropped"]
        assert not [sample for sample in kept if sample["dropped"]]
        assert one["asked"] == sum(len(sample["lineage"]["box_indices"]) for sample in kept + dropped)
        assert one["drawn"] == sum(sum(sample["drawn"]) for sample in kept + dropped)  # copy-paste has no further ones
        images = {instance["image_id"] for instance in mined}
        assert len(kept) + len(dropped) == 6 * len(images)
        assert {sample["lineage"]["image_id"] for sample in kept + dropped} == images


def test_samples_are_whole_pictures_that_the_manifest_lists_with_their_hashes(folder):
    lines = [json.loads(line) for line in (folder / "manifest.json").read_text().splitlines()]
    files = {file.stem: file for file in folder.glob("rounds/*/*/*.png")}
    assert [line["lineage"]["round"] for line in lines] == sorted(line["lineage"]["round"] for line in lines)
    assert {line["id"] for line in lines} == files.keys()
    for line in lines:
        file = files[line["id"]]
        assert digest(file) == line["sha256"]
        assert file.parent.name == ("dropped" if line["dropped"] else "kept")
        assert Image.open(file).size == (64, 64)


def test_the_pool_grows_over_the_rounds(folder):
    kept = [one["kept"] for one in figures(folder)]
    shown = [read(folder / f"rounds/{number:03d}/train.json") for number in (1, 2)]
    assert kept[1] > 0
    assert shown[0]["num_synthetic_shown"] > 0
    names = [sorted(file.stem for file in (folder / f"rounds/{n:03d}/kept").glob("*.json")) for n in (1, 2)]
    assert [len(part) for part in names] == kept
    assert not set(names[0]) & set(names[1])


def test_the_control_is_trained_once(two_rounds):
    folder, said = two_rounds
    assert len(list((folder.parent / "controls").iterdir())) == 1
    assert said.count("train control") == 1
    assert said.count("train round") == 2


def test_reports_are_there(two_rounds):
    folder, said = two_rounds
    assert "<html" in (folder / "summary.html").read_text()
    for number in (1, 2):
        place = folder / f"rounds/{number:03d}"
        assert min(Image.open(place / name).width for name in ("contact_sheet.png", "pr_curve.png")) > 300
    assert "kept/candidates" in said
    assert "After round 2:" in said


def test_mlflow_holds_the_loop_and_a_child_for_each_round_once(folder):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder.parent}/mlflow.db")
    experiment = client.get_experiment_by_name("easy")
    runs = client.search_runs([experiment.experiment_id])
    children = {run.data.tags["round"]: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    (loop,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert sorted(children) == ["1", "2"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert [point.step for point in client.get_metric_history(loop.info.run_id, "AP")] == [1, 2]
    for one in figures(folder):
        child = children[str(one["round"])]
        assert child.data.tags["mlflow.parentRunId"] == loop.info.run_id
        metrics = child.data.metrics
        assert (metrics["AP"], metrics["control_AP"], metrics["gain"]) == (one["ap"], one["control_ap"], one["gain"])
        assert (metrics["kept"], metrics["candidates"]) == (one["kept"], one["candidates"])
        logged = {file.path for file in client.list_artifacts(child.info.run_id)}
        assert logged == {"contact_sheet.png", "pr_curve.png", "manifest.json"}


def test_a_finished_run_started_again_does_nothing_and_says_the_same(two_rounds, easy_config):
    folder, said = two_rounds
    before = {file: (file.stat().st_mtime_ns, digest(file)) for file in (folder / "rounds").rglob("*.*")}
    summary = (folder / "summary.json").read_bytes()
    _, again = start(easy_config, folder.parent)
    assert {file: (file.stat().st_mtime_ns, digest(file)) for file in (folder / "rounds").rglob("*.*")} == before
    assert (folder / "summary.json").read_bytes() == summary
    assert not [stage for stage in ("train control", "train round", "mine", "generate") if f"\n{stage} " in again]
    table = said[said.index("\n round ") :]
    assert again.endswith(table)


def test_a_run_that_another_process_is_at_is_left_alone(folder, easy_config):
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.*")}
    with exclusive(UPath(folder)), pytest.raises(BlockingIOError, match=f"another process is using {folder}: wait"):
        start(easy_config, folder.parent, rounds=5)  # to grow it would change its config.json
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.*")} == before


@pytest.mark.slow
def test_a_run_grows_by_rounds_and_ends_as_if_all_had_been_asked_for_at_once(folder, easy_config, new_root):
    root = new_root()
    shutil.copytree(folder.parent / "controls", root / "controls")
    start(easy_config, root, rounds=0)
    start(easy_config, root, rounds=1)
    first = {file: file.stat().st_mtime_ns for file in (root / "easy/rounds/001").rglob("*.*")}
    runs = read(root / "easy/mlflow.json")
    grown, said = start(easy_config, root)
    assert {file: file.stat().st_mtime_ns for file in first} == first
    assert read(grown / "mlflow.json") == runs
    assert results(grown, 2) == results(folder, 2)
    assert (grown / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()
    assert figures(grown) == figures(folder)
    assert read(grown / "summary.json")["fingerprint"] == read(folder / "summary.json")["fingerprint"]
    assert "After round 2:" in said
    assert "After round 2:" in (grown / "summary.html").read_text()
    assert mlflow_rounds(root, runs["loop"]) == {"1": "FINISHED", "2": "FINISHED"}


def mlflow_rounds(root, loop):
    """The status of each round's run below a loop's, by number."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    assert [point.step for point in client.get_metric_history(loop, "AP")] == [1, 2]
    experiment = client.get_run(loop).info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{loop}'")
    return {run.data.tags["round"]: run.info.status for run in children}


@pytest.mark.slow
def test_equal_configs_give_equal_bytes_whatever_the_batches(folder, easy_config, new_root):
    again, _ = start(easy_config, new_root(), hosting={"engine": "inline", **OTHER_BATCHES})
    assert results(again, 2) == results(folder, 2)
    assert (again / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()
    assert figures(again) == figures(folder)


@pytest.mark.slow
def test_p_of_zero_equals_the_real_only_run_bit_for_bit_and_its_control_is_not_trained_again(folder, easy_config):
    real_only, said = start(easy_config, folder.parent, name="real_only", rounds=1, mixing__p=0.0)
    (control,) = (folder.parent / "controls").iterdir()
    assert "train control" not in said
    assert figures(real_only)[0]["kept"] > 0
    assert digest(real_only / "rounds/001/detector.safetensors") == digest(control / "detector.safetensors")
    assert digest(folder / "rounds/001/detector.safetensors") != digest(control / "detector.safetensors")
    assert figures(real_only)[0]["gain"] == 0


def test_a_round_without_a_pool_trains_nothing_and_says_why(easy_config, new_root):
    """At an IoU of 1 the detector agrees with nothing that was drawn."""
    changes = {"rounds": 1, "training__steps": 2, "training__epoch_steps": 2, "evaluation__seeds": 2}
    folder, said = start(easy_config, new_root(), **changes, filters=[{"kind": "agreement", "iou_threshold": 1.0}])
    (warning,) = [line for line in said.splitlines() if "candidates kept;" in line]
    (num_dropped,) = figures(folder)[0]["dropped"].values()
    assert warning.startswith(f"warning: 0 of {num_dropped} candidates kept;")
    assert f"dropped for no_drawn_box_left ({num_dropped});" in warning
    reason = "the pool holds 0 synthetic images, fewer than mixing.min_pool (5)"
    assert f"warning: round 1 trains no detector and keeps the control: {reason}" in said
    assert "\ntrain round 1" not in said
    assert "[0.0, 0.0]" not in said
    assert f"Round 1 trained no detector: {reason}." in said
    (row,) = figures(folder)
    assert (row["not_trained"], row["ap"]) == (reason, row["control_ap"])
    assert read(folder / "summary.json")["rounds"][0]["seconds"]["train"] == 0
    assert "not trained" in (folder / "summary.html").read_text()
    controls = (folder.parent / "controls").glob("*/detector.safetensors")
    of_round = [folder / place / "detector.safetensors" for place in ("rounds/001", "rounds/001/seed_2")]
    assert sorted(map(digest, of_round)) == sorted(map(digest, controls))
    logged = {key for run in of_mlflow(folder) for key in run.data.metrics}
    assert "trained" in logged
    assert not {"gain", "gain_low", "gain_high"} & logged


def test_how_many_tensors_of_the_weights_were_taken_is_told(folder, easy_config, new_root, tmp_path):
    checkpoint = folder / "rounds/001/detector.safetensors"
    for classes, num_fresh in ((("blue", "red"), 0), (("red", "blue"), 6)):
        header, tensors = read_checkpoint(str(checkpoint))
        weights = str(tmp_path / f"{classes[0]}.safetensors")
        write_checkpoint(weights, header.model_copy(update={"classes": classes}), tensors)
        detector = {**easy_config["detector"], "weights": weights}
        training = {**easy_config["training"], "start": "weights", "steps": 2, "epoch_steps": 2}
        run_folder, said = start(easy_config, new_root(), rounds=0, detector=detector, training=training)
        (line,) = [line for line in said.splitlines() if line.startswith("weights: ")]
        num_loaded = len(tensors) - num_fresh
        told = "6 start fresh (6 of the head, for other classes)" if num_fresh else "none starts fresh"
        assert line == f"weights: {num_loaded} of {len(tensors)} tensors from {weights}, {told}"
        used = f"use the control of round 0: detloop predict {run_folder} IMAGES --out FOLDER --control"
        assert used in said
        assert line.removeprefix("weights: ") in (run_folder / "summary.html").read_text()
        assert read(run_folder / "summary.json")["weights"]["loaded"] == num_loaded
        assert [run.data.metrics["weights/loaded"] for run in of_mlflow(run_folder)] == [num_loaded]


def test_check_estimates_the_time_from_earlier_rounds(folder):
    said = describe(RunFolder(UPath(folder)).config())
    trained, drawn = r"about 1 min of training at \d+ images/s", "about 1 min to draw and judge candidates at "
    assert re.search(rf"\ntime +{trained}, as in earlier runs here; {drawn}", said)


def test_a_control_that_finds_nothing_is_told_before_anything_is_generated(two_rounds, easy_config, new_root):
    changes = {"rounds": 1, "training__steps": 2, "training__epoch_steps": 2, "training__overrides": {"lr0": 1e-9}}
    _, said = start(easy_config, new_root(), **changes)
    warning = "warning: the control finds nothing yet (AP50 0."
    assert warning in said
    assert said.index(warning) < said.index("\nmine ")
    assert warning not in two_rounds[1]


PAINTER = {"kind": "crop", "size_px": 16, "channels": [8, 16], "fit_steps": 6, "fit_batch_size": 4}


@pytest.fixture(scope="module")
def inpainted(folder, easy_config):
    """The folder of a round with a painter that was fitted first, and the digest of its weights as they were then."""
    fitted, fit = [], arms.fit

    def spy(job, *rest):
        result = fit(job, *rest)
        fitted.append(digest(Path(result.checkpoint)))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "fit", spy)
        generator = {"kind": "inpaint", "cutout": "box", "painter": PAINTER}
        filters = [{"kind": "agreement", "iou_threshold": 0.7}]  # which some boxes do not pass
        changes = {"generator": generator, "filters": filters, "rejected_boxes": "ignore"}
        run_folder, _ = start(easy_config, folder.parent, name="inpainted", rounds=1, **changes)
    return run_folder, fitted


def kept_samples(run_folder):
    return [read(file) for file in (run_folder / "rounds/001/kept").glob("*.json")]


@pytest.mark.slow
def test_the_generator_is_fitted_once_and_frozen_from_then_on_gen2det_section_3_1(inpainted):
    run_folder, fitted = inpainted
    (checkpoint,) = (run_folder.parent / "fits").glob("*/generator.safetensors")
    assert [digest(checkpoint)] == fitted


@pytest.mark.slow
def test_inpainting_changes_the_holes_alone_gen2det_section_3_1(inpainted, easy_data):
    changed = []
    for sample in kept_samples(inpainted[0]):
        picture = np.asarray(Image.open(inpainted[0] / "rounds/001" / sample["uri"]), np.int16)
        source = np.asarray(Image.open(easy_data / "train" / Path(sample["lineage"]["image_id"]).name), np.int16)
        outside = np.ones((64, 64), bool)
        for (left, top, right, bottom), drawn in zip(sample["proposed"]["boxes"], sample["drawn"], strict=True):
            if drawn:
                pad_x, pad_y = (0.1 * side + 1 for side in (right - left, bottom - top))  # margin, to whole pixels
                rows, columns = (
                    slice(max(int(top - pad_y), 0), int(bottom + pad_y)),
                    slice(max(int(left - pad_x), 0), int(right + pad_x)),
                )
                outside[rows, columns] = False
        difference = np.abs(picture - source).max(axis=2)
        assert not difference[outside].any()
        changed.append(int((difference[~outside] > 0).sum()))
    assert min(changed) > 50


@pytest.mark.slow
def test_labels_are_the_sources_and_only_ever_removed_gen2det_section_3_2(inpainted, easy_data):
    content = read(easy_data / "annotations/train.json")
    names = {image["id"]: image["file_name"] for image in content["images"]}
    true = {name: Counter() for name in names.values()}
    for box in content["annotations"]:
        x, y, width, height = box["bbox"]
        true[names[box["image_id"]]][box["category_id"] - 1, x, y, x + width, y + height] += 1

    def labels(annotation):
        return Counter((label, *box) for label, box in zip(annotation["labels"], annotation["boxes"], strict=True))

    samples = kept_samples(inpainted[0])
    for sample in samples:
        assert labels(sample["proposed"]) == true[Path(sample["lineage"]["image_id"]).name]
        assert labels(sample["annotation"]) <= labels(sample["proposed"])
    assert sum(len(sample["annotation"]["boxes"]) < 2 for sample in samples) > 0  # some were removed


@pytest.mark.slow
def test_arms_that_go_on_start_from_their_own_last_checkpoint(easy_config, new_root, monkeypatch):
    jobs = []
    train = arms.train

    def spy(job, *rest):
        jobs.append(job)
        return train(job, *rest)

    monkeypatch.setattr(arms, "train", spy)
    training = {**easy_config["training"], "start": "previous", "steps": 4, "epoch_steps": 2}
    folder, _ = start(easy_config, new_root(), training=training, filters=[])  # so few steps would keep nothing
    start_0, first, control_1, second, control_2 = jobs
    assert start_0.start is None
    assert first.start == control_1.start == start_0.checkpoint  # of a round, both arms have the same past
    assert (second.start, control_2.start) == (first.checkpoint, control_1.checkpoint)
    assert [job.mixing.p for job in jobs] == [0.0, 0.5, 0.0, 0.5, 0.0]
    assert first.seed == control_1.seed != second.seed == control_2.seed
    assert len({digest(Path(job.checkpoint)) for job in jobs}) == 5
    assert Path(second.checkpoint) == folder / "rounds/002/detector.safetensors"


def test_a_role_that_has_no_place_is_named_before_anything_runs():
    node = Node(cpus=4.0, gpus=0.0)
    assert unplaced(HostingConfig(), [node]) == ""
    message = unplaced(HostingConfig.model_validate({"inspect": {"num_cpus": 64}}), [node])
    assert message.startswith("hosting.inspect: an actor of 64 CPUs and 0 GPUs has no place.")
    assert "the cluster has 4 CPUs and 0 GPUs on 1 node." in message
    message = unplaced(HostingConfig.model_validate({"train": {"num_workers": 5}}), [node])
    assert message.startswith("hosting.train: an actor of 1 CPU and")
    message = unplaced(HostingConfig.model_validate({"generate": {"num_gpus": 1}}), [node])
    assert message.startswith("hosting.generate: an actor of 0.5 CPUs and 1 GPU has")


class Killer(threading.Thread):
    """Kills, once each, a working generator and then whoever works when the first samples are whole, with SIGKILL."""

    def __init__(self, round_folder):
        super().__init__(daemon=True)
        self.folder, self.over = round_folder, False
        self.killed, self.num_whole = [], []

    def run(self):
        self.kill_first("Generate")
        while not self.over and not self.count():
            time.sleep(0.002)
        self.kill_first("")

    def kill_first(self, stage):
        """The first actor that is seen at work, among those of a stage that there are."""
        actors = []
        while not self.over and not actors:
            found = [process.pid for process in psutil.Process().children(recursive=True)]
            actors = [pid for pid in found if f"MapBatches({stage}" in title(pid)]
        while not self.over:
            for pid in actors:
                if (doing := title(pid)).endswith(".submit"):
                    os.kill(pid, signal.SIGKILL)
                    self.killed.append(doing)
                    self.num_whole.append(self.count())
                    return
            time.sleep(0.001)

    def count(self):
        return len(list(self.folder.glob("*/*.json")))


def title(pid):
    """What Ray calls a process by, and what that does; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().strip("\0 ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.ray
def test_ray_with_two_actors_and_killed_ones_gives_the_bytes_of_this_process(folder, easy_config, new_root):
    root = new_root()
    shutil.copytree(folder.parent / "controls", root / "controls")  # what is there is not waited for
    (root / "easy/rounds/001").mkdir(parents=True)
    shutil.copy(folder / "rounds/001/mine.json", root / "easy/rounds/001")
    role = {"num_actors": 2, "num_cpus": 0.5, "batch_size": 2}
    hosting = {"engine": "ray", "num_cpus": 6, "generate": role, "judge": {"batch_size": 2}}
    hosting["inspect"] = {**role, "batch_size": 4}
    killer = Killer(root / "easy/rounds/001")
    killer.start()
    hosted, said = start(easy_config, root, rounds=1, hosting=hosting)
    killer.over = True
    killer.join()
    assert "Generate" in killer.killed[0]
    assert killer.num_whole[-1] < figures(hosted)[0]["candidates"]  # in the middle
    assert results(hosted, 1)[1] == results(folder, 1)[1]
    assert "kept/candidates" in said


def test_a_run_that_leaves_gpus_alone_says_so(easy_config, new_root, monkeypatch):
    """All that needs Ray is left out."""
    monkeypatch.setattr(driver.Tracker, "open", lambda *_: nullcontext())
    for name, stand_in in {"engine": nullcontext(), "in_an_actor": {}}.items():
        monkeypatch.setattr(driver, name, lambda *_, stand_in=stand_in: stand_in)
    monkeypatch.setattr(driver, "_rounds", lambda *_: None)
    monkeypatch.setattr(driver, "nodes", lambda: [Node(cpus=8.0, gpus=1.0)])
    _, said = start(easy_config, new_root(), hosting={"engine": "ray", "train": {"num_gpus": 1}})
    assert "warning: hosting: inspect will run on the CPU, but the cluster has 1 GPU;" in said


def test_a_cluster_that_is_too_small_is_told_before_the_run(easy_config, new_root, monkeypatch):
    """Ray itself is left out: to start it takes it many seconds."""
    for call in ("init", "shutdown", "autoscaler.sdk.request_resources"):
        monkeypatch.setattr(f"ray.{call}", lambda **_: None)
    monkeypatch.setattr("loop.hosting.engine.nodes", lambda: [Node(cpus=2.0, gpus=0.0)])
    root = new_root()
    with pytest.raises(ValueError, match=r"hosting\.train: an actor of 64 CPUs.* the cluster has 2 CPUs"):
        start(easy_config, root, hosting={"engine": "ray", "train": {"num_cpus": 64}})
    assert not (root / "controls").exists()
