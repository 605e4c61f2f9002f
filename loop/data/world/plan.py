"""The plan of a scene: its parts, their poses, and what makes some of them hard to detect."""

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from loop.data.world.light import MATERIALS, Material, albedo_of
from loop.data.world.noise import Field
from loop.data.world.parts import SHAPES
from loop.data.world.sprite import Pose

Rng = np.random.Generator
Trouble = Literal["occlusion", "contrast", "blur", "size", "tilt"]
CLASSES: Final[tuple[str, ...]] = tuple(SHAPES)
TROUBLES: Final[tuple[Trouble, ...]] = ("occlusion", "contrast", "blur", "size", "tilt")
HARD_SHARE: Final = 0.42  # fraction of the parts that get one or two troubles
TWOFOLD_SHARE: Final = 0.35  # fraction of these that get two


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A part before it is drawn."""

    pose: Pose
    troubles: frozenset[Trouble]  # what makes it hard to detect
    cover: Literal["", "part", "thing"]  # what covers it: the next part, or a cable or a strip of tape


def plan_parts(rng: Rng, count: int, canvas: Field) -> list[Plan]:
    """``count`` parts on the surface ``canvas`` ``[H, W, 3]``, placed apart unless one is to cover another."""
    plans: list[Plan] = []
    for place in range(count):
        below = plans[-1].pose if plans and plans[-1].cover == "part" else None
        troubles = _draw_troubles(rng) if below is None and rng.random() < HARD_SHARE else frozenset[Trouble]()
        part_next = place + 1 < count and rng.random() < 0.5
        plans.append(
            Plan(
                pose=_pose(rng, troubles, below, [plan.pose for plan in plans], canvas),
                troubles=troubles,
                cover=("part" if part_next else "thing") if "occlusion" in troubles else "",
            )
        )
    return plans


def _draw_troubles(rng: Rng) -> frozenset[Trouble]:
    """One trouble, or sometimes two."""
    first, second = rng.permutation(len(TROUBLES))[:2]
    return frozenset({TROUBLES[first], TROUBLES[second]} if rng.random() < TWOFOLD_SHARE else {TROUBLES[first]})


def _pose(rng: Rng, troubles: frozenset[Trouble], below: Pose | None, others: list[Pose], canvas: Field) -> Pose:
    label = CLASSES[rng.integers(len(CLASSES))]
    length = _length(rng, label, below, small="size" in troubles)
    edges = (canvas.shape[1], canvas.shape[0])
    x, y = (below.x_px, below.y_px) if below else _free_place(rng, length, others, edges)
    return Pose(
        label=label,
        material=_material(rng, canvas, (x, y), blend="contrast" in troubles),
        x_px=x,
        y_px=y,
        length_px=length,
        rotation_deg=rng.uniform(0, 360),
        tilt_deg=rng.uniform(58, 74) if "tilt" in troubles else min(abs(rng.normal(0, 10)), 30),
        tilt_axis_deg=rng.uniform(0, 360),
        blur_px=rng.uniform(2.4, 4.0) if "blur" in troubles else 0.0,
    )


def _length(rng: Rng, label: str, below: Pose | None, *, small: bool) -> float:
    slender = 1.4 if label in {"bolt", "spring"} else 1.0
    if small:
        return slender * rng.uniform(11, 15)
    length = slender * rng.uniform(36, 64)
    return length if below is None else min(length, 1.1 * below.length_px)


def _free_place(rng: Rng, length: float, others: list[Pose], edges: tuple[int, int]) -> tuple[float, float]:
    """The first of 60 random places without overlap, or the one with the least overlap."""
    margin = _margin(length)
    x, y = (rng.uniform(margin, edge - margin, 60) for edge in edges)
    clearance = np.zeros(60)
    for other in others:
        gap = np.hypot(x - other.x_px, y - other.y_px) - 0.55 * (length + other.length_px)
        clearance = np.minimum(clearance, gap)
    best = int(np.argmax(clearance))
    return float(x[best]), float(y[best])


def place_beside(rng: Rng, pose: Pose, other: Pose, edges: tuple[int, int]) -> Pose:
    """The pose, moved so that its part covers some of another one in an image of ``edges`` (W, H) px."""
    heading, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.5) * other.length_px
    margin = _margin(pose.length_px)
    x = np.clip(other.x_px + reach * np.cos(heading), margin, edges[0] - margin)
    y = np.clip(other.y_px + reach * np.sin(heading), margin, edges[1] - margin)
    return replace(pose, x_px=float(x), y_px=float(y))


def _margin(length: float) -> float:
    """Minimum distance of a part's centre from the image's edge for the whole part to be inside, tilted or not."""
    return 0.6 * length + 2


def _material(rng: Rng, canvas: Field, at: tuple[float, float], *, blend: bool) -> Material:
    """A material that stands out from the surface at a place, or that blends into it."""
    x, y = int(at[0]), int(at[1])
    ground = canvas[max(y - 12, 0) : y + 12, max(x - 12, 0) : x + 12].mean((0, 1))
    if blend:
        red, green, blue = (int(level) for level in np.sqrt(np.clip(ground * rng.uniform(0.9, 1.15), 0, 1)) * 255)
        return Material((red, green, blue), 0.0, 0.05, 10)
    gaps = [float(np.abs(np.sqrt(albedo_of(material)) - np.sqrt(ground)).max()) for material in MATERIALS]
    apart = [material for material, gap in zip(MATERIALS, gaps, strict=True) if gap > 0.28]
    return apart[rng.integers(len(apart))] if apart else MATERIALS[int(np.argmax(gaps))]
