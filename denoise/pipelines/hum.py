"""Removal of steady hum before a denoiser: tones are tracked for seconds, or known from noise alone; notches follow."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

LOWEST, HIGHEST = 40.0, 1100.0  # Hz: mains hum, its harmonics and those of motors
STEP_S, N_STEPS = 0.5, 8  # spectra are of steps; a tone has the same amplitude and phase in all of the last ones
MIN_COHERENCE, MIN_COHERENCE_KEPT = 0.85, 0.4  # of a tone that is new, or that is removed already
MIN_PRESENT = 0.5  # of its amplitude a tone has in three of four steps
PROMINENCE, SURROUNDINGS = 6.0, 12.0  # power by the median of so many Hz on both sides
SAME_HZ = 1.0  # nearer tones are one
SMOOTHING = 0.3  # weight of the last steps in the frequency
MAX_MISSED = 6  # steps in which a tone was hidden by a voice, before its notch ends
BANDWIDTH = 1.0  # Hz between the points of a notch where half of the power passes, where there is little but the tone
LOUDNESS_S = 0.03  # time constant of the power of a recording, which is compared with that of its tones
MIN_SPEED = 0.02  # of a notch under a voice
MAX_TONES = 32  # of each channel: the harmonics of 50 Hz are 22
NOISE_LOWEST, NOISE_HIGHEST = 15.0, 8000.0  # Hz: of tones in noise alone, which no voice and no note can be
MIN_NOISE_STEPS = 4  # of noise alone: fewer spectra of noise may agree by chance
MIN_NOISE_SPEED = 0.1  # of a notch for a tone of a noise print
MAX_LOUDER = 4.0  # of the power of a tone by that of the tone of a noise print that it is

Array = NDArray[Any]


class Tone(NamedTuple):
    """A tone that stays the same.

    Args:
        frequency: in Hz.
        power: mean square.
    """

    frequency: float
    power: float


class Notch(NamedTuple):
    """A tone that is removed.

    Args:
        tone: what is removed.
        phasor: half of the tone at the next sample, as a complex number: the mean of the last samples, turned back.
        missed: steps since the tone was last found.
    """

    tone: Tone
    phasor: complex = 0j
    missed: int = 0

    def apply(self, x: Array, sample_rate: int, smoother: Smoother) -> tuple[Array, Notch]:
        """Return the next samples without the tone, and the notch behind them.

        A filter of one pole smooths the samples after their frequency is shifted to 0.

        Args:
            x: samples, (time,).
            sample_rate: sample rate in Hz.
            smoother: the filter, of as many samples.
        """
        wave = _wave(self.tone.frequency / sample_rate, len(x))
        smooth = smoother(x * wave.conj(), self.phasor)
        turned = smooth * wave
        end = complex(turned[-1] * np.exp(2j * np.pi * self.tone.frequency / sample_rate))
        return x - 2 * turned.real, self._replace(phasor=end)


class Smoother:
    """The filter of one pole ``y[n] = y[n - 1] + weights[n] (x[n] - y[n - 1])``, for small weights.

    Filters of SciPy with constant weights do the same, but loading them takes longer than to denoise a short recording.

    Args:
        weights: (time,), in all not above some hundred.
    """

    def __init__(self, weights: Array) -> None:
        growth = np.exp(np.cumsum(weights))
        self._decay, self._weights = 1 / growth, growth * weights

    def __call__(self, x: Array, start: complex) -> Array:
        """Return the smoothed samples.

        Args:
            x: samples, (time,).
            start: y before the first sample.
        """
        return self._decay * (start + np.cumsum(self._weights * x))


def _wave(frequency: float, n: int) -> Array:
    """exp(2 pi i frequency t) for t from 0 to n - 1; products of few exponentials take a tenth of the time."""
    side = int(n**0.5) + 1
    coarse, fine = (np.exp(2j * np.pi * frequency * np.arange(side) * step) for step in (side, 1))
    return (coarse[:, None] * fine).reshape(-1)[:n]


class HumFilter:
    """Remove tones that stay the same for seconds, in blocks of any length, without latency.

    Speech moves, so that it has no amplitude and phase that nearly all parts of 4 s share; mains hum, its harmonics and
    whistles have, and so have notes that are held. They are removed from then on, by notches of 1 Hz, which speech does
    not need. Where there is no such tone, samples pass unchanged.

    Args:
        sample_rate: sample rate in Hz.
        channels: number of channels.
        tones: tones of a noise print in each channel, as of `find_noise_tones`, which are removed from the beginning.
        finds: whether other tones are found, too, and tones that have ended are let go.

    Reference:
        Adaptive noise cancelling: Principles and applications, Widrow et al., 1975 (notches that follow hum).
    """

    def __init__(
        self, sample_rate: int, channels: int, tones: Sequence[Sequence[Tone]] = (), *, finds: bool = True
    ) -> None:
        self._sample_rate, n = sample_rate, round(STEP_S * sample_rate)
        self._finds, self._min_speed = finds, MIN_SPEED if finds else MIN_NOISE_SPEED
        self._range = (LOWEST, HIGHEST) if finds else (NOISE_LOWEST, NOISE_HIGHEST)
        self._step = np.zeros((channels, n), np.float32)
        self._n_filled = 0
        self._taper = np.hanning(n)
        self._spectra: deque[Array] = deque(maxlen=N_STEPS)
        nyquist = sample_rate / 2  # of the recording; its noise may have been recorded at a higher rate
        self._notches = [[Notch(x) for x in each if x.frequency < nyquist] for each in tones or [()] * channels]
        self._powers = np.zeros(channels)  # of the last samples

    @property
    def frequencies(self) -> list[list[float]]:
        """Frequencies of the tones that are removed from each channel, in Hz."""
        return [[notch.tone.frequency for notch in notches] for notches in self._notches]

    def push(self, x: Array) -> Array:
        """Take the next samples, (channels, any time), and return them without hum, in the same type."""
        blocks, start = [x[:, :0]], 0
        while start < x.shape[1]:
            block = x[:, start : start + self._step.shape[1] - self._n_filled]
            start += block.shape[1]
            blocks.append(self._remove(block))
            self._step[:, self._n_filled : self._n_filled + block.shape[1]] = block
            self._n_filled += block.shape[1]
            if self._n_filled == self._step.shape[1]:
                self._n_filled = 0
                self._find_tones()
        return np.concatenate(blocks, axis=1)

    def _remove(self, block: Array) -> Array:
        """Filter a block, which is returned as it is if there are no tones.

        Notches follow a tone where there is little else. Under a voice they wait, or they would ring after it.
        """
        if not any(self._notches):
            return block
        out = block.astype(np.float64)
        for i, notches in enumerate(self._notches):
            if not notches:
                continue
            weights = np.full(out.shape[1], 1 / (LOUDNESS_S * self._sample_rate))
            powers = Smoother(weights)(np.square(out[i]), self._powers[i])
            self._powers[i] = powers[-1]
            tones = sum(notch.tone.power for notch in notches)
            loudness = powers.clip(max(tones, np.finfo(np.float64).tiny))
            speed = np.clip((2 * tones / loudness) ** 2, self._min_speed, 1)
            smoother = Smoother(np.pi * BANDWIDTH / self._sample_rate * speed)
            for j, notch in enumerate(notches):
                out[i], notches[j] = notch.apply(out[i], self._sample_rate, smoother)
        return out.astype(block.dtype)

    def _find_tones(self) -> None:
        """Find tones at the end of a step."""
        self._spectra.append(_amplitudes(self._step, self._taper, self._range[1]))
        if len(self._spectra) < N_STEPS:
            return
        step_s = self._step.shape[1] / self._sample_rate
        for i, notches in enumerate(self._notches):
            spectra = np.stack([spectrum[i] for spectrum in self._spectra])
            found = find_tones(spectra, step_s, self.frequencies[i], self._range)
            self._notches[i] = _follow(notches, found, is_open=self._finds)


def _amplitudes(steps: Array, taper: Array, highest: float) -> Array:
    """Amplitudes of the tones of steps, (..., time), up to a frequency in Hz and a little above."""
    spectra = np.fft.rfft(taper * steps)[..., : round(1.05 * highest * STEP_S) + 1]
    return spectra * (2 / taper.sum())


def find_noise_tones(noise: Array, sample_rate: int) -> tuple[tuple[Tone, ...], ...]:
    """Return the steady tones of noise alone, of each channel.

    Args:
        noise: (channels, time); in less than 2 s no tones are found.
        sample_rate: sample rate in Hz.
    """
    n = round(STEP_S * sample_rate)
    steps = noise[:, : noise.shape[1] // n * n].reshape(len(noise), -1, n)
    if steps.shape[1] < MIN_NOISE_STEPS:
        return ((),) * len(noise)
    spectra = _amplitudes(steps, np.hanning(n), NOISE_HIGHEST)
    bounds = NOISE_LOWEST, NOISE_HIGHEST
    return tuple(tuple(find_tones(x, n / sample_rate, [], bounds)[:MAX_TONES]) for x in spectra)


def without_tones(noise: Array, sample_rate: int, tones: Sequence[Sequence[Tone]]) -> Array:
    """Return noise alone without tones, as `HumFilter` leaves it: each step without its projection on them.

    Args:
        noise: (channels, time).
        sample_rate: sample rate in Hz.
        tones: those of each channel.
    """
    out, n = noise.copy(), round(STEP_S * sample_rate)
    for channel, each in zip(out, tones, strict=True):
        frequencies = [tone.frequency for tone in each]
        for start in range(0, len(channel) if each else 0, n):
            step = channel[start : start + n]
            angles = 2 * np.pi / sample_rate * np.outer(np.arange(len(step)), frequencies)
            waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
            step -= (waves @ np.linalg.lstsq(waves, step, rcond=None)[0]).astype(step.dtype)
    return out


def find_tones(
    spectra: Array, step_s: float, known: list[float], bounds: tuple[float, float] = (LOWEST, HIGHEST)
) -> list[Tone]:
    """Return the tones whose amplitude and phase stay the same.

    Args:
        spectra: amplitudes of successive segments, (segments, frequencies), from 0 Hz in steps of ``1 / step_s``.
        step_s: length and distance of the segments in seconds.
        known: frequencies in Hz of tones before, which need less evidence.
        bounds: lowest and highest frequency in Hz.

    Returns:
        Tones from the strongest to the weakest.
    """
    usual_power = _median(np.square(np.abs(spectra)))
    width = 2 * round(SURROUNDINGS * step_s) + 1
    surroundings = _median(sliding_window_view(np.pad(usual_power, width // 2, mode="reflect"), width).T)
    before, here, after = usual_power[:-2], usual_power[1:-1], usual_power[2:]
    is_peak = (here >= before) & (here > after) & (here > PROMINENCE * surroundings[1:-1])
    n = np.flatnonzero(is_peak) + 1
    x = spectra[:, n]
    phases = x / np.abs(x).clip(np.finfo(np.float64).tiny)
    turn = np.angle((phases[1:] * phases[:-1].conj()).sum(axis=0)) / (2 * np.pi)  # of the phase in a step
    upright = x * np.exp(-2j * np.pi * turn * np.arange(len(x))[:, None])
    # medians: a voice that crosses the tone in some segments counts little
    usual = _median(upright.real) + 1j * _median(upright.imag)
    power, spread = np.square(np.abs(usual)), _median(np.square(np.abs(upright - usual)))
    coherence = power / (power + spread).clip(np.finfo(np.float64).tiny)
    is_present = np.sort(np.abs(upright), axis=0)[len(x) // 4] >= MIN_PRESENT * np.abs(usual)
    frequency = (n + (turn - n + 0.5) % 1 - 0.5) / step_s  # the one nearest to its place in the spectrum
    is_tone = is_present & (frequency >= bounds[0]) & (frequency <= bounds[1]) & (coherence > MIN_COHERENCE_KEPT)
    tones: list[Tone] = []
    for k in sorted(np.flatnonzero(is_tone), key=lambda k: -power[k]):
        f = float(frequency[k])
        is_known = any(abs(f - other) < SAME_HZ for other in known)
        if (is_known or coherence[k] > MIN_COHERENCE) and all(abs(f - other.frequency) >= SAME_HZ for other in tones):
            tones.append(Tone(f, float(power[k] / 2)))
    return tones


def _median(x: Array) -> Array:
    """Median along the first axis; NumPy's own takes several times as long for few numbers."""
    x, n = np.sort(x, axis=0), len(x)
    return (x[(n - 1) // 2] + x[n // 2]) / 2


def _follow(notches: list[Notch], found: list[Tone], *, is_open: bool) -> list[Notch]:
    """The notches for the tones of the next step; new ones begin and old ones end where the list is open."""
    followed, new = [], list(found)
    for notch in notches:
        before = notch.tone.frequency
        loudest = (
            np.inf if is_open else MAX_LOUDER * notch.tone.power
        )  # what is louder than a tone of a noise print is a note
        near = [tone for tone in new if abs(tone.frequency - before) < SAME_HZ and tone.power <= loudest]
        new = [tone for tone in new if tone not in near]
        if near:
            frequency = before + SMOOTHING * (near[0].frequency - before)
            followed.append(Notch(Tone(frequency, near[0].power), notch.phasor))
        elif not is_open or notch.missed < MAX_MISSED:
            followed.append(notch._replace(missed=notch.missed + 1))
    return [*followed, *(Notch(tone) for tone in new if is_open)][:MAX_TONES]
