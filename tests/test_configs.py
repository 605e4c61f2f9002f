"""Every YAML in configs/ loads; what is wrong in one is said with key, value and choices."""

import re
from pathlib import Path

import pytest
import yaml

import loop.config
from actors.config import Config
from actors.plain import differences
from loop.config import ConfigError, LoopConfig
from loop.config_files import _sections, load
from loop.run_names import SHARED

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
QUICKSTART = CONFIGS / "quickstart.yaml"
RUNS = sorted(CONFIGS.glob("*.yaml"))
HOSTING = sorted(CONFIGS.glob("hosting/*.yaml"))
REAL_DATA = {"bccd", "deeppcb", "detdiffusion", "detectorgan", "fasterrcnn", "gen2det", "ssddet"}
"""Their folder is given on the command line."""


def ids(file):
    return file.stem


@pytest.mark.parametrize("file", RUNS, ids=ids)
def test_a_run_config_loads_alone(file):
    overrides = ["data.root=somewhere"] if file.stem in REAL_DATA else []
    config = load([file], overrides)
    assert config.name == file.stem
    if file != QUICKSTART:  # which is for the two cores that it names; where others run is another file's
        assert config.hosting == LoopConfig(name="x", data={"format": "world"}).hosting


@pytest.mark.parametrize("name", sorted(REAL_DATA))
def test_a_run_on_real_data_asks_for_its_folder(name):
    with pytest.raises(ConfigError, match=r"data: give root, the folder of the data set"):
        load([CONFIGS / f"{name}.yaml"])


@pytest.mark.parametrize("file", HOSTING, ids=ids)
def test_a_hosting_file_says_where_and_changes_no_result(file):
    assert set(yaml.safe_load(file.read_text())) == {"hosting"}
    alone, hosted = load([QUICKSTART]), load([QUICKSTART, file])
    assert hosted.science() == alone.science()
    assert hosted.fingerprint() == alone.fingerprint()


def test_the_files_that_the_documentation_names_are_there():
    assert {"quickstart", "bccd", "deeppcb"} <= {file.stem for file in RUNS}
    assert {"laptop", "gpu", "cluster"} == {file.stem for file in HOSTING}


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("name=other", True),
        ("root=s3://bucket/runs", True),
        ("hosting.inspect.batch_size=3", True),
        ("tracking.experiment=other", True),
        ("seed=1", False),
        ("rounds=3", False),
        ("mixing.p=0.1", False),
        ("data.world.seed=7", False),
    ],
)
def test_the_fingerprint_is_over_what_decides_the_results(override, same):
    assert (load([QUICKSTART], [override]).fingerprint() == load([QUICKSTART]).fingerprint()) is same


def test_fits_are_due_in_the_first_round_and_where_they_are_asked_for_again():
    once, third = load([QUICKSTART]), load([QUICKSTART], ["fit.every=3"])
    assert [number for number in range(1, 9) if once.fit.is_due(number)] == [1]
    assert [number for number in range(1, 9) if third.fit.is_due(number)] == [1, 4, 7]
    assert once.science()["fit"] == {"every": 0}
    assert once.fingerprint() != third.fingerprint()


def test_the_fingerprint_leaves_out_what_stands_at_its_default_but_never_a_kind(monkeypatch):
    config = load([QUICKSTART])
    spelled_out = load([QUICKSTART], ["mining.match_class=true", "generation.max_failed_share=0.1"])
    assert spelled_out.fingerprint() == config.fingerprint()
    assert "match_class" not in config.science(defaults=False)["mining"]
    assert config.science(defaults=False)["filters"][0] == {"kind": "blank"}
    pasting, painting = (load([QUICKSTART], [f"generator={{kind: {kind}}}"]) for kind in ("copy_paste", "inpaint"))
    assert pasting.fingerprint() != painting.fingerprint()
    before = config.fingerprint()
    monkeypatch.setattr(loop.config, "SCHEMA", 0)
    assert config.fingerprint() != before


def test_the_fingerprint_of_a_section_does_not_see_the_others():
    changed = load([QUICKSTART], ["mixing.p=0.1"])
    assert changed.fingerprint("data", "detector") == load([QUICKSTART]).fingerprint("data", "detector")
    assert changed.fingerprint("mixing") != load([QUICKSTART]).fingerprint("mixing")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("minig.budget=3", ["minig: unknown key", "known here: data, detector,", "mining"]),
        ("mining.bugdet=3", ["mining.bugdet: unknown key", "known here: budget, cross_fit, detector, iou_threshold,"]),
        (
            "hosting.train.num_cpu=2",
            ["hosting.train.num_cpu: unknown key", "max_failures, num_cpus, num_gpus, num_workers"],
        ),
        ("detector.modle=x", ["detector.modle: unknown key", "image_size_px, kind,", "model"]),
        ("generator.foo=3", ["generator.foo: unknown key", "margin, modes, painter,"]),
        ("filters=[{kind: blank}, {kind: agreement, iou: 1}]", ["filters.1.iou: unknown key", "kind, match_class,"]),
        ("mining.budget=zero", ["mining.budget:", "valid integer", "seen: 'zero'"]),
        (
            "mining.policy=worst",
            ["mining.policy:", "'hardest', 'balanced', 'ranked', 'random' or 'utility'", "'worst'"],
        ),
        ("mixing.p=2", ["mixing.p:", "less than or equal to 1", "seen: 2"]),
        ("detector.kind=yolo", ["detector.kind:", "'ultralytics'", "seen: 'yolo'"]),
        (
            "filters=[{kind: blnk}]",
            ["filters.0.kind:", "'aesthetic', 'agreement', 'alignment', 'blank', 'duplicate'", "seen: 'blnk'"],
        ),
        ("filters=[{}]", ["filters.0.kind: required"]),
        ("filters=[{kind: blank}, {kind: blank}]", ["filters: each kind of filter may occur once"]),
        ("mining=3", ["mining:", "seen: 3"]),
        ("name=../elsewhere", ["name:", "seen: '../elsewhere'"]),
        ("name=folds", ["name: folds below the root is shared by all runs, as are ablations,", "choose another name"]),
        ("name=MLflow.db", ["name: MLflow.db below the root is shared by all runs"]),
        ("training.steps=401", ["training: steps (401) is not a multiple of epoch_steps (40)"]),
        ("training.start=weights", ["training.start: weights needs detector.weights"]),
        (
            "generator={kind: layout}",
            ["rejected_boxes: restore needs real pixels, and generator layout keeps none; use ignore"],
        ),
        ("data.root=/somewhere", ["data: format: world is rendered and takes no root"]),
    ],
)
def test_an_error_names_the_key_the_value_and_the_choices(override, parts):
    with pytest.raises(ConfigError) as error:
        load([QUICKSTART], [override])
    message = str(error.value)
    assert "quickstart.yaml cannot be used" in message
    assert not [part for part in parts if part not in message], message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["generator.fit.unroll_parameters=all", "detector.model=fasterrcnn"], r"has no second derivative .* backbone"),
        (["generator.places=masks", "generator.place_masks=m"], r"masks of images without objects, and there are none"),
    ],
)
def test_sections_that_do_not_agree_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load([CONFIGS / "detectorgan.yaml"], ["data.root=somewhere", *overrides])


def test_every_folder_that_the_code_makes_below_the_root_is_a_name_that_no_run_may_have():
    code = "".join(file.read_text() for file in ROOT.glob("loop/**/*.py"))
    places = (r'(?:config|base)\.root\) / "([\w.]+)"', r'shared_place\("(\w+)"', r'folder / "(mlartifacts)"')
    made = {name for place in places for name in re.findall(place, code)}
    assert made == SHARED


def test_every_error_of_a_config_is_told_at_once():
    with pytest.raises(ConfigError, match=r"(?s)mining\.bugdet.*mixing\.p"):
        load([QUICKSTART], ["mining.bugdet=3", "mixing.p=2"])


@pytest.mark.parametrize("override", ["mining.budget", "=3", "a..b=2", ".a=2", "mining.budget: 3"])
def test_a_malformed_override_is_shown_how_it_is_written(override):
    with pytest.raises(ConfigError, match=r"write it as key\.sub=value"):
        load([QUICKSTART], [override])


def test_an_override_that_is_no_yaml():
    with pytest.raises(ConfigError, match=r"--set mining.budget=\[: the value is not valid YAML"):
        load([QUICKSTART], ["mining.budget=["])


BOMB = (
    "a: &a1 [" + "x," * 9 + "x]\n" + "".join(f"k{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(2, 10))
)
"""Ten lines of aliases to aliases."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "not readable as YAML"),
        ("- a\n- b\n", "this file holds list"),
        ("", "this file holds NoneType"),
        ("name: a\nseed: 1\nname: b\n", "key 'name' occurs twice"),
        ("name: a\nmining: {budget: 1, budget: 2}\n", "key 'budget' occurs twice"),
        ("name: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("name: &a [*a]", "nested too deeply, or in itself"),
        (BOMB, r"its aliases stand for 1e\+09 values"),
        ("? [a, b]\n: 1\n", "while constructing a mapping"),
        ("name: 2024-99-99\n", "month must be in"),
    ],
    ids=["open", "list", "empty", "twice", "twice below", "deep", "in itself", "bomb", "list as key", "date"],
)
def test_a_file_that_is_no_config(tmp_path, text, message):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"broken\.yaml: .*(?s:{message})"):
        load([file])


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such config file"):
        load(["nowhere.yaml"])


def test_a_folder_of_images_in_the_place_of_a_config_names_the_next_step(tmp_path):
    with pytest.raises(ConfigError, match=rf"is a folder, not a config file; `detloop init {tmp_path}` writes"):
        load([tmp_path])


def test_a_required_key(tmp_path):
    file = tmp_path / "unnamed.yaml"
    file.write_text("data: {format: world}\n")
    with pytest.raises(ConfigError, match="name: required, but not given"):
        load([file])


def test_later_files_win_and_overrides_win_over_files(tmp_path):
    later = tmp_path / "later.yaml"
    later.write_text("mining: {budget: 7}\nfilters: [{kind: blank}]\n")
    config = load([QUICKSTART, later], ["mixing.p=0.5", "mixing.mode=share"])
    assert (config.mining.budget, config.mining.policy) == (7, "ranked")  # a mapping merges
    assert [one.kind for one in config.filters] == ["blank"]  # a list replaces
    assert (config.mixing.p, config.mixing.mode) == (0.5, "share")


def test_a_component_of_another_kind_replaces_the_one_below_it_whole(tmp_path):
    below, over = tmp_path / "below.yaml", tmp_path / "over.yaml"
    below.write_text("name: a\ndata: {format: world}\ndetector: {kind: other, unknown_here: 1}\n")
    over.write_text("detector: {kind: ultralytics, image_size_px: 64}\n")
    assert load([below, over]).detector.image_size_px == 64
    over.write_text("detector: {image_size_px: 64}\n")
    with pytest.raises(ConfigError, match=r"detector\.kind: .*seen: 'other'"):
        load([below, over])


def test_a_number_with_an_exponent_is_a_number():
    overrides = load(
        [QUICKSTART], ["training.overrides={lr0: 1e-3, momentum: 5.0e-1, optimizer: e3}"]
    ).training.overrides
    assert overrides == {"lr0": 0.001, "momentum": 0.5, "optimizer": "e3"}


def test_differences_name_the_keys():
    old, new = load([QUICKSTART]), load([QUICKSTART], ["mining.budget=7", "filters=[]", "seed=3"])
    lines = differences(old.science(), new.science())
    assert [line.split(":")[0] for line in lines] == ["filters", "mining.budget", "seed"]
    assert lines[1] == "mining.budget: 200 -> 7"


def sections(section=LoopConfig):
    """Every config section below ``section``, itself included."""
    found = {section}
    for field in section.model_fields.values():
        for below in _sections(field.annotation):
            found |= sections(below)
    return found


@pytest.mark.parametrize("section", sorted(sections(), key=lambda one: one.__name__), ids=lambda one: one.__name__)
def test_every_key_is_explained(section):
    """A section is explained by its class, a kind by its component, and every other key where it stands."""
    assert issubclass(section, Config)
    assert section.__doc__
    silent = [
        name
        for name, field in section.model_fields.items()
        if not field.description and name != "kind" and not _sections(field.annotation)
    ]
    assert not silent, f"{section.__name__}: no docstring under {silent}"
