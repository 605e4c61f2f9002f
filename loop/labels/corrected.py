"""The labels of a data set after some questions are answered with yes, and the COCO file that holds them."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from upath import UPath

from actors.records import Annotation, LabeledImage
from actors.storage import write_bytes
from loop.data.formats.base import OutImage, below
from loop.data.formats.coco_fields import coco_tree
from loop.labels.questions import Question


def correct(images: Sequence[LabeledImage], accepted: Sequence[Question]) -> tuple[LabeledImage, ...]:
    """The images with the proposals of the questions in place of their labels, in the same order.

    A box that is moved loses its mask, and its object's area becomes that of the box.
    """
    by_image: defaultdict[str, list[Question]] = defaultdict(list)
    for question in accepted:
        by_image[question.image].append(question)
    return tuple(_corrected(image, by_image[image.id]) if image.id in by_image else image for image in images)


def _corrected(image: LabeledImage, accepted: Sequence[Question]) -> LabeledImage:
    known, labels = image.annotation, image.annotation.labels.copy()
    boxes, keep = known.boxes.copy(), np.ones(len(known), np.bool_)
    masks, areas = list(image.masks or [""] * len(known)), list(image.areas)
    for one in accepted:
        if one.index is None:
            continue
        if one.kind == "box":
            boxes[one.index], masks[one.index] = one.new_box, ""
            areas = [_area(one) if index == one.index else area for index, area in enumerate(areas)]
        elif one.kind == "class" and one.new_label is not None:
            labels[one.index] = one.new_label
        keep[one.index] &= one.kind != "doubled"
    added = [one for one in accepted if one.kind == "missing"]
    masks = [mask for mask, kept in zip(masks, keep, strict=True) if kept] + [""] * len(added)
    areas = [area for area, kept in zip(areas, keep, strict=bool(areas)) if kept]
    return replace(
        image,
        annotation=Annotation(boxes=boxes, labels=labels, ignore=known.ignore).take(keep).join(_annotation(added)),
        masks=tuple(masks) if any(masks) else (),
        areas=(*areas, *map(_area, added)) if areas else (),
    )


def _annotation(added: Sequence[Question]) -> Annotation:
    if not added:
        return Annotation.empty()
    return Annotation(
        boxes=np.array([one.new_box for one in added], np.float32),
        labels=np.array([one.new_label for one in added], np.int64),
        ignore=np.zeros(len(added), np.bool_),
    )


def _area(one: Question) -> float:
    x0, y0, x1, y1 = one.new_box or (0.0, 0.0, 0.0, 0.0)
    return (x1 - x0) * (y1 - y0)


def write_coco(
    file: UPath, images: Sequence[LabeledImage], classes: Sequence[str], root: UPath, about: Mapping[str, Any]
) -> None:
    """Write the images' labels as a COCO file that names the images by their paths below ``root``, atomically.

    ``about`` are the fields of its ``info``.
    """
    listed = [OutImage(image=image, name=below(root, UPath(image.uri))) for image in images]
    tree = {"info": dict(about), **coco_tree(listed, classes)}
    write_bytes(file, json.dumps(tree, indent=1, ensure_ascii=False).encode())
