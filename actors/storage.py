"""Files of a run, behind a local folder or any fsspec URI: written whole or not at all."""

import json
import os
from collections.abc import Mapping
from io import BytesIO
from typing import TypeVar
from uuid import uuid4

import numpy as np
from upath import UPath

from actors.plain import dumps, from_plain
from actors.records import Detections

Record = TypeVar("Record")


def write_bytes(path: UPath, data: bytes) -> None:
    """Put ``data`` at ``path`` so that a reader sees all of it or nothing, whoever is killed in between.

    On a local disk the file is written beside, synced and renamed; an object store's put is whole by itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.protocol not in {"", "file", "local"}:
        path.write_bytes(data)
        return
    beside = path.with_name(f".{path.name}.{uuid4().hex}.part")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


def write_record(path: UPath, record: object) -> None:
    """Put a record, or any nest of records and plain values, at ``path`` as JSON."""
    write_bytes(path, dumps(record))


def read_record(path: UPath, kind: type[Record]) -> Record:
    """What ``write_record`` put at ``path``, as ``kind``. Raises FileNotFoundError, or ValueError naming the file."""
    try:
        return from_plain(kind, json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a readable {getattr(kind, '__name__', kind)} record ({error})") from error


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
