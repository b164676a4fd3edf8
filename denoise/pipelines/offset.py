"""Removal of a DC offset before a network, which its step at the start and its leakage into low frequencies disturb."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOWEST_HZ = 20.0  # of sound
MEMORY_S = 5.0  # over which offsets may drift

MIN_BOUND = 1e-30

Array = NDArray[Any]


class OffsetFilter:
    """Subtract the mean of the last seconds, or of all samples so far, from each hop, without latency.

    The mean over t seconds of a tone of the lowest frequency of sound is at most its amplitude by pi LOWEST_HZ t. What
    does not exceed that is no offset: recordings without one pass unchanged. What exceeds it twice is an offset.

    Args:
        sample_rate: sample rate in Hz.
        channels: number of channels.
        hop: samples of a hop.
    """

    def __init__(self, sample_rate: int, channels: int, hop: int) -> None:
        self._hop, self._hop_s = hop, hop / sample_rate
        self._n_hops = np.zeros(channels)  # of the means
        self._moments = np.zeros((2, channels))  # means of the samples and of their squares
        self._offset = np.zeros(channels)  # at the last sample

    def push(self, x: Array) -> Array:
        """Take the next hops, (channels, n * hop), and return them without the offset, in the same type."""
        hops = x.reshape(len(x), -1, self._hop)
        moments = hops.mean(axis=2, dtype=np.float64), np.square(hops, dtype=np.float64).mean(axis=2)
        offsets = np.array([self._update(hop) for hop in np.stack(moments).transpose(2, 0, 1)]).reshape(-1, 2, len(x))
        if not offsets.any():
            return x
        start, end = offsets.transpose(1, 2, 0)[..., None]
        ramp = np.arange(1, self._hop + 1) / self._hop
        return (hops - (start + (end - start) * ramp)).astype(x.dtype).reshape(x.shape)

    def finish(self, x: Array) -> Array:
        """Return the last samples, (channels, less than a hop), without the offset, in the same type."""
        return (x - self._offset[:, None]).astype(x.dtype) if self._offset.any() else x

    def _update(self, hop: Array) -> tuple[Array, Array]:
        """Return the offsets at both ends of a hop, given its moments. Digital silence has none, and tells nothing."""
        has_sound, is_first = hop[1] > 0, self._n_hops == 0
        self._n_hops = np.minimum(self._n_hops + has_sound, MEMORY_S / self._hop_s)
        self._moments = self._moments + has_sound / self._n_hops.clip(1) * (hop - self._moments)
        mean, square = self._moments
        amplitude = np.sqrt(2 * (square - np.square(mean)).clip(0))
        bound = amplitude / (math.pi * LOWEST_HZ * self._hop_s * self._n_hops.clip(1))
        offset = has_sound * mean * ((np.abs(mean) - bound) / bound.clip(MIN_BOUND)).clip(0, 1)
        start = np.where(is_first, offset, self._offset)
        self._offset = offset
        return start, offset
