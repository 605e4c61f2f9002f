"""The documentation holds: links and files exist, commands parse, keys and messages are those of the code."""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from config_keys import resolve
from typer.core import TyperGroup
from typer.exceptions import TyperException

from loop import cli
from loop.ablation.config import load_ablation
from loop.config import LoopConfig
from loop.config_files import load

ROOT = Path(__file__).parents[1]
MOST_BYTES = 12_000
GUIDE = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES = [*GUIDE, *(ROOT / f"{name}.md" for name in ("CONTRIBUTING", "SECURITY", "CHANGELOG"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"(?<![\w./-])(?:actors|loop|configs|docs|tests)/[\w./-]*")
RUN_BEFORE = {"uv", "run", "--with", "s3fs", "env", "-u", "RAY_ADDRESS", "--"}
"""Words that may stand before a command of ours."""

of_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def name_of(page):
    return page.name


def blocks(page):
    """The commands in a page's code blocks, fenced or indented, one line each."""
    text = re.sub(
        r"^```\w*\n(.*?)^```$",
        lambda block: _indented(block.group(1)),
        page.read_text(),
        flags=re.DOTALL | re.MULTILINE,
    )
    lines = [line[4:] for line in text.replace("\\\n", " ").splitlines() if line.startswith("    ")]
    return [line for line in lines if not line.startswith(" ")]


def _indented(block):
    return "".join(f"    {line}\n" for line in block.splitlines())


def spans(page):
    """A page's inline code."""
    prose = [line for line in page.read_text().splitlines() if not line.startswith("    ")]
    return CODE.findall("\n".join(prose))


def commands(lines):
    """The words after ``detloop`` of every command in some lines of code."""
    for line in lines:
        for words in _parts(line) if "detloop" in line else ():
            before = words[: words.index("detloop")] if "detloop" in words else ["prose"]
            if all(word in RUN_BEFORE or "=" in word for word in before) and words[-1] != "detloop":
                yield words[len(before) + 1 :]


def _parts(line):
    """The commands that ``&&`` joins, as words; of ``ray job submit ... -- COMMAND`` the command alone."""
    for part in line.split("&&"):
        words = shlex.split(part, comments=True)
        yield words[words.index("--") + 1 :] if "submit" in words else words


def find(words):
    """The command that ``words`` begin with, its context, and the words left. Raises TyperException if none is."""
    command, context, rest = typer.main.get_command(cli.app), None, list(words)
    while isinstance(command, TyperGroup) and rest:
        context = command.make_context("detloop", list(rest), parent=context)
        _, command, rest = command.resolve_command(context, rest)
    return command, context, rest


def parse(words):
    """The name of the command that ``words`` call, and its parameters. Raises TyperException if it refuses them."""
    command, context, rest = find(words)
    return command.name, command.make_context(command.name, rest, parent=context).params


def is_call(words):
    """Whether a command in prose has arguments, and is not only named."""
    return any(not re.fullmatch(r"[a-z]+(-[a-z]+)*", word) for word in words)


NAMED = {shlex.join(words) for page in PAGES for words in commands(spans(page))}
CALLED = {shlex.join(words) for page in PAGES for words in commands(blocks(page))}
CALLS = sorted(line for line in CALLED | {line for line in NAMED if is_call(line.split())} if not line.startswith("-"))
of_line = pytest.mark.parametrize("line", CALLS)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= MOST_BYTES


def test_the_two_commands_are_in_the_readme():
    assert "pip install uv && uv run detloop run configs/quickstart.yaml" in blocks(ROOT / "README.md")
    assert "pip install uv && uv run .ci/test" in blocks(ROOT / "README.md")


@of_page
def test_links_lead_to_files_and_headings_that_exist(page):
    for target in LINK.findall(page.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.is_file(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name}: {target}"


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_commands_of_the_documentation_are_found():
    assert {"run", "ablate", "check", "init", "validate", "export", "ui"} <= {
        parse(shlex.split(one))[0] for one in CALLS
    }
    submitted = list(commands(blocks(ROOT / "docs/cluster.md")))
    assert [words[:2] for words in submitted] == [["run", "configs/quickstart.yaml"]] * 3


@of_line
def test_a_command_of_the_documentation_parses(line):
    parse(shlex.split(line))


@pytest.mark.parametrize("line", sorted(line for line in NAMED if not line.startswith("-")))
def test_a_command_that_the_prose_names_exists(line):
    find(shlex.split(line))


@pytest.mark.parametrize("line", sorted(line for line in NAMED | CALLED if line.startswith("-")))
def test_an_option_of_the_program_itself_exists(line):
    top = typer.main.get_command(cli.app)
    assert line in {name for option in top.get_params(typer.Context(top)) for name in option.opts}


@pytest.mark.parametrize("line", ["run", "runn x.yaml", "run x.yaml --sett a=1", "export runs/x"])
def test_a_command_that_does_not_parse_is_noticed(line):
    with pytest.raises(TyperException):
        parse(line.split())


@of_line
def test_a_config_that_a_command_names_can_be_loaded(line):
    name, given = parse(shlex.split(line))
    files = given.get("configs", [])
    if not files or not all((ROOT / file).is_file() for file in files):
        return  # written by `detloop init`, or the reader's own; names below configs/ are held by another test
    files = [ROOT / file for file in files]
    if name == "ablate":
        load_ablation(files, given["overrides"])
    else:
        load(files, given["overrides"])


@of_page
def test_files_that_the_prose_names_exist(page):
    named = {file.rstrip(".") for span in [*spans(page), *blocks(page)] for file in FILE.findall(span)}
    missing = [file for file in sorted(named) if not re.search(r"[A-Z]{3}", file) and not (ROOT / file).exists()]
    assert not missing


@of_page
def test_scripts_know_the_options_that_are_shown(page):
    for line in [*blocks(page), *spans(page)]:
        if match := re.search(r"python (tests/bench/\w+\.py)(.*)", line):
            script = (ROOT / match.group(1)).read_text()
            assert [option for option in re.findall(r"--[\w-]+", match.group(2)) if option not in known(script)] == []


def known(script):
    """The options of a script's own parser, and of the one that scripts of evidence share."""
    shared = (ROOT / "tests/bench/evidence.py").read_text() if "from evidence import" in script else ""
    return set(re.findall(r'"(--[\w-]+)"', script + shared))


@pytest.mark.parametrize("page", GUIDE, ids=name_of)
def test_config_keys_that_the_prose_names_exist(page):
    sections = "|".join(LoopConfig.model_fields)
    named = [re.match(rf"(?:{sections})(?:\.[a-z_0-9]+)+(?=$|[:=])", span) for span in spans(page)]
    for key in sorted({match.group() for match in named if match} - {"data.yaml"}):
        resolve(re.sub(r"^training\.overrides\..*", "training.overrides", key))


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_code():
    text = (ROOT / "docs/troubleshooting.md").read_text()
    shown = re.findall(r"^### `(.+)`$", text, flags=re.MULTILINE)
    files = [file for package in ("actors", "loop", "detloop") for file in ROOT.glob(f"{package}/**/*.py")]
    messages = set().union(*map(strings, files))
    assert len(shown) > 20
    assert [one for one in shown if not any(one in message for message in messages)] == []


def strings(file):
    """The string literals of a file; values that are filled in later are ``…``."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            found.add("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(re.sub(r"%[ds]", "…", node.value))
    return found


def test_the_workflow_calls_the_ci_command():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert ".ci/run" in [step.get("run") for job in workflow["jobs"].values() for step in job["steps"]]
    assert workflow["permissions"] == {"contents": "read"}
    assert (ROOT / ".ci/run").stat().st_mode & 0o100


def test_the_hooks_run_the_pinned_tools():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = {hook["id"]: hook for repo in repos for hook in repo["hooks"]}
    assert [repo["repo"] for repo in repos] == ["local"]
    assert set(hooks) == {"ruff", "ruff-format", "mypy"}
    assert all(hook["language"] == "system" and hook["entry"].startswith("uv run ") for hook in hooks.values())


@pytest.mark.parametrize("name", ["bug_report", "feature_request"])
def test_an_issue_form_has_what_github_asks_for(name):
    form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text())
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) > 0
    assert all(field["attributes"]["label"] for field in fields)


def test_the_citation_is_of_this_version():
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE).group(1)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project, "Apache-2.0")
    assert json.dumps(citation, default=str).count("arXiv:") == len(citation["references"])
