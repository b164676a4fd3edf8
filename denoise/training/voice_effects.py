"""Effects of films, games and radio on clean voices: the voice of a giant, a robot or a pilot is a voice to keep."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from denoise import noise
from denoise.training.chance import happens, log_uniform, uniform

GRAIN_S = 0.05  # seconds that a delay line reads forward or backward before it starts again
ANOTHER = 0.4  # probability of another effect after each
MAX_EFFECTS = 4


def random_voice(x: Tensor, sample_rate: int, generator: Generator) -> Tensor:
    """Apply one or more random effects.

    Args:
        x: voice, (time,).
        sample_rate: its sample rate, Hz.
        generator: source of randomness.

    Returns:
        Voice of the same length; its level may differ.
    """
    for _ in range(MAX_EFFECTS):
        effect = EFFECTS[int(torch.randint(len(EFFECTS), (), generator=generator))]
        x = effect(x, sample_rate, generator)
        if not happens(ANOTHER, generator):
            break
    return x


def giant(x: Tensor, sample_rate: int, generator: Generator) -> Tensor:
    """Transpose the voice and its formants by up to ten semitones, most often down, alone or over the voice itself."""
    ratio = 2 ** (uniform(-10.0, 5.0, generator) / 12)
    dry = uniform(0.0, 1.0, generator) if happens(0.5, generator) else 0.0
    return transpose(x, ratio, sample_rate) + dry * x


def robot(x: Tensor, sample_rate: int, generator: Generator) -> Tensor:
    """Multiply by a tone of 20 to 200 Hz: ring modulation."""
    return modulate(x, log_uniform(20, 200, generator), 1.0, sample_rate)


def trembling(x: Tensor, sample_rate: int, generator: Generator) -> Tensor:
    """Vary the level 3 to 15 times a second."""
    return modulate(x, uniform(3.0, 15.0, generator), uniform(0.2, 0.5, generator), sample_rate)


def crowd(x: Tensor, sample_rate: int, generator: Generator) -> Tensor:
    """Add one to three copies with slowly varying delays of 1 to 30 ms: flanger and chorus."""
    t = torch.arange(len(x)) / sample_rate
    mixed = x
    for _ in range(1 + int(torch.randint(3, (), generator=generator))):
        mean = log_uniform(0.001, 0.03, generator)
        phase, hz = uniform(0.0, 2 * math.pi, generator), uniform(0.1, 3.0, generator)
        depth = min(0.003, 0.8 * mean) * uniform(0.0, 1.0, generator)
        delay = mean + depth * torch.sin(2 * math.pi * hz * t + phase)
        mixed = mixed + uniform(0.4, 1.0, generator) * delayed(x, delay * sample_rate)
    return mixed


def pipe(x: Tensor, sample_rate: int, generator: Generator) -> Tensor:
    """Repeat after 1 to 12 ms with feedback: the resonances of a comb filter."""
    delay_s = log_uniform(0.001, 0.012, generator)
    return repeat(x, delay_s, uniform(0.3, 0.85, generator), sample_rate)


def canyon(x: Tensor, sample_rate: int, generator: Generator) -> Tensor:
    """Repeat after 60 to 400 ms with feedback: echo."""
    return repeat(x, uniform(0.06, 0.4, generator), uniform(0.2, 0.6, generator), sample_rate)


def radio(x: Tensor, sample_rate: int, generator: Generator) -> Tensor:
    """Saturate an amplifier and leave the band of a radio telephone."""
    low, high = uniform(200.0, 600.0, generator), uniform(2500.0, min(5000.0, 0.45 * sample_rate), generator)
    x = torch.tanh(10 ** (uniform(-15.0, 5.0, generator) / 20) * x / noise.rms(x).clamp_min(1e-6))
    spectrum, hz = torch.fft.rfft(x), torch.fft.rfftfreq(len(x), 1 / sample_rate)
    gain = 1 / (1 + (low / hz.clamp_min(1)) ** 8) / (1 + (hz / high) ** 16)  # Butterworth, fourth and eighth order
    return torch.fft.irfft(spectrum * gain.sqrt(), n=len(x))


EFFECTS = (giant, giant, robot, trembling, crowd, pipe, canyon, radio)


def delayed(x: Tensor, delay: Tensor) -> Tensor:
    """Delay a signal by times that vary, with linear interpolation; zeros before its beginning.

    Args:
        x: signal, (time,).
        delay: delay of each sample of the result, not negative, in samples, (time,).
    """
    position = torch.arange(len(x)) - delay
    before = position.floor()
    weight, index = position - before, before.long()
    first = x[index.clamp(0, len(x) - 1)] * (index >= 0)
    second = x[(index + 1).clamp(0, len(x) - 1)] * (index >= -1)
    return (1 - weight) * first + weight * second


def transpose(x: Tensor, ratio: float, sample_rate: int) -> Tensor:
    """Multiply all frequencies by reading two delay lines faster or slower, the heads of a rotating tape.

    Args:
        x: signal, (time,).
        ratio: factor of the frequencies.
        sample_rate: in Hz.

    Reference:
        DAFX: Digital Audio Effects, U. Zoelzer (editor), 2nd edition 2011, section 6.4.
    """
    t = torch.arange(len(x), dtype=torch.float64) / sample_rate
    result = torch.zeros_like(x)
    for offset in (0.0, 0.5):
        phase = ((1 - ratio) * t / GRAIN_S + offset).remainder(1.0)
        result += (torch.sin(math.pi * phase).square() * delayed(x.double(), phase * GRAIN_S * sample_rate)).float()
    return result


def modulate(x: Tensor, hz: float, depth: float, sample_rate: int) -> Tensor:
    """Multiply by a tone.

    Args:
        x: signal, (time,).
        hz: frequency of the tone.
        depth: 0 for the signal, 0.5 for gains of 0 to 1, 1 for ring modulation.
        sample_rate: in Hz.
    """
    t = torch.arange(len(x), dtype=torch.float64) / sample_rate
    return x * (1 - depth + depth * torch.cos(2 * math.pi * hz * t)).float()


def repeat(x: Tensor, delay_s: float, feedback: float, sample_rate: int) -> Tensor:
    """Repeat a signal again and again, each time weaker: y(t) = x(t) + feedback y(t - delay).

    Args:
        x: signal, (time,).
        delay_s: delay in seconds, rounded to samples.
        feedback: gain of each repetition, from 0 to below 1.
        sample_rate: in Hz.
    """
    delay = max(1, round(delay_s * sample_rate))
    if not feedback:
        return x
    n = min((len(x) - 1) // delay, math.ceil(math.log(1e-5) / math.log(feedback)))
    y = x.clone()
    for k in range(1, n + 1):
        y[k * delay :] += feedback**k * x[: len(x) - k * delay]
    return y
