"""The manifest: one line of JSON per sample."""

import json
from collections.abc import Sequence

from actors.plain import to_plain
from actors.records import Sample


def manifest(samples: Sequence[Sample]) -> bytes:
    """Samples by id: hash of the picture, annotation, reason and lineage. No times, so equal runs have equal bytes."""
    lines = [
        {
            "id": sample.id,
            "sha256": sample.sha256,
            "dropped": sample.dropped,
            "annotation": to_plain(sample.annotation),
            "lineage": to_plain(sample.lineage),
        }
        for sample in sorted(samples, key=lambda sample: sample.id)
    ]
    return "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()
