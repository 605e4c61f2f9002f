"""Export of a run's detector to a file of other programs."""

from upath import UPath

from actors.storage import write_bytes
from loop.use.chosen import choose


def export_model(
    folder: UPath, fmt: str | None, out: UPath, number: int | None = None, *, control: bool = False
) -> str:
    """Write a detector of the run in ``folder`` to the new file ``out``. Returns its name and its needs, in words.

    ``fmt`` is a format of the detector's family, by default its first; see ``choose`` for ``number``. Raises the errors
    of ``choose``, FileExistsError if ``out`` exists, and ValueError if the family cannot be exported to ``fmt``.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already; name another file")
    chosen = choose(folder, number)
    checkpoint, name = chosen.one(control=control)
    detector = chosen.config.detector
    write_bytes(out, detector.export(checkpoint, fmt or next(iter(detector.export_formats), "")))
    limit_px = detector.picture_px
    return (
        f"{name}. Reduce pictures of more than {limit_px} px on the longer side to {limit_px} px first: see docs/use.md"
    )
