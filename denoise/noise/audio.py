"""Noise as recordings have it, and what rooms, telephones and overdriven inputs do to them.

All tensors are (..., time), full scale 1.0.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from denoise.dsp import db_to_amplitude
from denoise.noise.common import uniform


def rms(x: Tensor) -> Tensor:
    """Root mean square over the last axis, kept as length 1."""
    return x.square().mean(dim=-1, keepdim=True).sqrt()


def scale_to_snr(clean: Tensor, noise: Tensor, snr_db: Tensor | float) -> Tensor:
    """Scale ``noise`` so that ``clean + noise`` has the signal-to-noise ratio ``snr_db``.

    The ratio is of energies over the whole last axis. Silent noise or silent speech leaves it unscaled.

    Shape:
        clean, noise, returns: (..., time); snr_db: a number or (..., 1), dB.
    """
    snr = torch.as_tensor(snr_db, dtype=clean.dtype)
    level, noise_level = rms(clean), rms(noise)
    factor = level / noise_level.clamp_min(1e-9) * 10 ** (-snr / 20)
    return noise * torch.where((level > 1e-6) & (noise_level > 1e-9), factor, torch.ones_like(factor))


def reverberate(x: Tensor, response: Tensor) -> Tensor:
    """Convolve with a room's impulse response whose direct sound is its first strong sample.

    The result keeps the length and the time of the direct sound, which is scaled to one.

    Shape:
        x, returns: (time,); response: (taps,).
    """
    peak = int(response.abs().argmax())
    if not response[peak]:
        return x
    direct = response[peak:] / response[peak]
    n = 1 << (x.shape[-1] + direct.shape[-1] - 1).bit_length()
    spectrum = torch.fft.rfft(x, n) * torch.fft.rfft(direct, n)
    return torch.fft.irfft(spectrum, n)[..., : x.shape[-1]]


def set_level(x: Tensor, level_db: Tensor | float) -> Tensor:
    """Scale to an RMS of ``level_db`` dB relative to full scale; silence stays silence.

    Shape:
        x, returns: (..., time); level_db: a number or (..., 1).
    """
    level = torch.as_tensor(level_db, dtype=x.dtype)
    return x * 10 ** (level / 20) / rms(x).clamp_min(db_to_amplitude(-120.0))


def band_limit(x: Tensor, sample_rate: int, cutoff_hz: float) -> Tensor:
    """Remove what lies above ``cutoff_hz``, with a raised-cosine edge one tenth of it wide.

    Shape:
        x, returns: (..., time).
    """
    n = x.shape[-1]
    frequency = torch.fft.rfftfreq(n, 1 / sample_rate)
    edge = ((cutoff_hz - frequency) / (0.1 * cutoff_hz)).clamp(0, 1)
    gain = 0.5 - 0.5 * torch.cos(torch.pi * edge)
    return torch.fft.irfft(torch.fft.rfft(x) * gain, n)


def colour(x: Tensor, exponent: float, sample_rate: int) -> Tensor:
    """Tilt a noise's spectrum by ``1 / f ** exponent`` in power: 0 white, 1 pink, 2 brown.

    Shape:
        x, returns: (..., time).
    """
    n = x.shape[-1]
    frequency = torch.fft.rfftfreq(n, 1 / sample_rate).clamp_min(20.0)
    return torch.fft.irfft(torch.fft.rfft(x) * (frequency / 1000.0) ** (-exponent / 2), n)


def clip(x: Tensor, share: float) -> Tensor:
    """Clip at the level that a ``share`` of the samples exceeds, as an overdriven input does.

    Shape:
        x, returns: (..., time); share: 0 to 1.
    """
    level = torch.quantile(x.abs().flatten()[:: max(1, x.numel() // 50_000)], 1 - share).clamp_min(1e-4)
    return x.clamp(-level, level)


def mu_law(x: Tensor, mu: float = 255.0) -> Tensor:
    """Quantise to the 8 bits of a telephone line.

    Shape:
        x, returns: any, clipped to full scale 1.0.
    Reference:
        Pulse Code Modulation of Voice Frequencies, ITU-T G.711.
    """
    x = x.clamp(-1, 1)
    code = torch.round(x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu) * 127) / 127
    return code.sign() * torch.expm1(code.abs() * math.log1p(mu)) / mu


def hum(time: int, sample_rate: int, generator: Generator | None = None) -> Tensor:
    """Mains hum: 50 or 60 Hz and its harmonics, falling at a drawn rate, drifting slightly in level.

    Shape:
        returns: (time,), RMS about 1.
    """
    t = torch.arange(time, dtype=torch.float64) / sample_rate
    mains = 50.0 if float(torch.rand((), generator=generator)) < 0.5 else 60.0
    harmonics = torch.arange(1, min(40, int(0.5 * sample_rate / mains)), dtype=torch.float64)
    phases = 2 * torch.pi * torch.rand(len(harmonics), generator=generator, dtype=torch.float64)
    slope = float(uniform(0.3, 2.0, 1, generator))
    levels = harmonics**-slope * uniform(0.1, 1.0, len(harmonics), generator)
    drift = 1 + 0.2 * torch.sin(2 * torch.pi * float(uniform(0.1, 2.0, 1, generator)) * t)
    x = drift * (levels @ torch.sin(2 * torch.pi * mains * harmonics[:, None] * t + phases[:, None]))
    return (x / x.square().mean().sqrt().clamp_min(1e-9)).float()


def clicks(time: int, sample_rate: int, generator: Generator | None = None) -> Tensor:
    """Crackle: a few to a hundred short decaying pulses a second, of very different levels.

    Shape:
        returns: (time,), RMS 1 unless none falls into it.
    """
    per_second = 10 ** float(uniform(0.3, 2.0, 1, generator))
    n = max(1, round(per_second * time / sample_rate))
    x = torch.zeros(time)
    places = torch.randint(time, (n,), generator=generator)
    x[places] = torch.randn(n, generator=generator) * 10 ** uniform(-1.0, 0.0, n, generator)
    taps = torch.arange(round(0.004 * sample_rate)) / sample_rate
    ring = torch.cos(2 * torch.pi * float(uniform(500.0, 0.4 * sample_rate, 1, generator)) * taps)
    pulse = ring * torch.exp(-taps / float(uniform(1e-4, 1e-3, 1, generator)))
    size = 1 << (time + len(pulse)).bit_length()
    x = torch.fft.irfft(torch.fft.rfft(x, size) * torch.fft.rfft(pulse, size), size)[:time]
    return x / rms(x).clamp_min(1e-9)


def impacts(time: int, sample_rate: int, generator: Generator | None = None) -> Tensor:
    """One to three bumps and slams, far louder than all around them: bursts of noise that die away within 0.3 s.

    Shape:
        returns: (time,); the peak of the loudest is about 1.
    """
    x = torch.zeros(time)
    for _ in range(int(torch.randint(1, 4, (), generator=generator))):
        taps = min(time, round(float(uniform(0.02, 0.3, 1, generator)) * sample_rate))
        burst = colour(torch.randn(taps, generator=generator), float(uniform(0.0, 2.0, 1, generator)), sample_rate)
        burst = burst * torch.exp(-5 * torch.arange(taps) / taps)
        start = int(torch.randint(time - taps + 1, (), generator=generator))
        level = float(uniform(0.2, 1.0, 1, generator))
        x[start : start + taps] += level * burst / burst.abs().max().clamp_min(1e-9)
    return x


def wind(time: int, sample_rate: int, generator: Generator | None = None) -> Tensor:
    """Wind on a microphone: low rumble in gusts.

    Shape:
        returns: (time,), RMS 1.
    Reference:
        On the Measurement of Wind Noise, Strasberg, 1988 (spectra that fall steeply above some 10 Hz).
    """
    rumble = colour(torch.randn(time, generator=generator), float(uniform(2.0, 3.5, 1, generator)), sample_rate)
    points = max(2, round(time / sample_rate * float(uniform(1.0, 6.0, 1, generator)))) + 1
    gusts = torch.rand(1, 1, points, generator=generator) ** float(uniform(1.0, 4.0, 1, generator))
    x = rumble * torch.nn.functional.interpolate(gusts, time, mode="linear", align_corners=True)[0, 0]
    return x / rms(x).clamp_min(1e-9)
