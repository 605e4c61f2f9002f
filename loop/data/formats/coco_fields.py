"""The content of a COCO file that is written."""

from collections.abc import Iterator, Sequence
from typing import Any

from loop.data.formats.base import OutImage
from loop.data.provenance import to_fields


def coco_tree(images: Sequence[OutImage], classes: Sequence[str]) -> dict[str, Any]:
    """The lists of images, annotations and categories. Ids count from 1, those of categories in class order."""
    annotations = [fields for index, one in enumerate(images) for fields in _box_fields(one, index + 1)]
    return {
        "images": [_image_fields(one, index + 1) for index, one in enumerate(images)],
        "annotations": [{"id": index + 1, **fields} for index, fields in enumerate(annotations)],
        "categories": [{"id": index + 1, "name": name} for index, name in enumerate(classes)],
    }


def _image_fields(one: OutImage, image_id: int) -> dict[str, Any]:
    """The entry of an image."""
    return {
        "id": image_id,
        "file_name": one.name,
        "width": one.image.width,
        "height": one.image.height,
        **to_fields(one.provenance, one.source_name),
    }


def _box_fields(one: OutImage, image_id: int) -> Iterator[dict[str, Any]]:
    """The entries of its annotations, without their ids."""
    annotation, size = one.image.annotation, [one.image.height, one.image.width]
    masks = one.image.masks or ("",) * len(annotation)
    areas = one.image.areas or (None,) * len(annotation)
    boxes = zip(annotation.boxes, annotation.labels, annotation.ignore, masks, areas, strict=True)
    for corners, label, ignore, mask, area in boxes:
        x0, y0, x1, y1 = map(float, corners)
        box = [round(value, 3) for value in (x0, y0, x1 - x0, y1 - y0)]
        yield {
            "image_id": image_id,
            "category_id": int(label) + 1,
            "bbox": box,
            "area": round(box[2] * box[3] if area is None else area, 3),
            "iscrowd": int(ignore),
            **({"segmentation": {"size": size, "counts": mask}} if mask else {}),
        }
