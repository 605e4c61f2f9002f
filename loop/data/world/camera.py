"""The camera: converts light to a photograph with exposure, softness, sensor noise and compression."""

import numpy as np

from actors.images import Pixels
from loop.data.world.noise import Field

Rng = np.random.Generator


def expose(rng: Rng, light: Field) -> Pixels:
    """The photograph ``[H, W, 3]`` uint8 RGB of linear light ``[H, W, 3]``."""
    import cv2

    soft = np.maximum(cv2.GaussianBlur(light, (0, 0), rng.uniform(0.35, 0.65)), 0)
    rolled = soft / (1 + np.float32(0.18) * soft * soft)  # highlights saturate softly
    grain = np.float32(rng.uniform(0.008, 0.028) * 255)
    encoded = np.sqrt(rolled) * np.float32(255)  # equal steps of a square root hold equal photon noise
    encoded += grain * rng.standard_normal(light.shape, dtype=np.float32)
    picture = np.clip(encoded + np.float32(0.5), 0, 255).astype(np.uint8)
    quality = int(rng.integers(78, 96))
    _, packed = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    unpacked = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(unpacked[..., ::-1])
