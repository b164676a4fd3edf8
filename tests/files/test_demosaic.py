"""The choice between two interpolations of a mosaic."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from denoise.files.image.demosaic import blend_by_detail

HEIGHT, WIDTH = 200, 300


def smooth_picture(channels: int = 3) -> NDArray[np.float64]:
    y, x = np.mgrid[:HEIGHT, :WIDTH] / WIDTH
    return np.stack([0.2 + 0.5 * x, 0.3 + 0.3 * y, 0.1 + 0.4 * x], axis=-1)[..., :channels]


def to_uint16(x: NDArray[np.float64]) -> NDArray[np.uint16]:
    return np.rint(x.clip(0, 1) * 65_535).astype(np.uint16)


@pytest.mark.parametrize("sigma", [0.004, 0.04])
def test_noise_is_interpolated_smoothly_and_detail_sharply(sigma: float) -> None:
    rng = np.random.default_rng(0)
    picture = smooth_picture()
    smooth = to_uint16(picture + sigma * rng.standard_normal(picture.shape))
    sharp_float = smooth / 65_535 + sigma * (0.5 + picture) * rng.standard_normal(picture.shape)  # more where bright
    sharp_float[80:120, 100:200:2] += 8 * sigma
    sharp = to_uint16(sharp_float)
    blended = blend_by_detail(sharp.copy(), smooth)
    np.testing.assert_array_equal(blended[90:110, 110:190], sharp[90:110, 110:190])
    is_flat = np.ones((HEIGHT, WIDTH), np.bool_)
    is_flat[60:140, 80:220] = False
    shift = np.abs(blended.astype(int) - smooth)[is_flat].mean() / np.abs(sharp.astype(int) - smooth)[is_flat].mean()
    assert shift < 0.2
    is_between = (blended >= np.minimum(sharp, smooth)) & (blended <= np.maximum(sharp, smooth))
    assert is_between.all()


def test_invisible_differences_change_nothing_visible() -> None:
    smooth = to_uint16(smooth_picture())
    sharp = smooth + np.random.default_rng(0).integers(-20, 20, smooth.shape).astype(np.uint16)
    assert np.abs(blend_by_detail(sharp, smooth).astype(int) - smooth).max() <= 20


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 5, 3), (17, 1, 1), (129, 40, 3)])
@pytest.mark.parametrize("value", [0, 65_535])
def test_equal_pictures_are_unchanged(shape: tuple[int, ...], value: int) -> None:
    picture = np.full(shape, value, np.uint16)
    np.testing.assert_array_equal(blend_by_detail(picture.copy(), picture), picture)
