"""The twelve figures of COCO, from the import to the metrics, against pycocotools on the same files."""

import json
import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from upath import UPath

from actors.records import Detections
from loop.data.config import DataConfig
from loop.data.export import export
from loop.data.importing import import_data
from loop.evaluation.coco import evaluate

KEYS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


def folder_of(truth, ids, folder):
    """A COCO data set of these images of the annotations ``truth``, as blank pictures."""
    chosen = [one for one in truth["images"] if one["id"] in ids]
    val = {**truth, "images": chosen, "annotations": [one for one in truth["annotations"] if one["image_id"] in ids]}
    train = {"images": [{"id": 1, "file_name": "t.png", "width": 32, "height": 32}], "categories": truth["categories"]}
    box = {"image_id": 1, "category_id": truth["categories"][0]["id"], "bbox": [1, 1, 9, 9], "iscrowd": 0}
    train["annotations"] = [{"id": 1, "area": 81, **box}]
    for split, tree in (("train", train), ("val", val)):
        for part in ("annotations", split):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(tree))
        for one in tree["images"]:
            Image.new("L", (one["width"], one["height"])).save(folder / split / one["file_name"])
    return folder


def imported(folder):
    return import_data(DataConfig(format="coco", root=str(folder)), UPath(folder), 0)


def ours(folder, rows):
    """Our figures of the detections ``rows`` in the val images of ``folder``."""
    data = imported(folder)
    tree = json.loads((folder / "annotations/val.json").read_text())
    label = {one["id"]: data.classes.index(one["name"]) for one in tree["categories"]}
    by_name = {one["file_name"]: [row for row in rows if row["image_id"] == one["id"]] for one in tree["images"]}
    seen = {}
    for image in data.splits["val"]:
        mine = by_name[Path(image.uri).name]
        x, y, width, height = np.array([row["bbox"] for row in mine], np.float64).reshape(-1, 4).T
        seen[image.id] = Detections(
            boxes=np.stack([x, y, x + width, y + height], axis=1).astype(np.float32),
            labels=np.array([label[row["category_id"]] for row in mine], np.int64),
            scores=np.array([row["score"] for row in mine], np.float32),
        )
    return evaluate(data.splits["val"], seen, data.classes).metrics


def theirs(folder, rows):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    (folder / "results.json").write_text(json.dumps(rows))
    with redirect_stdout(StringIO()):
        truth = COCO(str(folder / "annotations/val.json"))
        run = COCOeval(truth, truth.loadRes(str(folder / "results.json")), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats


def made(rng):
    """Annotations whose areas are those of masks, well below their boxes', and detections of them."""
    categories = [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}]
    images = [{"id": 10 + n, "file_name": f"{n}.png", "width": 300, "height": 200} for n in range(12)]
    annotations, rows = [], []
    for image in images:
        for _ in range(rng.integers(1, 7)):
            width, height = rng.integers(8, 180, 2).tolist()
            box = [
                int(rng.integers(0, 301 - width)),
                int(rng.integers(0, max(201 - height, 1))),
                width,
                min(height, 200),
            ]
            common = {"image_id": image["id"], "category_id": int(rng.choice([3, 7]))}
            area = box[2] * box[3] * rng.uniform(0.2, 0.9)
            annotations.append(
                {"id": len(annotations) + 1, **common, "bbox": box, "area": area, "iscrowd": int(rng.random() < 0.1)}
            )
            for _ in range(rng.integers(0, 3)):
                moved = (np.array(box) + rng.normal(0, 3, 4)).clip(1).round(2).tolist()
                rows.append({**common, "bbox": moved, "score": round(float(rng.random()), 4)})
    return {"images": images, "annotations": annotations, "categories": categories}, rows


def test_areas_of_masks_give_the_figures_of_pycocotools(tmp_path):
    truth, rows = made(np.random.default_rng(0))
    folder = folder_of(truth, {one["id"] for one in truth["images"]}, tmp_path)
    found, expected = ours(folder, rows), theirs(folder, rows)
    assert [found[key] for key in KEYS] == pytest.approx(expected, abs=1e-6)
    for one in truth["annotations"]:
        one["area"] = one["bbox"][2] * one["bbox"][3]
    of_boxes = ours(folder_of(truth, {one["id"] for one in truth["images"]}, tmp_path), rows)
    assert of_boxes["AP"] == found["AP"]
    assert abs(of_boxes["AP_medium"] - found["AP_medium"]) > 0.01


def test_areas_survive_an_export_and_are_part_of_the_identity(tmp_path):
    truth, _ = made(np.random.default_rng(1))
    data = imported(folder_of(truth, {one["id"] for one in truth["images"]}, tmp_path / "a"))
    out = UPath(tmp_path / "b")
    export(data.splits["train"], [], data.classes, out, "coco", {"val": data.splits["val"]}, data.synthetic)
    again = imported(out)
    areas, expected = ({Path(one.uri).name: one.areas for one in of.splits["val"]} for of in (again, data))
    assert areas.keys() == expected.keys()
    assert all(areas[name] == pytest.approx(expected[name], abs=1e-3) for name in areas)
    assert data.splits["train"][0].areas == ()  # those of the boxes
    truth["annotations"][0]["area"] += 5
    other = imported(folder_of(truth, {one["id"] for one in truth["images"]}, tmp_path / "c"))
    assert other.identity()["val"] != data.identity()["val"]


def test_a_result_file_gives_the_figures_of_pycocotools(tmp_path):
    """COCO's own pair: instances_val2014.json and instances_val2014_fakebbox100_results.json of cocodataset/cocoapi."""
    if "DETLOOP_COCO_RESULTS" not in os.environ:
        pytest.skip("set DETLOOP_COCO_RESULTS to ANNOTATIONS.json:RESULTS.json to run this test")
    truth, rows = (json.loads(Path(name).read_text()) for name in os.environ["DETLOOP_COCO_RESULTS"].split(":"))
    folder = folder_of(truth, {row["image_id"] for row in rows}, tmp_path)
    assert [ours(folder, rows)[key] for key in KEYS] == pytest.approx(theirs(folder, rows), abs=1e-4)
