"""Measures of recordings, and their preparation as clean speech, noise or impulse responses."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

HIGHEST_RATE = 48_000  # Hz; higher rates are reduced to it, lower ones are kept
RATES = (16_000, 24_000, 32_000)  # Hz; a rate is reduced to the lowest of them that holds the band of the recording
FRAME = 0.02  # seconds of a level
ACTIVE_DB = 40.0  # speech is above the 95th percentile of the levels minus this
LEAD = 0.2  # seconds that are kept before and after the speech
FADE = 0.01  # seconds
PEAK = 0.9
QUIET_DBFS, RAISED_DBFS = -38.0, -32.0  # noise of a level below the first is raised to the second
LONGEST_NOISE = 30.0  # seconds of a piece
LONGEST_ROOM = 2.0  # seconds of an impulse response
JOINED = 4.0  # least seconds of joined words

Recording = tuple[np.ndarray, int]  # samples (time,), full scale 1.0, and the sample rate in Hz


def decode(content: bytes, channel: int | None = None) -> Recording | None:
    """Return the mean of the channels of an encoded recording, or one channel; None if it cannot be decoded."""
    try:
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except soundfile.SoundFileError:
        return None
    mono = samples.mean(axis=1) if channel is None else samples[:, channel]
    if rate > HIGHEST_RATE:
        mono, rate = soxr.resample(mono, rate, HIGHEST_RATE, "VHQ"), HIGHEST_RATE
    return (mono, rate) if len(mono) and np.isfinite(mono).all() else None


def frame_levels(x: np.ndarray, rate: int) -> np.ndarray:
    """Return the levels of frames of 20 ms in dBFS, (frames,)."""
    size = round(FRAME * rate)
    frames = x[: len(x) // size * size].reshape(-1, size)
    return 10 * np.log10((frames.astype(np.float64) ** 2).mean(axis=1) + 1e-12)


def level_range(x: np.ndarray, rate: int) -> float:
    """Return the 95th minus the 5th percentile of the levels in dB: how far the noise floor is below the voice."""
    levels = frame_levels(x, rate)
    return float(np.subtract(*np.percentile(levels, [95, 5]))) if len(levels) else 0.0


def bandwidth(x: np.ndarray, rate: int) -> float:
    """Return the frequency in Hz above which the mean spectrum stays 75 dB below its peak."""
    n = 4096  # leakage of the Hann window reaches -75 dB 14 bins from a component
    frames = np.pad(x, (0, max(0, n - len(x))))
    frames = frames[: len(frames) // n * n].reshape(-1, n)
    power = (np.abs(np.fft.rfft(frames * np.hanning(n))) ** 2).mean(axis=0)
    occupied = np.flatnonzero(power > max(power.max(), 1e-12) * 10**-7.5)
    return float(occupied[-1] / n * rate) if len(occupied) else 0.0


def clipped_fraction(x: np.ndarray) -> float:
    """Return the fraction of samples in runs of three or more at the extreme value, 0 if that is below -3 dBFS."""
    extreme = np.abs(x) >= 0.999 * np.abs(x).max()
    return float((extreme[2:] & extreme[1:-1] & extreme[:-2]).mean()) if np.abs(x).max() > 0.7 else 0.0


def reduce_rate(x: np.ndarray, rate: int, band: float) -> Recording:
    """Resample a recording to the lowest of `RATES` that holds its band, never to a higher rate than its own."""
    lowest = next((r for r in RATES if r >= 2 * band and r < rate), rate)
    return (x, rate) if lowest == rate else (soxr.resample(x, rate, lowest, "VHQ"), lowest)


def fade(x: np.ndarray, rate: int) -> np.ndarray:
    """Return a recording with faded ends, its peak at most 0.9."""
    n = min(round(FADE * rate), len(x) // 2)
    window = np.ones(len(x), np.float32)
    window[:n] = np.linspace(0, 1, n, endpoint=False)
    window[len(x) - n :] = window[:n][::-1]
    return x * window * min(1.0, PEAK / max(float(np.abs(x).max()), 1e-9))


def trim(x: np.ndarray, rate: int) -> np.ndarray:
    """Cut a recording of speech to 0.2 s before its first and after its last sound."""
    levels = frame_levels(x, rate)
    low, high = np.percentile(levels, [5, 95])
    active = np.flatnonzero(levels > max(high - ACTIVE_DB, low + 10))
    if not len(active):
        return x[:0]
    size = round(FRAME * rate)
    start, stop = active[0] * size - round(LEAD * rate), (active[-1] + 1) * size + round(LEAD * rate)
    return x[max(0, start) : stop]


def prepare_speech(x: np.ndarray, rate: int) -> np.ndarray:
    """Return speech without offset and silent ends, faded, its peak at most 0.9."""
    x = trim(x - x.mean(), rate)
    return fade(x, rate) if len(x) else x


def prepare_noise(x: np.ndarray, rate: int) -> Iterator[np.ndarray]:
    """Yield pieces of a noise of at most 30 s, without digital silence at its ends, not too quiet."""
    loud = np.flatnonzero(np.abs(x) > 1e-4)
    if not len(loud):
        return
    x = x[loud[0] : loud[-1] + 1]
    x = x - x.mean()
    rms = 10 * np.log10(float((x.astype(np.float64) ** 2).mean()) + 1e-12)
    if rms < QUIET_DBFS:
        x = x * 10 ** ((RAISED_DBFS - rms) / 20)
    pieces = max(1, -(-len(x) // round(LONGEST_NOISE * rate)))
    for piece in np.array_split(x, pieces):
        yield fade(piece.astype(np.float32), rate)


def prepare_room(x: np.ndarray, rate: int) -> np.ndarray:
    """Return an impulse response from 1 ms before its onset to -60 dB of its energy, 2 s at most, of peak 0.9."""
    start = max(0, int(np.argmax(np.abs(x) > 1e-3 * np.abs(x).max())) - rate // 1000)
    x = x[start : start + round(LONGEST_ROOM * rate)]
    energy = np.cumsum(x[::-1].astype(np.float64) ** 2)[::-1]
    return x[energy > 1e-6 * energy[0]] * (PEAK / max(float(np.abs(x).max()), 1e-9))


def join(recordings: list[np.ndarray], rate: int) -> Iterator[list[int]]:
    """Yield the indices of successive recordings that together last at least 4 s, the rest at the end."""
    group: list[int] = []
    for i in range(len(recordings)):
        group.append(i)
        if sum(len(recordings[k]) for k in group) >= JOINED * rate:
            yield group
            group = []
    if group:
        yield group
