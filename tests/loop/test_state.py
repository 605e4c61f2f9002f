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
