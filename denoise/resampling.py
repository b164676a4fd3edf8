"""Resampling of signals in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def resample(x: NDArray[Any], sample_rate: int, new_rate: int) -> NDArray[Any]:
    """Resample without delay (soxr, high quality).

    Args:
        x: signal, (channels, time).
        sample_rate: its rate in Hz.
        new_rate: rate of the result in Hz.

    Returns:
        Signal of the same type, (channels, ceil(time * new_rate / sample_rate)).
    """
    if sample_rate == new_rate:
        return x
    import soxr

    n = -(-x.shape[-1] * new_rate // sample_rate)
    y = soxr.resample(np.ascontiguousarray(x.T), sample_rate, new_rate).T[:, :n]
    return np.pad(y, ((0, 0), (0, n - y.shape[-1]))) if y.shape[-1] < n else np.ascontiguousarray(y)
