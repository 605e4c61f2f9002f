"""The embedded data set on disk, as a COCO folder."""

import json
from dataclasses import asdict
from typing import Any, Final

from upath import UPath

from actors.images import encode_png
from actors.seeds import derive_seed
from actors.storage import write_bytes
from loop.data.config import WorldConfig
from loop.data.world.plan import CLASSES
from loop.data.world.scene import HEIGHT_PX, WIDTH_PX, Scene, render_scene

VERSION: Final = 1  # of the renderer: another version renders other images


def write_world(folder: UPath, config: WorldConfig) -> None:
    """Render the scenes of ``config`` into ``folder``: ``images/{train,val,clean}``, ``annotations/{train,val}.json``.

    The format is COCO instances: category ids follow ``CLASSES`` from 1, ``area`` is that of the box in px^2, and every
    annotation has its part's ``factors``. Scene i of a split depends on the seed, the split and i only, so a larger
    data set starts with the scenes of a smaller one. ``annotations/train.json`` is written last: the next call
    completes what a killed call left, and leaves a complete folder unchanged.

    Raises ValueError if the folder holds another data set.
    """
    marker = folder / "annotations" / "train.json"
    info = {"description": "detloop world", "version": VERSION, "config": config.model_dump()}
    if marker.exists():
        found = _info(marker)
        if found == info:
            return
        if found.get("description") != info["description"]:
            raise ValueError(f"{folder}: holds a data set that is not the embedded one; choose another folder")
        marker.unlink()
    _write_clean(folder / "images" / "clean", config)
    _write_split(folder, "val", config.val, config.seed, info)
    _write_split(folder, "train", config.train, config.seed, info)


def _info(annotations: UPath) -> dict[str, Any]:
    try:
        found = json.loads(annotations.read_bytes())["info"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{annotations}: not a COCO file of the embedded data set ({error}); choose another folder"
        ) from error
    return found if isinstance(found, dict) else {}


def _write_clean(images: UPath, config: WorldConfig) -> None:
    for index in range(config.clean):
        scene = render_scene(derive_seed(config.seed, "clean", index), num_parts=0)
        write_bytes(images / _name(index), encode_png(scene.pixels))


def _write_split(folder: UPath, split: str, count: int, seed: int, info: dict[str, Any]) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        scene = render_scene(derive_seed(seed, split, index))
        write_bytes(folder / "images" / split / _name(index), encode_png(scene.pixels))
        images.append({"id": index + 1, "file_name": _name(index), "width": WIDTH_PX, "height": HEIGHT_PX})
        annotations += _entries(scene, index + 1, len(annotations) + 1)
    categories = [{"id": place + 1, "name": name} for place, name in enumerate(CLASSES)]
    content = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    write_bytes(folder / "annotations" / f"{split}.json", json.dumps(content, indent=1).encode())


def _name(index: int) -> str:
    return f"{index:06d}.png"


def _entries(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """The COCO annotations of one scene; boxes and areas in px, to the hundredth."""
    entries = []
    for place, (box, label) in enumerate(zip(scene.annotation.boxes, scene.annotation.labels, strict=True)):
        left, top, right, bottom = (round(float(edge), 2) for edge in box)
        width, height = round(right - left, 2), round(bottom - top, 2)
        factors = {name: round(value, 4) for name, value in asdict(scene.factors[place]).items()}
        entries.append(
            {
                "id": first_id + place,
                "image_id": image_id,
                "category_id": int(label) + 1,
                "bbox": [left, top, width, height],
                "area": round(width * height, 2),
                "iscrowd": 0,
                "factors": factors,
            }
        )
    return entries
