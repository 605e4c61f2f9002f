"""Provenance of synthetic images, as exports store it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.plain import to_plain
from actors.records import Lineage


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The origin of a synthetic image."""

    source: str  # id of its source image in the same data set; empty if unknown
    lineage: Lineage | None  # as in the run that generated it; None if the file only flags it as synthetic


def to_fields(provenance: Provenance | None, source_file: str) -> dict[str, Any]:
    """The provenance as JSON values; ``source_file`` is the exported copy of the source image."""
    if provenance is None:
        return {"synthetic": False}
    fields: dict[str, Any] = {"synthetic": True, "source_image": source_file or provenance.source}
    if provenance.lineage is not None:
        fields["lineage"] = to_plain(provenance.lineage)
    return fields


def from_fields(fields: Mapping[str, Any], origin: str) -> Provenance | None:
    """The inverse of ``to_fields``; None for a real image. Raises ValueError if the lineage is malformed."""
    if fields.get("synthetic") is not True:
        return None
    lineage = fields.get("lineage")
    return Provenance(
        source=str(fields.get("source_image", "")), lineage=None if lineage is None else _lineage(lineage, origin)
    )


def _lineage(fields: Mapping[str, Any], origin: str) -> Lineage:
    try:
        return Lineage(
            round=int(fields["round"]),
            image_id=str(fields["image_id"]),
            box_indices=tuple(int(index) for index in fields["box_indices"]),
            generator=str(fields["generator"]),
            seed=int(fields["seed"]),
            strategy=str(fields.get("strategy", "origin")),
            mode=str(fields.get("mode", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{origin}: lineage {fields!r} is not as detloop writes it ({error!r})") from None
