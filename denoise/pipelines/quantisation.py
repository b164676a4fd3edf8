"""Whether 8-bit integers, several times as fast as float32, do no harm to an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise.protocols import ArrayNetwork, ArrayQuantisableNetwork
from denoise.signals import Image

MAX_SIGMA = 12.0
"""Noise up to which int8 is used, of 255. Above, its rounding would differ between tiles by more than 1 of 255."""

MAX_RMS_CHANGE = 0.25
"""Greatest difference of int8 from float32 in any square, of 255. Rounding to an 8-bit file causes 0.29 by itself."""

RMS_CHANGE_BASE, RMS_CHANGE_BY_NOISE = 0.06, 0.018
"""Greatest such difference without noise, of 255, and its growth with the noise: clean areas show the steps first."""

SQUARE_SIDE = 128
CALIBRATION_SQUARES, CHECK_SQUARES = 16, 6

ToInputs = Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[Any] | None]]
"""Turn 8-bit pixels, (batch, channels, height, width), into the inputs of a network."""


def has_8_bits(image: Image) -> bool:
    """Return whether an image has 8 bits, no hidden pixels, and room for a square."""
    x = image.pixels
    return x.dtype == np.uint8 and image.visible is None and min(x.shape[:2]) >= SQUARE_SIDE


def quantise_for(
    network: ArrayQuantisableNetwork, image: Image, to_inputs: ToInputs, noise_255: float
) -> ArrayNetwork | None:
    """Quantise a network to int8 for one image.

    It is calibrated with the squares of most contrast, and compared with float32 on squares of all kinds: beside text
    or dithering, which need a wide range, the steps of the integers are coarse for smooth areas.

    Args:
        network: denoiser.
        image: noisy 8-bit image.
        to_inputs: see `ToInputs`.
        noise_255: standard deviation of the noise of the image, of 255.

    Returns:
        The quantised network, or None if it differs from ``network`` by more than `MAX_RMS_CHANGE`, or by too much for
        noise so weak.
    """
    squares = _squares_by_contrast(image.pixels)
    calibration, check = squares[-CALIBRATION_SQUARES:], squares[:: max(1, len(squares) // CHECK_SQUARES)]
    quantised, rms_change = network.quantise(to_inputs(_stack(calibration)), to_inputs(_stack(check)))
    max_change = min(MAX_RMS_CHANGE, RMS_CHANGE_BASE + RMS_CHANGE_BY_NOISE * noise_255)
    return quantised if 255 * rms_change <= max_change else None


def _squares_by_contrast(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """Squares that cover an image, (height, width, channels), in ascending order of their greatest deviation."""
    rows, columns = ([*range(0, size - SQUARE_SIDE, SQUARE_SIDE), size - SQUARE_SIDE] for size in pixels.shape[:2])
    squares = [pixels[i : i + SQUARE_SIDE, j : j + SQUARE_SIDE] for i in rows for j in columns]
    # every fourth row and column suffice, in a tenth of the time
    return sorted(squares, key=lambda x: float(x[::4, ::4].std(axis=(0, 1), dtype=np.float32).max()))


def _stack(squares: list[NDArray[Any]]) -> NDArray[Any]:
    """A batch (n, channels, height, width) of squares (height, width, channels)."""
    return np.moveaxis(np.stack(squares), -1, 1)
