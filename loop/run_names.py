"""Names of runs: folders below the storage root that no shared folder has."""

from typing import Annotated

from pydantic import AfterValidator, Field

SHARED = frozenset(
    {
        *("ablations", "candidates", "controls", "fits", "folds", "labels", "mined", "pictures", "seen", "worlds"),
        *("mlartifacts", "mlflow.db"),
    }
)
"""What runs share below the root: their own names differ from these."""


def is_shared(name: str) -> bool:
    """Whether ``name`` is in ``SHARED``. Some file systems do not tell upper case from lower case."""
    return name.lower() in SHARED


def _not_shared(name: str) -> str:
    if is_shared(name):
        raise ValueError(
            f"{name} below the root is shared by all runs, as are {', '.join(sorted(SHARED))}; choose another name"
        )
    return name


RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"), AfterValidator(_not_shared)]
