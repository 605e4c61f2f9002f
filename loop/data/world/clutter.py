"""Clutter that is not a part: cables, o-rings, pins, shavings, tape, labels, stains, scratches, pen marks."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loop.data.world.backgrounds import linear
from loop.data.world.light import MATERIALS, STEEL, Light, Material, albedo_of, shade
from loop.data.world.noise import Field, fractal
from loop.data.world.sprite import Sprite, Window

Rng = np.random.Generator
Point = tuple[float, float]
FINE: Final = 2  # clutter is drawn at this multiple of the image's resolution
_CABLES: Final[tuple[tuple[int, int, int], ...]] = (
    (34, 34, 36), (176, 40, 36), (38, 74, 150), (212, 176, 44), (60, 120, 64), (150, 152, 154), (214, 212, 206),
)  # fmt: skip
_TAPES: Final[tuple[tuple[int, int, int], ...]] = (
    (214, 196, 150), (36, 36, 38), (222, 182, 40), (60, 96, 160), (172, 174, 178), (186, 146, 96),
)  # fmt: skip


def cable(rng: Rng, light: Light, shape: tuple[int, int], through: Point, width_px: float | None = None) -> Sprite:
    """A bent cable through a point of the image."""
    heading, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.004)
    reach = np.linspace(-1, 1, 40) * rng.uniform(50, 260)
    angle = heading + bend * reach
    x, y = through[0] + reach * np.cos(angle), through[1] + reach * np.sin(angle)
    plastic = Material(_CABLES[rng.integers(len(_CABLES))], 0.0, 0.35, 18)
    return tube(np.stack([x, y], 1), (width_px or rng.uniform(3, 9)) / 2, plastic, light, shape)


def o_ring(rng: Rng, light: Light, shape: tuple[int, int], at: Point) -> Sprite:
    """A closed loop of rubber or wire."""
    turn, radius, squeeze = np.linspace(0, 2 * np.pi, 48), rng.uniform(7, 20), rng.uniform(0.6, 1.0)
    lean = rng.uniform(0, np.pi)
    x, y = radius * np.cos(turn), squeeze * radius * np.sin(turn)
    path = np.stack([at[0] + x * np.cos(lean) - y * np.sin(lean), at[1] + x * np.sin(lean) + y * np.cos(lean)], 1)
    rubber = Material(_CABLES[rng.integers(len(_CABLES))], 0.0, 0.2, 12)
    return tube(path, radius * rng.uniform(0.07, 0.16), rubber, light, shape)


def pin(rng: Rng, light: Light, shape: tuple[int, int], at: Point) -> Sprite:
    """A plain dowel or a snippet of wire: straight, without head or thread."""
    heading, half = rng.uniform(0, 2 * np.pi), rng.uniform(6, 24)
    step = half * np.array([np.cos(heading), np.sin(heading)])
    path = np.stack([np.array(at) - step, np.array(at) + step])
    return tube(path, rng.uniform(1, 4), MATERIALS[rng.integers(len(MATERIALS))], light, shape)


def shaving(rng: Rng, light: Light, shape: tuple[int, int], at: Point) -> Sprite:
    """A curl of swarf."""
    turn = np.linspace(0, rng.uniform(3, 16), 40)
    radius = np.linspace(rng.uniform(2, 4), rng.uniform(4, 10), 40)
    drift = turn[:, None] * rng.normal(0, 1.2, 2)
    path = np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1) + drift + np.array(at)
    return tube(path, rng.uniform(0.5, 1.1), STEEL, light, shape)


def tube(
    path: NDArray[np.float64], radius_px: float, material: Material, light: Light, shape: tuple[int, int]
) -> Sprite:
    """A round body of ``radius_px`` along a path ``[n, 2]`` (x, y) px."""
    inside = np.clip(path, -40, np.array(shape[::-1]) + 40)
    box = (*inside.min(0).tolist(), *inside.max(0).tolist())
    window = Window.around(box, radius_px + 2, shape)
    local = (path - (window.left, window.top)) * FINE
    outline = _strokes(window, [(local, 2 * radius_px * FINE, 255)])
    rings = [(local, 2 * radius_px * FINE * share, 255 * np.sqrt(1 - share**2)) for share in (0.95, 0.8, 0.6, 0.4, 0.2)]
    height = _soften(_strokes(window, rings), 0.35 * radius_px * FINE) * np.float32(radius_px * FINE / 255)
    colour = shade(height, np.broadcast_to(albedo_of(material), (*height.shape, 3)), material, light)
    return _sprite(window, outline / np.float32(255), colour, 1.4 * radius_px, box)


def _strokes(window: Window, strokes: list[tuple[NDArray[np.float64], float, float]]) -> Field:
    """Lines drawn in order, each given by its path in fine pixels, thickness and brightness."""
    import cv2

    picture = np.zeros(((window.bottom - window.top) * FINE, (window.right - window.left) * FINE), np.uint8)
    for path, thickness, level in strokes:
        points = [np.round(path * 16).astype(np.int32)]
        cv2.polylines(picture, points, False, int(level), max(round(thickness), 1), cv2.LINE_AA, 4)
    return picture.astype(np.float32)


def _soften(picture: Field, sigma_px: float) -> Field:
    import cv2

    return np.asarray(cv2.GaussianBlur(picture, (0, 0), max(sigma_px, 0.5)), np.float32)


def _sprite(
    window: Window, alpha: Field, colour: Field, height_px: float, box: tuple[float, float, float, float]
) -> Sprite:
    import cv2

    size = (window.right - window.left, window.bottom - window.top)
    coverage = np.asarray(cv2.resize(alpha, size, interpolation=cv2.INTER_AREA), np.float32)
    shown = np.asarray(cv2.resize(colour * alpha[..., None], size, interpolation=cv2.INTER_AREA), np.float32)
    return Sprite(window=window, alpha=coverage, soft_alpha=coverage, colour=shown, height_px=height_px, box=box)


def tape(rng: Rng, light: Light, shape: tuple[int, int], at: Point, width_px: float | None = None) -> Sprite:
    """A torn strip of adhesive tape, slightly transparent."""
    width = width_px or rng.uniform(12, 30)
    length = width * rng.uniform(1.6, 4.0)
    size = (int(width * FINE), int(length * FINE))
    face = linear(*_TAPES[rng.integers(len(_TAPES))]) * (1 + 0.08 * fractal(rng, size, 12, 2))[..., None]
    ends = np.cumsum(rng.integers(-1, 2, (size[0], 2)), 0) + 4
    columns = np.arange(size[1])[None, :]
    torn = (columns > ends[:, :1]) & (columns < size[1] - ends[:, 1:])
    return _flat(rng, light, shape, at, face.astype(np.float32), torn * np.float32(rng.uniform(0.9, 1.0)))


def label(rng: Rng, light: Light, shape: tuple[int, int], at: Point) -> Sprite:
    """A sticker with a bar code and lines of text."""
    size = (int(rng.uniform(20, 46)) * FINE, int(rng.uniform(40, 80)) * FINE)
    paper = ((228, 228, 222), (232, 204, 70), (224, 120, 50), (206, 222, 230))[rng.integers(4)]
    face = np.broadcast_to(linear(*paper), (*size, 3)).copy()
    if rng.random() < 0.5:
        bars = np.repeat(rng.random(size[1] // 3) < 0.5, 3)
        face[4 : size[0] // 2, 6:-6][:, bars[: size[1] - 12]] = 0.03
    for row in range(size[0] // 2 + 5, size[0] - 7, 9):
        words = np.repeat(rng.random(size[1] // 4) < 0.7, 4)
        face[row : row + 4, 8:-8][:, words[: size[1] - 16]] = 0.06
    return _flat(rng, light, shape, at, face, np.ones(size, np.float32))


def _flat(rng: Rng, light: Light, shape: tuple[int, int], at: Point, face: Field, alpha: Field) -> Sprite:
    """A flat object with reflectance ``face`` ``[h, w, 3]`` and ``alpha`` ``[h, w]``, rotated and placed at a point."""
    import cv2

    height, width = alpha.shape
    reach = np.hypot(height, width) / FINE / 2
    window = Window.around((at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach), 0, shape)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(0, 360), 1.0)
    turn[:, 2] += ((at[0] - window.left) * FINE - width / 2, (at[1] - window.top) * FINE - height / 2)
    size = ((window.right - window.left) * FINE, (window.bottom - window.top) * FINE)
    placed = cv2.warpAffine(np.dstack([face, alpha]), turn, size)
    level = light.ambient + (1 - light.ambient) * light.direction[2]
    cover = np.maximum(placed[..., 3:], 1e-3)
    return _sprite(window, placed[..., 3], placed[..., :3] / cover * level, 0.8, (0, 0, 0, 0))


def stain(rng: Rng, canvas: Field, at: Point) -> None:
    """Oil or water: a blot, or the ring left by a cup."""
    rows, columns = np.indices(canvas.shape[:2], dtype=np.float32)
    shape = (canvas.shape[0], canvas.shape[1])
    radius = np.hypot(rows - at[1], columns - at[0]) + 5 * fractal(rng, shape, 24)
    size, ring = rng.uniform(8, 40), rng.random() < 0.4
    depth = np.exp(-(((radius - size) / 1.8) ** 2)) if ring else np.clip((size - radius) / 6, 0, 1)
    canvas *= 1 - (rng.uniform(0.15, 0.5) * depth)[..., None] * np.array([0.8, 0.9, 1.0], np.float32)


def scratches(rng: Rng, canvas: Field, at: Point) -> None:
    """A few thin bright or dark lines."""
    window = Window(0, 0, canvas.shape[1], canvas.shape[0])
    strokes = []
    for _ in range(rng.integers(2, 8)):
        start = np.array(at) + rng.normal(0, 25, 2)
        heading = rng.normal(0, 0.5) + rng.choice([0.4, 1.9])
        line = start + np.linspace(0, rng.uniform(10, 90), 5)[:, None] * [np.cos(heading), np.sin(heading)]
        strokes.append((line * FINE, 1.0, rng.uniform(60, 220)))
    _rub(canvas, _strokes(window, strokes), linear(*((225, 225, 225), (20, 20, 20))[rng.integers(2)]), 0.5)


def pen_marks(rng: Rng, canvas: Field, at: Point) -> None:
    """A squiggle, tick or circle left by a marker."""
    window = Window(0, 0, canvas.shape[1], canvas.shape[0])
    turn, radius = np.linspace(0, rng.uniform(2, 7), 30), rng.uniform(6, 26)
    x, y = radius * np.cos(turn) + rng.normal(0, 3) * turn, radius * rng.uniform(0.3, 1) * np.sin(turn)
    path = (np.stack([x, y], 1) + np.array(at)) * FINE
    ink = linear(*((30, 30, 34), (190, 34, 34), (32, 60, 150), (232, 232, 226))[rng.integers(4)])
    _rub(canvas, _strokes(window, [(path, rng.uniform(2, 5), 255.0)]), ink, rng.uniform(0.5, 0.9))


def _rub(canvas: Field, mask: Field, ink: Field, strength: float) -> None:
    import cv2

    size = (canvas.shape[1], canvas.shape[0])
    cover = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)[..., None] * np.float32(strength / 255)
    canvas += (ink - canvas) * cover


SOLIDS: Final[tuple[Callable[[Rng, Light, tuple[int, int], Point], Sprite], ...]] = (
    cable, cable, o_ring, pin, shaving, shaving, tape, label,
)  # fmt: skip
MARKS: Final[tuple[Callable[[Rng, Field, Point], None], ...]] = (stain, scratches, scratches, pen_marks)
