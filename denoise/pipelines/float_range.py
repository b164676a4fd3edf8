"""Range of float pixels: lights far above white, fill values, and data in units of their own."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.signals import Image

MAX_SAMPLES = 1 << 20  # values from which the range is determined
MAX_UNIT_MEDIAN = 2.0  # greater medians mean that white is not 1
MIN_UNIT_EXCESS, MAX_UNIT_VALUE = 0.5, 4.0  # beyond white and from black, where white is 1
MAX_UNSCALED = 16.0  # greater values are scaled to about 1
SPREADS = 8.0  # between the median and the bound, each the distance of the median from a quartile
RANGES = 2.0  # of 96 % of the pixels around the median: no outliers where white is unknown
MAX_SAFE_SCALE, ROUNDING = 2.0**40, 1e-6  # beyond this scale, values below this fraction of it are counted
MAX_LOST_FRACTION = 0.1  # of the pixels, below the rounding error of the others
BRIGHT_SIDE = 9  # pixels: outliers are denoised where they fill a square of this side


class FloatRange(NamedTuple):
    """Bounds beyond which float pixels are outliers, and the power of two by which the others are divided.

    Args:
        low: lower bound.
        high: upper bound.
        scale: divisor of the pixels and of sigma; 1.0 unless the pixels have units of their own.
    """

    low: float
    high: float
    scale: float

    def contains(self, image: Image) -> NDArray[np.bool_]:
        """Return which visible pixels are within the bounds in every channel.

        Args:
            image: float image.

        Returns:
            Mask, (height, width).
        """
        inside = np.all((image.pixels >= self.low) & (image.pixels <= self.high), axis=2)
        return inside if image.visible is None else inside & image.visible

    def normalise(self, image: Image) -> Image:
        """Hide the outliers of an image and scale the other pixels.

        Args:
            image: float image.

        Returns:
            An image of the same shape, with values of about 1, whose alpha is 0 where pixels are out of bounds.
        """
        pixels = image.pixels.clip(self.low, self.high) / np.float32(self.scale)
        return Image(pixels.astype(np.float32), self.contains(image).astype(np.float32))

    def denormalise(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undo the scaling of `normalise`.

        Args:
            pixels: any shape.

        Returns:
            Finite pixels of the same shape in the units of the image.
        """
        limit = np.finfo(np.float32).max / np.float32(self.scale)
        return pixels.clip(-limit, limit) * np.float32(self.scale)

    def find_bright(self, image: Image) -> NDArray[np.bool_] | None:
        """Find the areas of outliers that are denoised as an image of their own.

        Points of light and lines are not among them, because too few of their pixels are alike. Neither are the least
        and greatest value, which clipping or a fill value causes.

        Args:
            image: float image.

        Returns:
            Mask, (height, width), or None if there are none.
        """
        from scipy.ndimage import binary_opening

        x = image.pixels
        visible = np.ones(x.shape[:2], np.bool_) if image.visible is None else image.visible
        is_extreme = (x == x[visible].min()) | (x == x[visible].max())
        bright = visible & ~self.contains(image) & ~is_extreme.any(axis=2)
        bright = binary_opening(bright, np.ones((BRIGHT_SIDE, BRIGHT_SIDE)))
        return bright if bright.any() else None


def find_float_range(image: Image) -> FloatRange | None:
    """Determine the range of the visible float pixels from their quartiles and their finest detail.

    White is 1.0, unless the median is far above it. Noise of any strength is within the bounds. The least and greatest
    value are often fill values and do not count.

    Args:
        image: any image.

    Returns:
        The range, or None if no pixel is out of bounds and none needs a scale: for all integers, all floats from 0 to
        1, and ordinary floats beyond.

    Raises:
        InputError: the values differ so much that most would be lost to rounding.
    """
    x = image.pixels
    if x.dtype != np.float32 or (x.min() >= 0 and x.max() <= 1):
        return None
    values = x.reshape(-1) if image.visible is None else x[image.visible].reshape(-1)
    if not len(values):
        return None
    least, greatest = float(values.min()), float(values.max())
    if least >= 0 and greatest <= 1:
        return None
    values = values[:: max(1, len(values) // MAX_SAMPLES)].astype(np.float64)
    inner = values[(values > least) & (values < greatest)]
    values = inner if len(inner) else np.median(values, keepdims=True)
    centre, margin = float(np.median(values)), _noise_margin(x, (x > least) & (x < greatest), image.visible)
    below, above = (_spread(values, centre, sign) for sign in (-1, 1))
    low, high = centre - SPREADS * below - margin, centre + SPREADS * above + margin
    if float(np.median(np.abs(values))) <= MAX_UNIT_MEDIAN:
        low = min(-MIN_UNIT_EXCESS - margin, max(low, -MAX_UNIT_VALUE - margin))
        high = max(1 + MIN_UNIT_EXCESS + margin, min(high, MAX_UNIT_VALUE + margin))
    else:  # dark text on paper is no outlier
        span = RANGES * float(np.quantile(values, 0.98) - np.quantile(values, 0.02))
        low, high = min(low, centre - span), max(high, centre + span)
    low, high = max(low, least), min(high, greatest)  # float32 holds these
    magnitude = max(abs(low), abs(high))
    scale = 2.0 ** math.floor(math.log2(magnitude)) if magnitude > MAX_UNSCALED else 1.0
    if scale > MAX_SAFE_SCALE and ((values != 0) & (np.abs(values) < ROUNDING * scale)).mean() > MAX_LOST_FRACTION:
        raise InputError(
            f"float pixels range from {least:.3g} to {greatest:.3g}; expected most of them within six orders of "
            "magnitude. Clip the image or replace its fill values."
        )
    is_ordinary = low == least and high == greatest and scale == 1
    return None if is_ordinary else FloatRange(float(np.float32(low)), float(np.float32(high)), scale)


def warn_units(name: str, image: Image) -> list[str]:
    """Warn that a sigma that was given as a number refers to a white of 1.0, if float pixels have other units.

    Args:
        name: name of the file.
        image: frame of the file.

    Returns:
        One warning or none.
    """
    pixel_range = find_float_range(image)
    if pixel_range is None or pixel_range.scale == 1:
        return []
    return [
        f"{name}: float pixels reach {pixel_range.high:.4g}, but a sigma of 255 is 1.0 in their units. Use sigma auto, "
        "or divide the pixels by the value of white."
    ]


def _spread(values: NDArray[np.float64], centre: float, sign: int) -> float:
    """Distance of a quartile from the median; of a quantile farther out if half of the pixels are the same."""
    for fraction in (0.25, 0.1, 0.01, 0.001, 0.0):
        spread = sign * (float(np.quantile(values, fraction if sign < 0 else 1 - fraction)) - centre)
        if spread > 0:
            return spread
    return 0.0


def _noise_margin(x: NDArray[np.float32], valid: NDArray[np.bool_], visible: NDArray[np.bool_] | None) -> float:
    """Six standard deviations of white noise, or more where there is fine detail; of valid pixels."""
    if visible is not None:
        valid = valid & visible[..., None]
    step = max(2, 2 * math.isqrt(x.size // (4 * MAX_SAMPLES)))
    rows, columns = (np.arange(0, max(1, n - 1), step) for n in x.shape[:2])
    next_rows, next_columns = (np.minimum(i + 1, n - 1) for i, n in zip((rows, columns), x.shape[:2], strict=True))
    corners = [(i[:, None], j) for i in (rows, next_rows) for j in (columns, next_columns)]
    a, b, c, d = (x[corner].astype(np.float64) for corner in corners)
    is_line = min(x.shape[:2]) == 1
    detail = np.abs(a - d) / math.sqrt(2) if is_line else np.abs(a - b - c + d) / 2
    detail = detail[np.logical_and.reduce([valid[corner] for corner in corners])]
    return 3 * float(np.quantile(detail, 0.95)) if detail.size else 0.0
