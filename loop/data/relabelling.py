"""Training images with the labels of another file (``data.labels``), in place of those of the data set."""

from collections.abc import Mapping
from dataclasses import replace

from upath import UPath

from loop.data.config import DataConfig
from loop.data.formats import coco
from loop.data.formats.base import RawBox
from loop.data.ledger import Ledger
from loop.data.locating import Located


def relabelled(located: Mapping[str, list[Located]], config: DataConfig, ledger: Ledger) -> dict[str, list[Located]]:
    """The images by split, where training images that ``config.labels`` names have the boxes of that file.

    Its boxes are in px of the upright image, whatever the format of the data set. Raises FileNotFoundError if there is
    no such file, and ValueError if it is no COCO file or names an image that is no training image.
    """
    if config.labels is None:
        return dict(located)
    file = UPath(config.labels)
    if not file.is_file():
        raise FileNotFoundError(f"data.labels: there is no file {file}")
    boxes, train = coco.read_boxes(file, config, ledger), located.get("train", [])
    if strangers := sorted(boxes.keys() - {one.place for one in train}):
        raise ValueError(
            f"data.labels: {file} names {len(strangers)} images that are no training images of {config.root}, such as "
            f"{strangers[0]!r}; it gives images by their paths below data.root"
        )
    ledger.remarks.append(f"{len(boxes)} of {len(train)} training images have the labels of {file}")
    return {**located, "train": [_with(one, boxes.get(one.place), str(file)) for one in train]}


def _with(one: Located, boxes: tuple[RawBox, ...] | None, source: str) -> Located:
    if boxes is None:
        return one
    return replace(one, raw=replace(one.raw, boxes=boxes, source=source, relative=False))
