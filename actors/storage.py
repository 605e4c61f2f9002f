"""Files of a run, behind a local folder or any fsspec URI: written whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from actors.plain import dumps, from_plain
from actors.records import Detections

Record = TypeVar("Record")

LOCAL = {"", "file", "local"}  # protocols of paths on a disk


def write_bytes(path: UPath, data: bytes) -> None:
    """Put ``data`` at ``path`` so that a reader sees all of it or nothing, whoever is killed in between.

    On a local disk the file is written beside, synced and renamed; an object store's put is whole by itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.protocol not in LOCAL:
        path.write_bytes(data)
        return
    beside = path.with_name(f".{path.name}.{uuid4().hex}.part")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


@contextmanager
def exclusive(path: UPath, *, wait: bool = True) -> Iterator[None]:
    """While one process is in here with ``path``, no other is: what they share is made once, the others wait for it.

    Those that do not ``wait`` get a BlockingIOError. The lock lies in a file beside, and ends with its process, however
    that ends. On an object store, and where the system has no such locks, nobody is kept out: what is shared may then
    be made twice, and the last writer stays.
    """
    if path.protocol not in LOCAL or os.name != "posix":
        yield
        return
    beside = Path(path.path).with_name(f".{path.name}.lock")
    beside.parent.mkdir(parents=True, exist_ok=True)
    held = _lock(beside, path, wait=wait)
    try:
        yield
    finally:
        beside.unlink(missing_ok=True)
        held.close()


def _lock(file: Path, path: UPath, *, wait: bool) -> IO[bytes]:
    """The locked file. One that its last holder took away while we waited locks nobody out, so we try the next."""
    import fcntl

    while True:
        held = file.open("wb")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            held.close()
            raise BlockingIOError(f"another process is at {path}: wait until it ends") from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(held.fileno()), file.stat()):
                return held
        held.close()


def write_record(path: UPath, record: object) -> None:
    """Put a record, or any nest of records and plain values, at ``path`` as JSON."""
    write_bytes(path, dumps(record))


def read_record(path: UPath, kind: type[Record]) -> Record:
    """What ``write_record`` put at ``path``, as ``kind``. Raises FileNotFoundError, or ValueError naming the file."""
    try:
        return from_plain(kind, json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a readable {getattr(kind, '__name__', kind)} record ({error})") from error


def write_arrays(path: UPath, values: Mapping[str, NDArray[Any] | str | float]) -> None:
    """Put named arrays, strings and numbers at ``path``, as a compressed .npz file. Raises ValueError on objects."""
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{name: np.asarray(value) for name, value in values.items()})
    write_bytes(path, buffer.getvalue())


def read_arrays(path: UPath) -> dict[str, Any]:
    """What ``write_arrays`` put at ``path``, strings and numbers as such."""
    with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as archive:
        values = {name: archive[name] for name in archive.files}
    return {name: value if value.ndim else value.item() for name, value in values.items()}


def write_detections(path: UPath, seen: Mapping[str, Detections]) -> None:
    """Put what was seen in at least one image, by image id, at ``path``, as a compressed .npz file."""
    ids = sorted(seen)
    found = [seen[image_id] for image_id in ids]
    buffer = BytesIO()
    np.savez_compressed(
        buffer,
        ids=np.array(ids),
        counts=np.array([len(detections) for detections in found]),
        boxes=np.concatenate([detections.boxes for detections in found]),
        labels=np.concatenate([detections.labels for detections in found]),
        scores=np.concatenate([detections.scores for detections in found]),
    )
    write_bytes(path, buffer.getvalue())


def read_detections(path: UPath) -> dict[str, Detections]:
    """What ``write_detections`` put at ``path``."""
    with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    ends = np.cumsum(arrays["counts"])
    found = {}
    for image_id, count, end in zip(arrays["ids"], arrays["counts"], ends, strict=True):
        part = slice(end - count, end)
        found[str(image_id)] = Detections(
            boxes=arrays["boxes"][part], labels=arrays["labels"][part], scores=arrays["scores"][part]
        )
    return found


def is_local(path: UPath) -> bool:
    """Whether ``path`` lies in this machine's file system."""
    return path.protocol in {"", "file", "local"}
