"""Generated stationary noise: hiss of any colour, mains hum and its harmonics, whines, ventilation, rumble, crackle."""

import numpy as np
from scipy.signal import lfilter

Rng = np.random.Generator


def coloured(rng: Rng, samples: int, rate: int) -> np.ndarray:
    """Return Gaussian noise of a smooth random spectrum, at unit power.

    The spectrum is a power law from f^-2.5 to f^1 with a ripple of some decibels, a high-pass and a low-pass.
    """
    frequency = np.fft.rfftfreq(samples, 1 / rate)
    octaves = np.log2(np.maximum(frequency, 10))
    level = rng.uniform(-7.5, 3) * octaves + np.interp(octaves, np.linspace(3, 15, 13), rng.normal(0, 4, 13))
    level -= rng.choice([0, 6, 12, 24]) * np.maximum(0, octaves - np.log2(rng.uniform(2000, 20000)))
    level -= rng.choice([0, 0, 12]) * np.maximum(0, np.log2(rng.uniform(30, 600)) - octaves)
    spectrum = np.fft.rfft(rng.standard_normal(samples)) * 10 ** ((level - level.max()) / 20)
    noise = np.fft.irfft(spectrum, samples)
    return noise / noise.std()


def hum(rng: Rng, samples: int, rate: int) -> np.ndarray:
    """Return mains hum with harmonics, at unit power: even or all of them, or the sharp pulses of a rectifier."""
    time = np.arange(samples) / rate
    mains = rng.choice([50, 60]) * (
        1 + rng.normal(0, 0.002) + 0.0005 * np.sin(2 * np.pi * rng.uniform(0.02, 0.2) * time)
    )
    phase = 2 * np.pi * np.cumsum(mains) / rate
    orders = np.arange(1, int(rng.integers(2, 60)))
    slope, parity = rng.uniform(0.2, 2), rng.choice([0, 1, 2])
    levels = rng.uniform(0, 1, len(orders)) * orders**-slope
    if parity and len(orders) > 2:
        levels[orders % 2 == parity - 1] *= 0.1
    wave = np.sum([a * np.sin(k * phase + rng.uniform(0, 6.28)) for k, a in zip(orders, levels, strict=True)], axis=0)
    return wave / (wave.std() + 1e-12)


def whine(rng: Rng, samples: int, rate: int) -> np.ndarray:
    """Return a few steady tones of a converter, a screen or a fan, at unit power; each wanders by some hertz."""
    wave = np.zeros(samples)
    for _ in range(int(rng.integers(1, 5))):
        wander = lfilter([1e-4], [1, -0.9999], rng.standard_normal(samples)) * rng.uniform(0, 300)
        frequency = np.exp(rng.uniform(np.log(150), np.log(min(16000, 0.45 * rate)))) + wander
        wave += rng.uniform(0.1, 1) * np.sin(2 * np.pi * np.cumsum(frequency) / rate)
    return wave / wave.std()


def blades(rng: Rng, samples: int, rate: int) -> np.ndarray:
    """Return the noise of a fan, at unit power: coloured noise modulated by the blades, and their tone."""
    time = np.arange(samples) / rate
    passing = rng.uniform(15, 250)
    modulation = 1 + rng.uniform(0, 0.4) * np.sin(2 * np.pi * passing * time)
    noise = coloured(rng, samples, rate) * modulation
    noise += rng.uniform(0, 0.8) * np.sin(2 * np.pi * passing * time) + rng.uniform(0, 0.3) * np.sin(
        4 * np.pi * passing * time
    )
    return noise / noise.std()


def crackle(rng: Rng, samples: int, rate: int) -> np.ndarray:
    """Return the clicks of a record, at unit power: damped impulses of random level, some to hundreds a second."""
    impulses = (rng.random(samples) < 10 ** rng.uniform(0.3, 2.3) / rate) * rng.standard_t(3, samples)
    radius, angle = np.exp(-2 * np.pi * rng.uniform(500, 4000) / rate), 2 * np.pi * rng.uniform(500, 6000) / rate
    clicks = lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], impulses)
    return clicks / (clicks.std() + 1e-12)


def compose(rng: Rng, seconds: float, rate: int) -> np.ndarray:
    """Return stationary or slowly varying noise, (samples,): one to three kinds, mixed.

    Args:
        rng: source of random numbers.
        seconds: length.
        rate: sampling rate in hertz.
    """
    samples = int(seconds * rate)
    noise = coloured(rng, samples, rate) * (rng.random() < 0.85)
    for kind, probability in ((hum, 0.35), (whine, 0.15), (blades, 0.15), (crackle, 0.12)):
        if rng.random() < probability or not noise.any():
            noise += 10 ** (rng.uniform(-18, 12) / 20) * kind(rng, samples, rate)
    if rng.random() < 0.4:  # the level drifts by some decibels within seconds
        knots = np.arange(0, seconds + 6, rng.uniform(1.5, 5))
        drift = np.interp(np.arange(samples) / rate, knots, rng.normal(0, rng.uniform(0.5, 2.5), len(knots)))
        noise *= 10 ** (drift / 20)
    return noise / noise.std()
