"""Surfaces under the parts: wood, brushed metal, rubber, cardboard, cloth, cutting mat, belt, paint, stone."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from loop.data.world.noise import Field, fractal, speckle, streaks

Rng = np.random.Generator
Shape = tuple[int, int]


def draw_background(rng: Rng, shape: Shape) -> tuple[str, Field]:
    """The kind of a surface and its reflectance ``[H, W, 3]``, linear light in [0, 1], rotated by a random angle."""
    import cv2

    kind = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    height, width = shape
    side = int(np.hypot(height, width)) + 2
    surface = BACKGROUNDS[kind](rng, (side, side))
    angle = rng.choice([0.0, 90.0]) + rng.normal(0.0, 12.0)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.0)
    turn[:, 2] += (width - side) / 2, (height - side) / 2
    turned = cv2.warpAffine(surface, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
    return kind, np.clip(np.asarray(turned, np.float32), 0.004, 1.0)


def linear(*colour: float) -> Field:
    """An sRGB colour (0 to 255 each) as linear light ``[3]`` in [0, 1]."""
    return (np.asarray(colour, np.float32) / 255.0) ** 2


def _pick(rng: Rng, *colours: tuple[int, int, int]) -> Field:
    """One of the colours, with small random changes in brightness and hue."""
    colour = linear(*colours[rng.integers(len(colours))])
    return np.asarray(colour * rng.uniform(0.75, 1.25) * rng.uniform(0.93, 1.07, 3), np.float32)


def _tone(level: NDArray[Any], colour: Field) -> Field:
    """The colour times the brightness ``level`` ``[H, W]``."""
    return np.asarray(np.maximum(level, 0.05)[..., None] * colour, np.float32)


def _grid(shape: Shape) -> tuple[Field, Field]:
    rows, columns = np.indices(shape, dtype=np.float32)
    return rows, columns


def _relief(height: Field, strength: float) -> Field:
    """Light (around 1) on a height field lit from the top left."""
    slope = np.zeros_like(height)
    slope[1:, 1:] = height[1:, 1:] - height[:-1, :-1]
    return np.asarray(1.0 + strength * slope, np.float32)


def _brushed_metal(rng: Rng, shape: Shape) -> Field:
    level = 1.0 + rng.uniform(0.06, 0.14) * streaks(rng, shape, 90) + 0.06 * fractal(rng, shape, 120, 2)
    sheen = np.cos(np.linspace(0, rng.uniform(2, 6), shape[0], dtype=np.float32) + rng.uniform(0, 6))
    return _tone(level + 0.12 * sheen[:, None], _pick(rng, (150, 153, 158), (178, 178, 176), (104, 108, 116)))


def _wood(rng: Rng, shape: Shape) -> Field:
    rows, _ = _grid(shape)
    plank = rng.uniform(60, 150)
    board = np.floor((rows + rng.uniform(0, plank)) / plank)
    warp = streaks(rng, shape, 160) * 0.5 + 2.2 * fractal(rng, (shape[0], 8), 40, 2).mean(1, keepdims=True)
    rings = np.sin(rows / rng.uniform(1.5, 4.0) + 2.0 * warp + 3.0 * fractal(rng, shape, 110, 2) + 5 * board)
    level = 1.0 + 0.10 * rings + 0.08 * streaks(rng, shape, 40) + 0.10 * np.sin(board * 7)
    seam = np.mod(rows + rng.uniform(0, plank), plank) < rng.choice([0.0, 1.6])
    return _tone(
        level * np.where(seam, 0.35, 1.0), _pick(rng, (190, 150, 104), (150, 106, 66), (212, 182, 140), (96, 66, 46))
    )


def _rubber_mat(rng: Rng, shape: Shape) -> Field:
    rows, columns = _grid(shape)
    pitch = rng.uniform(9, 22)
    if rng.random() < 0.5:
        height = np.sin(rows * (2 * np.pi / pitch)) * 0.9
    else:
        odd = np.mod(np.floor(rows / pitch), 2)
        radius = np.hypot(np.mod(rows, pitch) - pitch / 2, np.mod(columns + odd * pitch / 2, pitch) - pitch / 2)
        height = np.clip((0.36 * pitch - radius) / 1.5, 0, 1)
    light = _relief(np.asarray(height, np.float32), rng.uniform(0.3, 0.7))
    level = light + 0.10 * rng.standard_normal(shape, dtype=np.float32) + 0.15 * fractal(rng, shape, 60)
    return _tone(level, _pick(rng, (52, 53, 56), (70, 72, 74), (44, 58, 82), (92, 50, 44)))


def _cardboard(rng: Rng, shape: Shape) -> Field:
    rows, _ = _grid(shape)
    flutes = np.sin(rows * (2 * np.pi / rng.uniform(7, 12)))
    fibres = 0.05 * streaks(rng, shape, 9) + 0.04 * streaks(rng, (shape[1], shape[0]), 7).T
    level = 1.0 + rng.uniform(0.01, 0.05) * flutes + fibres + 0.06 * fractal(rng, shape, 70)
    level = level - 0.25 * speckle(rng, shape, 0.003)
    return _tone(level, _pick(rng, (186, 148, 106), (168, 128, 86), (206, 184, 156), (226, 222, 214)))


def _cloth(rng: Rng, shape: Shape) -> Field:
    rows, columns = _grid(shape)
    pitch = rng.uniform(3.2, 6.0)
    warp, weft = (np.sin(axis * (2 * np.pi / pitch)) for axis in (rows + 0.5 * columns, columns - 0.5 * rows))
    level = 1.0 + rng.uniform(0.06, 0.18) * warp * weft + 0.12 * fractal(rng, shape, 90)
    level = level + 0.08 * rng.standard_normal(shape, dtype=np.float32)
    return _tone(level, _pick(rng, (72, 92, 128), (120, 122, 120), (104, 108, 76), (158, 60, 54), (206, 200, 186)))


def _cutting_mat(rng: Rng, shape: Shape) -> Field:
    rows, columns = _grid(shape)
    base = _pick(rng, (34, 98, 80), (38, 72, 120), (60, 62, 66), (160, 92, 118))
    pitch = rng.uniform(14, 24)
    fine = np.minimum(np.mod(rows, pitch), np.mod(columns, pitch)) < 1.0
    bold = np.minimum(np.mod(rows, 5 * pitch), np.mod(columns, 5 * pitch)) < 1.7
    ink = (0.35 * fine + 0.4 * bold) * np.clip(0.9 + 0.3 * fractal(rng, shape, 50), 0.2, 1.2)
    level = 1.0 + 0.07 * fractal(rng, shape, 80) + 0.06 * rng.standard_normal(shape, dtype=np.float32)
    paint = linear(222, 222, 180)
    return np.asarray(_tone(level, base) * (1 - ink[..., None]) + paint * ink[..., None], np.float32)


def _belt(rng: Rng, shape: Shape) -> Field:
    rows, columns = _grid(shape)
    pitch = rng.uniform(5, 9)
    weave = np.sin((rows + columns) * (2 * np.pi / pitch)) * np.sin((rows - columns) * (2 * np.pi / pitch))
    worn = fractal(rng, (shape[0], 3), 30, 3).mean(1, keepdims=True)
    level = _relief(np.asarray(weave, np.float32), rng.uniform(0.04, 0.16)) + 0.16 * worn
    level = level + 0.05 * streaks(rng, shape, 120) + 0.05 * rng.standard_normal(shape, dtype=np.float32)
    return _tone(level, _pick(rng, (56, 84, 78), (74, 80, 86), (44, 76, 116), (188, 190, 186)))


def _painted_tray(rng: Rng, shape: Shape) -> Field:
    rows, _ = _grid(shape)
    pitch = rng.uniform(38, 90)
    rib = np.exp(-(((np.mod(rows, pitch) - pitch / 2) / 2.4) ** 2)) * rng.choice([0.0, 3.0])
    level = _relief(np.asarray(rib, np.float32), 0.14) + 0.05 * fractal(rng, shape, 130)
    dirt = 0.3 * speckle(rng, shape, rng.uniform(0.0, 0.004)) + 0.02 * rng.standard_normal(shape, dtype=np.float32)
    return _tone(
        level - dirt, _pick(rng, (206, 208, 206), (46, 96, 152), (182, 60, 44), (222, 174, 62), (108, 116, 122))
    )


def _perforated_sheet(rng: Rng, shape: Shape) -> Field:
    rows, columns = _grid(shape)
    pitch = rng.uniform(18, 34)
    odd = np.mod(np.floor(rows / pitch), 2)
    radius = np.hypot(np.mod(rows, pitch) - pitch / 2, np.mod(columns + odd * pitch / 2, pitch) - pitch / 2)
    hole = np.clip(pitch * rng.uniform(0.16, 0.26) - radius + 0.5, 0, 1).astype(np.float32)
    light = _relief(hole, -0.25) * (1.0 - 0.82 * hole)
    level = light * (1.0 + 0.06 * streaks(rng, shape, 50) + 0.06 * fractal(rng, shape, 100))
    return _tone(level, _pick(rng, (158, 160, 162), (120, 124, 130), (198, 198, 194)))


def _stone(rng: Rng, shape: Shape) -> Field:
    level = 1.0 + 0.10 * fractal(rng, shape, 40, 4) + 0.07 * rng.standard_normal(shape, dtype=np.float32)
    grains = 0.5 * speckle(rng, shape, 0.02) - 0.5 * speckle(rng, shape, 0.02)
    return _tone(level + grains * rng.uniform(0.2, 0.9), _pick(rng, (134, 132, 128), (174, 168, 158), (84, 84, 88)))


BACKGROUNDS: Final[dict[str, Callable[[Rng, Shape], Field]]] = {
    "brushed_metal": _brushed_metal,
    "wood": _wood,
    "rubber_mat": _rubber_mat,
    "cardboard": _cardboard,
    "cloth": _cloth,
    "cutting_mat": _cutting_mat,
    "belt": _belt,
    "painted_tray": _painted_tray,
    "perforated_sheet": _perforated_sheet,
    "stone": _stone,
}
