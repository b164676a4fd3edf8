"""Noise floor and level of a recording that is read block by block."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FRAMES_PER_SECOND = 20
MIN_DB = -200
BINS_PER_DB = 10
QUANTILE = 0.1
MAX_LOSS_DB = 20.0  # of the level of a recording without a warning
STEADY_DB = 10.0  # above its noise floor, a level is that of more than steady noise
MIN_PART_S = 3  # of a part that is lost
LOUD, LOUD_DB = (
    0.9,
    -2.0,
)  # quantile of what is left in each second, and how loud a lost part is beside it: noise is not
MAX_PARTS = 3  # that a warning lists


class NoiseFloor:
    """The level that a tenth of all frames of 50 ms stays below: that of the pauses of speech, without a DC offset.

    Levels are counted in a histogram, because a list of them would grow with the recording; of seconds, the mean powers
    are kept, 14 kB an hour. Row 0 of all figures is the mean power of the channels, the others are the channels.

    Args:
        sample_rate: sample rate in Hz.
        channels: number of channels.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._frame_length = max(1, sample_rate // FRAMES_PER_SECOND)
        self._counts = np.zeros((1 + channels, 400 * BINS_PER_DB), np.int64)
        self._remaining: NDArray[Any] | None = None  # samples of an incomplete frame
        self._energies = np.zeros(1 + channels)  # sums of the variances of all frames
        self._second = np.zeros(0)  # powers of all channels, in the frames of an incomplete second
        self._powers = array("f")  # of all channels, in each second
        self.second_s = FRAMES_PER_SECOND * self._frame_length / sample_rate
        """Length of what counts as a second of `powers`."""

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

    def level_db(self, row: int = 0) -> float | None:
        """Return the noise floor in dB of full scale, or None if no frame is complete.

        Args:
            row: 0 for all channels, or the number of one, from 1.
        """
        counts = self._counts[row]
        total = counts.sum()
        if not total:
            return None
        index = np.searchsorted(counts.cumsum(), QUANTILE * total)
        return round(float(index) / BINS_PER_DB + MIN_DB, 1)

    def mean_db(self, row: int = 0) -> float | None:
        """Return the level of all complete frames in dB of full scale, or None if there is none or they are silent.

        Args:
            row: as in `level_db`.
        """
        return 10 * math.log10(self._energies[row] / self._counts[row].sum()) if self._energies[row] else None

    def powers(self) -> NDArray[np.float64]:
        """Return the mean power of all channels in each second."""
        return np.array(self._powers, np.float64)

    def _add(self, block: NDArray[Any]) -> None:
        n = self._frame_length
        x = block if self._remaining is None else np.concatenate([self._remaining, block], axis=1)
        length = x.shape[1] // n * n
        self._remaining = x[:, length:]
        if length:
            frames = x[:, :length].reshape(len(x), -1, n)
            powers = frames.var(axis=2, dtype=np.float64)  # not the mean square: an offset is no sound
            powers = np.concatenate([powers.mean(axis=0, keepdims=True), powers])
            self._energies += powers.sum(axis=1)
            second = np.concatenate([self._second, powers[0]])
            n_whole = len(second) // FRAMES_PER_SECOND * FRAMES_PER_SECOND
            self._powers.extend(second[:n_whole].reshape(-1, FRAMES_PER_SECOND).mean(axis=1).tolist())
            self._second = second[n_whole:]
            bins = np.rint(BINS_PER_DB * (10 * np.log10(powers.clip(1e-20, 1e19)) - MIN_DB)).astype(np.int64)
            np.add.at(self._counts, (np.arange(len(bins))[:, None], bins), 1)


def warn_of_loss(before: NoiseFloor, after: NoiseFloor, channels: Sequence[str]) -> list[str]:
    """Return a warning if little is left of a recording, of channels with more than steady noise, or of loud parts.

    Args:
        before: measured before denoising.
        after: measured behind it.
        channels: names of the channels.
    """
    lost = [name for i, name in enumerate(channels, start=1) if _is_lost(before, after, i) and _has_sound(before, i)]
    if _is_lost(before, after, 0):
        level, left = before.mean_db() or 0.0, after.mean_db()
        loss = "nothing is left" if left is None else f"the level fell by {level - left:.0f} dB"
    elif lost:
        loss = f"channel{'s' * (len(lost) > 1)} {', '.join(lost)}: the level fell by {MAX_LOSS_DB:.0f} dB or more"
    elif parts := _lost_parts(before.powers(), after.powers()):
        times = [[_clock(round(second * before.second_s)) for second in part] for part in parts[:MAX_PARTS]]
        listed = ", ".join(f"{start}-{end}" for start, end in times)
        more = f" and {len(parts) - MAX_PARTS} more" if len(parts) > MAX_PARTS else ""
        loss = f"{listed}{more}: as loud as what is left, the level fell by {MAX_LOSS_DB:.0f} dB or more"
    else:
        return []
    return [f"{loss}. If that was more than noise, give --strength 0.7, or another --model."]


def _is_lost(before: NoiseFloor, after: NoiseFloor, row: int) -> bool:
    level, left = before.mean_db(row), after.mean_db(row)
    return level is not None and (left is None or left <= level - MAX_LOSS_DB)


def _has_sound(floor: NoiseFloor, row: int) -> bool:
    """Whether a channel is neither far below the others nor steady noise, as of a microphone without a voice."""
    usual, level, noise = floor.mean_db(), floor.mean_db(row), floor.level_db(row)
    if usual is None or level is None or noise is None:
        return False
    return level >= max(usual - MAX_LOSS_DB, noise + STEADY_DB)


def _lost_parts(before: NDArray[np.float64], after: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return where loud parts have left, first and last second, by the powers in each second."""
    n = min(len(before), len(after))
    before, after = before[:n], after[:n]
    is_gone = after <= 10 ** (-MAX_LOSS_DB / 10) * before
    if is_gone.all():
        return []
    loud = 10 ** (LOUD_DB / 10) * np.quantile(after[~is_gone], LOUD)
    is_lost = is_gone & (before >= loud)
    edges = np.flatnonzero(np.diff(is_lost, prepend=False, append=False)).reshape(-1, 2).tolist()
    return [(start, end) for start, end in edges if end - start >= MIN_PART_S]


def _clock(seconds: int) -> str:
    """Return a time as in ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes}:{seconds:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
