"""Tones of developed camera raw files: from linear light to a picture for the screen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WHITE_FRACTION = 0.01  # of the pixels may be white: the default of dcraw and LibRaw
MAX_EXPOSURE = 8.0  # night remains dark
MAX_SAMPLES = 1 << 20  # pixels from which the exposure is determined
KNEE = 0.6  # linear light; brighter tones are compressed, so that nothing that the sensor resolved is clipped
ROWS_PER_BAND = 128
PEAK = 65_535


def find_exposure(linear: NDArray[np.uint16]) -> float:
    """Return the factor of brightness by which dcraw and LibRaw expose a picture (their "auto brightness").

    Args:
        linear: (height, width, channels), full scale 65535.

    Returns:
        The factor at which 1 % of the pixels reach white in the brightest channel, from 1 to `MAX_EXPOSURE`.
    """
    step = max(1, round((linear.shape[0] * linear.shape[1] / MAX_SAMPLES) ** 0.5))
    quantile = np.quantile(linear[::step, ::step], 1 - WHITE_FRACTION, axis=(0, 1)).max()
    return float(np.clip(PEAK / max(quantile, 1.0), 1.0, MAX_EXPOSURE))


def map_tones(linear: NDArray[np.uint16], exposure: float) -> NDArray[np.uint16]:
    """Expose linear light, compress highlights, and encode it as sRGB.

    Tones up to `KNEE` are only exposed. Above, full scale remains full scale.

    Args:
        linear: any shape, full scale 65535.
        exposure: factor of brightness, at least 1.

    Returns:
        The same shape, full scale 65535; an increasing function of each sample.

    Reference:
        Photographic Tone Reproduction for Digital Images, Reinhard et al., 2002, eq. 4, above the knee.
    """
    table = np.arange(PEAK + 1) / PEAK * exposure
    table = np.rint(_encode_srgb(_compress_highlights(table, exposure)) * PEAK).astype(np.uint16)
    result = np.empty_like(linear)
    for row in range(0, len(linear), ROWS_PER_BAND):  # the index is converted to 64 bits
        result[row : row + ROWS_PER_BAND] = table[linear[row : row + ROWS_PER_BAND]]
    return result


def _compress_highlights(x: NDArray[Any], white: float) -> NDArray[Any]:
    """Map the tones from `KNEE` to ``white`` to those from `KNEE` to 1, with a slope of 1 at the knee."""
    tone, peak = np.maximum(x - KNEE, 0) / (1 - KNEE), (white - KNEE) / (1 - KNEE)
    return np.minimum(x, KNEE) + (1 - KNEE) * tone * (1 + tone / peak**2) / (1 + tone)


def _encode_srgb(x: NDArray[Any]) -> NDArray[Any]:
    """Encode linear light as sRGB (IEC 61966-2-1)."""
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)
