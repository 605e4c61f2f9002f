"""Light, materials and shadows: shading of a height field seen from above, under one lamp in a room."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from loop.data.world.backgrounds import linear
from loop.data.world.noise import Field, fractal

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Light:
    """The lamp of a scene and its illumination of the image."""

    direction: tuple[float, float, float]  # unit vector from the surface to the lamp; x right, y down, z to the camera
    ambient: float  # fraction of the light that comes from all directions
    zenith: float  # brightness of the reflection in a flat mirror: camera and ceiling
    shadow: float  # fraction of the light that a shadow removes
    field: Field  # [H, W, 3] illumination


@dataclass(frozen=True, slots=True)
class Material:
    """The material of a part."""

    albedo: tuple[int, int, int]  # sRGB
    metal: float  # 0: scatters light, 1: reflects the room
    shine: float  # strength of the lamp's highlight
    gloss: float  # exponent of the highlight: the larger, the smaller and sharper it is


ZINC: Final = Material((196, 200, 206), 0.8, 0.5, 24)
STEEL: Final = Material((172, 172, 174), 0.9, 0.7, 40)
BLACK_OXIDE: Final = Material((62, 62, 66), 0.5, 0.35, 20)
BRASS: Final = Material((214, 172, 92), 0.85, 0.6, 30)
COPPER: Final = Material((204, 126, 92), 0.85, 0.5, 26)
YELLOW_ZINC: Final = Material((206, 186, 130), 0.75, 0.5, 24)
RUST: Final = Material((122, 76, 52), 0.15, 0.1, 8)
NYLON: Final = Material((226, 224, 214), 0.0, 0.25, 14)
BLACK_PLASTIC: Final = Material((42, 42, 44), 0.0, 0.3, 18)
RED_PLASTIC: Final = Material((186, 48, 40), 0.0, 0.3, 20)
BLUE_PLASTIC: Final = Material((40, 88, 168), 0.0, 0.3, 20)
MATERIALS: Final = (
    ZINC,
    STEEL,
    BLACK_OXIDE,
    BRASS,
    COPPER,
    YELLOW_ZINC,
    RUST,
    NYLON,
    BLACK_PLASTIC,
    RED_PLASTIC,
    BLUE_PLASTIC,
)


def draw_light(rng: Rng, shape: tuple[int, int]) -> Light:
    """A lamp at a random place above, with a fall-off across the image and a colour temperature."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(38, 68))
    across = np.cos(elevation)
    direction = (float(across * np.cos(azimuth)), float(across * np.sin(azimuth)), float(np.sin(elevation)))
    return Light(
        direction=direction,
        ambient=rng.uniform(0.3, 0.55),
        zenith=rng.uniform(0.3, 0.75),
        shadow=rng.uniform(0.45, 0.75),
        field=_illumination(rng, shape, direction),
    )


def _illumination(rng: Rng, shape: tuple[int, int], direction: tuple[float, float, float]) -> Field:
    rows, columns = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    ramp = rng.uniform(0.05, 0.3) * (columns[None, :] * direction[0] + rows[:, None] * direction[1])
    vignette = 1.0 - rng.uniform(0.05, 0.22) * (columns[None, :] ** 2 + rows[:, None] ** 2) / 2
    warmth = rng.uniform(-0.10, 0.14)
    tint = np.array([1 + warmth, 1.0, 1 - warmth], np.float32)
    level = rng.uniform(0.8, 1.2) * (1.0 + ramp) * vignette * (1.0 + 0.03 * fractal(rng, shape, 140, 1))
    return np.asarray(level[..., None] * tint, np.float32)


def shade(
    height: Field, albedo: NDArray[Any], material: Material, light: Light, slope: tuple[float, float] = (0, 0)
) -> Field:
    """Colours ``[H, W, 3]``, linear light, of a surface ``height`` ``[H, W]`` px high; ``slope`` tilts all of it."""
    across, down, up = _normals(height, slope)
    lamp = across * light.direction[0] + down * light.direction[1] + up * light.direction[2]
    mirrored = 2 * up * lamp - light.direction[2]  # the lamp, reflected by a mirror with this normal
    diffuse = light.ambient + (1 - light.ambient) * np.maximum(lamp, 0)
    level = (1 - material.metal) * diffuse + material.metal * _room(up, lamp, mirrored, light)
    lobe = material.shine * np.maximum(mirrored, 0) ** material.gloss
    glint = material.metal * albedo + (1 - material.metal)
    return np.asarray(albedo * level[..., None] + glint * lobe[..., None], np.float32)


def _normals(height: Field, slope: tuple[float, float]) -> tuple[Field, Field, Field]:
    import cv2

    across = slope[0] - cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    down = slope[1] - cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    length = np.sqrt(across * across + down * down + 1)
    return across / length, down / length, np.asarray(1 / length, np.float32)


def _room(up: Field, lamp: Field, mirrored: Field, light: Light) -> Field:
    """The reflection of the room: ceiling above, a large soft box around the lamp, dark walls."""
    ceiling = light.zenith * np.clip(2 * up * up - 1, 0, 1)
    box = np.clip((mirrored - 0.45) / 0.4, 0, 1)
    walls = 0.16 + 0.18 * np.maximum(lamp, 0)
    return np.asarray(walls + 0.8 * ceiling + 0.75 * box * box * (3 - 2 * box), np.float32)


def cast_shadow(alpha: Field, height_px: float, light: Light) -> Field:
    """Fraction of the light ``[H, W]`` that a solid of outline ``alpha`` and height ``height_px`` removes below it."""
    import cv2

    reach = height_px / light.direction[2]
    thrown = smear(alpha, (-light.direction[0] * reach, -light.direction[1] * reach))
    penumbra = cv2.GaussianBlur(thrown, (0, 0), 0.6 + 0.22 * height_px)
    contact = cv2.GaussianBlur(alpha, (0, 0), 1.0 + 0.3 * height_px)
    return np.asarray(np.minimum(light.shadow * penumbra + 0.3 * contact, 0.92), np.float32)


def smear(alpha: Field, offset_px: tuple[float, float]) -> Field:
    """The outline ``[H, W]`` swept from its place along ``offset_px`` (x, y)."""
    import cv2

    reach = int(np.ceil(max(abs(offset_px[0]), abs(offset_px[1]))))
    if reach == 0:
        return alpha
    line: NDArray[np.uint8] = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    # OpenCV's dilation does not flip the kernel, so the line points backwards.
    cv2.line(line, (reach, reach), (reach - round(offset_px[0]), reach - round(offset_px[1])), 1)
    return np.asarray(cv2.dilate(alpha, line, borderType=cv2.BORDER_CONSTANT, borderValue=0), np.float32)


def albedo_of(material: Material) -> Field:
    """The material's colour as linear light ``[3]``."""
    return linear(*material.albedo)
