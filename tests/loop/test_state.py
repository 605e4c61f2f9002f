"""A run's folder: whose it is, and which version of detloop wrote it."""

import json

import pytest
from upath import UPath

from loop.config import SCHEMA, ConfigError, LoopConfig
from loop.state import RunFolder


def config(root, **sections):
    return LoopConfig.model_validate({"name": "a", "root": str(root), "data": {"format": "world"}, **sections})


def test_a_folder_says_which_schema_it_is_of(tmp_path):
    RunFolder.claim(config(tmp_path))
    assert json.loads((tmp_path / "a/config.json").read_text())["schema"] == SCHEMA


@pytest.mark.parametrize("schema", [None, SCHEMA + 1])
def test_a_folder_of_another_schema_is_refused(tmp_path, schema):
    folder = RunFolder.claim(config(tmp_path))
    file = tmp_path / "a/config.json"
    written = {**json.loads(file.read_text()), "schema": schema}
    file.write_text(json.dumps({key: value for key, value in written.items() if value is not None}))
    message = rf"a was written by another version of detloop \(schema {schema}; this one writes {SCHEMA}\); choose"
    with pytest.raises(ConfigError, match=message):
        RunFolder.claim(config(tmp_path))
    with pytest.raises(ConfigError, match=message):
        folder.config()


def test_the_config_of_a_folder_is_that_of_its_run(tmp_path):
    given = config(tmp_path, rounds=3, mining={"budget": 7})
    assert RunFolder.claim(given).config() == given


def test_a_folder_that_names_a_component_which_is_gone_says_so(tmp_path):
    RunFolder.claim(config(tmp_path))
    file = tmp_path / "a/config.json"
    gone = {"kind": "custom", "import": "nowhere:GoneConfig", "version": "1", "options": {}}
    file.write_text(json.dumps({**json.loads(file.read_text()), "generator": gone}))
    with pytest.raises(ConfigError, match=r"config\.json cannot be used:\n  generator: .*nowhere:GoneConfig cannot be"):
        RunFolder(UPath(tmp_path / "a")).config()


# A run that ended before it had a detector


def other_data(folder):
    folder.claim_data({"train": "2"})


def other_config(folder):
    RunFolder.claim(config(folder.path.parent, seed=1))


@pytest.mark.parametrize("change", [other_config, other_data])
def test_a_folder_without_a_detector_is_claimed_anew(tmp_path, change):
    folder = RunFolder.claim(config(tmp_path))
    folder.claim_data({"train": "1"})
    derived = [folder.path / f"{name}.json" for name in ("data_notes", "train", "filters", "mlflow")]
    for file in derived:
        file.write_text("{}")
    change(folder)
    assert not [file for file in derived if file.exists()]
    other_data(folder)
    assert json.loads((tmp_path / "a/data.json").read_text()) == {"train": "2"}


def test_a_folder_that_is_claimed_anew_has_the_new_config(tmp_path):
    RunFolder.claim(config(tmp_path, rounds=3))
    assert RunFolder.claim(config(tmp_path, rounds=1, seed=1)).config() == config(tmp_path, rounds=1, seed=1)


def test_a_folder_with_a_detector_is_not_claimed_anew(tmp_path):
    folder = RunFolder.claim(config(tmp_path))
    folder.claim_data({"train": "1"})
    folder.record_detectors(0, (), ())
    before = {file: file.read_text() for file in (tmp_path / "a").rglob("*.json")}
    with pytest.raises(ConfigError, match=r"(?s)another config.*\n  mixing\.p: 0\.2 -> 0\.5\n  seed: 0 -> 3"):
        RunFolder.claim(config(tmp_path, mixing={"p": 0.5}, seed=3))
    with pytest.raises(ValueError, match="have changed since it was started"):
        other_data(folder)
    assert {file: file.read_text() for file in (tmp_path / "a").rglob("*.json")} == before
