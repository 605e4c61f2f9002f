"""docs/config.md is what `.ci/docs` makes of the schema, and names every key."""

import re
import runpy
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from actors.config import Component, Config
from actors.custom import Open
from actors.generators.inpaint.painters import PainterConfig
from loop.config import LoopConfig
from loop.config_files import _sections

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / ".ci/docs"))
TEXT = (ROOT / "docs/config.md").read_text()


def sections_below(config):
    yield config
    for field in config.model_fields.values():
        for section in _sections(field.annotation):
            yield from sections_below(section)


def test_the_page_is_current():
    assert SCRIPT["Page"]().text() == TEXT, "the schema has changed; run `uv run .ci/docs`"


def test_every_key_has_a_row_with_its_meaning():
    rows = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in TEXT.splitlines() if line.startswith("| `")]
    keys = {key for section in sections_below(LoopConfig) for key in section.model_fields} - {"kind"}
    assert {row[0].strip("`") for row in rows} == keys
    assert [row for row in rows if len(row) < 4 or len(row[-1]) < 3] == []


def test_every_kind_has_a_heading():
    kinds = {str(s.model_fields["kind"].default) for s in sections_below(LoopConfig) if "kind" in s.model_fields}
    assert set(re.findall(r"^#+ .*, kind (\w+)$", TEXT, flags=re.MULTILINE)) == kinds


def test_the_script_is_the_one_that_the_page_names():
    assert "`uv run .ci/docs`" in TEXT
    assert (ROOT / ".ci/docs").stat().st_mode & 0o100


class Inner(Config):
    """A part."""

    share: float = Field(0.5, gt=0, le=1)
    """A share."""


class First(Component):
    """The first kind."""

    kind: Literal["first"] = "first"
    inner: Inner = Inner(share=0.25)


class Second(Component):
    """The second kind."""

    kind: Literal["second"] = "second"
    words: tuple[Annotated[str, Field(pattern="a|b")], ...] = Field(("a",), min_length=1)
    """Words."""
    inner: Inner | None = None


@pytest.fixture
def tables(monkeypatch):
    """The page of a small config, whose sections take every way that a section can take."""

    class Whole(Config):
        """All of it."""

        size: int = Field(ge=2, multiple_of=2)
        """Its size."""
        one: Annotated[First | Second, Field(discriminator="kind"), Open(Component, "tests.group")] = Second()
        many: tuple[Annotated[First | Second, Field(discriminator="kind")], ...] = ()
        """Several."""
        limits: tuple[float, float] | None = None
        """Two numbers."""

    page = SCRIPT["Page"]
    monkeypatch.setitem(page.__init__.__globals__, "LoopConfig", Whole)
    return page().text()


@pytest.mark.parametrize(
    "line",
    [
        "| `size` | integer (≥ 2, multiple of 2) | required | Its size. |",
        "| `one` | [component](#one) | `{kind: second}` | The component described below. |",
        "| `many` | list of [component](#one) | `[]` | Several. |",
        "| `limits` | list of 2 numbers or `null` | `null` | Two numbers. |",
        "| `words` | list of text (pattern `a\\|b`) (length ≥ 1) | `[a]` | Words. |",
        "| `share` | number (> 0, ≤ 1) | `0.5` | A share. |",
        "| `inner` | [section](#oneinner-kind-first-second) | `{share: 0.25}` | A part. |",
        "| `inner` | [section](#oneinner-kind-first-second) or `null` | `null` | A part. |",
        "### one.inner (kind first, second)",
        "- [`second`](#one-kind-second) (default): The second kind.",
        "- `custom`: a class of your own package, see [extending.md](extending.md).",
    ],
)
def test_a_key_of_every_form_is_described(tables, line):
    assert line in tables.splitlines()


def test_a_painter_links_to_its_kinds():
    for config in _sections(PainterConfig):
        kind = config.model_fields["kind"].default
        assert f"[`{kind}`](#generatorpainter-kind-{kind})" in TEXT
