"""The light of a hole's surroundings: a wide Gaussian, at a cost that grows with the pixels alone."""

import time

import cv2
import numpy as np

from actors.generators.inpaint.clearing import light


def surroundings(side_px):
    """A smooth difference in light, with grain, that is known around a hole in the middle."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.normal(0, 10, (6, 6, 3)).astype(np.float32), (side_px, side_px))
    known = np.ones((side_px, side_px), np.bool_)
    known[side_px // 4 : -side_px // 4, side_px // 4 : -side_px // 4] = False
    return np.clip(smooth + rng.normal(0, 2, smooth.shape), -29, 29).astype(np.float32), known


def seconds(side_px):
    difference, known = surroundings(side_px)
    start = time.process_time()
    light(difference, known)
    return time.process_time() - start


def test_the_light_of_a_large_region_is_that_of_the_exact_gaussian_to_a_fraction_of_a_grey_level():
    difference, known = surroundings(400)
    weight = known.astype(np.float32)
    total, norm = (cv2.GaussianBlur(one, (0, 0), 100) for one in (difference * weight[..., None], weight))
    np.testing.assert_allclose(light(difference, known), total / norm[..., None], atol=0.3)


def test_its_time_does_not_grow_faster_than_the_pixels():
    assert seconds(1600) < 3 * 16 * min(seconds(400) for _ in range(3))  # 16 times the pixels; measured: 10 times
