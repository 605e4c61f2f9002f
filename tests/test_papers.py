"""The table of docs/papers.md: every file, symbol and config key in it exists, and every technique is in it."""

import ast
import re
from pathlib import Path

import pytest
from config_keys import resolve

ROOT = Path(__file__).parents[1]
COLUMNS = ["Technique", "Paper, section", "File and symbol", "Config key", "Our deviation"]
ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")


def table():
    """The rows of the table as lists of cells, its header first."""
    lines = [line for line in (ROOT / "docs/papers.md").read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


ROWS = table()[2:]
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])


def test_the_table_is_there():
    assert table()[0] == COLUMNS
    assert len(ROWS) >= 6
    assert all(len(row) == len(COLUMNS) and all(row) for row in ROWS)


@every_row
def test_the_symbol_stands_in_the_file(row):
    file, symbol = named(row[2])
    tree = ast.parse((ROOT / file).read_text())
    assert symbol in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@every_row
def test_the_file_names_the_paper_in_its_first_lines(row):
    """The arXiv id in the first line; a paper without one, by its first author in the first paragraph."""
    first_line, paragraph = opening(ROOT / named(row[2])[0])
    ids = ARXIV.findall(row[1])
    assert set(ids) <= set(ARXIV.findall(first_line))
    assert ids or row[1].split()[0] in paragraph


@every_row
def test_the_config_key_exists(row):
    keys = re.findall(r"`([^`]+)`", row[3])
    assert keys
    for key in keys:
        resolve(key)


@pytest.mark.parametrize("key", ["mixing.q", "filters.sharpness", "generator.copy_paste.colour", "mining.budget.more"])
def test_a_key_that_does_not_exist_is_noticed(key):
    with pytest.raises(KeyError):
        resolve(key)


def test_every_file_that_names_a_paper_is_in_the_table():
    listed = {named(row[2])[0] for row in ROWS}
    files = [*ROOT.glob("actors/**/*.py"), *ROOT.glob("loop/**/*.py")]
    assert {str(file.relative_to(ROOT)) for file in files if ARXIV.search(opening(file)[0])} <= listed


def named(cell):
    """File and symbol of a cell."""
    match = re.fullmatch(r"`([\w/]+\.py)`: `(\w+)`", cell)
    assert match, f"{cell!r}: write it as `file`: `symbol`"
    return match.groups()


def opening(file):
    """The first line and the first paragraph of a file's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    return text.partition("\n")[0], text.partition("\n\n")[0]
