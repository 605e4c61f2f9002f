"""Imports the packages ``loop`` and ``actors`` from the folder that holds ``detloop``.

Both are common names. A user's ``loop.py`` or ``actors/`` may be found first: beside a notebook or a script, through
PYTHONPATH, and in the working directory of a Ray job. Once imported, a package keeps its name in that process.
"""

import sys
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).parents[1]


def import_own_packages() -> None:
    """Import ``actors`` and ``loop``, which load no library.

    Raises:
        ImportError: Another module has been imported under one of the names.
    """
    sys.path.insert(0, str(FOLDER))
    try:
        for name in ("actors", "loop"):
            _check(name, import_module(name).__file__)
    finally:
        sys.path.remove(str(FOLDER))


def _check(name: str, file: str | None) -> None:
    if file is None or Path(file).parent.resolve() != (FOLDER / name).resolve():
        raise ImportError(
            f"detloop has a package {name!r}, but the name is taken by {file or 'a folder of yours'}; "
            f"import detloop before your own {name!r}, or rename yours",
            name=name,
            path=file,
        )
