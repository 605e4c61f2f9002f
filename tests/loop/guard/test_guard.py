"""The guard in a round: what the folds' detectors see, what is recorded, and that a harmful pool is not taken."""

import json
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console
from upath import UPath

from actors.checkpoint import read_checkpoint
from actors.records import Detections, Lineage, Sample
from actors.storage import read_record, write_record
from loop.ablation.config import load_ablation
from loop.arms import Trainings
from loop.check import describe
from loop.config import LoopConfig
from loop.driver import import_real, run
from loop.guard.apply import guarded
from loop.guard.decide import Decision, apart, decide
from loop.progress import Reporter
from loop.state import RunFolder
from loop.use.chosen import choose
from loop.use.evaluate import measure_split


def with_guard(easy_config, root, *, steps, **sections):
    training = {**easy_config["training"], "steps": steps, "epoch_steps": steps // 2}
    changes = {"rounds": 1, "filters": [], "guard": {"folds": 2}, "training": training}
    return LoopConfig.model_validate({**easy_config, **changes, "root": str(root), **sections})


def trainings(config, said=None):
    return Trainings(config=config, data=import_real(config), reporter=Reporter(Console(file=said or StringIO())))


def derived(image, number=0, canvas="", examples=(), **annotation):
    """A sample that shows the real image, with its labels unless others are given."""
    labels = replace(image.annotation, **annotation)
    return Sample(
        id=f"{number}-{image.id}",
        uri=image.uri,
        sha256="",
        as_drawn=image.uri,
        width=image.width,
        height=image.height,
        annotation=labels,
        proposed=labels,
        drawn=np.ones(len(labels), np.bool_),
        restored=np.zeros(len(labels), np.bool_),
        seen=Detections.empty(),
        verdicts=(),
        dropped="",
        lineage=Lineage(round=1, image_id=image.id, box_indices=(0,), generator="g", seed=number),
        canvas=canvas,
        examples=examples,
    )


def harmful(images):
    """Each image twice, with classes exchanged and boxes moved by half of their size."""
    return tuple(
        derived(image, number, labels=1 - image.annotation.labels, boxes=image.annotation.boxes + np.float32(shift))
        for number, shift in enumerate((10, -10))
        for image in images
    )


def test_samples_that_derive_from_a_fold_are_left_out(easy_config, tmp_path):
    fold, other, *_ = import_real(with_guard(easy_config, tmp_path, steps=2)).splits["train"]
    pool = {
        "of the fold": derived(fold, canvas="clean/1"),
        "into the fold": derived(other, canvas=fold.id),
        "with an object of the fold": derived(other, canvas=other.id, examples=("", fold.id)),
        "of others": derived(other, canvas=other.id, examples=("", other.id)),
        "of others, into a clean one": derived(other, canvas="clean/1"),
        "a whole new one": derived(other),
    }
    kept = apart(pool.values(), [fold.id])
    names = [name for name, one in pool.items() if any(one is left for left in kept)]
    assert names == ["of others", "of others, into a clean one", "a whole new one"]


@pytest.fixture(scope="module")
def of_run(easy_config, new_root):
    """The config, the folder, and what was said of a run with two seeds whose detectors find nothing yet."""
    config = with_guard(easy_config, new_root(), steps=2, evaluation={"bootstrap_draws": 100, "seeds": 2})
    said = StringIO()
    return config, Path(run(config, Reporter(Console(file=said, width=200)))), said.getvalue()


def read(file):
    return json.loads(file.read_text())


@pytest.mark.slow
def test_detectors_that_are_no_better_leave_the_control(of_run):
    _, folder, said = of_run
    place = folder / "rounds/001"
    run_folder = RunFolder(UPath(folder))
    chosen, controls = run_folder.detectors(1)
    assert [Path(one).parent for one in chosen] == [place, place / "seed_2"]
    assert [Path(one).read_bytes() for one in chosen] == [Path(one).read_bytes() for one in controls]
    own = (place / "unguarded/detector.safetensors").read_bytes()
    assert own != Path(chosen[0]).read_bytes()
    assert (place / "unguarded/seed_2/detector.safetensors").exists()
    assert choose(UPath(folder)).loop == chosen
    progress = StringIO()
    measured = measure_split(choose(UPath(folder)), "val", Reporter(Console(file=progress)))
    assert measured.gain_ci95 == (0, 0)
    assert measured.metrics["loop"] == measured.metrics["control"]
    assert ("evaluate control" in progress.getvalue(), "evaluate loop" in progress.getvalue()) == (True, False)
    _, heads, *_, last = str(measured).splitlines()
    assert (heads.split(), last.split(",")[0]) == (["control"], "the loop's detector is the control")
    summary = read(folder / "summary.json")
    (row,), metrics = summary["rounds"], summary["metrics"]
    assert metrics["unguarded"]["AP"] == row["guard"]["loop_ap"]
    assert metrics["loop"] == metrics["control"]
    assert (row["gain"], row["gain_ci95"], row["ap"]) == (0, [0, 0], row["control_ap"])
    guard = row["guard"]
    assert (guard["chosen"], guard["steps"], guard["shared_steps"]) == ("control", 2, 2)
    assert [one["name"] for one in guard["tried"]] == ["control", "blend 0.25", "blend 0.5", "blend 0.75", "loop"]
    assert len(guard["loop_gain_ci95"]) == len(guard["pools"]) == 2
    assert row["seconds"]["guard"] > 0
    assert "\nround 1: the guard chose control; the loop's own detector has AP 0.0" in said
    assert "Round 1: the guard chose control." in said
    assert "control kept" in said
    assert "After round 1: the guard kept the control" in said
    assert "use the control, kept by round 1 (AP 0.0 on the validation images): detloop predict" in said
    assert "The guard" in (folder / "summary.html").read_text()


@pytest.mark.slow
def test_the_decision_is_the_same_after_an_interruption(of_run):
    config, folder, _ = of_run
    place = folder / "rounds/001"
    known = {file: file.read_bytes() for file in place.rglob("*.safetensors")}
    decision = read(place / "guard.json")
    for name in ("guard.json", "round.json", "guard/fold_2/train.json", "guard/fold_1/blend_0.5/seen.npz"):
        (place / name).unlink()
    shutil.rmtree(place / "guard/fold_2")
    run(config, Reporter(Console(file=StringIO())))
    assert {file: file.read_bytes() for file in place.rglob("*.safetensors")} == known
    again = read(place / "guard.json")
    assert {**again, "cost": None} == {**decision, "cost": None}


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "share"), [("control", 0.0), ("blend 0.5", 0.5), ("loop", 1.0)])
def test_the_chosen_detectors_are_stored_in_the_rounds_folder(of_run, tmp_path, chosen, share):
    config, folder, _ = of_run
    known = RunFolder(UPath(folder))
    given = trainings(config)
    controls = given.controls(1)
    own_place = UPath(folder) / "rounds/001/unguarded"
    own = given.arms(own_place, 1, mixing=config.mixing, pool=(), starts=known.detectors(0)[1])
    decision = read_record(UPath(folder) / "rounds/001/guard.json", Decision)
    place = UPath(tmp_path)
    write_record(place / "guard.json", replace(decision, chosen=chosen))
    arms = guarded(given, place, (), own, controls).arms
    for arm, mine, control in zip(arms, own, controls, strict=True):
        (_, found), (_, first), (_, last) = (read_checkpoint(one.checkpoint) for one in (arm, control, mine))
        for name, tensor in found.items():
            if tensor.is_floating_point():
                assert tensor.allclose((1 - share) * first[name] + share * last[name], atol=1e-6), name
        assert arm.seen.keys() == control.seen.keys()
        assert arm.trained.training_s == 0
    assert [Path(arm.checkpoint).parent for arm in arms] == [tmp_path, tmp_path / "seed_2"]


@pytest.mark.slow
def test_folds_without_a_pool_cost_no_steps_and_count_as_the_control(of_run):
    config, folder, _ = of_run
    said, place = StringIO(), UPath(folder).parent / "elsewhere"
    given = trainings(config, said)
    decision = decide(given, place, harmful(given.data.splits["train"][:2]))
    assert (decision.steps, decision.shared_steps, decision.chosen, max(decision.pools)) == (0, 0, "control", 2)
    assert (decision.tried, decision.share) == ((), 0)
    assert "control and loop are not compared, and the control is kept" in " ".join(said.getvalue().split())


@pytest.mark.slow
def test_a_harmful_pool_is_not_taken_and_no_validation_image_is_opened(easy_config, easy_data, new_root, tmp_path):
    data = Path(shutil.copytree(easy_data, tmp_path / "data"))
    config = with_guard(easy_config, new_root(), steps=24, data={"format": "coco", "root": str(data)})
    given = trainings(config)
    shutil.rmtree(data / "val")
    decision = decide(given, UPath(tmp_path) / "round", harmful(given.data.splits["train"]))
    control, *_, loop = decision.tried
    assert decision.chosen == "control"
    assert control.ap > 0.1 > loop.ap
    assert decision.pools == (8, 8)
    with pytest.raises(Exception, match=r"val.*png"):
        given.control(0)


def test_a_guard_is_refused_where_it_cannot_work(easy_config, tmp_path):
    for guard, said in (
        ({"folds": 1}, "no images to train on"),
        ({"blends": [0.5, 0.5]}, "each blend may occur once"),
        ({"blends": [1.0]}, "less than 1"),
    ):
        with pytest.raises(ValidationError, match=said):
            with_guard(easy_config, tmp_path, steps=2, guard=guard)
    training = {**easy_config["training"], "start": "previous"}
    with pytest.raises(ValidationError, match=r"guard\.folds: .* set training\.start to scratch or weights"):
        with_guard(easy_config, tmp_path, steps=2, training=training)
    with pytest.raises(ValueError, match=r"9 folds of 8 training images; take fewer"):
        describe(with_guard(easy_config, tmp_path, steps=2, guard={"folds": 9}))


@pytest.mark.parametrize(
    ("cross_fit", "rounds", "folds", "told"),
    [
        (0, 1, "and 6 of 50 steps without a fold", "(150 more steps, once)"),
        (3, 2, "and 9 of 50 steps without a fold", "(those of the other folds)"),
        (2, 1, "and 2 of 25 steps without a fold, and 6 of 50 steps without a fold", "(150 more steps, once)"),
    ],
)
def test_a_plan_counts_the_trainings_of_the_guard(easy_config, tmp_path, cross_fit, rounds, folds, told):
    mining = {**easy_config["mining"], "cross_fit": cross_fit}
    config = with_guard(easy_config, tmp_path, steps=50, guard={"folds": 3}, mining=mining, rounds=rounds)
    plan = " ".join(describe(config).split())
    assert f"trainings {rounds + 1} of 50 steps, controls included, {folds} (finished" in plan
    assert f"guard 3 detectors like the control {told} and 3 like the loop's (150 more steps a round)" in plan
    assert "have not seen: control, blend 0.25, blend 0.5, blend 0.75 or loop" in plan


def test_arms_of_an_ablation_have_no_guard_unless_they_ask_for_one(easy_config, tmp_path):
    (tmp_path / "run.yaml").write_text(json.dumps({**easy_config, "root": str(tmp_path), "guard": {"folds": 3}}))
    arms = {"plain": {}, "guarded": {"guard.folds": 2}}
    (tmp_path / "ablation.yaml").write_text(json.dumps({"name": "a", "arms": arms, "seeds": [0]}))
    plain, guarded_arm = load_ablation([tmp_path / "run.yaml", tmp_path / "ablation.yaml"]).trials
    assert (plain.config.guard.folds, guarded_arm.config.guard.folds) == (0, 2)
