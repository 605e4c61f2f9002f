"""Rendering of a scene, with the ground truth of every part."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from actors.images import Pixels
from actors.records import Annotation
from loop.data.world import clutter
from loop.data.world.backgrounds import draw_background
from loop.data.world.camera import expose
from loop.data.world.factors import Factors
from loop.data.world.light import Light, draw_light
from loop.data.world.noise import Field
from loop.data.world.plan import CLASSES, Plan, place_beside, plan_parts
from loop.data.world.sprite import Pose, Sprite, Window, covered, draw_part, lay

Rng = np.random.Generator
Box = tuple[float, float, float, float]
WIDTH_PX: Final = 320
HEIGHT_PX: Final = 240
SHAPE: Final = (HEIGHT_PX, WIDTH_PX)
MIN_PARTS, MAX_PARTS = 2, 8
MAX_HIDDEN: Final = 0.75  # fraction of any part that a deliberate cover hides at most, approximately
NUM_TRIES: Final = 4  # attempts to place such a cover


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A rendered photograph and its ground truth."""

    pixels: Pixels  # [240, 320, 3] uint8 RGB
    annotation: Annotation  # boxes tight around each whole part, including what is covered
    factors: tuple[Factors, ...]  # one per box
    background: str  # the kind of surface


@dataclass(slots=True, kw_only=True)
class _Stage:
    """A scene while it is built up from below."""

    canvas: Field  # [H, W, 3] linear light
    light: Light
    parts: list[Sprite] = field(default_factory=list)
    above: list[Field] = field(default_factory=list)  # [H, W] for each part: coverage by everything above it

    def put(self, sprite: Sprite, shadow: float = 1.0) -> None:
        """Put a solid on top of everything so far."""
        lay(self.canvas, sprite, self.light, shadow)
        for cover in self.above:
            patch = cover[sprite.window.slices]
            patch += (1 - patch) * sprite.soft_alpha

    def hidden_under(self, sprite: Sprite) -> list[float]:
        """Fraction of every part that would be covered if this solid were put on top."""
        top = np.zeros(SHAPE, np.float32)
        top[sprite.window.slices] = sprite.soft_alpha
        return [covered(part, np.maximum(cover, top)) for part, cover in zip(self.parts, self.above, strict=True)]

    def put_part(self, sprite: Sprite, shadow: float) -> None:
        """Put a part on top of everything so far, and record it."""
        self.put(sprite, shadow)
        self.parts.append(sprite)
        self.above.append(np.zeros(SHAPE, np.float32))


def render_scene(seed: int, num_parts: int | None = None) -> Scene:
    """The scene of ``seed``: ``num_parts`` parts (default: 2 to 8, random; 0: a clean scene) among clutter.

    The same arguments give the same bytes on one machine. The same seed with ``num_parts=0`` gives the same photograph
    without the parts. Raises ValueError if ``num_parts`` is not in 0..8.
    """
    if num_parts is not None and not 0 <= num_parts <= MAX_PARTS:
        raise ValueError(f"num_parts is {num_parts}; a scene holds 0 to {MAX_PARTS} parts")
    place, things, camera = np.random.default_rng(seed).spawn(3)
    light = draw_light(place, SHAPE)
    background, canvas = draw_background(place, SHAPE)
    stage = _Stage(canvas=canvas * (light.ambient + (1 - light.ambient) * light.direction[2]), light=light)
    _strew(place, stage)
    count = int(things.integers(MIN_PARTS, MAX_PARTS + 1)) if num_parts is None else num_parts
    plans = plan_parts(things, count, stage.canvas)
    _build(things, stage, plans)
    pixels = expose(camera, stage.canvas * light.field)
    return Scene(
        pixels=pixels,
        annotation=_annotate(plans, stage.parts),
        factors=_measure(pixels, plans, stage),
        background=background,
    )


def _strew(rng: Rng, stage: _Stage) -> None:
    """Add marks on the surface and clutter on top of it, below the parts."""
    for _ in range(rng.integers(0, 4)):
        clutter.MARKS[rng.integers(len(clutter.MARKS))](rng, stage.canvas, _anywhere(rng))
    for _ in range(rng.integers(0, 5)):
        thing = clutter.SOLIDS[rng.integers(len(clutter.SOLIDS))]
        stage.put(thing(rng, stage.light, SHAPE, _anywhere(rng)))


def _anywhere(rng: Rng) -> tuple[float, float]:
    return float(rng.uniform(0, WIDTH_PX)), float(rng.uniform(0, HEIGHT_PX))


def _build(rng: Rng, stage: _Stage, plans: list[Plan]) -> None:
    """Draw the parts in order, and cover some of them with the next part, a cable or a strip of tape."""
    for place, plan in enumerate(plans):
        below = plans[place - 1] if place and plans[place - 1].cover == "part" else None
        sprite = _draw(rng, stage, plan.pose) if below is None else _draw_over(rng, stage, plan.pose, below.pose)
        stage.put_part(sprite, shadow=0.3 if "contrast" in plan.troubles else 1.0)
        if plan.cover == "thing":
            thing, misfit = _fitting(stage, (_cover(rng, plan.pose, stage.light) for _ in range(NUM_TRIES)))
            if misfit < 0.4:
                stage.put(thing)


def _draw(rng: Rng, stage: _Stage, pose: Pose) -> Sprite:
    return draw_part(pose, stage.light, rng, SHAPE)


def _draw_over(rng: Rng, stage: _Stage, pose: Pose, below: Pose) -> Sprite:
    """The part, placed so that it covers about half of another one."""
    poses = (place_beside(rng, pose, below, (WIDTH_PX, HEIGHT_PX)) for _ in range(NUM_TRIES))
    return _fitting(stage, (_draw(rng, stage, tried) for tried in poses))[0]


def _cover(rng: Rng, pose: Pose, light: Light) -> Sprite:
    """A cable or a strip of tape across a part."""
    shift = rng.normal(0, 0.15 * pose.length_px, 2)
    at = (pose.x_px + float(shift[0]), pose.y_px + float(shift[1]))
    if rng.random() < 0.5:
        return clutter.cable(rng, light, SHAPE, at, min(pose.length_px * rng.uniform(0.3, 0.6), 20))
    return clutter.tape(rng, light, SHAPE, at, min(pose.length_px * rng.uniform(0.3, 0.6), 34))


def _fitting(stage: _Stage, sprites: Iterator[Sprite]) -> tuple[Sprite, float]:
    """The first solid that hides about half of the last part and no part completely, or the closest; and its misfit."""
    tried: list[tuple[Sprite, float]] = []
    for sprite in sprites:
        shares = stage.hidden_under(sprite)
        tried.append((sprite, abs(shares[-1] - 0.55) + 10 * max(0.0, max(shares) - MAX_HIDDEN)))
        if tried[-1][1] < 0.15:
            break
    return min(tried, key=lambda one: one[1])


def _annotate(plans: list[Plan], parts: list[Sprite]) -> Annotation:
    return Annotation(
        boxes=np.array([part.box for part in parts], np.float32).reshape(-1, 4),
        labels=np.array([CLASSES.index(plan.pose.label) for plan in plans], np.int64),
        ignore=np.zeros(len(parts), np.bool_),
    )


def _measure(pixels: Pixels, plans: list[Plan], stage: _Stage) -> tuple[Factors, ...]:
    """The factors of every part; occlusion and contrast are measured in the finished image."""
    outlines = np.zeros(SHAPE, np.float32)
    for part in stage.parts:
        np.maximum(outlines[part.window.slices], part.soft_alpha, out=outlines[part.window.slices])
    return tuple(
        Factors(
            occlusion=covered(part, above),
            contrast=_contrast(pixels, part, above, outlines),
            blur_px=plan.pose.blur_px,
            size_px=float(np.sqrt((part.box[2] - part.box[0]) * (part.box[3] - part.box[1]))),
            tilt_deg=plan.pose.tilt_deg,
            rotation_deg=plan.pose.rotation_deg,
        )
        for plan, part, above in zip(plans, stage.parts, stage.above, strict=True)
    )


def _contrast(pixels: Pixels, part: Sprite, above: Field, outlines: Field) -> float:
    """RMS difference between the visible pixels of a part and the mean colour around it; 0 if nothing is visible."""
    visible = np.zeros(SHAPE, np.bool_)
    visible[part.window.slices] = part.alpha * (1 - above[part.window.slices]) > 0.5
    near = Window.around(part.box, 6, SHAPE).slices
    colours, seen, ground = pixels[near] / np.float32(255), visible[near], outlines[near] < 0.05
    if not seen.any() or not ground.any():
        return 0.0
    return float(np.sqrt(np.mean((colours[seen] - colours[ground].mean(0)) ** 2)))
