"""The shapes of the parts, as reliefs in their own coordinates: x along the longer side, from -1 to 1."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from loop.data.world.noise import Field

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Relief:
    """A shape on a grid. Lengths are in half lengths of the part."""

    distance: Field  # [H, W] signed distance to the outline, negative inside
    height: Field  # [H, W] of the surface above its own lower edge
    tint: Field  # [H, W] factor on the colour
    thickness: float  # height of the part above its surface
    sheen: Field | float = 0.0  # [H, W] change of brightness of metal parts: the streaks of a turned face


def bolt(rng: Rng, x: Field, y: Field) -> Relief:
    """A screw lying on its side: hexagon, cylinder, round or countersunk head, threaded shaft."""
    radius = rng.uniform(0.15, 0.23)
    style = rng.integers(4)
    head_length = radius * (1.0, 1.7, 1.2, 1.3)[style]
    head_radius = radius * (1.85, 1.6, 1.9, 2.0)[style]
    along = x + 1.0  # from the top of the head
    in_head = along < head_length
    turns = rng.uniform(0.09, 0.13)
    thread = np.where(along > head_length + rng.choice([0.0, 0.35]), 1.0, 0.0) * np.cos(
        (x + 0.35 * y) * (2 * np.pi / turns)
    )
    tip = np.clip((2.0 - along) / (0.6 * radius), 0.55, 1.0)
    shaft = radius * (0.95 + 0.07 * thread) * tip
    head = head_radius * _head_profile(int(style), np.clip(along / head_length, 0, 1))
    outline = np.where(in_head, head, shaft)
    across = np.minimum(np.abs(y) / outline, 1.0)
    round_height = outline * np.sqrt(1 - across * across)
    facets = outline * np.minimum(0.8, 1.7 * (1 - across)) if style == 0 else round_height
    grooves = np.where(in_head, np.cos(np.arcsin(across) * 14) * (0.12 if style == 1 else 0.0), 0.22 * thread)
    return Relief(
        distance=_field(np.maximum(np.abs(y) - outline, np.abs(x) - 1.0)),
        height=_field(np.where(in_head, facets, round_height)),
        tint=_field(1.0 + grooves),
        thickness=2 * radius,
    )


def _head_profile(style: int, along: NDArray[Any]) -> Field:
    """Radius of the head, from its top (0) to the shaft (1), as a share of its largest."""
    if style == 2:
        return _field(np.sqrt(np.clip(1 - (1 - along) ** 2.5, 0.02, 1)))
    if style == 3:
        return _field(1.0 - 0.5 * np.maximum(along - 0.15, 0) / 0.85)
    return _field(np.clip(0.88 + along, 0, 1))


def nut(rng: Rng, x: Field, y: Field) -> Relief:
    """A hexagon nut with a chamfered top and a threaded hole, some with a flange."""
    hole = rng.uniform(0.42, 0.54)
    flanged = rng.random() < 0.25
    radius = np.hypot(x, y)
    scale = 0.78 if flanged else 1.0
    hexagon = _hexagon(x, y, scale)
    hole *= scale
    top = 0.55 - 0.55 * np.maximum(radius - 0.84 * scale, 0) - 0.9 * np.maximum(hole * 1.14 - radius, 0)
    height = np.where(hexagon < 0, top * np.clip(-hexagon / 0.07, 0, 1) ** 0.5, 0.08)
    outline = np.minimum(hexagon, radius - 1.0) if flanged else hexagon
    thread = 0.5 + 0.2 * np.cos(radius * (2 * np.pi / 0.07))
    return Relief(
        distance=_field(np.maximum(outline, 0.86 * hole - radius)),
        height=_field(height),
        tint=_field(np.where(radius < hole, thread, 1.0) * np.where(hexagon < 0, 1.0, 0.85)),
        thickness=rng.uniform(0.5, 0.75),
    )


def _hexagon(x: Field, y: Field, circumradius: float) -> Field:
    sides = [np.abs(x * np.cos(turn) + y * np.sin(turn)) for turn in np.deg2rad([30, 90, 150])]
    return _field(np.maximum.reduce(sides) - circumradius * np.sqrt(0.75))


def washer(rng: Rng, x: Field, y: Field) -> Relief:
    """A flat ring, turned or stamped; some are cut and sprung (lock washers), some have teeth inside."""
    inner = rng.uniform(0.4, 0.66)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    split = rng.random() < 0.25
    edge = np.maximum(radius - 1.0, inner - radius)
    if split:
        edge = np.maximum(edge, 0.09 - np.hypot(np.minimum(x, 0) + 0.0, y + 0.5 * (x + 0.8)) * np.where(x < 0, 1, 9))
    thickness = rng.uniform(0.1, 0.2)
    turned = np.interp(radius, np.linspace(0, 1.1, 40), rng.normal(1.0, 0.07, 40))
    rise = 0.12 * angle / np.pi if split else 0.0
    return Relief(
        distance=_field(edge),
        height=_field(thickness * np.clip(-edge / 0.09, 0, 1) + rise),
        tint=_field(turned),
        thickness=thickness,
        sheen=_turned(rng, angle),
    )


def gear(rng: Rng, x: Field, y: Field) -> Relief:
    """A spur gear: teeth, rim, recessed web, some with holes in it, hub and bore with a keyway."""
    num_teeth = int(rng.integers(10, 21))
    depth = 4.4 / (num_teeth + 2)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    flank = np.clip(2.2 * np.cos(num_teeth * angle) + 0.3, -1, 1)
    outline = radius - (1.0 - depth / 2 + depth / 2 * flank)
    bore, rim = rng.uniform(0.14, 0.26), 1.0 - depth - rng.uniform(0.1, 0.2)
    hub = bore + rng.uniform(0.12, 0.2)
    keyway = np.maximum(np.abs(y) - 0.35 * bore, np.abs(x - bore) - 0.4 * bore)
    hollow = np.minimum(radius - bore, keyway)
    num_holes = int(rng.choice([0, 0, 3, 4, 5, 6]))
    if num_holes and rim - hub > 0.25:
        hollow = np.minimum(hollow, _ring_of_holes(num_holes, (rim + hub) / 2, 0.3 * (rim - hub), x, y))
    recess = np.clip(np.minimum(radius - hub, rim - radius) / 0.05, 0, 1)
    distance = np.maximum(0.8 * outline, -hollow)
    return Relief(
        distance=_field(distance),
        height=_field((0.3 - 0.1 * recess) * np.clip(-distance / 0.05, 0, 1)),
        tint=_field(1.0 - 0.22 * recess),
        thickness=rng.uniform(0.22, 0.4),
        sheen=_turned(rng, angle),
    )


def _turned(rng: Rng, angle: Field) -> Field:
    """The two bright sectors caused by circular tool marks."""
    return _field(rng.uniform(0.1, 0.4) * np.cos(2 * (angle - rng.uniform(0, np.pi))))


def _ring_of_holes(count: int, ring: float, radius: float, x: Field, y: Field) -> Field:
    turn = 2 * np.pi / count
    angle = np.mod(np.arctan2(y, x), turn) - turn / 2
    reach = np.hypot(x, y)
    return _field(np.hypot(reach * np.cos(angle) - ring, reach * np.sin(angle)) - radius)


def spring(rng: Rng, x: Field, y: Field) -> Relief:
    """A compression spring lying on its side: strands in front, darker strands behind, closed ends."""
    radius = rng.uniform(0.24, 0.36)
    pitch = 2.0 / rng.integers(5, 10)
    wire = pitch * rng.uniform(0.16, 0.24)
    reach = radius - wire
    level = np.clip(y / reach, -1, 1)
    turn = np.arccos(level) / (2 * np.pi)
    slope = np.minimum(pitch / (2 * np.pi * reach * np.sqrt(1 - level**2 + 1e-3)), 1.2)
    beyond = y - np.clip(y, -reach, reach)
    front, back = (
        np.hypot(_nearest(x - sign * pitch * turn, pitch) / np.sqrt(1 + slope**2), beyond) for sign in (1, -1)
    )
    ends = np.hypot(np.abs(np.abs(x) - 1.0 + wire), beyond)
    near = np.minimum(front, ends)
    distance = np.maximum(np.minimum(near, back) - wire, np.abs(x) - 1.0)
    depth = np.where(near < wire, near, back)
    return Relief(
        distance=_field(distance),
        height=_field(np.sqrt(np.maximum(wire**2 - depth**2, 0)) + np.where(near < wire, radius, 0.0)),
        tint=_field(np.where(near < wire, 1.0, 0.5)),
        thickness=radius,
    )


def _nearest(offset: NDArray[Any], period: float) -> Field:
    return _field(np.mod(offset + period / 2, period) - period / 2)


def _field(values: NDArray[Any]) -> Field:
    return np.asarray(values, np.float32)


SHAPES: Final[dict[str, Callable[[Rng, Field, Field], Relief]]] = {
    "bolt": bolt,
    "nut": nut,
    "washer": washer,
    "gear": gear,
    "spring": spring,
}
