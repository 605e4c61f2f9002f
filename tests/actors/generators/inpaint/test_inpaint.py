"""Inpainting (Gen2Det, arXiv 2312.04566, Sec. 3.1): labels are copied, and nothing but the holes is touched."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from actors.boxes import intersections
from actors.generators.cutouts.cutout import Cutout, cut
from actors.generators.inpaint.clearing import ground
from actors.generators.inpaint.component import InpaintConfig
from actors.generators.inpaint.example import alike, compose, goes_on, seam, silhouette
from actors.generators.inpaint.generator import Inpaint
from actors.generators.inpaint.painters.crop.component import CropConfig
from actors.generators.inpaint.painters.diffusers_inpaint import DiffusersConfig
from actors.records import Annotation, Difficulty, LabeledImage, Lineage

COLOUR = 201  # what the painter below paints


class Paints:
    """Fills every window with one colour; ``refuses`` those of a label."""

    size_px, max_zoom = 16, 1.0

    def __init__(self, refuses=None, *, varies=False, attributes=None):
        self.refuses, self.varies, self.attributes, self.windows = refuses, varies, attributes or {}, []

    def paint(self, windows):
        self.windows += windows
        full = np.full((self.size_px, self.size_px, 3), COLOUR, np.uint8)
        return [None if window.label == self.refuses else full for window in windows]


@pytest.fixture
def scene(tmp_path):
    """An image with three boxes: two that touch, one apart. Its left half is dark, its right half light."""

    def write(*boxes, labels=None, name="a.png"):
        rng = np.random.default_rng(len(name))
        pixels = np.where(np.arange(96)[None, :, None] < 48, 40, 150) + rng.integers(0, 12, (80, 96, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
        annotation = Annotation(
            boxes=np.array(boxes, np.float32),
            labels=np.array(labels or [0] * len(boxes), np.int64),
            ignore=np.zeros(len(boxes), bool),
        )
        return LabeledImage(id=name, uri=str(tmp_path / name), width=96, height=80, annotation=annotation)

    return write


def lineage(image, *indices, seed=1):
    return Lineage(round=1, image_id=image.id, box_indices=indices, generator="inpaint", seed=seed)


def pixels_of(image):
    return np.asarray(Image.open(image.uri).convert("RGB"))


def test_labels_are_copied_and_pixels_outside_the_hole_are_the_images(scene):
    """Gen2Det, Sec. 3.1: labels are the source's; pixels outside the boxes stay as they were, bit for bit."""
    image = scene((10, 10, 26, 22), (60, 40, 80, 70), labels=[1, 0])
    candidate = Inpaint(InpaintConfig(margin=0.0), [image], Paints()).generate([lineage(image, 1)])[0]
    assert (candidate.annotation.boxes == image.annotation.boxes).all()
    assert candidate.annotation.labels.tolist() == [1, 0]
    assert candidate.drawn.tolist() == [False, True]
    inside = np.zeros((80, 96), bool)
    inside[40:70, 60:80] = True
    assert (candidate.pixels[~inside] == pixels_of(image)[~inside]).all()
    assert (candidate.pixels[44:66, 64:76] == COLOUR).all()
    assert ((candidate.painted == 1) == inside).all()


def test_a_neighbour_keeps_its_pixels(scene):
    image = scene((10, 10, 30, 30), (28, 10, 44, 30))
    candidate = Inpaint(InpaintConfig(), [image], Paints()).generate([lineage(image, 0)])[0]
    assert (candidate.pixels[10:30, 28:44] == pixels_of(image)[10:30, 28:44]).all()
    assert (candidate.pixels[14:26, 13:20] == COLOUR).all()


def test_a_box_that_lies_below_its_neighbours_is_left_as_it_is(scene):
    image = scene((10, 10, 30, 30), (8, 8, 26, 32), (60, 10, 70, 20))
    candidate = Inpaint(InpaintConfig(), [image], Paints()).generate([lineage(image, 0, 2)])[0]
    assert candidate.drawn.tolist() == [False, False, True]
    alone = Inpaint(InpaintConfig(), [image], Paints()).generate([lineage(image, 0)])[0]
    assert alone.refused == "generator: too_crowded"
    assert (alone.pixels == pixels_of(image)).all()


def test_with_insertion_a_box_below_its_neighbours_is_painted_elsewhere(scene):
    image = scene((10, 10, 30, 30), (8, 8, 26, 32), (60, 10, 80, 30))
    candidate = Inpaint(InpaintConfig(insert=1e-9), [image], Paints()).generate([lineage(image, 0)])[0]
    assert candidate.drawn.tolist() == [False, False, False, True]


@pytest.mark.parametrize("insert", [0.0, 1.0])
def test_an_example_is_hardened_once(scene, monkeypatch, insert):
    """Painted in its own box, or, whole or cut into, elsewhere."""
    image = scene((10, 10, 30, 30), (8, 8, 26, 32), (60, 10, 80, 30), labels=[0, 1, 0])
    hardened = []
    monkeypatch.setattr(InpaintConfig, "harden", lambda _, cutout, mode, __: hardened.append(mode) or cutout)
    config = InpaintConfig(insert=insert, modes=("blur",))
    Inpaint(config, [image], Paints()).generate([lineage(image, 0, 2)])
    assert hardened == ["blur", "blur"]


def test_examples_are_whole_instances(scene):
    """Neither cut off by the image's border nor mixed up with a neighbour."""
    cut_off, mixed_up = scene((0, 20, 20, 40), name="a.png"), scene((40, 20, 60, 40), (50, 20, 70, 40), name="bb.png")
    good = scene((40, 20, 60, 40), name="ccc.png")
    generator = Inpaint(InpaintConfig(), [cut_off, mixed_up, good], Paints())
    assert generator.instances.by_kind[0, None][0] == [("ccc.png", 0)]


TAGS = {"a.png": (Difficulty.EASY, Difficulty.HARD, Difficulty.HARD)}


@pytest.mark.parametrize(("difficulty", "wanted"), [("origin", ["easy", "hard", "hard"]), ("easy", ["easy"] * 3)])
@pytest.mark.parametrize("insert", [0.0, 1.0])
def test_each_window_is_told_how_hard_its_object_is_to_be(scene, difficulty, wanted, insert):
    """DetDiffusion, Fig. 3: as it was found, or the same for all."""
    image = scene((10, 10, 26, 26), (60, 10, 76, 26), (10, 50, 26, 66), labels=[0, 1, 2])
    painter = Paints(attributes=TAGS)
    config = InpaintConfig(difficulty=difficulty, insert=insert, scale=(0.8, 0.8))
    Inpaint(config, [image], painter).generate([lineage(image, 0, 1, 2)])
    assert [(window.label, window.difficulty) for window in painter.windows] == list(enumerate(wanted))


@pytest.mark.parametrize("insert", [0.0, 1.0])
@pytest.mark.parametrize(
    ("examples", "difficulty", "possible"),
    [("any", "hard", {0, 1, 2}), ("told", "easy", {0}), ("told", "hard", {1, 2}), ("told", "origin", {0, 1, 2})],
)
def test_examples_are_as_hard_as_is_told(scene, insert, examples, difficulty, possible):
    image = scene((10, 10, 26, 26), (60, 10, 76, 26), (10, 50, 26, 66))
    config = InpaintConfig(difficulty=difficulty, examples=examples, insert=insert)
    generator = Inpaint(config, [image], Paints(attributes=TAGS))
    cut = generator.instances.cut
    for index in range(3):
        taken = set()
        generator.instances.cut = lambda name, position, taken=taken: taken.add(position) or cut(name, position)
        generator.generate([lineage(image, index, seed=seed) for seed in range(12)])
        own = {index} if insert and index in possible else possible  # what is whole goes to a new place itself
        tagged = {other for other in own if TAGS["a.png"][other] is TAGS["a.png"][index]}
        assert taken == (tagged if difficulty == "origin" else own)


def test_an_instance_without_such_an_example_starts_from_itself(scene):
    image = scene((10, 10, 26, 26), (60, 10, 76, 26), labels=[0, 1])
    config = InpaintConfig(difficulty="hard", examples="told")
    generator = Inpaint(config, [image], Paints(attributes=TAGS))
    taken, cut = set(), generator.instances.cut
    generator.instances.cut = lambda name, position: taken.add(position) or cut(name, position)
    generator.generate([lineage(image, 0)])
    assert taken == {0}


@pytest.mark.parametrize("asked", [{"difficulty": "origin"}, {"examples": "told"}])
@pytest.mark.parametrize(
    "painter", [{"kind": "crop", "strength": 1.0}, {"kind": "diffusers", "model": "a/b", "size_px": 64}]
)
def test_a_painter_that_does_not_know_what_was_hard_is_not_asked_for_it(asked, painter):
    with pytest.raises(ValidationError, match="fitted on the real instances"):
        InpaintConfig.model_validate({**asked, "painter": painter})


def test_a_painter_of_before_there_were_attributes_is_refused(scene):
    with pytest.raises(ValueError, match=r"difficulties of the instances of 'a\.png': .* remove it from fits/"):
        Inpaint(InpaintConfig(examples="told"), [scene((10, 10, 26, 26))], Paints())


def test_an_inserted_box_is_added_clear_of_all_others(scene):
    image = scene((10, 10, 26, 26), (60, 40, 76, 60), labels=[2, 0])
    painter = Paints()
    generator = Inpaint(InpaintConfig(insert=1.0, margin=0.0), [image], painter)
    for seed in range(5):
        candidate = generator.generate([lineage(image, 0, seed=seed)])[0]
        added = candidate.annotation.boxes[2]
        assert candidate.annotation.labels.tolist() == [2, 0, 2]
        assert candidate.drawn.tolist() == [False, False, True]
        for left, top, right, bottom in image.annotation.boxes:
            assert added[0] >= right or added[2] <= left or added[1] >= bottom or added[3] <= top
        outside = candidate.painted < 0
        assert (candidate.pixels[outside] == pixels_of(image)[outside]).all()
    assert {window.label for window in painter.windows} == {2}


def test_further_places_are_added_to_what_is_painted_anyway(scene):
    """Each instance is repainted in its own box and, where there is room, painted at two further places."""
    image = scene((10, 10, 26, 26), (60, 40, 76, 60), labels=[2, 0])
    config = InpaintConfig(further=2, margin=0.0, scale=(0.8, 0.8))
    candidate = Inpaint(config, [image], Paints()).generate([lineage(image, 0, 1)])[0]
    assert candidate.annotation.labels.tolist() == [2, 0, 2, 0, 2, 0]
    assert (candidate.annotation.boxes[:2] == image.annotation.boxes).all()
    assert candidate.drawn.all()
    shared = intersections(candidate.annotation.boxes, candidate.annotation.boxes)
    assert (shared[~np.eye(6, dtype=bool)] == 0).all()
    crowded = scene((2, 2, 94, 78))
    alone = Inpaint(config, [crowded], Paints()).generate([lineage(crowded, 0)])[0]
    assert len(alone.annotation) == 1


def test_what_is_inserted_is_painted_or_has_no_label(scene):
    """No label without pixels of its own: boxes of 5 px beside each other leave each other too little."""
    image = scene(*((x, y, x + 5, y + 5) for x in range(2, 90, 6) for y in range(2, 74, 12)))
    indices = range(len(image.annotation))
    candidate = Inpaint(InpaintConfig(insert=1.0), [image], Paints()).generate([lineage(image, *indices)])[0]
    added = np.arange(len(candidate.annotation)) >= len(image.annotation)
    assert added.any()
    assert candidate.drawn[added].all()
    for index in np.flatnonzero(candidate.drawn):
        assert (candidate.painted == index).any()


def test_insertion_finds_surroundings_like_the_instances_own(scene):
    """The instance lies on the dark half, and so does every new place."""
    image = scene((10, 30, 22, 42))
    generator = Inpaint(InpaintConfig(insert=1.0, scale=(1.0, 1.0)), [image], Paints())
    lefts = [generator.generate([lineage(image, 0, seed=seed)])[0].annotation.boxes[1, 0] for seed in range(8)]
    assert max(lefts) < 48


def test_what_the_painter_refuses_stays_the_images_and_is_said(scene):
    image = scene((10, 10, 26, 22), (60, 40, 80, 70), labels=[1, 0])
    candidate = Inpaint(InpaintConfig(), [image], Paints(refuses=1)).generate([lineage(image, 0, 1)])[0]
    assert candidate.refused == "generator: safety_checker"
    assert candidate.drawn.tolist() == [False, True]
    assert (candidate.pixels[5:25, 5:30] == pixels_of(image)[5:25, 5:30]).all()


def test_the_same_lineage_gives_the_same_candidate_whatever_the_batch(scene):
    images = [scene((10, 10, 26, 22), (60, 40, 80, 70), name=f"{n}.png") for n in range(3)]
    config = InpaintConfig(insert=0.5)
    alone = [Inpaint(config, images, Paints()).generate([lineage(image, 0, 1)])[0] for image in images]
    together = Inpaint(config, images, Paints()).generate([lineage(image, 0, 1) for image in images])
    for one, other in zip(alone, together, strict=True):
        assert (one.pixels == other.pixels).all()
        assert (one.annotation.boxes == other.annotation.boxes).all()


def test_lineages_that_name_what_is_not_there(scene):
    image = scene((10, 10, 26, 22))
    generator = Inpaint(InpaintConfig(), [image], Paints())
    with pytest.raises(ValueError, match=r"has 1 boxes, and none at \[3\]"):
        generator.generate([lineage(image, 3)])
    with pytest.raises(ValueError, match=r"'b\.png' is no training image"):
        generator.generate([Lineage(round=1, image_id="b.png", box_indices=(0,), generator="inpaint", seed=0)])


def test_a_painter_starts_from_another_instance_of_the_class_in_the_box(scene):
    """Gen2Det, Sec. 3.1: a different instance of the same class in the same box."""
    image, other = scene((20, 20, 40, 40), name="a.png"), scene((20, 20, 40, 40), name="bb.png")
    pixels = pixels_of(other).copy()
    pixels[20:40, 20:40] = (250, 20, 20)
    Image.fromarray(pixels).save(other.uri)

    def shown(painter):
        generator = Inpaint(InpaintConfig(cutout="box", rotate=True), [image, other], painter)
        generator.generate([lineage(image, 0, seed=seed) for seed in range(12)])
        for window in painter.windows:
            left, top, right, bottom = window.box.round().astype(int)
            yield window.pixels[(top + bottom) // 2, (left + right) // 2].tolist()

    reds = list(shown(Paints(varies=True)))
    assert any(red[0] > 180 and red[1] < 60 for red in reds)  # the other image's red one
    assert any(red[0] < 80 for red in reds)  # its own grey one
    assert all(red[0] < 80 for red in shown(Paints()))  # from noise alone: nothing is set into the hole


@pytest.mark.parametrize("sizes", [{"context": 1.2}, {"margin": 0.25}, {"context": 1.0, "margin": 0.0}])
def test_a_hole_leaves_something_of_its_window(sizes):
    with pytest.raises(ValueError, match="leaves nothing of the window around it; raise context or lower margin"):
        InpaintConfig(**sizes)


def test_examples_are_alike_in_size_and_shape():
    box = np.array([0, 0, 20, 10], np.float32)
    others = np.array([[0, 0, 22, 9], [5, 5, 15, 25], [0, 0, 60, 30], [0, 0, 20, 20]], np.float32)
    assert alike(box, others, turn=False) == [0]
    assert alike(box, others, turn=True) == [0, 1]


def test_the_ground_below_an_object_is_that_of_a_like_place():
    """A striped ground goes on through the hole, in step."""
    canvas = np.where(np.arange(80)[None, :, None] // 4 % 2, 60, 180).repeat(60, axis=0).repeat(3, axis=2)
    canvas = canvas.astype(np.uint8)
    truth, mask = canvas.copy(), np.zeros((60, 80), bool)
    mask[20:36, 30:46] = True
    canvas[mask] = (255, 0, 0)
    found = ground(canvas, mask, np.array([[30, 20, 46, 36]], np.float32), np.random.default_rng(0))
    found.lay(canvas, mask)
    assert np.abs(canvas.astype(int) - truth).max() <= 1


def test_what_fills_a_hole_has_the_light_of_the_hole():
    """The ground grows lighter to the right, by a grey level each px; every like place is darker or lighter."""
    truth = np.repeat(40 + np.arange(160, dtype=np.uint8)[None, :, None], 30, axis=0).repeat(3, axis=2)
    canvas, mask = truth.copy(), np.zeros((30, 160), bool)
    mask[8:22, 60:74] = True
    canvas[mask] = 0
    found = ground(canvas, mask, np.array([[50, 0, 84, 30]], np.float32), np.random.default_rng(0))
    found.lay(canvas, mask)
    assert np.abs(canvas.astype(int) - truth).max() <= 2


@pytest.mark.parametrize("bar", [slice(30, 50), slice(10, 30)])
def test_a_hole_that_would_cut_off_what_reaches_into_it_has_no_other_ground(bar):
    """A bar that ends in the hole; nowhere else is one like it."""
    canvas, mask = np.full((60, 80, 3), 180, np.uint8), np.zeros((60, 80), bool)
    mask[20:36, 22:38] = True
    canvas[14:42, bar] = 20
    assert ground(canvas, mask, np.array([[22, 20, 38, 36]], np.float32), np.random.default_rng(0)) is None


def test_a_hole_with_no_place_like_it_has_no_other_ground():
    canvas, mask = np.full((40, 40, 3), 180, np.uint8), np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    assert ground(canvas, mask, np.array([[0, 0, 40, 40]], np.float32), np.random.default_rng(0)) is None


def test_a_silhouette_is_the_object_where_it_is():
    pixels = np.full((60, 80, 3), 180, np.uint8)
    rows, columns = np.mgrid[:60, :80]
    disc = np.hypot(rows - 29.5, columns - 49.5) < 10
    pixels[disc] = (200, 20, 20)
    box = np.array([40, 20, 60, 40], np.float32)
    found = silhouette(cut(pixels, box, "object"), box, (60, 80))
    assert found[disc].all()
    assert not found[np.hypot(rows - 29.5, columns - 49.5) > 15].any()


def test_a_box_goes_on_where_its_ground_does():
    """A copper track through the box goes on in a like track, and not beside it; light does not matter."""
    board = np.full((60, 120, 3), 150, np.uint8)
    board[26:34] = 60
    cutout = cut(board, np.array([20, 20, 40, 40], np.float32), "box")
    assert goes_on(board + 20, cutout, np.array([70, 20, 90, 40], np.float32))
    assert not goes_on(board, cutout, np.array([70, 10, 90, 30], np.float32))


def test_a_box_that_cannot_be_emptied_is_left_as_it_is_or_painted_elsewhere(scene):
    """Where a painter starts from an example; another is painted as ever."""
    image = scene((20, 20, 36, 36), (60, 40, 76, 56))
    pixels = pixels_of(image).copy()
    pixels[18:38, :48] = 230  # a bar across the first
    Image.fromarray(pixels).save(image.uri)

    def drawn(*, varies, insert=0.0):
        generator = Inpaint(InpaintConfig(insert=insert), [image], Paints(varies=varies))
        return generator.generate([lineage(image, 0, 1)])[0].drawn.tolist()

    assert drawn(varies=True) == [False, True]
    assert drawn(varies=True, insert=1e-9) == [False, True, True]
    assert drawn(varies=False) == [True, True]


def test_composing_fills_the_box_and_keeps_to_the_hole():
    source = np.full((40, 40, 3), 100, np.uint8)
    source[10:30, 10:30] = (0, 200, 0)
    cutout = cut(source, np.array([10, 10, 30, 30], np.float32), "box")
    canvas, mask = np.full((60, 60, 3), 110, np.uint8), np.zeros((60, 60), bool)
    mask[20:50, 20:50] = True
    compose(canvas, cutout, np.array([25, 25, 35, 45], np.float32), mask)
    assert canvas[35, 30].tolist() == [10, 210, 10]  # moved by the surroundings' difference, 10
    assert (canvas[~mask] == 110).all()
    green = np.argwhere(canvas[..., 1] > 180)
    assert (np.abs(green.min(axis=0) - [25, 25]) <= 1).all()
    assert (np.abs(green.max(axis=0) - [44, 34]) <= 1).all()


BOX = np.array([10, 10, 30, 30], np.float32)  # of the noise below; a cutout of it has a margin of 4 px


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 200, (40, 60, 3), np.uint8)


@pytest.mark.parametrize(("left", "top", "right", "bottom"), [(0, 0, 60, 40), (10, 10, 60, 40), (0, 0, 30, 30)])
def test_a_cutout_set_back_where_it_was_leaves_no_trace_even_at_the_images_borders(noise, left, top, right, bottom):
    truth = noise[top:bottom, left:right]
    canvas, box = truth.copy(), BOX - np.array([left, top, left, top], np.float32)
    x, y = box[:2].astype(int)
    canvas[y : y + 20, x : x + 20] = 0
    compose(canvas, cut(noise, BOX, "box"), box, np.ones(canvas.shape[:2], bool))
    assert (canvas == truth).all()


def test_an_example_of_twice_the_size_lies_where_its_box_says():
    """The edge at 2 of 4 px is at 4 of 8 px: columns 3 and 4, centred at 3.5 and 4.5, are at 1.25 and 1.75 of it."""
    pixels = np.repeat(np.array([[0, 0, 100, 100]], np.uint8), 4, axis=0)[..., None].repeat(3, axis=2)
    box = np.array([0, 0, 4, 4], np.float32)
    whole = Cutout(pixels=pixels, core=np.ones((4, 4), bool), box=box, margin_px=1, at_border=np.zeros((3, 3), bool))
    canvas = np.full((16, 16, 3), 50, np.uint8)
    compose(canvas, whole, box * 2 + 4, np.ones((16, 16), bool))
    assert canvas[8, 5:11, 0].tolist() == [0, 0, 25, 75, 100, 100]


def test_a_seam_is_over_the_whole_margin_of_the_cutout_and_no_more(noise):
    cutout, beyond = cut(noise, BOX, "box"), np.ones((40, 60), bool)
    beyond[6:34, 6:34] = False
    canvas = noise.copy()
    canvas[beyond] = 0
    assert seam(canvas, cutout, BOX) == 0.0
    canvas[6:34, 33] += 24  # the last of its columns: 28 of 28 * 28 - 20 * 20 = 384 px
    assert seam(canvas, cutout, BOX) == pytest.approx(24 * (28 / 384) ** 0.5)
    canvas[33, 6:33] += 24  # and the last of its rows
    assert seam(canvas, cutout, BOX) == pytest.approx(24 * (55 / 384) ** 0.5)


@pytest.fixture
def clean(scene):
    """Two images without objects, one of them darker."""

    def write(number):
        image = scene(name=f"{number * 'c'}.png")
        return replace(image, id=f"clean/{number}.png", annotation=Annotation.empty())

    return [write(number) for number in (1, 2)]


def test_instances_are_painted_into_clean_images_at_places_like_their_own(scene, clean):
    """The mined objects lie on the light half, and so do their new places."""
    image = scene((60, 10, 74, 24), (60, 40, 74, 54), (10, 10, 24, 24), labels=[1, 2, 0])
    config = InpaintConfig(clean=1.0, margin=0.0, modes=("plain",))
    generator = Inpaint(config, [image], Paints(), clean)
    candidates = generator.generate([lineage(image, 0, 1, seed=seed) for seed in range(12)])
    assert {candidate.canvas for candidate in candidates} == {one.id for one in clean}
    pictures = {one.id: pixels_of(one) for one in clean}
    for candidate in candidates:
        assert candidate.annotation.labels.tolist() == [1, 2]
        assert candidate.drawn.tolist() == [True, True]
        assert (candidate.annotation.boxes[:, 0] >= 48).all()
        assert not intersections(candidate.annotation.boxes[:1], candidate.annotation.boxes[1:]).any()
        untouched = candidate.painted == -1
        assert (candidate.pixels[untouched] == pictures[candidate.canvas][untouched]).all()
        assert (candidate.pixels == COLOUR).all(axis=-1).any()


def test_the_share_of_clean_canvases_leaves_the_other_candidates_as_they_were(scene, clean):
    image = scene((10, 10, 26, 22), (60, 40, 80, 70), labels=[1, 0])
    lineages = [lineage(image, 0, 1, seed=seed) for seed in range(40)]
    without = Inpaint(InpaintConfig(insert=0.5), [image], Paints()).generate(lineages)
    none = Inpaint(InpaintConfig(insert=0.5, clean=0.0), [image], Paints(), clean).generate(lineages)
    halves = Inpaint(InpaintConfig(insert=0.5), [image], Paints(), clean[::-1]).generate(lineages[::-1])[::-1]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(none, without, strict=True))
    assert 10 <= sum(one.canvas.startswith("clean/") for one in halves) <= 30
    for one, other in zip(halves, without, strict=True):
        assert one.canvas.startswith("clean/") or np.array_equal(one.pixels, other.pixels)


def test_a_painter_that_varies_starts_from_an_example_in_the_clean_image(scene, clean):
    image = scene((60, 10, 74, 24), (10, 50, 24, 64), labels=[0, 1])
    painter = Paints(varies=True)
    config = InpaintConfig(clean=1.0, cutout="box", modes=("plain",), further=1)
    (candidate,) = Inpaint(config, [image], painter, clean).generate([lineage(image, 0)])
    assert candidate.canvas.startswith("clean/")
    assert candidate.drawn.tolist() == [True, True]
    assert candidate.examples == ("a.png", "a.png")


def test_without_room_in_a_clean_image_the_own_image_is_painted(scene, clean, tmp_path):
    image = scene((10, 10, 26, 22))
    Image.new("RGB", (12, 12)).save(tmp_path / "tiny.png")
    tiny = replace(clean[0], uri=str(tmp_path / "tiny.png"), width=12, height=12)
    (candidate,) = Inpaint(InpaintConfig(clean=1.0), [image], Paints(), [tiny]).generate([lineage(image, 0)])
    assert (candidate.canvas, candidate.drawn.tolist()) == ("a.png", [True])


def test_the_fit_of_the_painter_does_not_depend_on_the_share_of_clean_images():
    assert InpaintConfig(clean=0.1).fit_options() == InpaintConfig(clean=0.9).fit_options()


@pytest.mark.parametrize("insert", [0.0, 1.0])
def test_a_requested_mode_hardens_all_examples(scene, clean, monkeypatch, insert):
    image = scene((10, 10, 26, 22), (60, 40, 80, 70))
    hardened = []
    monkeypatch.setattr(InpaintConfig, "harden", lambda _, cutout, mode, __: hardened.append(mode) or cutout)
    generator = Inpaint(InpaintConfig(insert=insert, modes=("plain", "blur", "contrast")), [image], Paints(), clean)
    lineages = [replace(lineage(image, 0, 1, seed=seed), mode="contrast") for seed in range(8)]
    canvases = {one.canvas.startswith("clean/") for one in generator.generate(lineages)}
    assert canvases == {True, False}
    assert set(hardened) == {"contrast"}
    with pytest.raises(ValueError, match="inpaint: mode 'scale' is none of its modes: plain, blur, contrast"):
        generator.generate([replace(lineages[0], mode="scale")])


def test_modes_can_be_requested_where_a_painter_starts_from_examples():
    modes = ("blur", "plain", "blur")
    for painter in (CropConfig(strength=0.5), DiffusersConfig(model="any", strength=0.5)):
        assert InpaintConfig(painter=painter, modes=modes).hard_modes == ("blur", "plain")
    assert InpaintConfig(painter=CropConfig(strength=1.0), modes=modes).hard_modes == ()
