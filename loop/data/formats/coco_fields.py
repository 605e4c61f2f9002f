"""The entries of images and annotations in a COCO file that is written."""

from collections.abc import Iterator
from typing import Any

from loop.data.formats.base import OutImage
from loop.data.provenance import to_fields


def image_fields(one: OutImage, image_id: int) -> dict[str, Any]:
    """The entry of an image."""
    return {
        "id": image_id,
        "file_name": one.name,
        "width": one.image.width,
        "height": one.image.height,
        **to_fields(one.provenance, one.source_name),
    }


def box_fields(one: OutImage, image_id: int) -> Iterator[dict[str, Any]]:
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
