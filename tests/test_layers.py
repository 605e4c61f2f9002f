"""Who may import whom, what `detloop --help` may load, and how long files and functions may be."""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("actors", "loop", "detloop")  # each imports those before it
FILES = sorted(file for package in PACKAGES for file in ROOT.glob(f"{package}/**/*.py"))
IDS = [str(file.relative_to(ROOT)) for file in FILES]
every_file = pytest.mark.parametrize("file", FILES, ids=IDS)

FAMILIES = {"detectors", "generators", "filters", "refiners"}
HEAVY = {
    *("torch", "torchvision", "cv2", "scipy", "ray", "mlflow", "matplotlib", "ultralytics", "pycocotools"),
    *("diffusers", "transformers", "accelerate", "peft", "open_clip", "skimage", "pandas", "pyarrow"),
}
HOMES = {  # the only places that may name a library, even for types
    "ray": ("actors/hosting.py", "loop/stages.py", "loop/hosting/", "loop/training/", "loop/ablation/"),
    "mlflow": ("loop/tracking/",),
    "ultralytics": ("actors/detectors/ultralytics/", "loop/training/ultralytics/"),
}
WORKERS = {  # subclass heavy libraries, or stand on what does; opened in workers alone
    *("actors.detectors.torchvision.backbones", "actors.detectors.torchvision.network"),
    *("loop.training.ultralytics.trainer", "loop.training.batches"),
    *("loop.training.torchvision.training", "loop.training.torchvision.images"),
    "loop.training.torchvision.optimizer",
    *("actors.generators.diffusion.learner", "actors.generators.diffusion.mask_loss"),
    "actors.generators.diffusion.autoencoder",
    *("actors.generators.layout.network", "actors.generators.layout.fit", "actors.generators.layout.generator"),
    *(f"actors.generators.inpaint.painters.crop.{name}" for name in ("examples", "fit", "perception")),
    *(f"actors.generators.insertion_gan.{name}" for name in ("networks", "losses", "unroll", "batches", "pool")),
    "actors.generators.insertion_gan.painting",
    *(f"actors.generators.insertion_gan.{name}" for name in ("checkpoint", "detector_terms", "fit", "generator")),
    *("actors.refiners.ssddet.bag", "actors.refiners.ssddet.mil", "actors.refiners.ssddet.self_distillation"),
    *("actors.refiners.ssddet.network", "actors.refiners.ssddet.losses", "actors.refiners.ssddet.examples"),
    *("actors.refiners.ssddet.fit", "actors.refiners.ssddet.refiner"),
}
MAX_FUNCTION_LINES, MAX_MEDIAN_LINES, MAX_FILE_LINES = 60, 10, 300


def test_there_is_something_to_check():
    assert {"actors/records.py", "loop/round.py", "loop/training/__init__.py", "detloop/__init__.py"} <= set(IDS)


@every_file
def test_a_package_imports_only_those_below_it(file):
    above = PACKAGES[PACKAGES.index(owner(file)[0]) + 1 :]
    assert not [name for name in imports(parse(file)) if name.split(".")[0] in above]


@every_file
def test_a_family_imports_the_bottom_and_itself_only(file):
    package, *below = owner(file)
    family = below[0] if package == "actors" and below else ""
    foreign = FAMILIES - {family}
    if package == "actors":
        named = {name.split(".")[1] for name in imports(parse(file)) if name.startswith("actors.")}
        assert not named & foreign, f"{family or 'the bottom'} imports {sorted(named & foreign)}"


def test_imports_form_no_circle():
    """Imports inside functions count, too."""
    modules = {module_name(file).removesuffix(".__init__"): file for file in FILES}
    known = {name: imported_modules(file, modules) for name, file in modules.items()}
    try:
        TopologicalSorter(known).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@every_file
def test_what_is_measured_or_trained_does_not_depend_on_how_it_is_reported(file):
    if owner(file)[:2] in {("loop", "evaluation"), ("loop", "training")}:
        above = ("loop.report", "loop.round", "loop.driver")
        assert not [name for name in imports(parse(file)) if name.startswith(above)]


@every_file
@pytest.mark.parametrize("library", HOMES)
def test_a_library_stays_in_its_home(file, library):
    place = str(file.relative_to(ROOT))
    if not any(place == home or (home.endswith("/") and place.startswith(home)) for home in HOMES[library]):
        assert not [name for name in imports(parse(file)) if name.split(".")[0] == library]


def test_one_file_of_training_drives_ultralytics():
    users = [file for file in FILES if any(name.split(".")[0] == "ultralytics" for name in imports(parse(file)))]
    training = [file for file in users if "training" in file.parts]
    assert len(training) <= 1, f"ultralytics is named in {[file.name for file in training]}"


@every_file
def test_names_of_ultralytics_stay_with_its_family(file):
    if "ultralytics" not in file.parts:
        words = set(re.findall(r"\w+", file.read_text()))
        assert not words & {"criterion", "lr0", "bce", "YOLODataset", "one2many", "init_criterion"}


@every_file
def test_heavy_libraries_wait_inside_functions(file):
    loaded = set(imports(parse(file), deferred=False))
    if module_name(file) not in WORKERS:
        assert not {name.split(".")[0] for name in loaded} & HEAVY
        assert not loaded & WORKERS


@pytest.mark.parametrize("module", ["loop.config", "loop.hosting.placement", "loop.cli", "detloop"])
def test_importing_a_config_the_command_line_or_the_package_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    assert done.returncode == 0, done.stderr
    assert not {name.split(".")[0] for name in done.stdout.split()} & HEAVY


@every_file
def test_files_and_functions_stay_short(file):
    assert len(file.read_text().splitlines()) <= MAX_FILE_LINES
    too_long = {name: lines for name, lines in function_lines(file) if lines > MAX_FUNCTION_LINES}
    assert not too_long


def test_the_median_function_is_short():
    assert statistics.median(lines for file in FILES for _, lines in function_lines(file)) <= MAX_MEDIAN_LINES


def test_the_reader_of_imports_sees_all_forms():
    at_once = "import a.b\nfrom c import d\nclass K:\n    import g\n"
    tree = ast.parse(at_once + "if TYPE_CHECKING:\n    import e\ndef f():\n    from h.i import j\n")
    assert set(imports(tree)) == {"a.b", "c", "c.d", "e", "g", "h.i", "h.i.j"}
    assert set(imports(tree, deferred=False)) == {"a.b", "c", "c.d", "g"}


def owner(file: Path) -> tuple[str, ...]:
    """The packages that a file lies in: ("actors", "filters")."""
    return file.relative_to(ROOT).parts[:-1]


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), filename=str(file))


def imports(node: ast.AST, *, deferred: bool = True) -> Iterator[str]:
    """The modules named by imports below ``node``; without ``deferred``, only those that run with the module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: imports are absolute"
        yield str(node.module)
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    waits = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _for_types(node)
    if deferred or not waits:
        for child in ast.iter_child_nodes(node):
            yield from imports(child, deferred=deferred)


def imported_modules(file: Path, modules: Collection[str]) -> set[str]:
    """Those of ``modules`` that a file imports; a package counts where a name of its own ``__init__`` is imported."""
    found = set[str]()
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in modules else str(node.module) for name in inner}
    return found & set(modules)


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def function_lines(file: Path) -> list[tuple[str, int]]:
    """Each function's name and number of lines, from its first decorator on."""
    found = []
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found.append((node.name, int(node.end_lineno or first) - first + 1))
    return found
