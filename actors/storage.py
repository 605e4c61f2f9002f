"""Files of a run in a local folder or at any fsspec URI, written atomically."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from upath import UPath

from actors.plain import dumps, from_plain
from actors.records import Detections

Record = TypeVar("Record")

LOCAL = {"", "file", "local"}  # protocols of paths on a disk


def write_bytes(path: UPath, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: a reader sees all of it or nothing, even if the writer is killed.

    On a local disk, a temporary file is written, synced and renamed; an object store's put is atomic by itself.
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
    """Lock ``path`` for one process and thread at a time: others wait, or get a BlockingIOError if ``wait`` is false.

    The lock is a file next to ``path``, and is released when its process ends, however it ends. Object stores are not
    locked: shared work may then be done twice, and the last writer wins.
    """
    if path.protocol not in LOCAL:
        yield
        return
    beside = Path(path.path).with_name(f".{path.name}.lock")
    beside.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(beside, fallback_to_soft=False)  # a soft lock would outlive a killed process
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise BlockingIOError(f"another process is using {path}: wait until it ends") from None
    try:
        yield
    finally:
        if os.name == "posix":  # elsewhere filelock deletes the file; a waiter that locks a deleted one tries again
            beside.unlink(missing_ok=True)
        lock.release()


def write_record(path: UPath, record: object) -> None:
    """Write a record, or a nested structure of records and plain values, to ``path`` as JSON."""
    write_bytes(path, dumps(record))


def read_record(path: UPath, kind: type[Record]) -> Record:
    """The record at ``path``, of type ``kind``. Raises FileNotFoundError, or ValueError naming the file."""
    try:
        return from_plain(kind, json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a readable {getattr(kind, '__name__', kind)} record ({error})") from error


def write_arrays(path: UPath, values: Mapping[str, NDArray[Any] | str | float]) -> None:
    """Write named arrays, strings and numbers to ``path`` as a compressed .npz file. Raises ValueError for objects."""
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{name: np.asarray(value) for name, value in values.items()})
    write_bytes(path, buffer.getvalue())


def read_arrays(path: UPath) -> dict[str, Any]:
    """The values that ``write_arrays`` wrote to ``path``; strings and numbers as Python values."""
    with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as archive:
        values = {name: archive[name] for name in archive.files}
    return {name: value if value.ndim else value.item() for name, value in values.items()}


def write_detections(path: UPath, seen: Mapping[str, Detections]) -> None:
    """Write the detections of at least one image, by image id, to ``path`` as a compressed .npz file."""
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
    """The detections by image id that ``write_detections`` wrote to ``path``."""
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
    """True if ``path`` is in this machine's file system."""
    return path.protocol in {"", "file", "local"}
