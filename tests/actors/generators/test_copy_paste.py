from dataclasses import replace

import numpy as np
import pytest

from actors.generators.copy_paste import CopyPaste, CopyPasteConfig
from actors.generators.cutouts.cutout import cut, scaled, turned
from actors.images import encode_png, read
from actors.records import Annotation, LabeledImage, Lineage

GROUND = (180, 170, 160)


def annotated(*boxes):
    count = len(boxes)
    return Annotation(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.arange(count, dtype=np.int64),
        ignore=np.zeros(count, np.bool_),
    )


def scene(seed, *discs, size=(160, 200)):
    """Dark blue discs (x, y, radius) on a light ground with a little noise."""
    height, width = size
    rng = np.random.default_rng(seed)
    pixels = np.clip(np.array(GROUND) + rng.normal(0, 2, (height, width, 3)), 0, 255)
    y, x = np.mgrid[:height, :width] + 0.5
    for cx, cy, radius in discs:
        pixels[np.hypot(x - cx, y - cy) < radius] = (40, 40, 120)
    return pixels.astype(np.uint8)


def box_of(disc):
    x, y, radius = disc
    return [x - radius, y - radius, x + radius, y + radius]


@pytest.fixture
def real(tmp_path):
    """Four scenes with one or two discs each; the last disc is cut off by the right border."""
    discs = [((50, 60, 18), (140, 100, 12)), ((100, 80, 15),), ((30, 120, 14),), ((192, 40, 16),)]

    def one(index):
        path = tmp_path / f"{index}.png"
        path.write_bytes(encode_png(scene(index, *discs[index])))
        boxes = np.clip([box_of(disc) for disc in discs[index]], 0, [200, 160, 200, 160])
        return LabeledImage(id=f"scene-{index}", uri=str(path), width=200, height=160, annotation=annotated(*boxes))

    return [one(index) for index in range(4)]


def lineage(seed, image_id="scene-0", indices=(0,)):
    return Lineage(round=1, image_id=image_id, box_indices=indices, generator="copy_paste", seed=seed)


def target_of(candidate, real):
    """The real image that a candidate was painted into: the one it differs least from."""
    pictures = [read(image.uri) for image in real]
    return min(pictures, key=lambda picture: (picture != candidate.pixels).mean())


@pytest.mark.parametrize("shape", ["object", "box"])
def test_pixels_outside_the_pasted_areas_are_the_targets(real, shape):
    generator = CopyPaste(CopyPasteConfig(cutout=shape), real)
    for candidate in generator.generate([lineage(seed, indices=(0, 1)) for seed in range(25)]):
        outside = np.ones(candidate.pixels.shape[:2], np.bool_)
        for left, top, right, bottom in candidate.annotation.boxes[candidate.drawn]:
            # the margin, 12 % of the longer side and at least 4 px; a box may shrink by half where it is covered
            grown = 4 + 1.5 * 0.12 * 36 + 18
            y, x = (slice(max(int(a - grown), 0), int(b + grown)) for a, b in ((top, bottom), (left, right)))
            outside[y, x] = False
        assert np.array_equal(candidate.pixels[outside], target_of(candidate, real)[outside])


def test_pasted_box_frames_the_pasted_object(real):
    generator = CopyPaste(CopyPasteConfig(modes=("plain",)), real)
    for candidate in generator.generate([lineage(seed) for seed in range(20)]):
        (box,) = candidate.annotation.boxes[candidate.drawn]
        changed = np.abs(candidate.pixels.astype(int) - target_of(candidate, real)).max(axis=2) > 60
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        assert np.abs(box - [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).max() <= 2
        assert (box[2:] - box[:2]).tolist() == [36, 36]


def test_annotation_is_the_targets_then_the_pasted(real):
    generator = CopyPaste(CopyPasteConfig(same_image=1.0), real)
    (candidate,) = generator.generate([lineage(3, indices=(0, 1))])
    assert candidate.drawn.tolist() == [False, False, True, True]
    assert candidate.annotation.labels.tolist() == [0, 1, 0, 1]
    assert np.array_equal(candidate.annotation.boxes[:2], real[0].annotation.boxes)


def test_further_copies_of_each_instance_are_pasted(real):
    (candidate,) = CopyPaste(CopyPasteConfig(further=1), real).generate([lineage(3, indices=(0, 1))])
    assert candidate.drawn.tolist() == [False, False, True, True, True, True]
    assert candidate.annotation.labels[2:].tolist() == [0, 1, 0, 1]


def test_pasted_boxes_lie_inside_and_overlap_little(real):
    config = CopyPasteConfig(modes=("plain", "scale"), max_overlap=0.1)
    for candidate in CopyPaste(config, real).generate([lineage(seed, indices=(0, 1)) for seed in range(25)]):
        boxes = candidate.annotation.boxes
        assert boxes.min() >= 0
        assert (boxes[:, [0, 2]] <= 200).all()
        assert (boxes[:, [1, 3]] <= 160).all()
        for first in range(len(boxes)):
            for second in range(first + 1, len(boxes)):
                sides = np.minimum(boxes[first, 2:], boxes[second, 2:]) - np.maximum(
                    boxes[first, :2], boxes[second, :2]
                )
                areas = [np.prod(boxes[index, 2:] - boxes[index, :2]) for index in (first, second)]
                assert np.prod(np.maximum(sides, 0)) <= 0.1 * min(areas) + 1


def test_same_seed_gives_the_same_bytes_in_any_batch_and_order(real):
    lineages = [lineage(seed, image_id, indices) for seed, (image_id, indices) in enumerate(
        [("scene-0", (0, 1)), ("scene-1", (0,)), ("scene-2", (0,)), ("scene-0", (1,)), ("scene-3", (0,))] * 3
    )]  # fmt: skip
    together = CopyPaste(CopyPasteConfig(), real).generate(lineages)
    generator = CopyPaste(CopyPasteConfig(), real[::-1])
    alone = [generator.generate([one])[0] for one in lineages[::-1]][::-1]
    for first, second in zip(together, alone, strict=True):
        assert np.array_equal(first.pixels, second.pixels)
        assert np.array_equal(first.annotation.boxes, second.annotation.boxes)
    assert len({candidate.pixels.tobytes() for candidate in together}) == len(together)


def test_an_object_cut_off_by_the_border_stays_at_a_border(real):
    config = CopyPasteConfig(modes=("plain",))
    generator = CopyPaste(config, real)
    for candidate in generator.generate([lineage(seed, "scene-3") for seed in range(15)]):
        (box,) = candidate.annotation.boxes[candidate.drawn]
        assert box[0] == 0 or box[1] == 0 or box[2] == 200 or box[3] == 160
    unturned = CopyPaste(CopyPasteConfig(modes=("plain",), flip=False, rotate=False), real)
    for candidate in unturned.generate([lineage(seed, "scene-3") for seed in range(5)]):
        assert candidate.annotation.boxes[candidate.drawn][0, 2] == 200


def darkness(candidate):
    """How much darker than the ground the darkest tenth of the pasted box is."""
    (box,) = candidate.annotation.boxes[candidate.drawn].astype(int)
    inside = candidate.pixels[box[1] : box[3], box[0] : box[2]]
    return GROUND[0] - np.quantile(inside[..., 0], 0.1)


def test_mode_contrast_fades_the_object_into_the_background(real):
    plain, faded = (
        CopyPaste(CopyPasteConfig(modes=(mode,), contrast=(0.4, 0.5)), real).generate([lineage(1)])[0]
        for mode in ("plain", "contrast")
    )
    assert darkness(plain) == pytest.approx(140, abs=8)
    assert 0.35 * 140 < darkness(faded) < 0.55 * 140


def test_mode_scale_scales_the_box(real):
    config = CopyPasteConfig(modes=("scale",), scale=(0.5, 0.5))
    (candidate,) = CopyPaste(config, real).generate([lineage(1)])
    (box,) = candidate.annotation.boxes[candidate.drawn]
    assert (box[2:] - box[:2]).tolist() == pytest.approx([18, 18], abs=0.6)


def test_mode_blur_softens_the_outline(real):
    def steepest(mode):
        config = CopyPasteConfig(modes=(mode,), blur_px=(2.0, 2.0), same_image=0.0)
        (candidate,) = CopyPaste(config, real).generate([lineage(1)])
        (box,) = candidate.annotation.boxes[candidate.drawn].astype(int)
        row = candidate.pixels[(box[1] + box[3]) // 2, max(box[0] - 5, 0) : box[2] + 5, 0].astype(int)
        return np.abs(np.diff(row)).max()

    assert steepest("blur") < 0.6 * steepest("plain")


def test_mode_occlusion_puts_the_object_below_one_that_is_there(real):
    config = CopyPasteConfig(modes=("occlusion",))
    generator = CopyPaste(config, real)
    for candidate in generator.generate([lineage(seed) for seed in range(10)]):
        there = candidate.annotation.boxes[~candidate.drawn]
        (box,) = candidate.annotation.boxes[candidate.drawn]
        sides = np.minimum(there[:, 2:], box[2:]) - np.maximum(there[:, :2], box[:2])
        assert (sides > 0).all(axis=1).any()
        target = target_of(candidate, real)
        for left, top, right, bottom in there.astype(int):  # the middle of what is there is untouched
            y, x = (top + bottom) // 2, (left + right) // 2
            middle = (slice(y - 4, y + 4), slice(x - 4, x + 4))
            assert np.array_equal(candidate.pixels[middle], target[middle])


def test_without_room_anywhere_the_candidate_is_refused(tmp_path):
    path = tmp_path / "full.png"
    path.write_bytes(encode_png(scene(0, (100, 80, 75))))
    full = LabeledImage(id="full", uri=str(path), width=200, height=160, annotation=annotated([25, 5, 175, 155]))
    generator = CopyPaste(CopyPasteConfig(modes=("plain",)), [full])
    candidate = generator.generate([lineage(0, "full")])[0]
    assert candidate.refused == "generator: no_room"
    assert not candidate.drawn.any()
    assert candidate.annotation.boxes.tolist() == full.annotation.boxes.tolist()


def test_lineages_that_name_nothing_are_refused(real):
    generator = CopyPaste(CopyPasteConfig(), real)
    with pytest.raises(ValueError, match="'elsewhere' is no training image"):
        generator.generate([lineage(0, "elsewhere")])
    with pytest.raises(ValueError, match=r"has 2 boxes, and none at \[2\]"):
        generator.generate([lineage(0, indices=(0, 2))])


def test_ranges_that_fall_are_refused():
    with pytest.raises(ValueError, match="scale"):
        CopyPasteConfig(scale=(1.5, 0.5))
    with pytest.raises(ValueError, match="contrast"):
        CopyPasteConfig(contrast=(0.5, 1.5))


def test_cutout_finds_the_disc_and_turns_with_its_box():
    pixels = scene(0, (60, 50, 20))
    cutout = cut(pixels, np.array([38, 28, 82, 72], np.float32), "object")
    y, x = np.mgrid[: cutout.height, : cutout.width] + 0.5
    disc = np.hypot(x - (60 - 38 + cutout.box[0]), y - (50 - 28 + cutout.box[1])) < 20
    assert (cutout.core & disc).sum() / (cutout.core | disc).sum() > 0.9
    wide = cut(pixels, np.array([30, 40, 90, 60], np.float32), "box")
    assert turned(wide, flip=False, quarter_turns=1).box.tolist() == [7, 7, 27, 67]
    for flip in (False, True):
        for quarter_turns in range(4):
            after = turned(wide, flip=flip, quarter_turns=quarter_turns)
            left, top, right, bottom = after.box.astype(int)
            assert after.core[top:bottom, left:right].all()
            assert after.core.sum() == 60 * 20
    assert scaled(wide, 2.0).box.tolist() == [14, 14, 134, 54]


def test_every_pixel_that_differs_from_the_canvas_belongs_to_a_pasted_box(real):
    """By ``painted`` a rejected paste is taken back, wherever it reached."""
    generator = CopyPaste(CopyPasteConfig(), real)
    for candidate in generator.generate([lineage(seed, indices=(0, 1)) for seed in range(12)]):
        canvas = read(generator.images[candidate.canvas].uri)
        assert (candidate.painted[(candidate.pixels != canvas).any(axis=2)] >= 0).all()
        assert set(np.unique(candidate.painted)) - {-1} <= set(np.flatnonzero(candidate.drawn))


@pytest.fixture
def clean(tmp_path):
    """Six grounds without a disc, of the scenes' size."""

    def one(index):
        path = tmp_path / f"clean-{index}.png"
        path.write_bytes(encode_png(scene(90 + index)))
        return LabeledImage(id=f"clean/{index}.png", uri=str(path), width=200, height=160, annotation=annotated())

    return [one(index) for index in range(6)]


def test_instances_are_pasted_into_clean_images(real, clean):
    generator = CopyPaste(CopyPasteConfig(clean=1.0, modes=("plain",)), real, clean)
    candidates = generator.generate([lineage(seed, indices=(0, 1)) for seed in range(30)])
    assert {candidate.canvas for candidate in candidates} == {image.id for image in clean}
    pictures = {image.id: read(image.uri) for image in clean}
    for candidate in candidates:
        assert candidate.drawn.tolist() == [True, True]
        assert candidate.annotation.labels.tolist() == [0, 1]
        assert candidate.examples == ("scene-0", "scene-0")
        untouched = candidate.painted == -1
        assert np.array_equal(candidate.pixels[untouched], pictures[candidate.canvas][untouched])
        assert (candidate.pixels != pictures[candidate.canvas]).any()


def test_the_share_of_clean_targets_depends_on_the_lineage_alone_and_leaves_the_rest_as_it_was(real, clean):
    lineages = [lineage(seed, indices=(0, 1)) for seed in range(40)]
    without = CopyPaste(CopyPasteConfig(), real).generate(lineages)
    halves = CopyPaste(CopyPasteConfig(), real, clean[::-1]).generate(lineages[::-1])[::-1]
    none = CopyPaste(CopyPasteConfig(clean=0.0), real, clean).generate(lineages)
    alone = [CopyPaste(CopyPasteConfig(), real, clean).generate([one])[0] for one in lineages[:8]]
    assert 10 <= sum(one.canvas.startswith("clean/") for one in halves) <= 30
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(alone, halves, strict=False))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(none, without, strict=True))
    for one, other in zip(halves, without, strict=True):
        assert one.canvas.startswith("clean/") or np.array_equal(one.pixels, other.pixels)


def test_nothing_is_hidden_in_a_clean_image(real, clean):
    both = CopyPaste(CopyPasteConfig(clean=1.0, modes=("occlusion", "plain")), real, clean)
    assert all(one.canvas.startswith("clean/") for one in both.generate([lineage(seed) for seed in range(12)]))
    hiding = CopyPaste(CopyPasteConfig(clean=1.0, modes=("occlusion",)), real, clean)
    assert not any(one.canvas.startswith("clean/") for one in hiding.generate([lineage(seed) for seed in range(12)]))


def test_a_clean_image_without_room_leaves_the_place_to_others(real, tmp_path):
    path = tmp_path / "small.png"
    path.write_bytes(encode_png(scene(9, size=(20, 20))))
    small = LabeledImage(id="clean/small.png", uri=str(path), width=20, height=20, annotation=annotated())
    (candidate,) = CopyPaste(CopyPasteConfig(clean=1.0), real, [small]).generate([lineage(3)])
    assert candidate.canvas.startswith("scene-")
    assert candidate.drawn.any()


def test_the_clean_image_with_matching_surroundings_is_taken(real, clean, tmp_path):
    path = tmp_path / "dark.png"
    path.write_bytes(encode_png(scene(9) // 3))
    dark = LabeledImage(id="clean/dark.png", uri=str(path), width=200, height=160, annotation=annotated())
    generator = CopyPaste(CopyPasteConfig(clean=1.0, modes=("plain",)), real, [clean[0], dark])
    candidates = generator.generate([lineage(seed) for seed in range(12)])
    assert {candidate.canvas for candidate in candidates} == {clean[0].id}


ASKED = ("plain", "scale", "occlusion", "contrast", "blur")


@pytest.mark.parametrize("mode", ASKED)
def test_a_requested_mode_is_that_of_all_instances(real, clean, mode):
    every = CopyPaste(CopyPasteConfig(modes=("blur", *ASKED), clean=1.0), real, clean)
    alone = CopyPaste(CopyPasteConfig(modes=(mode,), clean=1.0), real, clean)
    for seed in range(6):
        requested, drawn = replace(lineage(seed, indices=(0, 1)), mode=mode), lineage(seed, indices=(0, 1))
        candidate, same = every.generate([requested])[0], alone.generate([drawn])[0]
        np.testing.assert_array_equal(candidate.pixels, same.pixels)
        assert (candidate.canvas, candidate.lineage) == (same.canvas, requested)


def test_a_generator_says_which_modes_can_be_requested_and_refuses_others(real):
    config = CopyPasteConfig(modes=("plain", "blur", "plain"))
    assert config.hard_modes == ("plain", "blur")
    with pytest.raises(ValueError, match="copy_paste: mode 'scale' is none of its modes: plain, blur"):
        CopyPaste(config, real).generate([replace(lineage(0), mode="scale")])
