"""Correlation of the two channels of a recording, which tells a stereo image from two microphones of two speakers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FRAME_S = 0.032
FLOOR_QUANTILE = 0.1
ACTIVE_RATIO = 1.4  # signal is what exceeds the floor by 3 dB
DIFFERENCE_S = 0.00025  # emphasises the frequencies of voices and instruments, 0.7 to 3.3 kHz
MIN_ACTIVE = 0.05  # fraction of the frames; steady noise has fewer
MIN_CORRELATION = 0.3
"""Channels that correlate less are denoised separately."""


class ChannelCorrelation:
    """Correlation of the envelopes of two channels, where they have signal.

    Envelopes, unlike waveforms, correlate in any recording of one scene by two microphones: delay, phase and echo do
    not matter. The noise floor of each channel is left out, so that hiss of two preamplifiers or a common hum do not
    matter, either.
    """

    def __init__(self) -> None:
        self._envelopes: list[NDArray[np.float64]] = []

    def add(self, x: NDArray[Any], sample_rate: int) -> None:
        """Add an excerpt.

        Args:
            x: samples, (2, time).
            sample_rate: their rate in Hz.
        """
        lag = max(1, round(DIFFERENCE_S * sample_rate))
        n = round(FRAME_S * sample_rate)
        rising = x[:, lag:] - x[:, :-lag]  # without rumble and hum
        whole = rising[:, : rising.shape[1] // n * n].reshape(2, -1, n)
        self._envelopes.append(np.sqrt(np.square(whole, dtype=np.float64).mean(axis=2)))

    def value(self) -> float | None:
        """Return the correlation, -1 to 1; None if there is no signal, or a channel is silent."""
        envelopes = np.concatenate([np.empty((2, 0)), *self._envelopes], axis=1)
        if not envelopes.any(axis=1).all():
            return None
        floor = np.quantile(envelopes, FLOOR_QUANTILE, axis=1, keepdims=True)
        signal = (envelopes - ACTIVE_RATIO * floor).clip(0)
        if ((signal > 0).mean(axis=1) < MIN_ACTIVE).all():
            return None
        centred = signal - signal.mean(axis=1, keepdims=True)
        scale = np.sqrt(np.square(centred).sum(axis=1).prod())
        return float((centred[0] * centred[1]).sum() / scale) if scale > 0 else 0.0
