"""``import detloop``: the same as the command line does, from Python, and its answers as tables."""

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import detloop
from actors.records import Sample
from actors.storage import read_record
from loop import cli, stages
from loop.config_files import load
from loop.state import Mined

pytestmark = pytest.mark.slow

QUICKSTART = Path(__file__).parents[1] / "configs/quickstart.yaml"
NO_ENGINE = {"hosting.engine": "inline"}


def test_the_version_is_that_of_the_installed_package():
    assert detloop.__version__ == version("detloop")


def test_all_that_is_offered_is_there():
    assert [name for name in detloop.__all__ if not hasattr(detloop, name)] == []


@pytest.mark.parametrize("package", ["detloop", "loop", "actors"])
def test_the_packages_are_typed_for_those_who_import_them(package):
    assert (Path(__file__).parents[1] / package / "py.typed").exists()


def test_files_mappings_and_overrides_make_the_config_that_the_command_line_makes(tmp_path):
    hosting = tmp_path / "hosting.yaml"
    hosting.write_text("hosting: {engine: inline}\n")
    keys = ["mining.budget=7", "generator={kind: copy_paste}", "root=/data/runs"]
    expected = load([QUICKSTART, hosting], keys)
    layers = [QUICKSTART, {"hosting": {"engine": "inline"}}]
    mapping = {"mining.budget": 7, "generator": {"kind": "copy_paste"}, "root": Path("/data/runs")}
    assert detloop.load_config([QUICKSTART, str(hosting)], keys) == expected
    assert detloop.load_config(layers, mapping) == expected
    assert detloop.load_config(detloop.load_config(layers), mapping) == expected
    assert detloop.load_config(yaml.safe_load(QUICKSTART.read_text())) == load([QUICKSTART])


@pytest.mark.parametrize(
    "override",
    ["minig.budget=3", "mining.policy=worst", "generator={kind: magic}", "rounds"],
    ids=["unknown key", "wrong value", "unknown kind", "no value"],
)
def test_a_config_error_reads_as_on_the_command_line(monkeypatch, capsys, override):
    monkeypatch.setattr(sys, "argv", ["detloop", "check", str(QUICKSTART), "--set", override])
    with pytest.raises(SystemExit):
        cli.main()
    with pytest.raises(detloop.ConfigError) as error:
        detloop.check(QUICKSTART, [override])
    assert capsys.readouterr().err.startswith(f"detloop: {error.value}\n")


def test_a_wrong_key_of_a_mapping_is_named():
    with pytest.raises(
        detloop.ConfigError, match=r"the given config cannot be used:\n  minig: unknown key; known here:"
    ):
        detloop.load_config({"name": "x", "data": {"format": "world"}, "minig": {"budget": 3}})
    with pytest.raises(detloop.ConfigError, match=r"mining\.budget: .* seen: 0"):
        detloop.run(QUICKSTART, {"mining.budget": 0})


def test_check_gives_the_text_of_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["detloop", "check", str(QUICKSTART), "--set", "rounds=1"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out == detloop.check(QUICKSTART, {"rounds": 1}) + "\n"


@pytest.fixture(scope="module")
def result(easy_config, new_root):
    """A run of one round that keeps some candidates and drops others."""
    return detloop.run({**easy_config, "root": new_root()}, {"rounds": 1})


def test_a_run_gives_its_table_and_metrics(result):
    known = json.loads((result.folder / "summary.json").read_text())
    (stored,) = known["rounds"]
    assert list(result.rounds.index) == [1]
    row = result.rounds.loc[1]
    assert (row.ap, row.control_ap, row.gain) == (stored["ap"], stored["control_ap"], stored["gain"])
    assert [row.gain_low, row.gain_high] == stored["gain_ci95"]
    assert (row.seeds, row.training_sd) == (1, stored["training_sd"])
    assert (row.mined, row.candidates, row.kept) == (stored["mined"], stored["candidates"], stored["kept"])
    assert row.seconds_train == stored["seconds"]["train"]
    assert result.metrics == known["metrics"]
    assert result.metrics["loop"]["AP"] == row.ap
    assert "After round 1: " in str(result)
    assert result.detector.exists()
    assert result.page.exists()


def test_the_candidates_of_a_run_are_its_samples(result):
    table, row = result.candidates, result.rounds.loc[1]
    assert (len(table), table.kept.sum()) == (row.candidates, row.kept)
    assert 0 < row.kept < row.candidates
    assert (table.kept == (table.dropped == "")).all()
    assert all(Path(uri).exists() for uri in table.uri)


def test_a_run_opened_by_its_folder_is_the_same_run(result):
    again = detloop.Result(str(result.folder))
    assert again.rounds.equals(result.rounds)
    assert again.config.science() == result.config.science()
    assert detloop.load_config(result.folder) == again.config
    with pytest.raises(ValueError, match="holds no run"):
        detloop.Result(result.folder.parent)


def test_a_run_of_no_rounds_has_an_empty_table_and_the_controls_metrics(result):
    control = detloop.run(result.config, {"rounds": 0, "name": "control"})
    assert (len(control.rounds), "gain" in control.rounds) == (0, True)
    assert len(control.candidates) == 0
    assert set(control.metrics) == {"control"}
    assert control.metrics["control"]["AP"] == result.metrics["control"]["AP"]
    with pytest.raises(FileNotFoundError, match="no round has finished"):
        _ = control.detector


def test_mining_a_config_finds_what_its_first_round_finds(result):
    mined = read_record(result.folder / "rounds/001/mine.json", Mined)
    table = detloop.mine(result.config)
    found = [(one.image_id, one.index, one.difficulty, one.best_score, one.best_iou) for one in mined.found]
    columns = ["image", "box", "difficulty", "best_score", "best_iou"]
    assert list(table[columns].itertuples(index=False, name=None)) == found
    assert {"easy", "hard"} == set(table.difficulty)
    taken = table.dropna(subset="rank").sort_values("rank")
    assert list(zip(taken.image, taken.box, strict=True)) == [(one.image_id, one.index) for one in mined.instances]
    truth = {image["file_name"]: image["id"] for image in _annotations(result)["images"]}
    boxes = [box["bbox"] for box in _annotations(result)["annotations"] if box["image_id"] == truth["3.png"]]
    there = table[table.uri.str.endswith("/3.png")]
    assert [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in there[["x0", "y0", "x1", "y1"]].to_numpy()] == boxes


def _annotations(result):
    return json.loads((Path(result.config.data.root) / "annotations/train.json").read_text())


def test_mining_again_under_another_rule_asks_no_detector(result, monkeypatch):
    strict = detloop.mine(result.config, {"mining.iou_threshold": 0.8})
    monkeypatch.setattr(stages, "detect", None)
    lenient = detloop.mine(result.config, {"mining.iou_threshold": 0.3, "mining.budget": 2})
    assert (lenient.difficulty == "easy").sum() > (strict.difficulty == "easy").sum()
    assert lenient["rank"].notna().sum() <= 2


@pytest.mark.slow
def test_mining_a_run_finds_what_its_next_round_finds(result, tmp_path):
    root = shutil.copytree(result.folder.parent, tmp_path / "runs")
    table = detloop.mine(root / "easy", NO_ENGINE)
    assert table.equals(detloop.mine(result.config, detector=result.detector))
    assert not table.equals(detloop.mine(result.config))
    longer = detloop.run(root / "easy", {"rounds": 2, **NO_ENGINE})
    mined = read_record(longer.folder / "rounds/002/mine.json", Mined)
    assert list(table.best_score) == [one.best_score for one in mined.found]
    assert table["rank"].notna().sum() == len(mined.instances)


@pytest.mark.parametrize(
    "rule", [{"mining.cross_fit": 2}, {"mining.detector": {"image_size_px": 96}}], ids=["folds", "another detector"]
)
@pytest.mark.slow
def test_mining_asks_whom_a_round_asks(result, rule):
    name = next(iter(rule)).replace(".", "-")
    if "mining.detector" in rule:
        rule = {"mining.detector": {"model": result.config.detector.model, **rule["mining.detector"]}}
    table = detloop.mine(result.config, rule)
    other = detloop.run(result.config, {**rule, "name": name, "rounds": 1})
    mined = read_record(other.folder / "rounds/001/mine.json", Mined)
    assert list(table.best_score) == [one.best_score for one in mined.found]


def test_the_filters_of_a_run_judge_its_candidates_as_they_did(result):
    table = detloop.judge(result)
    stored = [read_record(file, Sample) for file in sorted(Path(result.folder).glob("rounds/001/*/*.json"))]
    verdicts = [(one.id, v.filter, v.keep, v.score) for one in stored for v in one.verdicts]
    assert sorted(table[["id", "filter", "keep", "score"]].itertuples(index=False, name=None)) == sorted(verdicts)
    assert dict(zip(table.id, table.dropped, strict=True)) == {one.id: one.dropped for one in stored}


def test_other_filters_judge_the_candidates_of_a_run_anew(result):
    config = {"filters": [{"kind": "agreement", "iou_threshold": 0.9}]}
    table, before = detloop.judge(result, config), result.candidates
    assert set(table["filter"]) == {"agreement"}
    assert set(table.id) == set(before.id)
    num_kept = (table.groupby("id").dropped.first() == "").sum()
    assert num_kept < before.kept.sum()
    assert result.candidates.equals(before)
    nobody = detloop.judge(result, {"filters": []})
    assert nobody["filter"].isna().all()
    assert (nobody.dropped == "").all()


def test_judging_a_config_without_a_run_says_so(result):
    with pytest.raises(ValueError, match="elsewhere holds no run"):
        detloop.judge(result.config, {"name": "elsewhere"})
    with pytest.raises(ValueError, match="detector is only used with images"):
        detloop.judge(result, detector=result.detector)


@pytest.fixture
def own_images(easy_data, tmp_path):
    """A folder of eight pictures that one's own program may have drawn: the training images, in one annotation file."""
    folder = tmp_path / "own"
    shutil.copytree(easy_data / "train", folder)
    content = json.loads((easy_data / "annotations/train.json").read_text())
    content["categories"].reverse()  # other ids mean the same classes, by name
    (folder / "drawn.json").write_text(json.dumps(content))
    return folder


def test_images_of_ones_own_are_judged(result, own_images):
    table = detloop.judge(result.config, images=own_images)
    assert set(table.id) == {f"{number}.png" for number in range(1, 9)}
    assert set(table.dropped) == {"duplicate: near_duplicate_of_train"}
    boxes = detloop.judge(result.config, {"filters": [{"kind": "agreement"}]}, images=own_images)
    truth = json.loads((own_images / "drawn.json").read_text())
    names = {category["id"]: category["name"] for category in truth["categories"]}
    first = [names[box["category_id"]] for box in truth["annotations"] if box["image_id"] == 1]
    assert list(boxes[boxes.id == "1.png"].label) == first
    assert len(boxes) == len(truth["annotations"])
    assert boxes.keep.any()
    by_loop = detloop.judge(
        result.config, {"filters": [{"kind": "agreement"}]}, images=own_images, detector=result.detector
    )
    assert list(by_loop.score) != list(boxes.score)


def test_images_of_ones_own_need_the_classes_of_the_data(result, own_images):
    file = own_images / "drawn.json"
    file.write_text(file.read_text().replace('"red"', '"crimson"'))
    with pytest.raises(ValueError, match=r"classes \['crimson'\] are not among those of the run: \['blue', 'red'\]"):
        detloop.judge(result.config, images=own_images)
    (own_images / "5.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"not every image .*\n(.*\n)*.*5\.png"):
        detloop.judge(result.config, images=own_images)


@pytest.mark.usefixtures("ray_session")
def test_mining_and_judging_on_ray_give_the_same_tables(result, tmp_path):
    root = shutil.copytree(result.folder.parent, tmp_path / "runs")
    shutil.rmtree(root / "seen", ignore_errors=True)
    on_ray = {"root": root, "hosting.engine": "ray"}
    columns = ["image", "box", "difficulty", "best_score"]
    assert detloop.mine(result.config, on_ray)[columns].equals(detloop.mine(result.config)[columns])
    config = {"filters": [{"kind": "blank"}, {"kind": "agreement", "iou_threshold": 0.7}]}
    verdicts = ["id", "filter", "box", "keep", "score", "reason"]
    assert detloop.judge(result, {**config, **on_ray})[verdicts].equals(detloop.judge(result, config)[verdicts])


def test_an_export_from_python_is_that_of_the_command_line(result, monkeypatch, tmp_path):
    card = detloop.export(result, tmp_path / "python", fmt="yolo")
    monkeypatch.setattr(
        sys, "argv", ["detloop", "export", str(result.folder), "--format", "yolo", "--out", str(tmp_path / "shell")]
    )
    with pytest.raises(SystemExit):
        cli.main()
    assert str(card) == str(tmp_path / "python/README.md")
    python, shell = (
        {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
        for folder in (tmp_path / "python", tmp_path / "shell")
    )
    assert python == shell
    assert len(python) > 16
