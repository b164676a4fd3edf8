"""Choice between two interpolations of a mosaic: a sharp one for detail, a smooth one for noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 15  # pixels: side of the squares in which the two are compared
LEVELS, FINE_LEVELS = 16, 256  # of brightness, for which the noise is determined and interpolated
FLAT_FRACTION = 0.01  # of the squares of a level show noise only
MIN_SAMPLES, MAX_SAMPLES = 200, 1 << 20  # squares from which the noise is determined, of a level and of all
NOISE_LIMIT, DETAIL_LIMIT = 1.5, 4.0  # power of the difference, relative to that of noise
MIN_NOISE = (0.25 / 255) ** 2  # below this power, the difference is invisible
ROWS_PER_BAND = 128
PEAK = 65_535


def blend_by_detail(sharp: NDArray[np.uint16], smooth: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Take the smooth one of two pictures where they differ by noise only, and the sharp one where there is detail.

    Directed interpolation turns noise into short lines that look like detail, also to a network. Linear interpolation
    blurs detail, but its noise is easily removed. The power of their difference in squares tells noise from detail;
    that of noise is the lowest at each brightness.

    Args:
        sharp: (height, width, channels) by directed interpolation, full scale 65535.
        smooth: the same picture by linear interpolation.

    Returns:
        The same shape; ``sharp`` is overwritten.
    """
    from scipy.ndimage import uniform_filter

    scale, mean = np.float32(1 / PEAK), np.full(sharp.shape[2], 1 / sharp.shape[2], np.float32)
    power = np.empty(sharp.shape[:2], np.float32)
    brightness = np.empty_like(power)
    for rows in _bands(len(sharp)):
        x, y = sharp[rows] * scale, smooth[rows] * scale
        power[rows], brightness[rows] = np.square(x - y) @ mean, y @ mean
    power, brightness = uniform_filter(power, WINDOW), uniform_filter(brightness, WINDOW)
    step = max(1, round((power.size / MAX_SAMPLES) ** 0.5))
    noise = _noise_by_level(power[::step, ::step], brightness[::step, ::step])
    for rows in _bands(len(sharp)):
        ratio = power[rows] / noise[np.clip(brightness[rows] * len(noise), 0, len(noise) - 1).astype(np.uint8)]
        weight = np.clip((ratio - NOISE_LIMIT) / (DETAIL_LIMIT - NOISE_LIMIT), 0, 1)[..., None]
        y = smooth[rows].astype(np.float32)
        sharp[rows] = y + weight * (sharp[rows] - y) + np.float32(0.5)  # rounded
    return sharp


def _bands(n_rows: int) -> list[slice]:
    return [slice(start, start + ROWS_PER_BAND) for start in range(0, n_rows, ROWS_PER_BAND)]


def _noise_by_level(power: NDArray[Any], brightness: NDArray[Any]) -> NDArray[np.float32]:
    """Return the power of the noise at each of `FINE_LEVELS` of brightness."""
    level = np.clip(brightness * LEVELS, 0, LEVELS - 1).astype(np.uint8)
    populated, noise = [], []
    for index in range(LEVELS):
        samples = power[level == index]
        if len(samples) >= min(MIN_SAMPLES, power.size / LEVELS):
            populated.append(index)
            noise.append(max(float(np.quantile(samples, FLAT_FRACTION)), MIN_NOISE))
    positions = (np.arange(FINE_LEVELS) + 0.5) * LEVELS / FINE_LEVELS - 0.5
    return np.interp(positions, populated, noise).astype(np.float32)
