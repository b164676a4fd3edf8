"""Measures of recordings that decide whether one serves as a clean target, as noise, or not at all."""

from itertools import pairwise

import numpy as np
from scipy.signal import stft
from scipy.signal.windows import blackmanharris

FRAME = 0.05  # seconds of a level
WINDOW = 4096  # samples of a spectrum
GROUP = 48  # bins that share one value of the floor; at 48 kHz they are 560 Hz wide
FLOOR_BIAS = 0.0903  # of the quantiles below for white noise, relative to its mean power
SILENCE = -100.0  # dBFS


def to_decibels(power: np.ndarray | float) -> np.ndarray | float:
    """Return a power in decibels, not below `SILENCE`."""
    return 10 * np.log10(np.maximum(power, 10 ** (SILENCE / 10)))


def frame_levels(sound: np.ndarray, rate: int) -> np.ndarray:
    """Return the levels of frames of 50 ms, in dBFS."""
    size = int(FRAME * rate)
    frames = sound[: len(sound) // size * size].reshape(-1, size)
    return np.asarray(to_decibels((frames**2).mean(axis=1)))


def power_spectra(sound: np.ndarray, rate: int) -> np.ndarray:
    """Return power spectra, (bins, frames), whose sum over bins is the power of the sound."""
    window = blackmanharris(WINDOW)
    spectra = stft(sound, rate, window=window, nperseg=WINDOW, boundary=None, padded=False)[2]
    power = 2 * np.abs(spectra) ** 2 * window.sum() ** 2 / (WINDOW * (window**2).sum())
    return np.asarray(power)


def noise_floor(sound: np.ndarray, rate: int) -> float:
    """Return the power of the stationary noise in a sound, in decibels relative to the power of the whole.

    It is the tenth percentile over time, then the twentieth over neighbouring frequencies, between partials.
    """
    quiet = np.quantile(power_spectra(sound, rate), 0.1, axis=1)
    groups = quiet[: len(quiet) // GROUP * GROUP].reshape(-1, GROUP)
    floor = np.quantile(groups, 0.2, axis=1).sum() * GROUP / FLOOR_BIAS
    return float(10 * np.log10((floor + 1e-20) / ((sound**2).mean() + 1e-20)))


def gap_floor(sound: np.ndarray, rate: int) -> float:
    """Return the level of the quietest twentieth of the frames relative to the loudest twentieth, in decibels."""
    low, high = np.percentile(frame_levels(sound, rate), [5, 95])
    return float(low - high)


def bandwidth(sound: np.ndarray, rate: int, threshold: float = -105.0) -> float:
    """Return the highest frequency in hertz that the sound reaches: 200 Hz wide bands above a threshold in dBFS."""
    loud = np.quantile(power_spectra(sound, rate), 0.98, axis=1)
    width = max(1, round(200 * WINDOW / rate))
    bands = loud[: len(loud) // width * width].reshape(-1, width).sum(axis=1)
    above = np.flatnonzero(bands > 10 ** (threshold / 10))
    return float((above[-1] + 1) * width * rate / WINDOW) if len(above) else 0.0


def nonstationarity(sound: np.ndarray, rate: int, seconds: float = 0.4) -> float:
    """Return how much the spectrum of a sound changes, in decibels; near 1 for noise of constant spectrum.

    It is the standard deviation over time of the level in bands of an octave, over frames of `seconds`; the mean over
    the bands weighted by their power.
    """
    power = power_spectra(sound, rate)
    step = WINDOW // 2
    block = max(1, round(seconds * rate / step))
    power = power[:, : power.shape[1] // block * block].reshape(len(power), -1, block).mean(axis=2)
    edges = [0, *(2**k for k in range(3, int(np.log2(WINDOW))))]
    bands = np.stack([power[low:high].sum(axis=0) for low, high in pairwise(edges)])
    weights = bands.mean(axis=1) ** 0.3  # quiet bands count, too: a whistle over rumble is not stationary
    deviations = np.asarray(to_decibels(bands)).std(axis=1)
    return float((weights * deviations).sum() / (weights.sum() + 1e-20))


def clipped_fraction(sound: np.ndarray) -> float:
    """Return the fraction of samples in runs of at least three at full scale."""
    high = np.abs(sound) > 0.9995 * max(np.abs(sound).max(), 0.98)
    return float((high[1:-1] & high[:-2] & high[2:]).mean())


def has_low_floor(sound: np.ndarray, rate: int, depth: float = 45.0) -> bool:
    """Return whether a recording falls at least `depth` decibels below its loud parts: its own noise is below that.

    Digital silence around the sound says nothing about the noise and does not count.
    """
    levels = frame_levels(sound, rate)
    levels = levels[levels > SILENCE + 5]
    return len(levels) >= 4 and bool(np.percentile(levels, 5) < np.percentile(levels, 95) - depth)


def is_stationary(sound: np.ndarray, rate: int, variation: float, level_range: float, crest: float) -> bool:
    """Return whether a sound is stationary noise: three upper bounds in decibels.

    Args:
        sound: (samples,).
        rate: sampling rate in hertz.
        variation: of the spectrum, as `nonstationarity` measures it.
        level_range: between the loudest and the quietest twentieth of the frames.
        crest: peak relative to the root mean square.
    """
    peak = 20 * np.log10(np.abs(sound).max() / (sound.std() + 1e-12) + 1e-12)
    return peak <= crest and -gap_floor(sound, rate) <= level_range and nonstationarity(sound, rate) <= variation


def is_noisy(sound: np.ndarray, rate: int, floor: float = -18.0, gap: float = -15.0) -> bool:
    """Return whether a sound is rather noise than music: a high noise floor, in decibels, and no pauses below `gap`."""
    return noise_floor(sound, rate) > floor and gap_floor(sound, rate) > gap


def find_fault(sound: np.ndarray) -> str:
    """Return why a sound at full scale of 1 cannot be used, or an empty string."""
    if np.abs(sound).max() < 0.003:
        return "silent"
    return "clipped" if clipped_fraction(sound) > 1e-4 else ""
