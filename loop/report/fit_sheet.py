"""The sample sheet of a fit: real pictures, each beside the generator's current pictures for it."""

from collections.abc import Mapping, Sequence
from io import BytesIO

from PIL import Image, ImageDraw

from actors.fitting import Preview
from actors.images import Pixels
from actors.records import Annotation
from loop.report.contact_sheet import CONTEXT, DRAWN, GREY, INK, MINED, SEEN
from loop.report.marks import WHITE, Colour, Mark, font, marked

COLOURS: Mapping[str, Colour] = {"easy": SEEN, "hard": MINED}  # by difficulty of a box; DRAWN otherwise

CELL, GAP, MARGIN, HEADER = 240, 10, 22, 84  # px


def fit_sheet(previews: Sequence[Preview], title: str) -> bytes:
    """A PNG with a row per preview. Boxes have the colour of their difficulty, if any; ignored ones are pale.

    Raises ValueError if there is no preview.
    """
    if not previews:
        raise ValueError("a sample sheet needs a preview")
    rows = [_row(preview) for preview in previews]
    columns = [previews[0].heading, *previews[0].drawn]
    size = (2 * MARGIN + len(columns) * (CELL + GAP) - GAP, HEADER + sum(row.height + GAP for row in rows) + MARGIN)
    sheet = Image.new("RGB", size, WHITE)
    _header(sheet, title, columns)
    top = HEADER
    for row in rows:
        sheet.paste(row, (MARGIN, top))
        top += row.height + GAP
    buffer = BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _header(sheet: Image.Image, title: str, columns: Sequence[str]) -> None:
    drawing = ImageDraw.Draw(sheet)
    drawing.text((MARGIN, 16), title, INK, font(15, bold=True))
    for number, name in enumerate(columns):
        left, base = MARGIN + number * (CELL + GAP), HEADER - 10
        drawing.text((left, base), name, INK, font(13, bold=True), anchor="ls")
        left += round(drawing.textlength(name, font(13, bold=True))) + 12
        for word in COLOURS if name == "real" else (name,):
            colour = COLOURS.get(word, DRAWN)
            drawing.rectangle((left, base - 10, left + 10, base), outline=colour, width=2)
            if name == "real":
                drawing.text((left + 15, base), word, GREY, font(12), anchor="ls")
                left += 27 + round(drawing.textlength(word, font(12)))


def _row(preview: Preview) -> Image.Image:
    known = preview.annotation
    colours = [COLOURS[difficulty] for difficulty in preview.difficulties] or [DRAWN] * len(known)
    cells = [_cell(preview.real, known, colours)]
    for word, pixels in preview.drawn.items():
        shown = preview.others.get(word, known)
        cells.append(_cell(pixels, shown, [COLOURS.get(word, DRAWN)] * len(shown)))
    row = Image.new("RGB", (len(cells) * (CELL + GAP) - GAP, max(cell.height for cell in cells)), WHITE)
    for column, cell in enumerate(cells):
        row.paste(cell, (column * (CELL + GAP) + (CELL - cell.width) // 2, 0))
    return row


def _cell(pixels: Pixels, known: Annotation, colours: Sequence[Colour]) -> Image.Image:
    marks = [
        Mark(box=box, colour=CONTEXT if ignored else colour, bold=False)
        for box, ignored, colour in zip(known.boxes, known.ignore, colours, strict=True)
    ]
    return marked(pixels, marks, CELL)
