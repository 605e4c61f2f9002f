"""The dataset card of an export: its contents, the origin of the synthetic images, and caveats."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from actors.counted import counted
from actors.records import Lineage
from loop.data.formats.base import OutImage
from loop.data.ledger import count

_INTRODUCTION = (
    "Written by `detloop export`. The training images are real images and variants generated from them. "
    "All other splits are real: evaluate on those."
)

_CAUTIONS = (
    (
        "A synthetic image is derived from its source image. The licence of the source, and any consent given for "
        "it, apply to the synthetic image as well. Name them here before you share this data set."
    ),
    "If the generator used model weights, their licence may add terms of its own.",
    (
        "Labels of synthetic images were checked by automatic filters only, not by people. A filter may have removed "
        "the label of an object that is still visible: train without loss on the background of these images."
    ),
    "No synthetic image was made from a validation or test image; the export checked that.",
)

_WHERE = {
    "coco": (
        "`annotations/<split>.json` and `images/<split>/`. Every image entry has `synthetic`; synthetic ones also have "
        "`source_image` (a file of this data set) and `lineage`. Boxes to be ignored have `iscrowd: 1`."
    ),
    "yolo": (
        "`data.yaml`, `labels/<split>/` and `images/<split>/`. Label files hold boxes only, so "
        "`provenance.jsonl` has a line for each image that is synthetic (`synthetic`, `source_image`, `lineage`) or "
        "has boxes to be ignored (`ignore`: their lines in the label file, from 0). Other tools train on those boxes."
    ),
    "voc": (
        "`Annotations/`, `JPEGImages/`, `ImageSets/Main/<split>.txt` and `classes.txt`. Every XML file has a "
        "`provenance` element, JSON with `synthetic`, `source_image` (a file of this data set) and `lineage`. "
        "Boxes to be ignored are `difficult`. Pixels count from 1, decimals are kept."
    ),
}


def dataset_card(splits: Mapping[str, Sequence[OutImage]], classes: Sequence[str], fmt: str) -> str:
    """The card as Markdown."""
    sections = [
        "# Data set with synthetic training images",
        _INTRODUCTION,
        "## Contents",
        "\n".join(_split_table(splits, classes)),
        "\n".join(_class_table(splits, classes)),
        "## Files",
        f"Format: {fmt.upper()}. {_WHERE[fmt]}",
        "## How the synthetic images were made",
        "\n".join(_origins(splits)),
        "## Caveats",
        "\n".join(f"- {caution}" for caution in _CAUTIONS),
    ]
    return "\n\n".join(sections) + "\n"


def _split_table(splits: Mapping[str, Sequence[OutImage]], classes: Sequence[str]) -> Iterator[str]:
    yield "| split | images | of these synthetic | empty | boxes | of these ignored |"
    yield "|---|---:|---:|---:|---:|---:|"
    for split, images in splits.items():
        counts = count([one.image for one in images], classes)
        num_synthetic = sum(one.provenance is not None for one in images)
        row = (counts.images, num_synthetic, counts.empty, counts.boxes, counts.ignored)
        yield f"| {split} | {' | '.join(map(str, row))} |"


def _class_table(splits: Mapping[str, Sequence[OutImage]], classes: Sequence[str]) -> Iterator[str]:
    train = splits.get("train", ())
    parts = {
        "train, real": [one.image for one in train if one.provenance is None],
        "train, synthetic": [one.image for one in train if one.provenance is not None],
        **{split: [one.image for one in images] for split, images in splits.items() if split != "train"},
    }
    counts = [count(images, classes).boxes_by_class for images in parts.values()]
    yield f"| boxes by class | {' | '.join(parts)} |"
    yield f"|---|{'---:|' * len(parts)}"
    for name in classes:
        escaped = " ".join(name.split()).replace("|", "\\|")
        yield f"| {escaped} | {' | '.join(str(column[name]) for column in counts)} |"


def _origins(splits: Mapping[str, Sequence[OutImage]]) -> Iterator[str]:
    """Synthetic images by generator and round."""
    origins = [one.provenance for images in splits.values() for one in images if one.provenance is not None]
    made = Counter(_maker(origin.lineage) for origin in origins)
    if not made:
        yield "There are none."
        return
    sources = counted(len({origin.source for origin in origins}), "source image")
    yield f"Generated from {sources}. The lineage of an image, with its seed, determines it."
    yield ""
    yield "| generator | round | images |"
    yield "|---|---:|---:|"
    for (generator, number), images in sorted(made.items()):
        yield f"| {generator} | {number} | {images} |"


def _maker(lineage: Lineage | None) -> tuple[str, str]:
    return (lineage.generator, str(lineage.round)) if lineage else ("unknown", "unknown")
