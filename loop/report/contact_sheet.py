"""The contact sheet: a row per candidate with its source, its picture, the detections in it, and the verdicts."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from actors import boxes as geometry
from actors.counted import counted
from actors.images import read
from actors.records import WHOLE_IMAGE, LabeledImage, Refined, Sample, Verdict
from actors.refiners.applied import MIN_SEEN_SCORE
from loop.report.marks import WHITE, Colour, Mark, font, marked
from loop.report.shown import choose, extremes

INK, GREY, RULE = (38, 42, 48), (120, 126, 134), (226, 229, 233)
KEPT, DROPPED = (34, 122, 68), (182, 44, 38)
MINED, DRAWN, CONTEXT, SEEN = (222, 128, 0), (24, 104, 214), (245, 245, 245), (0, 134, 122)
RESTORED, MOVED = (126, 74, 176), (176, 42, 126)

CELL, GAP, MARGIN, TEXT_WIDTH, HEADER = 320, 14, 26, 330, 108  # px
LINE = 19  # px
MIN_SHOWN_SCORE, MIN_SHOWN_IOU = 0.25, 0.3  # fainter detections are shown only on drawn boxes
MAX_LABELS, MAX_BOX_LINES = 6, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line of text in the verdict column."""

    text: str
    colour: Colour = INK
    bold: bool = False
    indent: int = 0  # px


def contact_sheet(
    samples: Sequence[Sample],
    real: Mapping[str, LabeledImage],
    classes: Sequence[str],
    title: str,
    max_rows: int = 8,
    ranked_by: str = "",
) -> bytes:
    """A PNG with at most ``max_rows`` of the samples (see ``choose``) and their sources from ``real``, by id.

    With ``ranked_by``, the kind of a filter, it has the samples with its highest and its lowest scores instead.

    Raises ValueError if no sample has a picture, KeyError if a source is missing.
    """
    chosen = extremes(samples, ranked_by, max_rows) if ranked_by else choose(samples, max_rows)
    if not chosen:
        raise ValueError(f"a contact sheet needs a candidate with a picture; got {len(samples)} without")
    rows = [_row(sample, real[sample.lineage.image_id], classes) for sample in chosen]
    width = 2 * MARGIN + 3 * (CELL + GAP) + TEXT_WIDTH
    sheet = Image.new("RGB", (width, HEADER + sum(row.height + 2 * GAP for row in rows) + MARGIN - GAP), WHITE)
    _header(sheet, title, _counts(samples, len(chosen)), _fates(chosen))
    top = HEADER
    for row in rows:
        ImageDraw.Draw(sheet).line((MARGIN, top, width - MARGIN, top), fill=RULE)
        sheet.paste(row, (MARGIN, top + GAP))
        top += row.height + 2 * GAP
    buffer = BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _counts(samples: Sequence[Sample], num_shown: int) -> str:
    num_kept = sum(not sample.dropped for sample in samples)
    reasons = Counter(sample.dropped for sample in samples if sample.dropped).most_common()
    listed = ", ".join(f"{_plain(reason)} {count}" for reason, count in reasons)
    shown = f"{num_kept} of {counted(len(samples), 'candidate')} kept, {num_shown} shown"
    return f"{shown}    dropped: {listed}" if reasons else shown


def _fates(samples: Sequence[Sample]) -> tuple[tuple[Colour, str], ...]:
    """The legend of the candidates' boxes, which has room for three."""
    restored = any(sample.restored.any() for sample in samples)
    moved = any(one.fate == "moved" for sample in samples for one in sample.refined)
    rare = (((RESTORED, "restored"),) if restored else ()) + (((MOVED, "moved"),) if moved else ())
    return ((DRAWN, "drawn"), (DROPPED, "dropped"), *rare)[-3:]


def _header(sheet: Image.Image, title: str, subtitle: str, fates: tuple[tuple[Colour, str], ...]) -> None:
    drawing = ImageDraw.Draw(sheet)
    drawing.text((MARGIN, 20), title, INK, font(21, bold=True))
    drawing.text((MARGIN, 51), _cut(subtitle, sheet.width - 2 * MARGIN, 14), GREY, font(14))
    headings = (
        ("Source", ((MINED, "mined"),)),
        ("Candidate", fates),
        ("Detections", ((SEEN, "detection"),)),
        ("Verdict", ()),
    )
    for column, (heading, legend) in enumerate(headings):
        left = MARGIN + column * (CELL + GAP)
        drawing.text((left, HEADER - 14), heading, INK, font(14, bold=True), anchor="ls")
        left += round(drawing.textlength(heading, font(14, bold=True))) + 14
        for colour, name in legend:
            drawing.rectangle((left, HEADER - 24, left + 10, HEADER - 14), outline=colour, width=2)
            drawing.text((left + 15, HEADER - 14), name, GREY, font(12), anchor="ls")
            left += 29 + round(drawing.textlength(name, font(12)))


def _row(sample: Sample, source: LabeledImage, classes: Sequence[str]) -> Image.Image:
    mined = _source_marks(sample, source, classes)
    drawn = _candidate_marks(sample, classes)
    pixels = read(sample.uri)
    focus = next((mark for mark in drawn if mark.bold), None)
    pictures = [
        marked(read(source.uri), mined, CELL, next((mark for mark in mined if mark.bold), None)),
        marked(pixels, drawn, CELL, focus),
        marked(pixels, _seen_marks(sample, classes), CELL, focus and Mark(box=focus.box, colour=SEEN)),
    ]
    lines = list(_verdict_lines(sample, classes))
    height = max([picture.height for picture in pictures] + [34 + LINE * len(lines)])
    row = Image.new("RGB", (3 * (CELL + GAP) + TEXT_WIDTH, height), WHITE)
    for column, picture in enumerate(pictures):
        row.paste(picture, (column * (CELL + GAP) + (CELL - picture.width) // 2, 0))
    _verdict(row, 3 * (CELL + GAP) + 4, not sample.dropped, lines)
    return row


def _source_marks(sample: Sample, source: LabeledImage, classes: Sequence[str]) -> list[Mark]:
    annotation = source.annotation
    return [
        Mark(box=box, colour=MINED, label=classes[label])
        if index in sample.lineage.box_indices
        else Mark(box=box, colour=CONTEXT, bold=False)
        for index, (box, label) in enumerate(zip(annotation.boxes, annotation.labels, strict=True))
    ]


def _names(sample: Sample, classes: Sequence[str]) -> list[str]:
    """The names of the proposed boxes on the sheet; drawn ones are numbered."""
    numbers = np.cumsum(sample.drawn)
    return [
        f"{number} {classes[label]}" if drawn else classes[label]
        for number, drawn, label in zip(numbers, sample.drawn, sample.proposed.labels, strict=True)
    ]


def _candidate_marks(sample: Sample, classes: Sequence[str]) -> list[Mark]:
    against = {verdict.box for verdict in sample.verdicts if not verdict.keep}
    left = {one.box: MOVED if one.fate == "moved" else DROPPED for one in sample.refined if one.fate != "kept"}
    names = _names(sample, classes)
    proposed = [
        Mark(box=box, colour=_fate(sample, index, rejected=index in against), label=name)
        if sample.drawn[index] and index not in left
        else Mark(box=box, colour=left.get(index, CONTEXT), bold=False)
        for index, (box, name) in enumerate(zip(sample.proposed.boxes, names, strict=True))
    ]
    moved = [one for one in sample.refined if one.fate == "moved"]
    return proposed + [Mark(box=np.array(one.corners, np.float32), colour=MOVED, label=names[one.box]) for one in moved]


def _fate(sample: Sample, index: int, *, rejected: bool) -> Colour:
    """The colour of a drawn box: restored, rejected or accepted."""
    if sample.restored[index]:
        return RESTORED
    return DROPPED if rejected else DRAWN


def _seen_marks(sample: Sample, classes: Sequence[str]) -> list[Mark]:
    """Marks of confident detections (thin), and of the best on each drawn box at any score (bold).

    Thin ones have labels only if there are few. Detections on restored boxes are left out, since the object is no
    longer in the picture.
    """
    seen = sample.seen
    on_drawn = _best_on(sample.drawn & ~sample.restored, sample)
    clear = set(np.flatnonzero(seen.scores >= MIN_SHOWN_SCORE).tolist())
    shown = sorted(on_drawn | clear - _best_on(sample.restored, sample))
    labelled = set(shown) if len(shown) <= MAX_LABELS else on_drawn
    return [
        Mark(
            box=seen.boxes[index],
            colour=SEEN,
            bold=index in on_drawn,
            label=f"{classes[seen.labels[index]]} {seen.scores[index]:.2f}" if index in labelled else "",
        )
        for index in shown
    ]


def _best_on(which: NDArray[np.bool_], sample: Sample) -> set[int]:
    """The detections with the highest score on each proposed box that ``which`` ``[proposed]`` selects."""
    near = geometry.pairwise_iou(sample.seen.boxes, sample.proposed.boxes[which]) >= MIN_SHOWN_IOU
    scores = np.where(near, sample.seen.scores[:, None], -1.0)
    return {int(column.argmax()) for column in scores.T if column.max(initial=-1.0) >= 0.0}


def _verdict_lines(sample: Sample, classes: Sequence[str]) -> Iterator[_Line]:
    by_filter: defaultdict[str, list[Verdict]] = defaultdict(list)
    for verdict in sample.verdicts:
        by_filter[verdict.filter].append(verdict)
    if sample.dropped:
        yield _Line(text=_plain(sample.dropped), colour=DROPPED, bold=True)
    for name, verdicts in by_filter.items():
        yield from _filter_lines(name, verdicts, _names(sample, classes), sample.restored)
    yield from _refined_lines(sample.refined, _names(sample, classes))
    lineage = sample.lineage
    into = [f"into {sample.canvas}"] if sample.canvas not in {"", lineage.image_id} else []
    for text in ("", f"round {lineage.round}, {lineage.generator}, {sample.id}", f"from {lineage.image_id}", *into):
        yield _Line(text=text, colour=GREY)


def _filter_lines(
    name: str, verdicts: Sequence[Verdict], names: Sequence[str], restored: NDArray[np.bool_]
) -> Iterator[_Line]:
    whole = [verdict for verdict in verdicts if verdict.box == WHOLE_IMAGE]
    of_boxes = [verdict for verdict in verdicts if verdict.box != WHOLE_IMAGE]
    for verdict in whole:
        yield _Line(text=f"{_tick(verdict.keep)} {name}  {_measured(verdict)}", colour=_colour(verdict.keep))
    if of_boxes:
        num_kept = sum(verdict.keep for verdict in of_boxes)
        text = f"{_tick(num_kept > 0)} {name}  {num_kept} of {counted(len(of_boxes), 'box', 'boxes')} kept"
        yield _Line(text=text, colour=_colour(num_kept > 0))
    for verdict in of_boxes[:MAX_BOX_LINES]:
        text, colour = f"{names[verdict.box]}  {_measured(verdict)}", INK if verdict.keep else DROPPED
        if restored[verdict.box] and not verdict.keep:
            text, colour = f"{text}, restored", RESTORED
        yield _Line(text=text, colour=colour, indent=18)
    yield from _more(len(of_boxes))


def _more(num_boxes: int) -> Iterator[_Line]:
    """The number of boxes without a line, if there are any."""
    if num_boxes > MAX_BOX_LINES:
        yield _Line(text=f"and {counted(num_boxes - MAX_BOX_LINES, 'more box', 'more boxes')}", colour=GREY, indent=18)


def _refined_lines(refined: Sequence[Refined], names: Sequence[str]) -> Iterator[_Line]:
    for number, one in enumerate(refined[:MAX_BOX_LINES]):
        if not number:
            yield _Line(text=f"refiner: IoU with detections of score {MIN_SEEN_SCORE} or more")
        text = f"{names[one.box]}  {one.seen_before:.2f} as drawn, {one.seen_after:.2f} refined, {one.fate}"
        yield _Line(text=text, colour=DROPPED if one.fate == "ignored" else INK, indent=18)
    yield from _more(len(refined))


def _figures(verdict: Verdict) -> str:
    """The score and the limit that it is compared with, if there is one."""
    if verdict.threshold is None:
        return f"{verdict.score:.2f}"
    relation = "<" if verdict.score < verdict.threshold else "\N{GREATER-THAN OR EQUAL TO}"
    digits = 0 if float(verdict.score).is_integer() and float(verdict.threshold).is_integer() else 2
    return f"{verdict.score:.{digits}f} {relation} {verdict.threshold:.{digits}f}"


def _measured(verdict: Verdict) -> str:
    """The score compared with the threshold. The filters differ in whether a higher score is better."""
    figures = _figures(verdict)
    return figures if verdict.keep else f"{figures}, {_plain(verdict.reason)}"


def _plain(reason: str) -> str:
    return reason.removeprefix("chain: ").replace("_", " ")


def _tick(keep: bool) -> str:
    return "\N{CHECK MARK}" if keep else "\N{MULTIPLICATION X}"


def _colour(keep: bool) -> Colour:
    return KEPT if keep else DROPPED


def _verdict(row: Image.Image, left: int, kept: bool, lines: Sequence[_Line]) -> None:
    drawing = ImageDraw.Draw(row)
    word, colour = ("KEPT", KEPT) if kept else ("DROPPED", DROPPED)
    width = drawing.textlength(word, font(13, bold=True)) + 20
    drawing.rounded_rectangle((left, 0, left + width, 23), 11, fill=colour)
    drawing.text((left + 10, 12), word, WHITE, font(13, bold=True), anchor="lm")
    for number, line in enumerate(lines):
        text = _cut(line.text, TEXT_WIDTH - line.indent - 8, 13, bold=line.bold)
        drawing.text((left + line.indent, 34 + number * LINE), text, line.colour, font(13, bold=line.bold))


def _cut(text: str, width: int, size: int, *, bold: bool = False) -> str:
    """The text, shortened to ``width`` px."""
    lettering = font(size, bold=bold)
    if lettering.getlength(text) <= width:
        return text
    while text and lettering.getlength(text + "\N{HORIZONTAL ELLIPSIS}") > width:
        text = text[:-1]
    return text + "\N{HORIZONTAL ELLIPSIS}"
