"""The check of a data set's labels: what is asked, and the files that say it. No file of the user's is written over."""

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from upath import UPath

from actors.counted import counted
from actors.storage import exclusive, is_local, read_record, write_bytes, write_record
from loop.config import LoopConfig
from loop.data.importing import Dataset
from loop.driver import anchored, import_real
from loop.labels.corrected import correct, write_coco
from loop.labels.questions import KINDS, Question, ask, num_found
from loop.labels.sheet import sheet
from loop.labels.told import as_csv, share_found, summary, table, too_weak
from loop.labels.unseen import look, with_folds
from loop.progress import Reporter

NUM_SHOWN = 24  # of each kind, on its sheet
FEW_FOUND = 0.6  # share of the labels; detectors that find fewer again are called weak
DECIDES = ("data", "detector", "mining", "training", "refiner", "seed")  # the sections of a config that a check reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which proposals are taken over into the corrected labels."""

    confidence: float = 0.8  # lowest score
    kinds: Collection[str] = ("box",)

    def __post_init__(self) -> None:
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence: a number from 0 to 1, not {self.confidence}")
        if strangers := sorted(set(self.kinds) - set(KINDS)):
            raise ValueError(f"apply: {strangers[0]!r} is no kind of question; there are {', '.join(KINDS)}")

    def accepts(self, question: Question) -> bool:
        """Whether a question is answered with yes."""
        return question.kind in self.kinds and question.score >= self.confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The outcome of a check."""

    out: UPath  # folder of the files
    rows: list[dict[str, Any]]  # see ``told.table``
    text: str  # for the terminal


def check_labels(config: LoopConfig, reporter: Reporter, out: UPath | None, choice: Choice) -> Checked:
    """Ask about the labels of the training images of ``config``, and write proposals into the folder ``out``.

    ``labels.csv`` lists the questions, the surest first. ``corrected.json`` is a COCO file of the training images for
    ``data.labels``, with the proposals that ``choice`` accepts. ``box.png`` and others show the surest of each kind.
    The default of ``out`` is ``labels/NAME`` below the root. The files of an earlier start of the same check are
    written anew. A warning is printed if the detectors find less than ``FEW_FOUND`` of the labels again.

    Raises ValueError if ``out`` is a file, holds anything else or lies in the folder of the data, or if the data or the
    hosting cannot be used.
    """
    config = with_folds(anchored(config))
    out = UPath(config.root) / "labels" / config.name if out is None else out.absolute()
    out = out.resolve() if is_local(out) else out
    data = import_real(config)
    _refuse_folder_of(data, out)
    reporter.say(f"{data.report}\n")
    with exclusive(out):
        _claim(out, {"config": config.fingerprint(*DECIDES), **data.identity()})
        looked = look(config, data, reporter)
        questions = ask(looked)
        accepted = [one for one in questions if choice.accepts(one)]
        rows = table(questions, set(accepted), {one.image.id: one.image.uri for one in looked}, data.classes)
        write_bytes(out / "labels.csv", as_csv(rows))
        about = {"description": f"labels corrected by detloop, {counted(len(accepted), 'change')}"}
        corrected = correct(data.splits["train"], accepted)
        write_coco(out / "corrected.json", corrected, data.classes, UPath(data.report.root), about)
        sheets = _draw(out, data, questions)
    share = share_found(num_found(looked), data.splits["train"])
    if share < FEW_FOUND:
        reporter.warn(too_weak(share))
    files = _files(out, sheets, accepted, choice, weak=share < FEW_FOUND)
    text = "\n".join([summary(questions, data.splits["train"], share), *files])
    return Checked(out=out, rows=rows, text=text)


def _refuse_folder_of(data: Dataset, out: UPath) -> None:
    root = UPath(data.report.root)
    if is_local(root) and is_local(out) and out.is_relative_to(root):
        raise ValueError(f"{out} lies in {root}, the folder of the data; give a folder outside of it with --out")


def _claim(out: UPath, origin: dict[str, str]) -> None:
    """Refuse a folder that holds anything but the files of this check."""
    file = out / "check.json"
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, not a folder; give a new folder with --out")
    if file.exists():
        if read_record(file, dict[str, str]) != origin:
            raise ValueError(
                f"{out} holds the check of another config or of other data; give another folder with --out"
            )
        return
    if out.exists() and any(True for _ in out.iterdir()):
        raise ValueError(f"{out} is not empty; give a new folder with --out")
    write_record(file, origin)


def _draw(out: UPath, data: Dataset, questions: Sequence[Question]) -> list[UPath]:
    """Write the sheet of the surest questions of each kind."""
    images, sheets = {image.id: image for image in data.splits["train"]}, []
    for kind, words in KINDS.items():
        file = out / f"{kind}.png"
        file.unlink(missing_ok=True)
        if shown := [one for one in questions if one.kind == kind][:NUM_SHOWN]:
            write_bytes(file, sheet(shown, images, data.classes, words[0].upper() + words[1:]))
            sheets.append(file)
    return sheets


def _files(
    out: UPath, sheets: Sequence[UPath], accepted: Collection[Question], choice: Choice, *, weak: bool
) -> list[str]:
    """What was written, for the terminal; with a caution if the detectors are ``weak``."""
    nothing = "nothing: the detectors are too weak to say" if weak else "nothing: no label looks wrong"
    caution = "; the detectors are weak: look at these proposals first" if weak and accepted else ""
    taken = f"proposals taken over: {len(accepted)} ({', '.join(choice.kinds)}; score {choice.confidence:g} or more)"
    return [
        "",
        f"look at   {shlex.join(map(str, sheets)) or nothing}",
        f"all       {out / 'labels.csv'}",
        f"corrected {out / 'corrected.json'}: {taken}{caution}",
    ]
