"""Where a synthetic image comes from, as it is written beside exported data and read back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from actors.records import Lineage


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """An image that carries this is synthetic."""

    source: str  # id, in the same data set, of the real image it was made from; empty where unknown
    lineage: Lineage | None  # as in the run that made it; None where the file says no more than "synthetic"


def to_fields(provenance: Provenance | None, source_file: str) -> dict[str, Any]:
    """Plain JSON values; ``source_file`` is the exported copy of the source image."""
    if provenance is None:
        return {"synthetic": False}
    fields: dict[str, Any] = {"synthetic": True, "source_image": source_file or provenance.source}
    if provenance.lineage is not None:
        fields["lineage"] = asdict(provenance.lineage)
    return fields


def from_fields(fields: Mapping[str, Any], said_by: str) -> Provenance | None:
    """The reverse of ``to_fields``; None for a real image. Raises ValueError where the lineage is not one of ours."""
    if fields.get("synthetic") is not True:
        return None
    lineage = fields.get("lineage")
    return Provenance(
        source=str(fields.get("source_image", "")), lineage=None if lineage is None else _lineage(lineage, said_by)
    )


def _lineage(fields: Any, said_by: str) -> Lineage:  # noqa: ANN401 - whatever the file holds
    try:
        return Lineage(
            round=int(fields["round"]),
            image_id=str(fields["image_id"]),
            box_indices=tuple(int(index) for index in fields["box_indices"]),
            generator=str(fields["generator"]),
            seed=int(fields["seed"]),
            strategy=str(fields.get("strategy", "origin")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{said_by}: lineage {fields!r} is not as detloop writes it ({error!r})") from None
