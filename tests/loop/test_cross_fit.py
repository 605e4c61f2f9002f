"""Cross-fitted attributes: folds worked out by hand, and that no box is judged by a detector that saw its image."""

import json
import threading
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console
from upath import UPath

from actors.attributes import attributes
from actors.records import Annotation, Detections, LabeledImage, Lineage, Sample
from loop import cross_fit, stages
from loop.arms import Trainings
from loop.check import describe
from loop.config import LoopConfig, MiningConfig, TrainingConfig
from loop.cross_fit import detect_unseen, fold_arms, fold_steps, folds, held_back
from loop.driver import import_real, run
from loop.evaluation import compare
from loop.evaluation.compare import MIN_UNSEEN, of_fold, unseen_yolo_scores
from loop.progress import Reporter
from loop.state import RunFolder

TRAINING = {"steps": 4, "epoch_steps": 2, "batch_size": 4}


def image(name, *labels):
    boxes = np.tile(np.float32([[0, 0, 8, 8]]), (len(labels), 1))
    annotation = Annotation(boxes=boxes, labels=np.array(labels, np.int64), ignore=np.zeros(len(labels), np.bool_))
    return LabeledImage(id=name, uri=f"{name}.png", width=9, height=9, annotation=annotation)


def ids(images):
    return [one.id for one in images]


@pytest.mark.parametrize(
    ("num_images", "num_folds", "sizes"), [(9, 3, [3, 3, 3]), (11, 4, [3, 3, 3, 2]), (2, 2, [1, 1])]
)
def test_every_image_is_in_one_fold_and_folds_are_as_large_as_each_other(num_images, num_folds, sizes):
    images = [image(f"{number:02d}", number % 2) for number in range(num_images)]
    parts = folds(images, num_folds, seed=5)
    assert [len(part) for part in parts] == sizes
    assert sorted(name for part in parts for name in ids(part)) == ids(images)


def test_folds_depend_on_seed_and_images_and_not_on_their_order():
    images = [image(str(number), 0) for number in range(12)]
    parts = {seed: [set(ids(part)) for part in folds(images, 3, seed)] for seed in range(8)}
    assert parts[4] == [set(ids(part)) for part in folds(images[::-1], 3, seed=4)]
    assert len({str(sorted(map(sorted, part))) for part in parts.values()}) > 1


@pytest.mark.parametrize("seed", range(5))
def test_every_fold_has_its_share_of_a_rare_class_and_of_empty_images(seed):
    common = [image(f"common {number}", 0, 0) for number in range(20)]
    rare = [image(f"rare {number}", 0, 1) for number in range(3)]
    empty = [image(f"empty {number}") for number in range(6)]
    for part in folds([*common, *rare, *empty], 3, seed):
        kinds = [name.split()[0] for name in ids(part)]
        assert (kinds.count("rare"), kinds.count("empty")) == (1, 2)


def test_fewer_images_than_folds_are_refused():
    with pytest.raises(ValueError, match=r"3 folds of 2 training images; take fewer \(mining\.cross_fit, utility, g"):
        folds([image("a"), image("b")], 3, seed=0)
    with pytest.raises(ValidationError, match="no images to train on"):
        MiningConfig(cross_fit=1)


def config(easy_config, root, num_folds, name="apart", rounds=1, **sections):
    mining = {**easy_config["mining"], "cross_fit": num_folds}
    tree = {**easy_config, "name": name, "rounds": rounds, "root": str(root), "mining": mining, "filters": []}
    return LoopConfig.model_validate({**tree, "training": {**easy_config["training"], **TRAINING}, **sections})


def trainings(given):
    return Trainings(config=given, data=import_real(given), reporter=reporter())


def reporter():
    return Reporter(Console(file=StringIO()))


def go(given):
    """The run's folder and what was said."""
    said = StringIO()
    return Path(run(given, Reporter(Console(file=said, width=200)))), said.getvalue()


@pytest.fixture(scope="module")
def apart(easy_config, new_root):
    """The config of a run of two rounds with three folds, its folder, what was said, and what the folds trained on."""
    jobs, train = [], cross_fit.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_fit, "train", lambda job, *rest: (jobs.append(job), train(job, *rest))[1])
        given = config(easy_config, new_root(), 3, rounds=2)
        return given, *go(given), jobs


@pytest.mark.slow
def test_the_yolo_score_is_also_taken_by_detectors_that_have_not_seen_the_source(apart, monkeypatch):
    given, folder, _, jobs = apart
    samples = RunFolder(UPath(folder)).judged(1)
    sources = {sample.id: sample.lineage.image_id for sample in samples}
    trained_on = {job.checkpoint: set(ids(job.real)) for job in jobs}

    def finds_everything(pictures, _, checkpoint, *__):
        assert not {sources[one.id] for one in pictures} & trained_on[checkpoint]
        asked = {one.id: one.annotation for one in pictures}
        scores = {name: np.ones(len(one), np.float32) for name, one in asked.items()}
        found = {n: Detections(boxes=one.boxes, labels=one.labels, scores=scores[n]) for n, one in asked.items()}
        return found, None

    loop = SimpleNamespace(config=given, data=import_real(given), trainings=trainings(given), reporter=reporter())
    number = json.loads((folder / "rounds/001/metrics.json").read_text())["drawn"]["yolo_score_unseen_pictures"]
    assert 0 < number < MIN_UNSEEN
    monkeypatch.setattr(stages, "detect", finds_everything)
    monkeypatch.setattr(compare, "MIN_UNSEEN", number)
    scores = unseen_yolo_scores(loop, samples, dict.fromkeys(sources, "origin"))
    assert scores["yolo_score_unseen"] == scores["yolo_score_unseen_drawn_AP50"] == 1.0
    assert scores["yolo_score_unseen_pictures"] == number
    other = given.model_copy(update={"mining": given.mining.model_copy(update={"detector": given.detector})})
    assert unseen_yolo_scores(SimpleNamespace(config=other), samples, {}) == {}


BOXES = np.array([[0, 0, 9, 9], [20, 20, 29, 29], [40, 40, 49, 49]], np.float32)


def drawn(canvas, examples):
    """A candidate of ``source.png`` with a real box and two drawn ones."""
    boxes = Annotation(boxes=BOXES, labels=np.zeros(3, np.int64), ignore=np.zeros(3, np.bool_))
    return Sample(
        id="s",
        uri="kept/s.png",
        sha256="",
        as_drawn="as_drawn/s.png",
        width=60,
        height=60,
        annotation=boxes,
        proposed=boxes,
        drawn=np.array([False, True, True]),
        restored=np.zeros(3, np.bool_),
        seen=Detections.empty(),
        verdicts=(),
        dropped="",
        lineage=Lineage(round=1, image_id="source.png", box_indices=(0,), generator="g", seed=1),
        canvas=canvas,
        examples=examples,
    )


def test_a_fold_counts_boxes_whose_canvas_and_example_its_detector_has_not_seen():
    fold = {"source.png", "beside.png"}
    own = of_fold(drawn("source.png", ("", "beside.png", "elsewhere.png")), fold)
    assert own.proposed.ignore.tolist() == [False, False, True]
    assert of_fold(drawn("", ()), fold).proposed.ignore.tolist() == [False, False, False]  # a whole new image
    assert of_fold(drawn("elsewhere.png", ("", "beside.png", "beside.png")), fold) is None
    assert of_fold(drawn("source.png", ("", "elsewhere.png", "elsewhere.png")), fold) is None
    assert of_fold(drawn("source.png", ()), {"beside.png"}) is None


@pytest.mark.slow
def test_the_folds_train_as_the_control_does_on_the_real_images_of_the_others(apart):
    given, _, said, jobs = apart
    control = trainings(given).mix(UPath("control"), 0)
    images = ids(control.real)
    assert len(jobs) == 3
    assert said.count("train folds") == 1  # for both rounds
    for job in jobs:
        assert (job.training, job.detector, job.seed, job.start) == (given.training, given.detector, control.seed, None)
        assert (job.mixing.p, job.pool) == (0, ())
    left_out = [set(images) - set(ids(job.real)) for job in jobs]
    assert sorted(name for part in left_out for name in part) == sorted(images)


@pytest.mark.slow
def test_every_box_is_tagged_by_a_detector_that_has_not_seen_its_image(apart):
    given, folder, _, jobs = apart
    data = import_real(given)
    expected = {}
    for job in jobs:
        unseen = [one for one in data.splits["train"] if one.id not in set(ids(job.real))]
        seen, _ = stages.detect(unseen, given.detector, job.checkpoint, given.hosting, lambda _: None)
        for one in unseen:
            for found in attributes(one, seen[one.id], **given.mining.attribute()):
                expected[found.image_id, found.index] = (found.difficulty, found.best_score, found.best_iou)
    for number in (1, 2):
        found = json.loads((folder / f"rounds/{number:03d}/mine.json").read_text())["found"]
        keys = ("difficulty", "best_score", "best_iou")
        assert {(one["image_id"], one["index"]): tuple(one[key] for key in keys) for one in found} == expected
    assert len(expected) == 16


@pytest.mark.slow
def test_the_rounds_record_says_how_much_is_easy_and_the_summary_what_the_folds_cost(apart):
    from mlflow import MlflowClient

    given, folder, _, _ = apart
    shares = json.loads((folder / "rounds/001/mine.json").read_text())["shares"]
    client = MlflowClient(tracking_uri=f"sqlite:///{given.root}/mlflow.db")
    (loop,) = client.search_runs([client.get_experiment_by_name("apart").experiment_id], "tags.fingerprint != ''")
    (first, _) = client.get_metric_history(loop.info.run_id, "easy_share")
    assert first.value == sum(one["num_easy"] for one in shares) / 16
    seconds = json.loads((folder / "summary.json").read_text())["cross_fit_seconds"]
    assert len(seconds) == 3
    assert all(one["train"] > 0 and one["evaluate"] > 0 for one in seconds)


@pytest.mark.slow
def test_another_run_below_the_root_finds_them_there(apart, easy_config):
    given, folder, _, _ = apart
    changes = {"mixing": {"p": 0.25}, "training": {**easy_config["training"], **TRAINING, "background_ignore": False}}
    other, said = go(config(easy_config, given.root, 3, name="other", **changes))
    assert "train folds" not in said
    assert "evaluate fold" not in said
    found = [json.loads((one / "rounds/001/mine.json").read_text())["found"] for one in (folder, other)]
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"seed": 1}, {"training": {**TRAINING, "steps": 6}}, {"mining": {"cross_fit": 2}}])
def test_other_folds_and_schedules_have_detectors_of_their_own(apart, change):
    known = {path.name for path in Path(apart[0].root, "folds").iterdir()}
    given = trainings(LoopConfig.model_validate({**apart[0].model_dump(), **change}))
    parts = folds(given.data.splits["train"], given.config.mining.cross_fit, given.config.seed)
    assert known.isdisjoint(cross_fit.Fold.of(given, part).place.name for part in parts)


@pytest.mark.slow
def test_an_interrupted_start_goes_on_with_the_fold_that_is_missing(easy_config, new_root, monkeypatch):
    given = trainings(config(easy_config, new_root(), 3))
    jobs, train = [], cross_fit.train

    def die_in_the_second(job, *rest):
        jobs.append(job.name)
        if len(jobs) == 2:
            raise KeyboardInterrupt
        return train(job, *rest)

    monkeypatch.setattr(cross_fit, "train", die_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        fold_arms(given)
    seen, _ = detect_unseen(given)
    assert seen.keys() == set(ids(given.data.splits["train"]))
    first, second, again, third = jobs
    assert (second, len({first, second, third})) == (again, 3)


def test_as_many_train_at_a_time_as_have_a_place():
    together, threads = threading.Barrier(3, timeout=10), set()
    cross_fit._each(lambda _: together.wait(), range(6), 3)  # breaks where fewer than three are at it
    cross_fit._each(lambda _: threads.add(threading.current_thread()), range(6), 1)
    assert threads == {threading.main_thread()}
    with pytest.raises(ZeroDivisionError):
        cross_fit._each(lambda one: 1 / one, [1, 0, 2], 3)


def test_without_folds_nothing_is_trained_and_runs_keep_their_fingerprint(easy_config, tmp_path):
    without, three = config(easy_config, tmp_path, 0), config(easy_config, tmp_path, 3)
    assert "mining" in three.science(defaults=False)
    assert three.science()["mining"]["cross_fit"] == 3
    assert without.fingerprint("mining") != three.fingerprint("mining")


@pytest.mark.parametrize(("num_folds", "steps"), [(2, 300), (3, 400), (7, 550)])
def test_a_training_without_a_fold_has_as_many_passes_over_its_images_in_whole_epochs(num_folds, steps):
    assert fold_steps(TrainingConfig(steps=600, epoch_steps=50), num_folds) == steps


def test_check_counts_the_folds(easy_config, tmp_path):
    plan = describe(config(easy_config, tmp_path, 4))
    assert "cross-fit    4 detectors, each trained on 6 images" in plan
    assert "16 more steps, once" in plan
    assert "trainings    2 of 4 steps, controls included, and 4 of 4 steps without a fold" in plan
    for given in (config(easy_config, tmp_path, 0), config(easy_config, tmp_path, 4, rounds=0)):
        assert "\ncross-fit" not in describe(given)
    with pytest.raises(ValueError, match="9 folds of 8 training images"):
        describe(config(easy_config, tmp_path, 9))


@pytest.mark.slow
def test_filters_are_given_training_images_with_detectors_that_were_not_trained_on_them(
    easy_config, tmp_path, monkeypatch
):
    jobs, train = {}, cross_fit.train
    monkeypatch.setattr(
        cross_fit, "train", lambda job, *rest: (jobs.update({job.checkpoint: job}), train(job, *rest))[1]
    )
    given = trainings(config(easy_config, tmp_path, 0, filters=[{"kind": "utility", "folds": 2}]))
    found = held_back(given)
    train_ids, val_ids = (set(ids(given.data.splits[split])) for split in ("train", "val"))
    assert len(found) == 2
    for fold in found:
        known = set(ids(jobs[fold.detector.uri].real))
        assert known.isdisjoint(ids(fold.images))
        assert known | set(ids(fold.images)) == train_ids
        assert val_ids.isdisjoint(ids(fold.images))
    assert sorted(name for fold in found for name in ids(fold.images)) == sorted(train_ids)
    assert held_back(trainings(config(easy_config, tmp_path, 3))) == ()


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ([{"kind": "utility", "folds": 20}], "20 folds of 8 training images"),
        (
            [{"kind": "utility", "folds": 2, "parameters": ["model.5", "nowhere"]}],
            r"filters\.utility\.parameters: no parameter of .*small\.yaml begins with \['nowhere'\]",
        ),
    ],
    ids=["folds", "parameters"],
)
def test_what_utility_cannot_do_is_said_before_anything_is_trained(easy_config, tmp_path, filters, said):
    with pytest.raises(ValueError, match=said):
        go(config(easy_config, tmp_path, 0, filters=filters))
    assert not (tmp_path / "controls").exists()
