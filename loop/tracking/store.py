"""MLflow's store: a server, or a sqlite file and a folder for artifacts in the storage root."""

import logging
import os
import shlex
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

from upath import UPath

from actors.counted import counted
from actors.storage import is_local
from loop.config import LoopConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE_TIMEOUT_S, NUM_PROBES = 5.0, 2
SQLITE = "sqlite:///"
HTTP = ("http://", "https://")
MAX_REASON_CHARS = 300

PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "15", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""MLflow's settings for servers. By default it retries for six minutes, and in silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Location of MLflow's metrics and artifacts."""

    uri: str  # tracking URI
    artifacts: str | None  # URI of the folder for artifacts; None: chosen by the server

    def __str__(self) -> str:
        """The URI without a password."""
        parts = urlsplit(self.uri)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else self.uri


def store(config: LoopConfig) -> Store:
    """The configured tracking server, or a sqlite file and a folder in the storage root.

    Raises ValueError if the root is remote and no server is configured.
    """
    if config.tracking.uri is not None:
        return Store(uri=config.tracking.uri, artifacts=None)
    return local_store(config.root)


def local_store(root: str) -> Store:
    """A sqlite file and a folder for artifacts in the storage root. Raises ValueError if the root is remote."""
    place = UPath(root)
    if not is_local(place):
        raise ValueError(f"root {root} is remote, but MLflow's sqlite file needs a local disk; set tracking.uri")
    folder = Path(place.path).resolve()
    return Store(uri=f"{SQLITE}{folder}/mlflow.db", artifacts=(folder / "mlartifacts").as_uri())


def where_to_compare(config: LoopConfig) -> str:
    """Where a person can compare runs: the address of a server, or the command that shows the store."""
    place = store(config)
    if place.uri.startswith(HTTP):
        return str(place)
    return f"detloop ui {shlex.quote(config.root if config.tracking.uri is None else str(place))}"


def ui_command(place: str, port: int = 5000) -> list[str]:
    """The command that serves MLflow's UI on this machine only, for a storage root or the URI of a database.

    Raises ValueError if ``place`` is a server, which has a UI of its own, or a remote folder; FileNotFoundError if no
    run was tracked in it.
    """
    if place.startswith(HTTP):
        raise ValueError(f"{place} is a running MLflow server; open that address in a browser")
    uri = place if _is_database(place) else _tracked(place)
    binding = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, *binding]


def _is_database(place: str) -> bool:
    return place.partition("://")[0].partition("+")[0] in {"sqlite", "postgresql", "mysql", "mssql"}


def _tracked(root: str) -> str:
    if not is_local(UPath(root)):
        raise ValueError(f"{root} holds no MLflow store: runs with a remote root log to the server in tracking.uri")
    uri = local_store(root).uri
    if not Path(uri.removeprefix(SQLITE)).is_file():
        raise FileNotFoundError(
            f"{root} holds no mlflow.db: no run was tracked there. Give the storage root, the folder that holds the "
            "runs' folders, or the address in tracking.uri"
        )
    return uri


def refuse_silence(place: Store) -> None:
    """Raise ValueError within seconds if ``place`` is a server that does not answer."""
    if not place.uri.startswith(HTTP):
        return
    for _ in range(NUM_PROBES):
        reason = _silence(str(place))
        if not reason:
            return
    raise ValueError(
        f"the MLflow server {place} does not answer ({reason}): start it, or correct tracking.uri; without "
        "tracking.uri runs are logged to a file in the storage root"
    )


def _silence(uri: str) -> str:
    """Why a server cannot be reached; empty if it answers, whatever its answer is."""
    try:
        with urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_TIMEOUT_S):  # noqa: S310 - an http address
            return ""
    except (HTTPError, HTTPException):
        return ""
    except URLError as error:
        return str(error.reason)
    except OSError as error:
        return str(error) or type(error).__name__


@contextmanager
def explained(place: Store) -> Iterator[None]:
    """MLflow's errors as ValueErrors in one sentence."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise ValueError(f"MLflow cannot use {place}: {brief(error)}") from error


def brief(error: BaseException) -> str:
    """The first cause of an error in one line. MLflow's own text repeats it within four layers of other libraries.

    A failed look-up says less than the error that it led to.
    """
    while (cause := error.__cause__ or error.__context__) is not None and not isinstance(cause, KeyError):
        error = cause
    return shorten(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, MAX_REASON_CHARS)


def open_client(place: Store) -> "MlflowClient":
    """A client of the store. A sqlite file gets its tables; the caller holds a lock on it.

    Raises ValueError if the file is no store of MLflow, or one of another version, and holds runs.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # on by default, read at import
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines for every run of a server
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # they log the creation of every table
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it logs every retry
    if place.uri.startswith(SQLITE):
        return _open_sqlite(Path(place.uri.removeprefix(SQLITE)))
    with explained(place):
        return MlflowClient(tracking_uri=place.uri)


def _open_sqlite(file: Path) -> "MlflowClient":
    from mlflow import MlflowClient

    uri = f"{SQLITE}{file}"
    file.parent.mkdir(parents=True, exist_ok=True)
    if not _num_rows(file, "sqlite_master"):
        _create(file)
    try:
        return MlflowClient(tracking_uri=uri)
    except Exception as error:
        if num_runs := _num_rows(file, "runs"):
            raise ValueError(
                f"MLflow cannot open {file}, which holds {counted(num_runs, 'run')}: {brief(error)}. Move the "
                f"file away, or upgrade it with `mlflow db upgrade {uri}`"
            ) from error
    _create(file)  # of a process that was killed while MLflow made its tables
    return MlflowClient(tracking_uri=uri)


def _create(file: Path) -> None:
    """Give ``file`` the tables of a new store in one transaction, and drop those that it has.

    MLflow needs seconds and some hundred transactions to make them. If it is killed in between, it cannot go on with
    what it finds. So it makes them in a folder beside ``file``, and they are copied when they are complete.
    """
    from mlflow import MlflowClient

    prefix, suffix = f".{file.name}.", ".part"
    for left in file.parent.glob(f"{prefix}*{suffix}"):  # of a process that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=prefix, suffix=suffix, dir=file.parent) as folder:
        made = Path(folder, "mlflow.db")
        MlflowClient(tracking_uri=f"{SQLITE}{made}")
        with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(file)) as target:
            source.backup(target)


def _num_rows(file: Path, table: str) -> int:
    """Rows of a table; 0 if there is no such table or file. Raises ValueError if ``file`` is no database."""
    if not file.exists():
        return 0
    try:
        with closing(sqlite3.connect(file)) as database:
            return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - our own names
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return 0
        raise ValueError(f"MLflow's {file} cannot be opened: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{file} is no store of MLflow ({error}); move it away") from error
