"""Generated sounds of nature and machines in silence: birds, insects, frogs, bells, beeps, engines, drops and clicks.

Each generator returns one call as (samples,); `compose` repeats calls of a few of them with pauses, as a creature does.
"""

from collections.abc import Callable

import numpy as np
from scipy.signal import fftconvolve, lfilter

Rng = np.random.Generator


def glide(rng: Rng, low: float, high: float, samples: int, knots: int = 4) -> np.ndarray:
    """Return a smooth random contour of a frequency in hertz, between low and high on a logarithmic scale."""
    values = rng.uniform(np.log(low), np.log(high), knots)
    # A cosine between neighbouring knots has no corners, whose clicks a bird does not make.
    position = np.linspace(0, knots - 1, samples)
    index = np.minimum(position.astype(int), knots - 2)
    weight = (1 - np.cos(np.pi * (position - index))) / 2
    return np.exp(values[index] * (1 - weight) + values[index + 1] * weight)


def tone(frequency: np.ndarray, rate: int, harmonics: np.ndarray) -> np.ndarray:
    """Return a tone of a varying frequency with harmonics below the Nyquist frequency."""
    phase = 2 * np.pi * np.cumsum(frequency) / rate
    parts = [level * np.sin((k + 1) * phase) * ((k + 1) * frequency < 0.47 * rate) for k, level in enumerate(harmonics)]
    return np.sum(parts, axis=0)


def envelope(samples: int, attack: float, release: float) -> np.ndarray:
    """Return an envelope with the fractions of attack and release, both half a Hann window."""
    time = np.linspace(0, 1, samples)
    rise, fall = np.clip(time / attack, 0, 1), np.clip((1 - time) / release, 0, 1)
    return (np.sin(np.pi / 2 * rise) * np.sin(np.pi / 2 * fall)) ** 2


def whistle(rng: Rng, rate: int) -> np.ndarray:
    """A bird's whistle: a pure, gliding tone with weak harmonics and a beat of the amplitude."""
    samples = int(rng.uniform(0.06, 0.9) * rate)
    centre = rng.uniform(1000, 7000)
    width = rng.uniform(1.02, 1.6)
    frequency = glide(rng, centre / width, centre * width, samples, int(rng.integers(2, 6)))
    levels = np.array([1.0, rng.uniform(0, 0.2), rng.uniform(0, 0.05)])
    return tone(frequency, rate, levels) * envelope(samples, rng.uniform(0.05, 0.4), rng.uniform(0.1, 0.6))


def chirps(rng: Rng, rate: int) -> np.ndarray:
    """A bird's trill: a short syllable that is repeated 4 to 40 times a second."""
    samples = int(rate / rng.uniform(4, 40))
    sounding = int(samples * rng.uniform(0.3, 0.95))
    centre, width = rng.uniform(1800, 9000), rng.uniform(1.05, 1.8)
    frequency = glide(rng, centre / width, centre * width, sounding, int(rng.integers(2, 4)))
    syllable = np.zeros(samples)
    levels = np.array([1.0, rng.uniform(0, 0.3)])
    syllable[:sounding] = tone(frequency, rate, levels) * envelope(sounding, 0.2, 0.4)
    count = int(rng.integers(2, 30))
    return np.tile(syllable, count) * np.repeat(np.linspace(rng.uniform(0.3, 1), 1, count), samples)


def caw(rng: Rng, rate: int) -> np.ndarray:
    """A rough call with many harmonics, as of crows, gulls and ducks."""
    samples = int(rng.uniform(0.12, 0.7) * rate)
    centre = rng.uniform(250, 1500)
    jitter = lfilter([0.02], [1, -0.98], rng.standard_normal(samples)) * rng.uniform(0, 0.8)
    frequency = glide(rng, centre / 1.3, centre * 1.3, samples, 3) * np.exp(0.3 * jitter)
    formant = rng.uniform(1200, 4000)
    harmonics = 1 / (1 + ((np.arange(1, 30) * centre - formant) / rng.uniform(500, 1500)) ** 2)
    roughness = 1 + rng.uniform(0, 0.9) * np.sin(2 * np.pi * rng.uniform(30, 120) * np.arange(samples) / rate)
    return tone(frequency, rate, harmonics) * roughness * envelope(samples, 0.1, 0.3)


def cricket(rng: Rng, rate: int) -> np.ndarray:
    """Pulses of a narrow band: crickets, grasshoppers and cicadas."""
    pulse = int(rate * rng.uniform(0.008, 0.03))
    period = int(pulse * rng.uniform(1.1, 2.5))
    frequency = np.full(pulse, rng.uniform(2500, 11000)) * np.linspace(1, rng.uniform(0.96, 1.04), pulse)
    train = np.zeros(period)
    train[:pulse] = tone(frequency, rate, np.array([1, 0.1])) * envelope(pulse, 0.3, 0.5)
    return np.tile(train, int(rng.choice([3, 4, 5, 20, 60])))


def frog(rng: Rng, rate: int) -> np.ndarray:
    """Damped resonances at a low pulse rate."""
    samples = int(rng.uniform(0.15, 0.8) * rate)
    pulses = np.zeros(samples)
    pulses[:: int(rate / rng.uniform(25, 150))] = 1
    for _ in range(2):
        frequency, width = rng.uniform(400, 3000), rng.uniform(60, 300)
        radius = np.exp(-np.pi * width / rate)
        pulses = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * frequency / rate), radius**2], pulses)
    return pulses * envelope(samples, 0.2, 0.2)


def bell(rng: Rng, rate: int) -> np.ndarray:
    """Decaying inharmonic partials: bells, glasses, metal and wood that is struck."""
    samples = int(rng.uniform(0.2, 4) * rate)
    time = np.arange(samples) / rate
    base, decay = rng.uniform(150, 3500), rng.uniform(0.03, 1.2)
    ratios = np.concatenate([[1.0], 1 + np.cumsum(rng.exponential(0.8, int(rng.integers(2, 14))))])
    ratios = ratios[ratios * base < 0.45 * rate]
    parts = [
        rng.uniform(0.1, 1) / ratio**0.5 * np.exp(-time * ratio**0.6 / decay) * np.sin(2 * np.pi * base * ratio * time)
        for ratio in ratios
    ]
    return np.sum(parts, axis=0) * np.minimum(1, (samples - np.arange(samples)) / (0.02 * rate))


def beep(rng: Rng, rate: int) -> np.ndarray:
    """An electronic tone of constant pitch: alarms, telephones, machines that signal."""
    samples = int(rng.uniform(0.04, 0.7) * rate)
    frequency = np.full(samples, rng.uniform(400, 4500))
    if rng.random() < 0.3:  # two tones in turn
        frequency[(np.arange(samples) // int(rate * rng.uniform(0.02, 0.08))) % 2 == 1] *= rng.uniform(1.1, 1.5)
    odd = np.array([1, 0, 1 / 3, 0, 1 / 5, 0, 1 / 7]) ** rng.uniform(1, 2)
    return tone(frequency, rate, odd if rng.random() < 0.5 else np.ones(1)) * envelope(samples, 0.03, 0.05)


def engine(rng: Rng, rate: int) -> np.ndarray:
    """A motor that runs up and down: harmonics of a gliding rotation, modulated once a revolution."""
    samples = int(rng.uniform(1, 5) * rate)
    low = rng.uniform(20, 120)
    frequency = glide(rng, low, low * rng.uniform(1.3, 4), samples, int(rng.integers(3, 7)))
    harmonics = rng.uniform(0.2, 1, 40) * np.arange(1, 41) ** -rng.uniform(0.5, 1.3)
    load = glide(rng, 0.3, 1, samples, 5)
    return tone(frequency, rate, harmonics) * load * envelope(samples, 0.1, 0.15)


def drop(rng: Rng, rate: int) -> np.ndarray:
    """A drop of water or a knock: a resonance that rises a little and decays at once."""
    samples = int(rng.uniform(0.02, 0.15) * rate)
    time = np.linspace(0, 1, samples)
    frequency = rng.uniform(300, 3000) * (1 + rng.uniform(0, 0.6) * time)
    decay = np.exp(-rng.uniform(4, 9) * time) * np.minimum(1, (1 - time) * 10)
    return tone(frequency, rate, np.array([1.0, rng.uniform(0, 0.4)])) * decay * np.minimum(1, np.arange(samples) / 20)


def step(rng: Rng, rate: int) -> np.ndarray:
    """A burst of coloured noise that decays: a footstep, a tool, a door, the strike of an object."""
    samples = int(rng.uniform(0.03, 0.35) * rate)
    burst = rng.standard_normal(samples) * np.exp(-rng.uniform(5, 11) * np.linspace(0, 1, samples))
    pole = rng.uniform(0, 0.97)
    burst = lfilter([1 - pole], [1, -pole], burst)
    return burst * np.minimum(1, np.arange(samples) / (0.002 * rate)) * np.minimum(1, np.arange(samples)[::-1] / 300)


GENERATORS: list[tuple[float, Callable[[Rng, int], np.ndarray]]] = [  # with their weights
    (5, whistle), (4, chirps), (2, caw), (2, cricket), (1, frog), (1.5, bell), (1, beep), (1.5, engine), (1, drop),
    (1, step),
]  # fmt: skip


def outdoor_echo(rng: Rng, rate: int) -> np.ndarray:
    """Return an impulse response: the direct sound, some echoes and a diffuse tail."""
    samples = int(rng.uniform(0.1, 1.5) * rate)
    tail = rng.standard_normal(samples) * np.exp(-6.9 * np.arange(samples) / samples) * rng.uniform(0.0002, 0.01)
    pole = rng.uniform(0.2, 0.9)
    response = lfilter([1 - pole], [1, -pole], tail)
    response[rng.integers(0, samples // 2, 5)] += rng.uniform(-0.15, 0.15, 5)
    response[0] = 1
    return response * np.minimum(1, np.arange(samples)[::-1] / (0.02 * rate))


def compose(rng: Rng, seconds: float, rate: int) -> np.ndarray:
    """Return a scene, (samples,): one to three sources that call again and again, some with an echo.

    Args:
        rng: source of random numbers.
        seconds: length.
        rate: sampling rate in hertz.
    """
    weights = np.array([weight for weight, _ in GENERATORS])
    scene = np.zeros(int(seconds * rate))
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        generator = GENERATORS[int(rng.choice(len(GENERATORS), p=weights / weights.sum()))][1]
        # A creature has a small repertoire and varies it little.
        calls = [generator(rng, rate) for _ in range(int(rng.integers(1, 5)))]
        pause, loudness = rng.uniform(0.05, 2.5), 10 ** (rng.uniform(-25, 0) / 20)
        start = int(rng.exponential(0.5 * pause) * rate)
        while start < len(scene):
            call = calls[int(rng.integers(0, len(calls)))]
            call = call[: len(scene) - start] / (np.abs(call).max() + 1e-9) * loudness * 10 ** (rng.normal(0, 3) / 20)
            scene[start : start + len(call)] += call
            start += len(call) + int(rng.exponential(pause) * rate)
    if rng.random() < 0.5:
        scene = fftconvolve(scene, outdoor_echo(rng, rate))[: len(scene)]
    return scene
