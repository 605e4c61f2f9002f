"""DetectorGAN on small pictures: fit, resume, workers, places, and what the generator draws where."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import LAYERS
from held_constants import write_lively_yolo
from pydantic import ValidationError

from actors.detectors.torchvision.component import TorchvisionConfig
from actors.fitting import DetectorCheckpoint, FitData, Worker
from actors.generators.insertion_gan import losses
from actors.generators.insertion_gan.batches import Windows, drawn_views, real_views
from actors.generators.insertion_gan.component import InsertionGANConfig
from actors.generators.insertion_gan.examples import Examples
from actors.generators.insertion_gan.networks import coarse, hidden, local_crops
from actors.generators.insertion_gan.painting import Turn, turned, turned_back
from actors.generators.insertion_gan.places import Places
from actors.generators.insertion_gan.pool import Pool
from actors.generators.insertion_gan.scene import (
    Scene,
    cut_view,
    mask_in_picture,
    turned_picture,
    view_annotation,
    view_frame,
    window_frame,
)
from actors.images import encode_png, read
from actors.records import Annotation, Difficulty, LabeledImage, Lineage

CLASSES = ("blue", "red")
FIT = {
    "steps": 4,
    "batch_size": 4,
    "warmup_steps": 1,
    "detector_every": 1,
    "detector_batch_size": 2,
    "view_px": 64,
    "local_px": 16,
    "pool_size": 2,
}
SMALL = {"size_px": 32, "channels": (8, 16), "judge_channels": (8, 16), "places": "uniform"}
CONFIG = InsertionGANConfig(**SMALL, fit=FIT)
PLAIN = InsertionGANConfig(**SMALL, fit={**FIT, "syn_weight": 0.0, "unroll_weight": 0.0})


def picture(folder, name: str, boxes: list[list[int]], seed: int) -> LabeledImage:
    """A noisy grey picture with a blue, then a red box."""
    pixels = np.random.default_rng(seed).normal(110, 8, (64, 96, 3))
    for (left, top, right, bottom), colour in zip(boxes, ((30, 40, 230), (235, 50, 50)), strict=False):
        pixels[top:bottom, left:right] = colour
    file = folder / f"{name}.png"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(encode_png(pixels.clip(0, 255).astype(np.uint8)))
    annotation = Annotation(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.arange(len(boxes)),
        ignore=np.zeros(len(boxes), bool),
    )
    return LabeledImage(id=f"{name}.png", uri=str(file), width=96, height=64, annotation=annotation)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> FitData:
    folder = tmp_path_factory.mktemp("images")
    images = [picture(folder, str(seed), [[6, 8, 22, 22], [60, 30, 76, 48]], seed) for seed in range(4)]
    clean = tuple(picture(folder, f"clean/{seed}", [], seed) for seed in range(10, 13))
    config, uri = write_lively_yolo(folder, write_model(folder), CLASSES, 96)
    detector = DetectorCheckpoint(config=config, uri=uri, overrides={"lr0": 0.01})
    hard = ((Difficulty.HARD,) * 2,) * 4
    return FitData(classes=CLASSES, images=tuple(images), difficulties=hard, seed=3, detector=detector, clean=clean)


def write_model(folder) -> str:
    (folder / "model.yaml").write_text(LAYERS)
    return str(folder / "model.yaml")


def run(config: InsertionGANConfig, data: FitData, worker: Worker | None = None):
    fit = config.open_fit(data, worker or Worker(device="cpu"))
    for step in range(fit.num_steps):
        fit.step(step)
    return fit


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory) -> str:
    uri = str(tmp_path_factory.mktemp("fit") / "generator.safetensors")
    run(CONFIG, data).save(uri)
    return uri


def weights(fit) -> torch.Tensor:
    parts = [fit.painters, fit.judges, fit.average]
    return torch.cat([value.flatten().double() for part in parts for value in part.state_dict().values()])


# Fit


def test_a_fit_that_is_resumed_gives_equal_weights(data):
    whole = run(CONFIG, data)
    first, second = (CONFIG.open_fit(data, Worker(device="cpu")) for _ in range(2))
    for step in range(2):
        first.step(step)
    second.restore(first.state())
    for step in range(2, 4):
        second.step(step)
    assert torch.equal(weights(second), weights(whole))
    trained = (fit.detector.detector.parameters.values() for fit in (second, whole))
    assert all(torch.equal(one, other) for one, other in zip(*trained, strict=True))


def test_the_detector_changes_the_fit_and_is_trained_in_it(data):
    plain, syn = run(PLAIN, data), run(InsertionGANConfig(**SMALL, fit={**FIT, "unroll_weight": 0.0}), data)
    both = run(CONFIG, data)
    assert not torch.equal(weights(plain), weights(syn))
    assert not torch.equal(weights(syn), weights(both))
    assert plain.detector is None
    start = data.detector.open_loss(device="cpu").parameters
    assert any(not torch.equal(start[name], value) for name, value in both.detector.detector.parameters.items())


@pytest.mark.parametrize("on", ["syn_weight", "unroll_weight"])
def test_a_term_of_the_detector_pulls_by_its_weight_as_strongly_as_all_other_losses(data, on):
    weights_of_terms = {"syn_weight": 0.0, "unroll_weight": 0.0, on: 0.4}
    config = InsertionGANConfig(**SMALL, fit={**FIT, "warmup_steps": 0, **weights_of_terms})
    fit = config.open_fit(data, Worker(device="cpu"))
    empty = [fit.examples.without_object(0, place) for place in range(4)]
    drawn = fit._draw(empty, [fit.examples.with_object(0, place) for place in range(4)], 0)
    images, terms = drawn.inserted.images, fit._terms(empty, drawn, 0)
    loss = fit._painters_loss(drawn, 0)
    guidance = fit._guidance(images, loss, terms)
    assert guidance.item() == 0
    pull, others = (torch.autograd.grad(one, images, retain_graph=True)[0] for one in (guidance, loss))
    assert pull.norm().item() == pytest.approx(0.4 * others.norm().item(), rel=1e-4)
    own = torch.autograd.grad(terms.synthetic if on == "syn_weight" else terms.unrolled, images)[0]
    assert torch.nn.functional.cosine_similarity(pull.flatten(), own.flatten(), dim=0).item() == pytest.approx(1)


def test_the_detector_waits_for_the_warm_up_and_takes_turns(data, monkeypatch):
    fit = InsertionGANConfig(**SMALL, fit={**FIT, "steps": 6, "warmup_steps": 1, "detector_every": 2})
    running, turns = fit.open_fit(data, Worker(device="cpu")), []
    terms = running.detector.terms
    monkeypatch.setattr(running.detector, "terms", lambda *given: turns.append(number) or terms(*given))
    for number in range(6):
        running.step(number)
    assert turns == [1, 3, 5]


def test_only_a_fit_with_detector_terms_depends_on_the_detector(data):
    assert CONFIG.uses_detector
    assert not PLAIN.uses_detector
    assert run(PLAIN, replace(data, detector=None)).detector is None
    with pytest.raises(ValueError, match="no detector is given"):
        CONFIG.open_fit(replace(data, detector=None), Worker(device="cpu"))


def test_the_rate_of_the_detector_is_its_own_unless_the_config_has_one(data):
    assert CONFIG.open_fit(data, Worker(device="cpu")).detector.eta == 0.01
    faster = InsertionGANConfig(**SMALL, fit={**FIT, "detector_lr": 0.2, "unroll_lr_factor": 3.0})
    assert faster.open_fit(data, Worker(device="cpu")).detector.eta == pytest.approx(0.6)
    unset = replace(data, detector=replace(data.detector, overrides={}))
    assert CONFIG.open_fit(unset, Worker(device="cpu")).detector.eta == 0.001


def test_workers_share_a_batch_and_end_with_equal_weights(data, together):
    fits = [CONFIG.open_fit(data, Worker(device="cpu", rank=rank, num_workers=2)) for rank in range(2)]
    found = together([lambda one=one: [one.step(number) for number in range(3)] for one in fits])
    assert found[0] == found[1]
    for name in ("insert.leave.weight", "remove.leave.weight"):
        assert torch.equal(*(fit.painters.state_dict()[name] for fit in fits))
    trained = (fit.detector.detector.parameters.values() for fit in fits)
    assert all(torch.equal(one, other) for one, other in zip(*trained, strict=True))
    with pytest.raises(ValueError, match=r"fit\.batch_size \(4\) is no multiple of 3 workers"):
        CONFIG.open_fit(data, Worker(device="cpu", num_workers=3))


def test_previews_are_the_same_whatever_came_before_and_change_nothing(data):
    fit = run(PLAIN, data)
    before = weights(fit)
    one, other = fit.preview(), fit.preview()
    assert torch.equal(weights(fit), before)
    for first, second in zip(one, other, strict=True):
        assert list(first.drawn) == ["inserted", "a real object", "that removed"]
        assert all((first.drawn[name] == second.drawn[name]).all() for name in first.drawn)
        assert (first.drawn["inserted"] != first.real).any()


def test_the_box_of_a_preview_frames_the_real_object(data):
    for number, one in enumerate(PLAIN.open_fit(data, Worker(device="cpu")).preview()):
        assert (one.heading, one.difficulties) == ("place", ())
        assert one.others["that removed"] is one.others["a real object"]
        left, top, right, bottom = one.others["a real object"].boxes[0].round().astype(int)
        channels = one.drawn["a real object"][top + 2 : bottom - 2, left + 2 : right - 2].mean(axis=(0, 1))
        assert channels.argmax() == (2, 0)[number % 2]  # blue, red
        assert channels.max() > 200
        assert one.annotation.labels.tolist() == one.others["a real object"].labels.tolist()


def test_a_warm_start_has_the_saved_networks(data, fitted):
    fit = CONFIG.open_fit(data, Worker(device="cpu"))
    fresh = weights(fit)
    fit.warm_start(fitted)
    again = CONFIG.open_fit(data, Worker(device="cpu"))
    again.warm_start(fitted)
    assert torch.equal(weights(again), weights(fit))
    assert not torch.equal(weights(fit), fresh)
    other = InsertionGANConfig(**{**SMALL, "channels": (8, 8)}, fit=FIT)
    with pytest.raises(ValueError, match="is asked for"):
        other.open_fit(data, Worker(device="cpu")).warm_start(fitted)


def test_what_cannot_be_fitted_is_refused(data):
    empty = tuple(replace(image, annotation=Annotation.empty()) for image in data.images)
    with pytest.raises(ValueError, match="no box to fit on"):
        PLAIN.open_fit(replace(data, images=empty, difficulties=((),) * 4), Worker(device="cpu"))
    one = replace(data, images=data.images[:1], difficulties=data.difficulties[:1])
    with pytest.raises(ValueError, match="two images with boxes"):
        CONFIG.open_fit(one, Worker(device="cpu"))
    with pytest.raises(ValueError, match="two images with boxes"):
        CONFIG.check_images((*one.images, *empty), data.clean)
    PLAIN.check_images(one.images, ())


# Scenes


def test_scenes_depend_on_seed_step_and_place_alone(data):
    one, other = (Examples(CONFIG, data) for _ in range(2))
    other.without_object(7, 7)
    for first, second in (
        (one.with_object(1, 2), other.with_object(1, 2)),
        (one.without_object(1, 2), other.without_object(1, 2)),
    ):
        assert (first.pixels == second.pixels).all()
        assert (first.box == second.box).all()
        assert first.frame == second.frame


def test_without_clean_images_objects_are_inserted_beside_those_of_the_training_images(data):
    examples = Examples(CONFIG, replace(data, clean=()))
    for place in range(20):
        scene = examples.without_object(0, place)
        assert len(scene.others) == 2
        own, others = scene.box, scene.others.boxes
        shared = np.minimum(own[2:], others[:, 2:]) - np.maximum(own[:2], others[:, :2])
        assert (shared <= 0).any(axis=1).all()


@pytest.mark.parametrize(
    ("places", "width", "message"),
    [
        ("context", 12, r"smaller than the objects: images of 20x12 px at most, objects of 16x14 px .* larger images$"),
        ("context", 14, r"clean\): images of 20x14 px at most, objects of 16x14 px at least; .*places: uniform"),
    ],
)
def test_clean_images_that_are_too_small_are_told_with_sizes(data, tmp_path, places, width, message):
    """The objects are 16 x 14 and 16 x 18 px."""
    (tmp_path / "small.png").write_bytes(encode_png(np.full((20, width, 3), 110, np.uint8)))
    small = replace(data.clean[0], uri=str(tmp_path / "small.png"), width=width, height=20)
    config = InsertionGANConfig(**{**SMALL, "places": places}, fit=FIT)
    with pytest.raises(ValueError, match=message):
        Examples(config, replace(data, clean=(small,))).without_object(0, 0)


def test_training_images_without_room_ask_for_clean_ones(data):
    boxes = np.array([[0, 0, 96, 64], [0, 0, 90, 60]], np.float32)
    full = tuple(replace(one, annotation=replace(one.annotation, boxes=boxes)) for one in data.images)
    with pytest.raises(ValueError, match=r"found in the training images; give images without objects \(data\.clean\)$"):
        Examples(CONFIG, replace(data, images=full, clean=())).without_object(0, 0)


def test_real_views_of_the_inner_and_the_outer_batch_are_of_different_images(data):
    examples = Examples(CONFIG, data)
    for step in range(5):
        pairs = examples.real_pairs(step, 6)
        inner, outer = ({scene.pixels.tobytes() for scene in side} for side in zip(*pairs, strict=True))
        assert not {bytes(sorted(one)) for one in inner} & {bytes(sorted(one)) for one in outer}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_a_turned_box_still_frames_its_pixels(turns, mirrored):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[3:9, 4:16] = 255
    shown, boxes = turned_picture(pixels, np.array([[4, 3, 16, 9]], np.float32), turns, mirrored=mirrored)
    left, top, right, bottom = boxes[0].astype(int)
    assert shown.shape[:2] == ((20, 30) if turns % 2 == 0 else (30, 20))
    assert (shown[top:bottom, left:right] == 255).all()
    assert (right - left) * (bottom - top) == 72


def test_a_mask_is_the_box_with_its_margin_or_the_ellipse_in_it():
    box, nothing = np.array([20, 20, 40, 30], np.float32), np.zeros((0, 4), np.float32)
    square = mask_in_picture(CONFIG, (60, 60), box, nothing)
    assert square.sum() == 24 * 12  # 10 % on each side
    round_one = mask_in_picture(CONFIG.model_copy(update={"mask": "ellipse"}), (60, 60), box, nothing)
    assert not (round_one & ~square).any()
    assert round_one.sum() == pytest.approx(np.pi * 12 * 6, rel=0.05)
    neighbour = np.array([[30, 0, 60, 60]], np.float32)
    assert mask_in_picture(CONFIG, (60, 60), box, neighbour).sum() == 12 * 12


def test_a_shifted_window_still_holds_its_mask():
    box = np.array([30, 30, 46, 50], np.float32)
    for seed in range(20):
        place = window_frame(CONFIG, box, np.random.default_rng(seed))
        left, top, right, bottom = place.to_window(box, 32)
        assert left >= 1.6 - 1e-4
        assert top >= 2 - 1e-4
        assert right <= 32 - 1.6 + 1e-4
        assert bottom <= 32 - 2 + 1e-4


def test_a_view_lies_in_the_picture_and_is_grey_where_there_is_none():
    pixels = np.zeros((64, 96, 3), np.uint8)
    corner = view_frame(pixels, np.array([90, 60, 96, 64], np.float32), image_size_px=48, view_px=24)
    assert (corner.left, corner.top, corner.side) == (48, 16, 48)
    whole = view_frame(pixels, np.array([90, 60, 96, 64], np.float32), image_size_px=32, view_px=160)
    assert (whole.left, whole.top, whole.side) == (0, 0, 96)
    view = cut_view(pixels, whole)
    assert not view[:64].any()
    assert (view[64:] == 114).all()


def test_boxes_of_a_view_are_scaled_and_cut_ones_ignored():
    boxes = np.array([[10, 10, 20, 20], [45, 0, 65, 10], [70, 0, 80, 10]], np.float32)
    given = Annotation(boxes=boxes, labels=np.arange(3), ignore=np.zeros(3, bool))
    found = view_annotation(given, view_frame(np.zeros((96, 96, 3), np.uint8), boxes[0], 96, 48), 48)
    assert found.boxes.tolist() == [[10, 10, 20, 20], [45, 0, 48, 10]]
    assert found.ignore.tolist() == [False, True]


def test_a_window_is_put_back_at_its_place_at_the_detectors_scale():
    box, rng = np.array([40, 20, 60, 30], np.float32), np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 96, 3), np.uint8)
    scene = Scene(pixels=pixels, others=Annotation.empty(), box=box, label=0, frame=window_frame(CONFIG, box))
    own = Windows.of(CONFIG, [scene], "cpu")
    unchanged = drawn_views([scene], own, 48, 48)
    changed = drawn_views([scene], replace(own, images=own.images + 0.5 * (own.masks > 0)), 48, 48)
    assert torch.allclose(unchanged.images, real_views([scene], 48, 48, "cpu").images, atol=1e-6)
    difference = (changed.images - unchanged.images)[0, 0]
    rows, columns = np.nonzero(difference.numpy() > 0.01)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (19, 9, 30, 15)  # at half the size
    assert float(difference.max()) == pytest.approx(0.25)
    assert changed.annotations[0].boxes.tolist() == [[20, 10, 30, 15]]


# Losses, pool


def test_losses_count_the_mask_or_what_lies_outside():
    images, mask = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    other = images + torch.tensor([1.0, 1.0, 0.25, 0.25])
    assert losses.cycle_loss(other, images, mask).item() == pytest.approx(1.0)
    assert losses.outside_loss(other, images, mask).item() == pytest.approx(0.25)
    assert losses.looks_real(torch.zeros(3)).item() == 1.0
    assert losses.tells_apart(torch.ones(3), torch.zeros(3)).item() == 0.0
    assert losses.tells_apart(torch.zeros(3), torch.ones(3)).item() == 1.0


def test_the_removing_generator_is_not_shown_the_mask_and_the_inserting_one_no_detail_in_it():
    images, masks = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    masks[..., 4:12, 4:12] = 0.5
    inside = (masks > 0).expand_as(images)
    assert not hidden(images, masks)[inside].any()
    assert torch.equal(hidden(images, masks)[~inside], images[~inside])
    assert torch.equal(coarse(images, masks)[~inside], images[~inside])
    tiles = torch.zeros(1, 3, 16, 16)
    tiles[..., ::2, :] = 1
    assert torch.equal(coarse(tiles, masks)[inside], torch.full((192,), 0.5))


def test_a_local_crop_shows_the_object_alone():
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 8:24, 4:12] = 1
    crops, masks = local_crops(images, images[:, :1], torch.tensor([[4.0, 8.0, 12.0, 24.0]]), 16)
    assert crops.shape == (1, 3, 16, 16)
    assert crops[..., 1:-1, 1:-1].min() == 1
    assert masks.shape == (1, 1, 16, 16)


def test_the_pool_shows_windows_that_were_drawn_earlier():
    def windows(value: float) -> Windows:
        one = torch.full((1, 1, 1, 1), value)
        return Windows(images=one, masks=one, labels=torch.tensor([0]), boxes=torch.zeros(1, 4))

    pool, rng = Pool(2), np.random.default_rng(0)
    shown = [pool.exchange(windows(float(number)), rng).images.item() for number in range(60)]
    assert shown[:2] == [0.0, 1.0]
    late = [number - value for number, value in enumerate(shown)]
    assert all(delay >= 0 for delay in late)
    assert 15 < sum(delay > 0 for delay in late) < 45


# Places


def test_objects_are_placed_where_the_masks_allow_it(data, tmp_path):
    mask = np.zeros((64, 96, 3), np.uint8)
    mask[20:40, 50:70] = 255
    (tmp_path / "10.png").write_bytes(encode_png(mask))
    config = InsertionGANConfig(**{**SMALL, "places": "masks"}, place_masks=str(tmp_path), fit=FIT)
    places = Places(config, {image.id: image for image in (*data.images, *data.clean)})
    rng, canvas = np.random.default_rng(0), data.clean[0]
    for _ in range(20):
        box = places.find(canvas, np.zeros((0, 4), np.float32), ("0.png", 0), rng).box
        x, y = (box[:2] + box[2:]) / 2
        assert 49.5 <= x <= 70.5
        assert 19.5 <= y <= 40.5


def test_masks_that_allow_no_place_are_refused_before_a_fit(data, tmp_path):
    config = InsertionGANConfig(**{**SMALL, "places": "masks"}, place_masks=str(tmp_path), fit=FIT)
    places = Places(config, {image.id: image for image in (*data.images, *data.clean)})
    white, black = (encode_png(np.full((64, 96, 3), value, np.uint8)) for value in (255, 0))
    for name, content in (("10.png", white), ("12.png", black)):
        (tmp_path / name).write_bytes(content)
    config.check_images(data.images, data.clean[:1])
    for image, error, message in (
        (data.clean[1], FileNotFoundError, r"11\.png is missing; give each image without objects a mask"),
        (data.clean[2], ValueError, r"the mask of 'clean/12\.png' allows no place"),
    ):
        with pytest.raises(error, match=message):
            places.find(image, np.zeros((0, 4), np.float32), ("0.png", 0), np.random.default_rng(0))
        with pytest.raises(error, match=message):
            config.check_images(data.images, (data.clean[0], image))
    file = config.model_copy(update={"place_masks": str(tmp_path / "10.png")})
    assert [need.is_folder for need in file.needs()] == [True]
    with pytest.raises(NotADirectoryError, match="is no folder; give the folder of the masks"):
        file.check_images(data.images, data.clean)


def test_a_place_in_context_has_the_surroundings_of_a_real_instance(tmp_path):
    """The object lies on an edge between black and white, and so do its places."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, 48:] = 255
    (tmp_path / "edge.png").write_bytes(encode_png(pixels))
    box = Annotation(boxes=np.array([[40, 20, 56, 36]], np.float32), labels=np.zeros(1, int), ignore=np.zeros(1, bool))
    image = LabeledImage(id="edge.png", uri=str(tmp_path / "edge.png"), width=96, height=64, annotation=box)
    config = InsertionGANConfig(**{**SMALL, "places": "context"}, rotate=False, flip=False, fit=FIT)
    places = Places(config, {image.id: image})
    for seed in range(5):
        found = places.find(image, box.boxes, ("edge.png", 0), np.random.default_rng(seed))
        assert abs(found.box[0] - 40) <= 1
        assert found.seam < 20


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"places": "masks"}, "takes the folder place_masks"),
        ({"place_masks": "somewhere"}, "other places take none"),
        ({"context": 1.1}, "leaves nothing of the window"),
        ({"judge_channels": (8,) * 6}, "take at least 128 px"),
        ({"fit": {"batch_size": 2}}, "is more than batch_size"),
    ],
)
def test_a_config_that_cannot_work_is_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        InsertionGANConfig(**keys)


@pytest.mark.parametrize("parameters", ["all", ("roi_heads.", "backbone.fpn"), ("",)])
def test_parameters_without_a_second_derivative_are_not_unrolled(parameters):
    def config(**changes) -> InsertionGANConfig:
        return InsertionGANConfig(fit={"unroll_parameters": parameters, **changes})

    with pytest.raises(ValueError, match=r"unroll_parameters: the loss .* has no second derivative .* backbone\.\*"):
        config().check_sections(TorchvisionConfig(model="fasterrcnn"), has_clean=False)
    config().check_sections(TorchvisionConfig(model="retinanet"), has_clean=False)
    config(unroll_weight=0.0).check_sections(TorchvisionConfig(model="fasterrcnn"), has_clean=False)
    for allowed in ("head", ("roi_heads.", "rpn.")):
        config(unroll_parameters=allowed).check_sections(TorchvisionConfig(model="fasterrcnn"), has_clean=False)


# Generator


def test_a_window_that_is_turned_and_back_is_the_same():
    turns = [Turn(quarters=quarters, mirrored=mirrored) for quarters in range(4) for mirrored in (False, True)]
    windows = torch.rand(1, 3, 8, 8).expand(8, 3, 8, 8)
    shown = turned(windows, turns)
    assert torch.equal(turned_back(shown, turns), windows)
    assert len({one.numpy().tobytes() for one in shown}) == 8
    assert torch.equal(turned(windows, [Turn(quarters=1, mirrored=False)] * 8)[0, 0, 7], windows[0, 0, :, 0])


def test_windows_are_turned_as_in_the_fit():
    upright = CONFIG.model_copy(update={"rotate": False, "flip": False})
    assert {Turn.of(upright, seed) for seed in range(40)} == {Turn(quarters=0, mirrored=False)}
    assert len({Turn.of(CONFIG, seed) for seed in range(80)}) == 8


def lineage(seed: int, *indices: int, image: str = "0.png") -> Lineage:
    return Lineage(round=1, image_id=image, box_indices=indices, generator="insertion_gan", seed=seed)


def test_objects_are_inserted_into_clean_images_and_nothing_else_changes(data, fitted):
    generator = CONFIG.build(data.images, CLASSES, fitted, data.clean)
    clean = {image.id: read(image.uri) for image in data.clean}
    for candidate in generator.generate([lineage(seed, 0, 1) for seed in range(4)]):
        before = clean[candidate.canvas]
        outside = candidate.painted == -1
        assert (candidate.pixels[outside] == before[outside]).all()
        assert (candidate.pixels[~outside] != before[~outside]).any()
        assert np.abs(candidate.pixels.astype(int) - before)[outside].mean() < 2
        assert candidate.annotation.labels.tolist() == [0, 1]
        assert candidate.drawn.all()
        assert not candidate.refused
        for index, box in enumerate(candidate.annotation.boxes):
            sides = box[2:] - box[:2]
            rows, columns = np.nonzero(candidate.painted == index)
            assert columns.min() >= box[0] - 0.1 * sides[0] - 1
            assert rows.max() <= box[3] + 0.1 * sides[1] + 1


def test_a_candidate_depends_on_its_lineage_alone(data, fitted):
    generator = CONFIG.build(data.images, CLASSES, fitted, data.clean)
    lineages = [lineage(seed, 0, 1) for seed in range(5)]
    together = generator.generate(lineages)
    again = CONFIG.build(data.images, CLASSES, fitted, data.clean)
    for one, candidate in zip(reversed(lineages), reversed(together), strict=True):
        (alone,) = again.generate([one])
        assert (alone.pixels == candidate.pixels).all()
        assert (alone.annotation.boxes == candidate.annotation.boxes).all()
    assert (together[0].pixels != together[1].pixels).any()


def test_without_clean_images_another_training_image_is_the_canvas(data, fitted):
    generator = CONFIG.build(data.images, CLASSES, fitted)
    for candidate in generator.generate([lineage(seed, 1) for seed in range(6)]):
        assert candidate.canvas in {"1.png", "2.png", "3.png"}
        assert candidate.annotation.labels.tolist() == [0, 1, 1]
        assert candidate.drawn.tolist() == [False, False, True]
        own = read(next(image.uri for image in data.images if image.id == candidate.canvas))
        for left, top, right, bottom in candidate.annotation.boxes[:2].astype(int):
            assert (candidate.pixels[top:bottom, left:right] == own[top:bottom, left:right]).all()


def test_a_candidate_without_room_is_refused(fitted, tmp_path):
    full = picture(tmp_path, "full", [[0, 0, 96, 64], [0, 0, 90, 60]], 0)
    (candidate,) = CONFIG.build([full], CLASSES, fitted).generate([lineage(0, 0, image="full.png")])
    assert candidate.refused == "generator: no_room"
    assert not candidate.drawn.any()


def test_what_does_not_exist_is_named(data, fitted):
    generator = CONFIG.build(data.images, CLASSES, fitted, data.clean)
    with pytest.raises(ValueError, match=r"'no\.png' is no training image"):
        generator.generate([lineage(0, 0, image="no.png")])
    with pytest.raises(ValueError, match="no checkpoint of a fit is given"):
        CONFIG.build(data.images, CLASSES)
