"""detloop from Python: run the loop, read its results, or mine and judge as single steps.

Example:
    >>> import detloop
    >>> result = detloop.run("detloop.yaml", {"rounds": 1})
    >>> result.rounds[["ap", "control_ap", "gain"]]
    >>> detloop.export(result, "dataset", fmt="yolo")
    >>> detloop.predict(result, "shots")

Importing the package loads no library, because each of Ray's workers imports it for ``own_packages``. The names in
``__all__`` are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from detloop.own_packages import import_own_packages

if TYPE_CHECKING:
    from detloop.face import (
        ConfigError,
        LoopConfig,
        Result,
        __version__,
        check,
        evaluate,
        export,
        export_model,
        judge,
        labels,
        load_config,
        mine,
        predict,
        run,
    )

__all__ = [
    "ConfigError",
    "LoopConfig",
    "Result",
    "__version__",
    "check",
    "evaluate",
    "export",
    "export_model",
    "judge",
    "labels",
    "load_config",
    "mine",
    "predict",
    "run",
]

import_own_packages()

if not TYPE_CHECKING:  # a type checker shall see the names above and no others

    def __dir__() -> list[str]:
        return __all__

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module("detloop.face"), name)
