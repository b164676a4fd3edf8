"""Noise floor and level of a recording that is read block by block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

FRAMES_PER_SECOND = 20
MIN_DB = -200
BINS_PER_DB = 10
QUANTILE = 0.1
MAX_LOSS_DB = 20.0  # of the level of a recording without a warning


class NoiseFloor:
    """The level that a tenth of all frames of 50 ms stays below: that of the pauses of speech, without a DC offset.

    Levels are counted in a histogram, because a list of them would grow with the recording.

    Args:
        sample_rate: sample rate in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._frame_length = max(1, sample_rate // FRAMES_PER_SECOND)
        self._counts = np.zeros(400 * BINS_PER_DB, np.int64)
        self._remaining: NDArray[Any] | None = None  # samples of an incomplete frame
        self._energy = 0.0  # sum of the variances of all frames

    def measure(self, blocks: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Pass blocks on and add each to the histogram.

        Args:
            blocks: (channels, time) each, full scale 1.0.

        Returns:
            The same blocks.
        """
        for block in blocks:
            self._add(block)
            yield block

    def level_db(self) -> float | None:
        """Return the noise floor in dB of full scale, or None if no frame is complete."""
        total = self._counts.sum()
        if not total:
            return None
        index = np.searchsorted(self._counts.cumsum(), QUANTILE * total)
        return round(float(index) / BINS_PER_DB + MIN_DB, 1)

    def mean_db(self) -> float | None:
        """Return the level of all complete frames in dB of full scale, or None if there is none or they are silent."""
        return 10 * math.log10(self._energy / float(self._counts.sum())) if self._energy else None

    def _add(self, block: NDArray[Any]) -> None:
        n = self._frame_length
        x = block if self._remaining is None else np.concatenate([self._remaining, block], axis=1)
        length = x.shape[1] // n * n
        self._remaining = x[:, length:]
        if length:
            frames = x[:, :length].reshape(len(x), -1, n)
            power = frames.var(axis=2, dtype=np.float64).mean(axis=0)  # not the mean square: an offset is no sound
            self._energy += float(power.sum())
            level_db = 10 * np.log10(power.clip(1e-20, 1e19))
            np.add.at(self._counts, np.rint(BINS_PER_DB * (level_db - MIN_DB)).astype(np.int64), 1)


def warn_of_loss(before: NoiseFloor, after: NoiseFloor) -> list[str]:
    """Return a warning if little is left of a recording.

    Args:
        before: measured before denoising.
        after: measured behind it.
    """
    levels = before.mean_db(), after.mean_db()
    if levels[0] is None or (levels[1] is not None and levels[1] > levels[0] - MAX_LOSS_DB):
        return []
    left = "nothing is left" if levels[1] is None else f"the level fell by {levels[0] - levels[1]:.0f} dB"
    return [f"{left}. If that was more than noise, give --strength 0.7, or another --model."]
