"""Components from outside: imported by name or by entry point, validated, and named in the fingerprint."""

import pickle
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from actors import custom
from actors.generators.inpaint.component import InpaintConfig
from loop.config import ConfigError, LoopConfig
from loop.config_files import load, validate

MODULE = """\
from typing import ClassVar, Literal
from actors.filters.base import FilterBase
from actors.generators.base import GeneratorBase
from actors.generators.inpaint.painters.base import PainterBase

class ShiftConfig(GeneratorBase):
    kind: Literal["shift"] = "shift"
    version: ClassVar[str] = "1.5"
    pixels: int = 3

    def build(self, real, classes, fitted=None, clean=()):
        return self.pixels

class SharpConfig(FilterBase):
    kind: Literal["sharp"] = "sharp"
    version: ClassVar[str] = "2"

    def build(self, state, detectors=None):
        return "sharp"

class DabConfig(PainterBase):
    kind: Literal["dab"] = "dab"
    version: ClassVar[str] = "3"

    def build(self, classes, fitted=None):
        return "dab"

class Unbuilt(GeneratorBase):
    kind: Literal["unbuilt"] = "unbuilt"

class Unversioned(GeneratorBase):
    kind: Literal["unversioned"] = "unversioned"

    def build(self, real, classes, fitted=None, clean=()):
        return None

class Plain:
    pass
"""
SHIFT = {"kind": "custom", "import": "outside:ShiftConfig"}


@pytest.fixture(autouse=True)
def outside(tmp_path, monkeypatch):
    """A module ``outside`` in the working directory, which is not on the path of imports."""
    (tmp_path / "outside.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("outside", "broken"):
        sys.modules.pop(name, None)


def config(**sections):
    return validate(LoopConfig, {"name": "a", "data": {"format": "world"}, **sections}, "a.yaml")


def test_a_config_holds_an_instance_of_the_users_class():
    generator = config(generator={**SHIFT, "options": {"pixels": 5}}).generator
    assert (type(generator).__module__, generator.kind, generator.build((), ())) == ("outside", "shift", 5)


def test_every_family_takes_components_from_outside():
    painter = {"kind": "custom", "import": "outside:DabConfig"}
    whole = config(
        generator={"kind": "inpaint", "painter": painter, "difficulty": "hard"},
        filters=[{"kind": "blank"}, {"kind": "custom", "import": "outside:SharpConfig"}],
    )
    assert isinstance(whole.generator, InpaintConfig)
    assert whole.generator.painter.build(()) == "dab"
    assert [one.kind for one in whole.filters] == ["blank", "sharp"]


def test_a_config_survives_a_round_trip_as_plain_values_and_as_a_pickle():
    whole = config(generator={**SHIFT, "options": {"pixels": 5}})
    plain = whole.model_dump(mode="json")
    assert plain["generator"] == {**SHIFT, "version": "1.5", "options": {"pixels": 5}}
    assert LoopConfig.model_validate(plain) == whole
    assert pickle.loads(pickle.dumps(whole)) == whole  # noqa: S301 - our own


def test_place_version_and_options_count_in_the_fingerprint(monkeypatch):
    first = config(generator=SHIFT)
    other = config(generator={**SHIFT, "options": {"pixels": 4}})
    monkeypatch.setattr(sys.modules["outside"].ShiftConfig, "version", "1.6")
    newer = config(generator=SHIFT)
    assert len({first.fingerprint(), other.fingerprint(), newer.fingerprint()}) == 3
    assert config(generator={**SHIFT, "options": {}}).fingerprint() == newer.fingerprint()
    with pytest.raises(ConfigError, match=r"outside:ShiftConfig is version 1\.6 here, but the config requires 1\.5"):
        validate(LoopConfig, first.model_dump(mode="json"), "config.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"import": None}, r"generator: import: give it as package\.module:ClassName, not None"),
        ({"import": "outside.ShiftConfig"}, r"give it as package\.module:ClassName"),
        ({"import": "nowhere:ShiftConfig"}, "nowhere:ShiftConfig cannot be imported: ModuleNotFoundError"),
        ({"import": "broken:ShiftConfig"}, "No module named 'nothing_of_this_name'"),
        ({"import": "outside:Nothing"}, "outside:Nothing cannot be imported: AttributeError"),
        ({"import": "outside:Plain"}, r"outside:Plain is no subclass of actors\.generators\.base\.GeneratorBase"),
        ({"import": "outside:SharpConfig"}, "is no subclass of"),
        ({"import": "outside:Unbuilt"}, "outside:Unbuilt does not implement build"),
        ({"import": "outside:Unversioned"}, "give the class a version"),
        ({"options": {"pixles": 3}}, "does not accept its options: options.pixles: Extra inputs are not permitted"),
        ({"options": {"pixels": "many"}}, "options.pixels: Input should be a valid integer"),
        ({"options": [3]}, "options: expected a mapping of the component's keys, not .3."),
        ({"pixels": 3}, "'pixels'.: unknown keys beside kind: custom"),
        ({"version": "9"}, r"is version 1\.5 here, but the config requires 9"),
    ],
)
def test_a_class_that_cannot_be_used_is_refused_before_anything_starts(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(generator={**SHIFT, **changes})


def test_an_entry_point_gives_a_kind_of_its_own(monkeypatch):
    point = EntryPoint(name="shift", value="outside:ShiftConfig", group="detloop.generators")
    monkeypatch.setattr(custom, "entry_points", lambda group: EntryPoints([point]).select(group=group))
    short = config(generator={"kind": "shift", "pixels": 5})
    assert short == config(generator={**SHIFT, "options": {"pixels": 5}})
    with pytest.raises(ConfigError, match=r"generator\.kind: .* 'layout', 'shift', 'custom'; seen: 'shfit'"):
        config(generator={"kind": "shfit"})


def test_a_class_of_another_name_replaces_the_one_below_it_whole(tmp_path):
    below, over = tmp_path / "below.yaml", tmp_path / "over.yaml"
    below.write_text(
        "name: a\ndata: {format: world}\ngenerator: {kind: custom, import: 'elsewhere:Other', options: {other: 1}}\n"
    )
    over.write_text("generator: {kind: custom, import: 'outside:ShiftConfig'}\n")
    assert load([below, over]).generator.kind == "shift"
    with pytest.raises(ConfigError, match="elsewhere:Other cannot be imported"):
        load([below])
