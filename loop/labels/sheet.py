"""Contact sheets of questions: the label before and after its correction, enlarged."""

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw

from actors.images import Pixels, read
from actors.records import LabeledImage
from loop.labels.questions import Question
from loop.report.contact_sheet import GREY, INK, MINED, SEEN
from loop.report.marks import WHITE, Mark, font, outlined

CELL, GAP, MARGIN, HEADER, CAPTION = 200, 4, 22, 66, 40  # px
COLUMNS = 3  # of pairs
REACH = 2.2  # the crop shows this multiple of the longer side of both boxes
LEAST_PX = 32  # and at least this part of the picture


def sheet(
    questions: Sequence[Question], images: Mapping[str, LabeledImage], classes: Sequence[str], title: str
) -> bytes:
    """A PNG with a pair of pictures for each question: the labels as they are, and as proposed.

    Raises ValueError if there is no question.
    """
    if not questions:
        raise ValueError("a sheet of questions needs a question")
    num_rows = -(-len(questions) // COLUMNS)
    width, height = 2 * CELL + GAP + 2 * MARGIN, CELL + CAPTION
    size = (COLUMNS * width, HEADER + num_rows * height + MARGIN)
    canvas = Image.new("RGB", size, WHITE)
    ImageDraw.Draw(canvas).text((MARGIN, 14), title, INK, font(16, bold=True))
    _legend(canvas)
    for number, question in enumerate(questions):
        row, column = divmod(number, COLUMNS)
        pair = _pair(question, images[question.image], classes)
        canvas.paste(pair, (column * width + MARGIN, HEADER + row * height))
    buffer = BytesIO()
    canvas.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _legend(canvas: Image.Image) -> None:
    drawing, left = ImageDraw.Draw(canvas), MARGIN
    for colour, name in ((MINED, "label, before (left)"), (SEEN, "proposal, after (right)"), (GREY, "other labels")):
        drawing.rectangle((left, 42, left + 10, 52), outline=colour, width=2)
        drawing.text((left + 15, 53), name, GREY, font(12), anchor="ls")
        left += 35 + round(drawing.textlength(name, font(12)))


def _pair(question: Question, image: LabeledImage, classes: Sequence[str]) -> Image.Image:
    pixels = read(image.uri)
    window = _window(question, image)
    before, after = (list(_marks(question, image, proposed=proposed)) for proposed in (False, True))
    pair = Image.new("RGB", (2 * CELL + GAP, CELL + CAPTION), WHITE)
    for number, marks in enumerate((before, after)):
        pair.paste(_crop(pixels, marks, window), (number * (CELL + GAP), 0))
    drawing = ImageDraw.Draw(pair)
    drawing.text((0, CELL + 4), _caption(question, classes), INK, font(12))
    drawing.text((0, CELL + 19), question.image[-60:], GREY, font(10))
    return pair


def _crop(pixels: Pixels, marks: Sequence[Mark], window: np.ndarray) -> Image.Image:
    return outlined(pixels, marks, window, (CELL, CELL))


def _window(question: Question, image: LabeledImage) -> np.ndarray:
    """The square ``[4]`` xyxy px that the crops show; it may be moved, but does not leave the image if it fits in."""
    corners = np.array([box for box in (question.box, question.new_box) if box is not None], np.float32)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    side = float(np.clip((high - low).max() * REACH, LEAST_PX, min(image.width, image.height)))
    start = np.clip((low + high - side) / 2, 0, np.array([image.width, image.height]) - side)
    return np.concatenate([start, start + side]).astype(np.float32)


def _marks(question: Question, image: LabeledImage, *, proposed: bool) -> Iterator[Mark]:
    """The labels around the question's, and its own before or after the correction."""
    for index, box in enumerate(image.annotation.boxes):
        if index != question.index:
            yield Mark(box=box, colour=GREY)
    box = question.new_box if proposed else question.box
    if box is not None:
        yield Mark(box=np.array(box, np.float32), colour=SEEN if proposed else MINED)


def _caption(question: Question, classes: Sequence[str]) -> str:
    names = [classes[label] for label in (question.label, question.new_label) if label is not None]
    label = " \N{RIGHTWARDS ARROW} ".join(dict.fromkeys(names))
    place = "new" if question.index is None else f"box {question.index}"
    return f"{question.score:.2f}  {label}, {place}"
