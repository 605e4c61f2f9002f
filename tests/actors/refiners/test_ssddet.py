"""The fit of SSD-Det and the refiner that comes of it, on made pictures and a tiny detector."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from actors.boxes import pairwise_iou
from actors.checkpoint import read_checkpoint
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.fitting import DetectorCheckpoint, FitData, Worker
from actors.images import read
from actors.records import Annotation, LabeledImage
from actors.refiners import RefinerConfig
from actors.refiners.ssddet.component import SSDDetConfig
from actors.refiners.ssddet.mirrors import MIRRORS, mirrored_boxes, mirrored_pixels
from actors.refiners.ssddet.noise import noisy
from actors.refiners.ssddet.refiner import write_detector

pytestmark = pytest.mark.slow

CLASSES, SIZE_PX, CPU = ("blue", "red"), 96, Worker(device="cpu")
TINY = {"sides": (1.0, 1.3, 0.7), "roi_size": 3, "width": 16, "hidden": 32}
NO_FIT = {"steps": 4, "batch_size": 2, "negatives": 16}


def config(**keys):
    fit = NO_FIT | keys.pop("fit", {})
    return SSDDetConfig.model_validate({**TINY, **keys, "fit": fit})


@pytest.fixture(scope="module")
def detector(tmp_path_factory, small_model):
    """A detector with random weights."""
    torch.manual_seed(0)
    own = UltralyticsConfig(model=str(small_model), image_size_px=SIZE_PX)
    uri = str(tmp_path_factory.mktemp("detector") / "detector.safetensors")
    network = own.architecture(len(CLASSES)).train()
    with torch.no_grad():  # so that the statistics of batch normalisation are those of pictures
        for _ in range(20):
            network(torch.rand(4, 3, SIZE_PX, SIZE_PX))
    own.save_checkpoint(network, CLASSES, uri)
    return DetectorCheckpoint(config=own, uri=uri, overrides={})


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """24 noisy grey pictures of 96 x 72 px, with a red and a blue box each."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    return tuple(draw(folder / f"{number}.png", rng) for number in range(24))


def draw(path, rng):
    pixels, boxes = rng.normal(110, 12, (72, 96, 3)), []
    for label in (0, 1):
        width, height = rng.integers(16, 30, 2)
        x, y = 48 * label + rng.integers(6, 44 - width), rng.integers(6, 66 - height)
        colour = ((40, 60, 230), (235, 60, 60))[label]
        pixels[y : y + height, x : x + width] = colour + rng.normal(0, 8, (height, width, 3))
        boxes.append((x, y, x + width, y + height))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    annotation = Annotation(boxes=np.array(boxes, np.float32), labels=np.array([0, 1]), ignore=np.zeros(2, np.bool_))
    return LabeledImage(id=path.name, uri=str(path), width=96, height=72, annotation=annotation)


@pytest.fixture
def data(images, detector):
    return FitData(classes=CLASSES, images=images, difficulties=((),) * len(images), seed=0, detector=detector)


def fitted(settings, data, uri, steps=None):
    fit = settings.open_fit(data, CPU)
    losses = [fit.step(number) for number in range(steps or fit.num_steps)]
    fit.save(str(uri))
    return SimpleNamespace(fit=fit, losses=losses, refiner=settings.build(data.detector.config, str(uri)))


# What it learns


def test_refined_boxes_sit_better_than_noisy_ones(data, tmp_path):
    settings = config(noise=0.0, fit={"steps": 150, "batch_size": 4, "learning_rate": 3e-3})
    labels = [noisy(image, 0.4, seed=1) for image in data.images]
    wrong = [replace(image, annotation=one) for image, one in zip(data.images, labels, strict=True)]
    result = fitted(settings, replace(data, images=tuple(wrong)), tmp_path / "r.safetensors")
    assert np.mean(result.losses[-20:]) < np.mean(result.losses[:20])
    found = result.refiner.refine([read(image.uri) for image in data.images], labels)
    before, after = (mean_iou(data.images, boxes) for boxes in (labels, found))
    assert after > before + 0.1


def mean_iou(images, others):
    pairs = [
        np.diag(pairwise_iou(one.annotation.boxes, other.boxes)) for one, other in zip(images, others, strict=True)
    ]
    return float(np.mean(pairs))


def test_the_fit_reads_noisy_boxes_only(data):
    settings = config(noise=0.4)
    clean = {tuple(box) for image in data.images for box in image.annotation.boxes.tolist()}
    fit = settings.open_fit(data, CPU)
    held = [box for picture in fit.examples.pictures for box in picture.annotation.boxes.tolist()]
    assert len(held) == 48
    assert not clean & {tuple(box) for box in held}
    other = replace(data, images=tuple(replace(i, annotation=noisy(i, 0.4, data.seed)) for i in data.images))
    again = config(noise=0.0).open_fit(other, CPU)
    assert fit.step(0) == again.step(0)


def test_without_noise_the_fit_takes_labels_as_they_are(data):
    fit = config(noise=0.0).open_fit(data, CPU)
    for picture, image in zip(fit.examples.pictures, data.images, strict=True):
        assert np.array_equal(picture.annotation.boxes, image.annotation.boxes)


# Repeatability


def test_a_fit_that_was_interrupted_goes_on_to_the_same_bits(data):
    whole, first = (config().open_fit(data, CPU) for _ in range(2))
    losses = [whole.step(number) for number in range(4)]
    assert [first.step(number) for number in range(2)] == losses[:2]
    second = config().open_fit(data, CPU)
    second.restore(first.state())
    assert [second.step(number) for number in (2, 3)] == losses[2:]
    assert_equal(second.network.state_dict(), whole.network.state_dict())


def test_two_workers_agree_with_one(data, together):
    settings = config()
    alone, gang = settings.open_fit(data, CPU), workers(settings, data)
    for number in range(3):
        expected = alone.step(number)
        assert step(gang, number, together) == pytest.approx([expected] * 2, rel=1e-3)
    assert_equal(gang[0].network.state_dict(), gang[1].network.state_dict())


def test_two_workers_train_one_detector(data, together):
    gang = workers(config(fit={"joint": True}), data)
    first, second = step(gang, 0, together)
    assert first == second
    assert_equal(gang[0].parameters, gang[1].parameters)


def workers(settings, data):
    return [settings.open_fit(data, Worker(device="cpu", rank=rank, num_workers=2)) for rank in range(2)]


def step(gang, number, together):
    return together([lambda one=one: one.step(number) for one in gang])


def test_a_picture_is_refined_alike_whatever_it_is_batched_with(data, tmp_path):
    refiner = fitted(config(), data, tmp_path / "r.safetensors").refiner
    pictures, labels = [read(image.uri) for image in data.images[:9]], [noisy(one, 0.4, 1) for one in data.images[:9]]
    together = refiner.refine(pictures, labels)
    for number in (0, 8):
        (alone,) = refiner.refine(pictures[number : number + 1], labels[number : number + 1])
        assert np.array_equal(alone.boxes, together[number].boxes)
        assert np.array_equal(alone.confidence, together[number].confidence)


@pytest.mark.parametrize("mirror", MIRRORS[1:])
def test_in_a_mirrored_picture_the_refined_boxes_are_the_mirrored_ones(data, tmp_path, mirror):
    refiner = fitted(config(), data, tmp_path / "r.safetensors").refiner
    image, label = data.images[0], noisy(data.images[0], 0.4, 1)
    pixels, size = read(image.uri), (image.height, image.width)
    other = replace(label, boxes=mirrored_boxes(label.boxes, size, mirror))
    (plain,), (turned,) = refiner.refine([pixels], [label]), refiner.refine([mirrored_pixels(pixels, mirror)], [other])
    np.testing.assert_allclose(mirrored_boxes(turned.boxes, size, mirror), plain.boxes, atol=1e-3)
    np.testing.assert_allclose(turned.confidence, plain.confidence, atol=1e-5)


def test_a_warm_start_takes_the_refiners_weights(data, tmp_path):
    uri = str(tmp_path / "r.safetensors")
    first = fitted(config(), data, uri).fit
    again = config().open_fit(data, CPU)
    again.warm_start(uri)
    assert_equal(again.network.state_dict(), first.network.state_dict())
    with pytest.raises(ValueError, match="holds ultralytics small"):
        again.warm_start(data.detector.uri)


# Joint training


def test_a_joint_fit_trains_the_detector_and_the_checkpoint_holds_it(data, tmp_path):
    uri, own = str(tmp_path / "r.safetensors"), str(tmp_path / "d.safetensors")
    before, alone, joint = (
        read_checkpoint(data.detector.uri)[1],
        *(fitted(config(fit={"joint": flag}), data, uri) for flag in (False, True)),
    )
    assert not alone.fit.parameters
    write_detector(uri, own)
    header, after = read_checkpoint(own)
    assert header == read_checkpoint(data.detector.uri)[0]
    moved = {name for name, one in after.items() if not torch.equal(one, before[name])}
    assert moved <= set(joint.fit.parameters)
    assert {"model.0.conv.weight", "model.5.cv2.0.2.bias"} <= moved
    data.detector.config.load(own)


def test_the_detectors_loss_has_the_refined_boxes_as_constants(data):
    fit = config(fit={"joint": True}).open_fit(data, CPU)
    examples = [fit.examples.example(0, place) for place in range(2)]
    seen = []
    fit.detector = Recorder(fit.detector.maps, seen)
    fit.loss(examples)
    (annotations,) = seen
    for example, annotation in zip(examples, annotations, strict=True):
        used = ~example.annotation.ignore
        assert np.array_equal(annotation.ignore, example.annotation.ignore)
        assert not np.allclose(annotation.boxes[used], example.annotation.boxes[used])


class Recorder:
    """A detector's maps, and a loss that notes what it is given."""

    def __init__(self, maps, seen):
        self.maps, self.seen = maps, seen

    def __call__(self, _parameters, _images, annotations):
        self.seen.append(annotations)
        return torch.zeros(())


# The refiner


def test_ignored_boxes_stay_and_refined_ones_lie_in_the_picture(data, tmp_path):
    refiner = fitted(config(), data, tmp_path / "r.safetensors").refiner
    boxes = np.array([[0, 0, 20, 20], [10, 10, 30, 30], [80, 60, 96, 72]], np.float32)
    label = Annotation(boxes=boxes, labels=np.array([0, 1, 1]), ignore=np.array([False, True, False]))
    found, nothing = refiner.refine([read(data.images[0].uri)] * 2, [label, Annotation.empty()])
    assert found.boxes[1].tolist() == [10, 10, 30, 30]
    assert found.confidence[1] == 0
    assert (found.confidence[[0, 2]] > 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [96, 72, 96, 72]).all()
    assert nothing.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    "keys",
    [{"stages": 1, "spsd": False, "sisd": False}, {"stages": 1, "sisd": False}, {"spsd": False}, {"sisd": False}],
)
def test_every_part_can_be_left_out(keys, data, tmp_path):
    result = fitted(config(**keys), data, tmp_path / "r.safetensors", steps=1)
    names = set(result.fit.network.state_dict())
    assert any(name.startswith("identity.") for name in names) == keys.get("sisd", True)
    assert any(name.startswith("positions.") for name in names) == keys.get("spsd", True)
    assert any(name.startswith("stages.1.") for name in names) == (keys.get("stages", 2) == 2)
    (found,) = result.refiner.refine([read(data.images[0].uri)], [data.images[0].annotation])
    assert np.isfinite(found.boxes).all()


def test_pictures_may_be_read_larger_than_the_detector_does(data, tmp_path):
    result = fitted(config(image_size_px=2 * SIZE_PX), data, tmp_path / "r.safetensors", steps=1)
    assert result.refiner.size_px == 2 * SIZE_PX
    (found,) = result.refiner.refine([read(data.images[0].uri)], [data.images[0].annotation])
    assert (found.boxes <= [96, 72, 96, 72]).all()


def test_a_checkpoint_that_does_not_fit_is_refused(data, tmp_path):
    uri = tmp_path / "r.safetensors"
    fitted(config(), data, uri, steps=1)
    with pytest.raises(ValueError, match="does not fit the keys of the refiner"):
        config(width=32).build(data.detector.config, str(uri))
    with pytest.raises(ValueError, match="no fitted refiner"):
        config().build(data.detector.config, data.detector.uri)
    with pytest.raises(ValueError, match="fit it on the run's images first"):
        config().build(data.detector.config)
    with pytest.raises(ValueError, match="detector says"):
        config().build(UltralyticsConfig(model="yolo11n.yaml"), str(uri))


def test_there_has_to_be_a_box_and_a_detector(data):
    bare = tuple(replace(image, annotation=Annotation.empty()) for image in data.images)
    with pytest.raises(ValueError, match="24 training images without a box"):
        config().open_fit(replace(data, images=bare), CPU)
    with pytest.raises(ValueError, match="none is given"):
        config().open_fit(replace(data, detector=None), CPU)


# The configs


def test_the_kinds_are_known_by_name():
    adapter = TypeAdapter(RefinerConfig)
    identity = adapter.validate_python({"kind": "identity"})
    assert not identity.learns
    assert adapter.validate_python({"kind": "ssddet"}).learns
    with pytest.raises(ValidationError, match="set stages to 2"):
        adapter.validate_python({"kind": "ssddet", "stages": 1})


def test_identity_leaves_boxes_and_ignores_what_is_ignored():
    boxes = np.array([[0, 0, 20, 20], [10, 10, 30, 30]], np.float32)
    label = Annotation(boxes=boxes, labels=np.array([0, 1]), ignore=np.array([False, True]))
    refiner = TypeAdapter(RefinerConfig).validate_python({"kind": "identity"}).build(UltralyticsConfig())
    (found,) = refiner.refine([np.zeros((40, 40, 3), np.uint8)], [label])
    assert np.array_equal(found.boxes, boxes)
    assert found.confidence.tolist() == [1, 0]


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
