"""Utility against what a small step on a candidate does to the real loss, on a small detector of each family."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter

from actors.detectors.torchvision.component import TorchvisionConfig
from actors.detectors.ultralytics.component import UltralyticsConfig
from actors.filters import FilterConfig
from actors.filters.base import DetectorAccess, HeldBack
from actors.filters.utility import RealLoss, UtilityConfig
from actors.fitting import DetectorCheckpoint
from actors.images import read
from actors.letterbox import to_tensor
from actors.records import Annotation, Candidate, Detections, Inspected, LabeledImage, Lineage

CLASSES, SIZE_PX, STEP = ("blue", "red"), 96, 1e-4
NUM_STEPS = {"ultralytics": 300, "torchvision": 40}
NUM_CANDIDATES = {"ultralytics": 50, "torchvision": 12}
COLOURS = ((40, 60, 230), (235, 60, 60))

pytestmark = pytest.mark.slow


def scene(rng, colours=COLOURS, shift=0):
    """A noisy grey picture of 96 x 72 px with a blue and a red box; labels are off by ``shift`` px."""
    pixels, boxes = rng.normal(110, 12, (72, 96, 3)), []
    for place, colour in enumerate(colours):
        width, height = rng.integers(16, 30, 2)
        x, y = 48 * place + rng.integers(6, 44 - width), rng.integers(6, 66 - height)
        pixels[y : y + height, x : x + width] = colour + rng.normal(0, 8, (height, width, 3))
        boxes.append((x + shift, y, x + shift + width, y + height))
    boxes = np.array(boxes, np.float32)
    annotation = Annotation(boxes=boxes, labels=np.array([0, 1]), ignore=np.zeros(2, np.bool_))
    return pixels.clip(0, 255).astype(np.uint8), annotation


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder, rng, made = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for number in range(6):
        pixels, annotation = scene(rng)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        made.append(
            LabeledImage(
                id=f"{number}.png", uri=str(folder / f"{number}.png"), width=96, height=72, annotation=annotation
            )
        )
    return tuple(made)


@pytest.fixture(scope="module", params=["ultralytics", "torchvision"])
def detector(request, tmp_path_factory, small_model):
    """A detector of the family, trained for a few seconds on other pictures."""
    torch.manual_seed(0)
    if request.param == "ultralytics":
        config = UltralyticsConfig(model=str(small_model), image_size_px=SIZE_PX)
    else:
        config = TorchvisionConfig(
            model="retinanet", backbone="mobilenet_v3_small", fpn_channels=64, image_size_px=SIZE_PX, anchor_px=16
        )
    uri = str(tmp_path_factory.mktemp("detector") / "detector.safetensors")
    network = config.architecture(len(CLASSES)).train()
    config.save_checkpoint(network, CLASSES, uri)
    train(config, network, uri)
    return DetectorCheckpoint(config=config, uri=uri, overrides={})


def train(config, network, uri):
    """Train all parameters with Adam, and write the checkpoint again."""
    loss = config.open_loss(uri, prefixes=[""], device="cpu")
    rng, optimizer = np.random.default_rng(1), torch.optim.Adam(loss.parameters.values(), 0.003)
    for _ in range(NUM_STEPS[config.kind]):
        scenes = [scene(rng) for _ in range(8)]
        canvas = to_tensor(np.stack([np.pad(one, ((0, 24), (0, 0), (0, 0))) for one, _ in scenes]))
        optimizer.zero_grad()
        loss(loss.parameters, canvas, [annotation for _, annotation in scenes]).backward()
        optimizer.step()
    network.load_state_dict(network.state_dict() | {name: one.detach() for name, one in loss.parameters.items()})
    config.save_checkpoint(network, CLASSES, uri)


@pytest.fixture(scope="module")
def fold(detector, images):
    return HeldBack(detector=detector, images=images)


def candidates(number=9):
    """Sound pictures, pictures with wrong labels, and pictures with the colours of the classes exchanged."""
    rng = np.random.default_rng(7)
    kinds = [{}, {"shift": 12}, {"colours": COLOURS[::-1]}]
    return [scene(rng, **kinds[place % 3]) for place in range(number)]


def inspected(pixels, annotation, canvas="", image_id="", examples=()):
    candidate = Candidate(
        pixels=pixels,
        annotation=annotation,
        drawn=np.ones(len(annotation), np.bool_),
        painted=np.full(pixels.shape[:2], -1, np.int16),
        canvas=canvas,
        lineage=Lineage(round=1, image_id=image_id, box_indices=(0,), generator="g", seed=0),
        examples=examples,
    )
    return Inspected(candidate=candidate, seen=Detections.empty())


def real_loss(fold, parameters):
    with torch.no_grad():
        found = [fold.value(read(image.uri), image.annotation, parameters).double() for image in fold.images.values()]
    return torch.stack(found).mean()


def stepped(fold, slope, size):
    """The parameters after a step of ``size`` against ``slope``."""
    values = fold.loss.parameters
    parts = slope.split([value.numel() for value in values.values()])
    return {
        name: (value - size * part.view_as(value)).detach()
        for (name, value), part in zip(values.items(), parts, strict=True)
    }


def test_utility_is_what_a_small_step_on_the_candidate_does_to_the_real_loss(fold):
    measured = RealLoss(fold)
    power = float(measured.real_gradient() @ measured.real_gradient())
    predicted, observed = [], []
    for pixels, annotation in candidates(NUM_CANDIDATES[fold.detector.config.kind]):
        slope = measured.gradient(pixels, annotation)
        size = STEP / float(slope.norm())
        before, after = (real_loss(measured, stepped(measured, slope, step)) for step in (-size, size))
        observed.append(float(before - after) / (2 * size * power))
        predicted.append(measured.utility(pixels, annotation))
    assert np.corrcoef(predicted, observed)[0, 1] > 0.95
    slope, _ = np.polyfit(predicted, observed, 1)  # the scale and the sign, too; YOLO's soft targets are held constant
    assert slope == pytest.approx(1.0, abs=0.35)


def test_a_real_image_of_the_fold_has_utility_one_on_average(fold, images):
    measured = RealLoss(fold)
    found = [measured.utility(read(image.uri), image.annotation) for image in images]
    assert np.mean(found) == pytest.approx(1.0, abs=1e-3)


def test_the_origins_of_a_candidate_do_not_count(fold, images):
    measured = RealLoss(fold)
    whole, rest = measured.real_gradient(), measured.real_gradient(frozenset({images[0].id, "elsewhere"}))
    own = measured.gradient(read(images[0].uri), images[0].annotation)
    torch.testing.assert_close(rest, (6 * whole - own) / 5)
    everything = frozenset(image.id for image in images)
    assert measured.utility(*candidates()[0], everything) == 0


def test_verdicts_drop_what_harms_and_depend_on_the_candidate_alone(fold):
    pictures = [inspected(*one) for one in candidates()]
    built = UtilityConfig().build({}, DetectorAccess(open_embed=lambda _: None, held_back=(fold, fold)))
    verdicts = built.judge(pictures)
    scores = [one.score for (one,) in verdicts]
    assert [(one.keep, one.reason) for (one,) in verdicts] == [
        (score >= 0, "" if score >= 0 else "harmful") for score in scores
    ]
    assert [built.judge([one])[0] for one in pictures] == verdicts
    threshold = float(np.median(scores))
    strict = UtilityConfig(min_utility=threshold)
    again = strict.build({}, DetectorAccess(open_embed=lambda _: None, held_back=(fold,))).judge(pictures)
    assert [one.keep for (one,) in again] == [score >= threshold for score in scores]
    assert {one.reason for (one,) in again} == {"", "harmful"}
    keep_all = replace_config(strict, min_utility=None)
    kept = keep_all.build({}, DetectorAccess(open_embed=lambda _: None, held_back=(fold,))).judge(pictures)
    assert all(one.keep for (one,) in kept)


def replace_config(config, **keys):
    return config.model_copy(update=keys)


def test_a_picture_without_drawn_boxes_is_not_judged(fold):
    pixels, annotation = candidates()[0]
    ignored = replace(annotation, ignore=np.ones(2, np.bool_))
    built = UtilityConfig().build({}, DetectorAccess(open_embed=lambda _: None, held_back=(fold,)))
    assert built.judge([inspected(pixels, ignored), inspected(pixels, Annotation.empty())]) == [(), ()]


def test_the_parameters_of_the_step_can_be_chosen(fold):
    head, everything = (RealLoss(fold, chosen).loss.parameters for chosen in ("head", "all"))
    assert 0 < len(head) < len(everything)
    some = next(iter(everything)).rpartition(".")[0]
    assert set(RealLoss(fold, (some,)).loss.parameters) < set(everything)
    with pytest.raises(ValueError, match="no parameter's name begins with"):
        RealLoss(fold, ("nowhere",))


def test_without_folds_the_filter_is_refused():
    config = TypeAdapter(FilterConfig).validate_python({"kind": "utility", "folds": 4})
    assert config.num_folds == 4
    with pytest.raises(ValueError, match="utility: needs cross-fitted detectors"):
        config.build({}, DetectorAccess(open_embed=lambda _: None))
