"""Large real images: reduced once, boxes and masks with them; small ones and validation images stay as they are."""

from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco
from upath import UPath

from actors import images
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.records import Annotation, Detections, LabeledImage
from loop.adapters import Embed, Inspect
from loop.config import LoopConfig
from loop.data.config import DataConfig
from loop.data.importing import Dataset
from loop.data.ledger import ImportReport
from loop.hosting.config import HostingConfig
from loop.progress import Reporter
from loop.reduce_images import reduce_images

BOX = [400.0, 100.0, 800.0, 300.0]


@pytest.fixture
def data(tmp_path):
    """An image of 1600 x 800 px, white in one box, in both splits; in train also one of 640 x 480 px."""
    pixels = np.zeros((800, 1600, 3), np.uint8)
    pixels[100:300, 400:800] = 255
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    large.write_bytes(images.encode_png(pixels))
    small.write_bytes(images.encode_png(pixels[:480, :640]))
    counts = coco.encode(np.asfortranarray(pixels[..., 0] // 255))["counts"].decode()
    box = Annotation(boxes=np.array([BOX], np.float32), labels=np.zeros(1, np.int64), ignore=np.zeros(1, np.bool_))
    first = LabeledImage(id="large", uri=str(large), width=1600, height=800, annotation=box, masks=(counts,))
    second = LabeledImage(id="small", uri=str(small), width=640, height=480, annotation=box)
    report = ImportReport(format="coco", root="", splits={}, findings=(), remarks=())
    splits = {"train": (first, second), "val": (first,)}
    return Dataset(classes=("thing",), splits=splits, report=report, val_is_drawn=False)


def config(tmp_path, **detector):
    return LoopConfig(
        name="x",
        root=str(tmp_path / "runs"),
        data=DataConfig(root="."),
        detector=UltralyticsConfig(**detector),
        hosting=HostingConfig(engine="inline"),
    )


def test_the_limit_is_half_as_much_again_as_the_image_size_and_at_least_640_px():
    assert UltralyticsConfig(image_size_px=160).picture_px == 640
    assert UltralyticsConfig(image_size_px=512).picture_px == 768
    assert UltralyticsConfig(image_size_px=512, max_picture_px=600).picture_px == 600


def test_a_large_training_image_is_replaced_by_a_reduced_copy_with_its_box_and_mask(data, tmp_path):
    reduced = reduce_images(data, config(tmp_path, image_size_px=320, max_picture_px=400), Reporter())
    large, small = reduced.splits["train"]
    assert (large.id, large.width, large.height) == ("large", 400, 200)
    np.testing.assert_allclose(large.annotation.boxes, [[100, 25, 200, 75]])
    pixels = images.read(large.uri)
    assert pixels.shape == (200, 400, 3)
    assert (pixels[25:75, 100:200] == 255).all()
    assert pixels.sum() == 3 * 255 * 50 * 100
    mask = coco.decode({"size": [200, 400], "counts": large.masks[0].encode()})
    assert mask[25:75, 100:200].all()
    assert mask.sum() == 50 * 100
    assert (small.width, small.height) == (400, 300)
    assert reduced.splits["val"] == data.splits["val"]


def test_large_clean_images_are_reduced_too(data, tmp_path):
    large, small = (
        replace(one, id=f"clean/{one.id}", annotation=Annotation.empty(), masks=()) for one in data.splits["train"]
    )
    given = replace(data, splits={"train": (), "val": ()}, clean=(small, large))
    reduced = reduce_images(given, config(tmp_path, image_size_px=320, max_picture_px=640), Reporter())
    assert [(one.id, one.width, one.height) for one in reduced.clean] == [
        ("clean/small", 640, 480),
        ("clean/large", 640, 320),
    ]
    assert reduced.clean[0] is small
    assert images.read(reduced.clean[1].uri).shape == (320, 640, 3)


def test_images_within_the_limit_are_not_copied(data, tmp_path):
    reduced = reduce_images(data, config(tmp_path, image_size_px=1088), Reporter())
    assert reduced is data


def test_copies_are_written_once_and_found_after_the_root_has_moved(data, tmp_path):
    once = reduce_images(data, config(tmp_path), Reporter())
    (tmp_path / "runs").rename(tmp_path / "moved")
    (tmp_path / "large.png").unlink()  # another copy could not be made
    moved = config(tmp_path).model_copy(update={"root": str(tmp_path / "moved")})
    again = reduce_images(data, moved, Reporter())
    assert UPath(again.splits["train"][0].uri).exists()
    assert UPath(again.splits["train"][0].uri).name == UPath(once.splits["train"][0].uri).name


class White:
    """Detects the white pixels as one box, and has their share as its feature."""

    classes = ("thing",)

    def detect(self, pictures):
        self.shapes = [one.shape for one in pictures]
        return [self.box(one) for one in pictures]

    def box(self, pixels):
        rows, columns = np.nonzero(pixels[..., 0] == 255)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return Detections(
            boxes=np.array([box], np.float32), labels=np.zeros(1, np.int64), scores=np.ones(1, np.float32)
        )


class WhiteConfig(UltralyticsConfig):
    """A detector without a network."""

    def load(self, *_):
        return White()


def test_a_detector_sees_a_large_image_reduced_and_its_boxes_are_in_px_of_the_image(data):
    inspect = Inspect(WhiteConfig(image_size_px=320), "none")
    (row,) = inspect([{"uri": data.splits["val"][0].uri}])
    assert inspect.detector.detector.shapes == [(320, 640, 3)]
    np.testing.assert_allclose(row["seen_boxes"].reshape(-1, 4), [BOX])


def test_crops_for_features_are_cut_from_the_reduced_image(data):
    embed = Embed(lambda: lambda pictures: np.array([[*one.shape[:2], one.min()] for one in pictures]), 400)
    (row,) = embed([{"uri": data.splits["val"][0].uri, "boxes": f"[{BOX}]"}])
    np.testing.assert_array_equal(row["features"][:, :2], [[100, 100]])  # 400 x 200 px at a quarter, as a square
