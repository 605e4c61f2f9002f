"""Solids that are drawn in small windows of the image and composited onto it with their shadows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loop.data.world.light import Light, Material, albedo_of, cast_shadow, shade, smear
from loop.data.world.noise import Field, fractal
from loop.data.world.parts import SHAPES, Relief

Rng = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """A part with its material, position and orientation."""

    label: str
    material: Material
    x_px: float  # centre
    y_px: float
    length_px: float  # of its longer side, untilted
    rotation_deg: float
    tilt_deg: float
    tilt_axis_deg: float
    blur_px: float


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of whole pixels inside the image."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window's rows and columns in an image."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, outer: "Window") -> tuple[slice, slice]:
        """The window's rows and columns in a larger window that contains it."""
        rows = slice(self.top - outer.top, self.bottom - outer.top)
        return rows, slice(self.left - outer.left, self.right - outer.left)

    @classmethod
    def around(cls, box: tuple[float, float, float, float], margin_px: float, shape: tuple[int, int]) -> "Window":
        """The pixels within ``margin_px`` of a box (xyxy), inside an image of ``shape`` (H, W)."""
        height, width = shape
        left, right = np.clip([np.floor(box[0] - margin_px), np.ceil(box[2] + margin_px)], 0, width).astype(int)
        top, bottom = np.clip([np.floor(box[1] - margin_px), np.ceil(box[3] + margin_px)], 0, height).astype(int)
        left, top = min(left, width - 1), min(top, height - 1)  # never empty, even for a box outside the image
        return cls(int(left), int(top), int(max(right, left + 1)), int(max(bottom, top + 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sprite:
    """A drawn solid."""

    window: Window
    alpha: Field  # [h, w] coverage in the window, before defocus
    soft_alpha: Field  # [h, w] coverage after defocus
    colour: Field  # [h, w, 3] linear light times soft_alpha
    height_px: float  # of its upper edge, for the shadow
    box: tuple[float, float, float, float]  # xyxy px, tight around the whole solid


def draw_part(pose: Pose, light: Light, rng: Rng, shape: tuple[int, int]) -> Sprite:
    """The part in its pose, anti-aliased, lit and blurred."""
    window, scale = _window(pose, shape), 3 if pose.length_px < 30 else 2
    relief = SHAPES[pose.label](rng, *_coordinates(pose, window, scale))
    unit = scale * pose.length_px / 2
    alpha, colour = _lit(relief, pose, light, rng, unit)
    coverage, colour = _shrink(alpha, window), _shrink(colour * alpha[..., None], window)
    soft, colour = _defocus(coverage, pose.blur_px), _defocus(colour, pose.blur_px)
    height = 0.6 * relief.thickness * pose.length_px / 2 * (1 + _direction(pose.tilt_deg)[1])
    return Sprite(
        window=window,
        alpha=coverage,
        soft_alpha=soft,
        colour=colour,
        height_px=height,
        box=_extent(alpha, window, scale),
    )


def _window(pose: Pose, shape: tuple[int, int]) -> Window:
    reach = (0.52 + 0.1 * _direction(pose.tilt_deg)[1]) * pose.length_px + 3 * pose.blur_px + 2
    return Window.around((pose.x_px, pose.y_px, pose.x_px, pose.y_px), reach, shape)


def _coordinates(pose: Pose, window: Window, scale: int) -> tuple[Field, Field]:
    """Coordinates on the part of every fine pixel of the window, in half lengths."""
    rows = (np.arange((window.bottom - window.top) * scale, dtype=np.float32) + 0.5) / scale + window.top - pose.y_px
    columns = (
        (np.arange((window.right - window.left) * scale, dtype=np.float32) + 0.5) / scale + window.left - pose.x_px
    )
    x, y = np.meshgrid(columns, rows)
    axis_x, axis_y = _direction(pose.tilt_axis_deg)
    stretch = (x * axis_x + y * axis_y) * (1 / _direction(pose.tilt_deg)[0] - 1)
    x, y = x + stretch * axis_x, y + stretch * axis_y
    turn_x, turn_y = _direction(pose.rotation_deg)
    half = pose.length_px / 2
    return (
        np.asarray((x * turn_x + y * turn_y) / half, np.float32),
        np.asarray((y * turn_x - x * turn_y) / half, np.float32),
    )


def _direction(angle_deg: float) -> tuple[float, float]:
    return float(np.cos(np.deg2rad(angle_deg))), float(np.sin(np.deg2rad(angle_deg)))


def _lit(relief: Relief, pose: Pose, light: Light, rng: Rng, unit: float) -> tuple[Field, Field]:
    """Coverage ``[h, w]`` and colour ``[h, w, 3]`` of the top face and, where the part is tilted, of its side."""
    top = np.clip(0.5 - relief.distance * unit, 0, 1).astype(np.float32)
    patina = 1.0 + 0.07 * fractal(rng, (top.shape[0], top.shape[1]), 14, 2)
    albedo = albedo_of(pose.material) * (relief.tint * patina * (1 + pose.material.metal * relief.sheen))[..., None]
    sine, (axis_x, axis_y) = _direction(pose.tilt_deg)[1], _direction(pose.tilt_axis_deg)
    colour = shade(relief.height * unit, albedo, pose.material, light, (-0.8 * sine * axis_x, -0.8 * sine * axis_y))
    depth = 0.7 * relief.thickness * unit * sine
    if depth < 1:
        return top, colour
    whole = smear(top, (depth * axis_x, depth * axis_y))
    side = shade(_defocus(whole, depth / 2) * depth, 0.6 * albedo, pose.material, light, (axis_x, axis_y))
    return whole, np.asarray(side + (colour - side) * top[..., None], np.float32)


def _shrink(picture: Field, window: Window) -> Field:
    import cv2

    size = (window.right - window.left, window.bottom - window.top)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)


def _defocus(picture: Field, sigma_px: float) -> Field:
    import cv2

    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma_px), np.float32) if sigma_px > 0 else picture


def _extent(alpha: Field, window: Window, scale: int) -> tuple[float, float, float, float]:
    """The box (xyxy px) around all fine pixels that are at least half covered."""
    columns, rows = (np.flatnonzero((alpha >= 0.5).any(axis)) / scale for axis in (0, 1))
    end = 1 / scale
    return (
        float(window.left + columns[0]),
        float(window.top + rows[0]),
        float(window.left + columns[-1] + end),
        float(window.top + rows[-1] + end),
    )


def lay(canvas: Field, sprite: Sprite, light: Light, depth: float = 1.0) -> None:
    """Composite the solid and its shadow, scaled by ``depth``, onto the canvas ``[H, W, 3]`` in place."""
    ground = _shadow_window(sprite, light, (canvas.shape[0], canvas.shape[1]))
    outline = np.zeros((ground.bottom - ground.top, ground.right - ground.left), np.float32)
    outline[sprite.window.within(ground)] = sprite.soft_alpha
    canvas[ground.slices] *= 1 - depth * cast_shadow(outline, sprite.height_px, light)[..., None]
    patch = canvas[sprite.window.slices]
    patch *= 1 - sprite.soft_alpha[..., None]
    patch += sprite.colour


def _shadow_window(sprite: Sprite, light: Light, shape: tuple[int, int]) -> Window:
    window = sprite.window
    reach = sprite.height_px * (1 / light.direction[2] + 0.5) + 4
    return Window.around((window.left, window.top, window.right, window.bottom), reach, shape)


def covered(sprite: Sprite, above: NDArray[np.float32]) -> float:
    """Fraction of the solid's outline that is covered by ``above`` ``[H, W]`` (coverage in [0, 1])."""
    return float((sprite.alpha * above[sprite.window.slices]).sum() / max(float(sprite.alpha.sum()), 1e-6))
