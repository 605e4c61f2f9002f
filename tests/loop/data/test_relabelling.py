"""Labels of training images from another file, in every format of data set."""

import json
from dataclasses import replace

import numpy as np
import pytest
from upath import UPath

from loop.data.config import DataConfig
from loop.data.export import export
from loop.data.importing import import_data
from loop.labels.corrected import correct, write_coco
from loop.labels.questions import Question

KINDS = ("coco", "yolo", "voc")


@pytest.fixture(scope="module", params=KINDS)
def known(request, easy_data, tmp_path_factory):
    """The easy data in one format: its folder and what is read from it."""
    root = UPath(tmp_path_factory.mktemp(request.param) / "data")
    data = read(easy_data)
    export(data.splits["train"], (), data.classes, root, request.param, {"val": data.splits["val"]})
    return root, read(root)


def read(root, labels=None, **keys):
    return import_data(DataConfig(root=str(root), labels=labels and str(labels), **keys), UPath(root), 0)


def written(folder, root, images, classes):
    write_coco(file := folder / "corrected.json", images, classes, root, {})
    return file


def test_the_labels_of_the_file_take_the_place_of_the_data_sets_own(known, tmp_path):
    root, data = known
    first, second, third, *_ = data.splits["train"]
    boxes = [(1.0, 2.0, 30.0, 40.0), (3.0, 4.0, 20.0, 30.0)]
    accepted = [
        Question(image=first.id, kind="box", score=1.0, index=1, new_box=boxes[0], new_label=0),
        Question(image=second.id, kind="doubled", score=1.0, index=0),
        Question(image=third.id, kind="missing", score=1.0, new_box=boxes[1], new_label=1),
        Question(image=third.id, kind="class", score=1.0, index=0, new_label=1 - int(third.annotation.labels[0])),
    ]
    corrected = correct(data.splits["train"][:5], accepted)
    again = read(root, written(UPath(tmp_path), root, corrected, data.classes))
    ours = {image.id: image.annotation for image in again.splits["train"]}
    for image in (*corrected, *data.splits["train"][5:]):
        assert np.abs(ours[image.id].boxes - image.annotation.boxes).max() < 1e-3
        assert ours[image.id].labels.tolist() == image.annotation.labels.tolist()
    assert tuple(ours[first.id].boxes[1].tolist()) == boxes[0]
    assert ours[second.id].boxes.tolist() == second.annotation.boxes[1:].tolist()
    assert (len(ours[third.id]), ours[third.id].labels[2]) == (3, 1)
    assert ours[third.id].labels[0] != third.annotation.labels[0]
    assert [one.id for one in again.splits["val"]] == [one.id for one in data.splits["val"]]
    assert any("of 8 training images, 5 have the labels of" in remark for remark in again.report.remarks)


def test_labels_that_are_written_unchanged_give_the_same_data(known, tmp_path):
    root, data = known
    same = read(root, written(UPath(tmp_path), root, data.splits["train"], data.classes))
    assert same.identity() == data.identity()


def test_images_that_are_not_of_the_training_split_are_refused(known, tmp_path):
    root, data = known
    file = written(UPath(tmp_path), root, data.splits["val"], data.classes)
    with pytest.raises(
        ValueError, match=r"data\.labels: of 8 images in .*, 8 are no training .* such as '.*'; give .* such as '"
    ):
        read(root, file)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [(None, FileNotFoundError, r"data\.labels: there is no file"), ({"images": []}, ValueError, "it has no list")],
)
def test_a_file_that_is_no_coco_file_is_refused(easy_data, tmp_path, content, error, message):
    file = tmp_path / "other.json"
    if content is not None:
        file.write_text(json.dumps(content))
    with pytest.raises(error, match=message):
        read(easy_data, file)


def rewritten(known, folder, change):
    """The labels of the training images as a COCO file after ``change`` of its tree."""
    root, data = known
    file = written(UPath(folder), root, data.splits["train"], data.classes)
    tree = json.loads(file.read_text())
    change(tree)
    file.write_text(json.dumps(tree))
    return file


def with_dot(image):
    return {**image, "id": 777, "file_name": f"./{image['file_name']}"}


def boxes_as(new_box):
    def change(tree):
        for one in tree["annotations"]:
            one["bbox"] = new_box(*one["bbox"])

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (boxes_as(lambda x, y, w, h: [x, y, x + w, y + h]), " has 16 boxes.*Are they x1, y1, x2, y2 in px"),
        (boxes_as(lambda *box: [value / 64 for value in box]), "in shares from 0 to 1 instead"),
        (boxes_as(lambda x, y, w, h: [x + 900, y, w, h]), r"16 x outside the image.*corrected\.json, annotation 1"),
        (lambda tree: tree["categories"][0].update(name="azure"), r"the class 'azure', which .*\['blue', 'red'\]"),
        (lambda tree: tree.update(images=[], annotations=[]), "names no image"),
        (lambda tree: [one.update(width=50) for one in tree["images"]], "8 x size mismatch"),
        (lambda tree: tree["annotations"][0].update(image_id=777), "in .*, 1 box is of an image that it does not name"),
        (lambda tree: tree["images"].append(with_dot(tree["images"][0])), "names the image './.*' twice"),
    ],
    ids=["corners", "shares", "outside", "class", "no image", "size", "unknown image", "twice"],
)
def test_labels_that_are_misread_or_of_no_image_are_refused(known, tmp_path, change, message):
    file = rewritten(known, tmp_path, change)
    with pytest.raises(ValueError, match=r"(?s)data\.labels.*" + message):
        read(known[0], file)


def test_boxes_that_were_annotated_on_smaller_pictures_are_enlarged(known, tmp_path):
    def shrink(tree):
        boxes_as(lambda *box: [value / 2 for value in box])(tree)
        for one in tree["images"]:
            one.update(width=32, height=32)

    root, data = known
    again = read(root, rewritten(known, tmp_path, shrink))
    for image, own in zip(again.splits["train"], data.splits["train"], strict=True):
        assert np.abs(image.annotation.boxes - own.annotation.boxes).max() < 0.01
    assert sum(one.reason == "boxes moved into the image" for one in again.report.noted) == 8


def test_images_that_are_left_out_for_their_labels_are_not_counted(known, tmp_path):
    def spoil(tree):
        tree["annotations"][0]["bbox"] = None
        tree["images"][1]["width"] = 50

    report = read(known[0], rewritten(known, tmp_path, spoil)).report
    assert any("of 6 training images, 6 have the labels of" in remark for remark in report.remarks)


def test_held_out_images_and_the_subset_are_the_same_with_other_labels(easy_data, tmp_path):
    """So that runs with either are measured on the same images, with the same labels."""
    keys = {"train": "train", "subset": 4}
    data = read(easy_data, **keys)
    again = read(easy_data, written(UPath(tmp_path), easy_data, data.splits["train"], data.classes), **keys)
    assert again.identity() == data.identity()


def test_held_out_images_keep_their_own_labels_where_the_file_names_them(easy_data, tmp_path):
    """The validation images of a run with ``data.labels`` are those of the run without it, whatever its seed."""
    root, keys = UPath(tmp_path / "data"), {"val_frac": 0.25}
    easy = read(easy_data)
    export(easy.splits["train"], (), easy.classes, root, "coco", {})
    data = read(root, **keys)
    every = [*data.splits["train"], *data.splits["val"]]
    moved = [replace(one, annotation=replace(one.annotation, boxes=one.annotation.boxes / 2)) for one in every]
    moved[0] = replace(moved[0], annotation=replace(moved[0].annotation, boxes=moved[0].annotation.boxes * np.nan))
    again = read(root, written(UPath(tmp_path), root, moved, data.classes), max_faulty_frac=1.0, **keys)
    assert {**again.identity(), "train": ""} == {**data.identity(), "train": ""}
    assert [one.id for one in again.splits["train"]] == [one.id for one in moved[1 : len(data.splits["train"])]]
    assert np.abs(again.splits["train"][0].annotation.boxes - moved[1].annotation.boxes).max() < 1e-3
    assert "of 5 training images, 5 have the labels of" in again.report.remarks[-1]
    assert any("2 images are held out and keep their own labels" in remark for remark in again.report.remarks)


def test_an_image_with_faulty_labels_can_be_used_with_those_of_the_file(easy_data, tmp_path):
    """The report says nothing of labels that are not used."""
    data, root = read(easy_data), UPath(tmp_path / "data")
    export(data.splits["train"], (), data.classes, root, "coco", {"val": data.splits["val"]})
    file = written(UPath(tmp_path), root, read(root).splits["train"], data.classes)
    own = root / "annotations" / "train.json"
    own.write_text(own.read_text().replace('"bbox": [', '"bbox": [NaN, ', 1))
    keys = {"max_faulty_frac": 1.0}
    assert [one.what for one in read(root, **keys).report.dropped] == ["box", "image"]
    again = read(root, file, **keys)
    assert (len(again.splits["train"]), again.report.findings) == (8, ())


@pytest.mark.parametrize("change", [lambda name: f"./{name}", lambda name: name.removeprefix("images/")])
def test_images_are_named_by_their_paths_or_as_in_reports(known, tmp_path, change):
    root, data = known

    def rename(tree):
        for one in tree["images"]:
            one["file_name"] = change(one["file_name"])

    assert read(root, rewritten(known, tmp_path, rename)).identity() == data.identity()


def test_a_moved_box_loses_its_mask_and_its_area(easy_data):
    image = read(easy_data).splits["train"][0]
    object.__setattr__(image, "masks", ("a", "b"))
    object.__setattr__(image, "areas", (1.0, 2.0))
    moved = Question(image=image.id, kind="box", score=1.0, index=0, new_box=(0.0, 0.0, 4.0, 5.0), new_label=0)
    (one,) = correct([image], [moved, Question(image=image.id, kind="doubled", score=1.0, index=1)])
    assert (one.masks, one.areas, len(one.annotation)) == ((), (20.0,), 1)
