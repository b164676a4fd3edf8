"""Noise of recordings, reverberation, telephone coding and clipping.

All tensors are (..., time), full scale 1.0.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from denoise.dsp import db_to_amplitude, mu_law_compress, mu_law_expand
from denoise.noise.common import uniform


def rms(x: Tensor) -> Tensor:
    """Return the root mean square over the last axis, which is kept with length 1."""
    return x.square().mean(dim=-1, keepdim=True).sqrt()


def scale_to_snr(clean: Tensor, noise: Tensor, snr_db: Tensor | float) -> Tensor:
    """Scale noise so that ``clean + noise`` has a given signal-to-noise ratio.

    The ratio compares the energies over the whole last axis. Noise is not scaled if it or the signal is silent.

    Args:
        clean: (..., time).
        noise: (..., time).
        snr_db: signal-to-noise ratio in dB, a number or (..., 1).

    Returns:
        Scaled noise, (..., time).
    """
    snr = torch.as_tensor(snr_db, dtype=clean.dtype)
    clean_rms, noise_rms = rms(clean), rms(noise)
    factor = clean_rms / noise_rms.clamp_min(1e-9) * 10 ** (-snr / 20)
    return noise * torch.where((clean_rms > 1e-6) & (noise_rms > 1e-9), factor, torch.ones_like(factor))


def reverberate(x: Tensor, response: Tensor) -> Tensor:
    """Convolve a signal with a room impulse response.

    The direct sound, the largest tap, is scaled to one and keeps its time. The length stays.

    Args:
        x: (time,).
        response: room impulse response, (taps,).

    Returns:
        (time,).
    """
    peak = int(response.abs().argmax())
    if not response[peak]:
        return x
    direct = response[peak:] / response[peak]
    n = 1 << (x.shape[-1] + direct.shape[-1] - 1).bit_length()
    spectrum = torch.fft.rfft(x, n) * torch.fft.rfft(direct, n)
    return torch.fft.irfft(spectrum, n)[..., : x.shape[-1]]


def set_level(x: Tensor, level_db: Tensor | float) -> Tensor:
    """Scale a signal to a given RMS; silence stays silence.

    Args:
        x: (..., time).
        level_db: RMS in dB relative to full scale, a number or (..., 1).

    Returns:
        (..., time).
    """
    level = torch.as_tensor(level_db, dtype=x.dtype)
    return x * 10 ** (level / 20) / rms(x).clamp_min(db_to_amplitude(-120.0))


def band_limit(x: Tensor, sample_rate: int, cutoff_hz: float) -> Tensor:
    """Remove frequencies above a cutoff, with a raised-cosine transition of a tenth of the cutoff.

    Args:
        x: (..., time).
        sample_rate: in Hz.
        cutoff_hz: frequency in Hz from which on nothing passes; the transition lies below it.

    Returns:
        (..., time).
    """
    n = x.shape[-1]
    frequency = torch.fft.rfftfreq(n, 1 / sample_rate)
    edge = ((cutoff_hz - frequency) / (0.1 * cutoff_hz)).clamp(0, 1)
    gain = 0.5 - 0.5 * torch.cos(torch.pi * edge)
    return torch.fft.irfft(torch.fft.rfft(x) * gain, n)


def colour(x: Tensor, exponent: float, sample_rate: int) -> Tensor:
    """Shape the power spectrum of white noise as ``1 / f ** exponent``: 0 white, 1 pink, 2 brown.

    Args:
        x: white noise, (..., time).
        exponent: exponent of the power spectrum.
        sample_rate: in Hz.

    Returns:
        (..., time).
    """
    n = x.shape[-1]
    frequency = torch.fft.rfftfreq(n, 1 / sample_rate).clamp_min(20.0)
    return torch.fft.irfft(torch.fft.rfft(x) * (frequency / 1000.0) ** (-exponent / 2), n)


def clip(x: Tensor, fraction: float) -> Tensor:
    """Clip a signal, as an overdriven input does, so that a fraction of its samples is clipped.

    Args:
        x: (..., time).
        fraction: fraction of clipped samples, 0 to 1.

    Returns:
        (..., time).
    """
    limit = torch.quantile(x.abs().flatten()[:: max(1, x.numel() // 50_000)], 1 - fraction).clamp_min(1e-4)
    return x.clamp(-limit, limit)


def mu_law(x: Tensor, mu: float = 255.0) -> Tensor:
    """Quantise a signal by mu-law companding to 8 bits, as telephony does.

    Args:
        x: any shape; clipped to full scale 1.0.
        mu: parameter of the companding law.

    Returns:
        Same shape.

    Reference:
        Pulse Code Modulation of Voice Frequencies, ITU-T G.711.
    """
    return mu_law_expand(torch.round(mu_law_compress(x.clamp(-1, 1), mu) * 127) / 127, mu)


def hum(time: int, sample_rate: int, generator: Generator | None = None) -> Tensor:
    """Generate mains hum: 50 or 60 Hz with harmonics of a random decay and a slowly varying level.

    Args:
        time: number of samples.
        sample_rate: in Hz.
        generator: source of randomness.

    Returns:
        (time,), RMS of about 1.
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
    """Generate clicks: 2 to 100 short decaying pulses per second, whose levels span 20 dB.

    Args:
        time: number of samples.
        sample_rate: in Hz.
        generator: source of randomness.

    Returns:
        (time,), RMS of 1.
    """
    per_second = 10 ** float(uniform(0.3, 2.0, 1, generator))
    n = max(1, round(per_second * time / sample_rate))
    x = torch.zeros(time)
    positions = torch.randint(time, (n,), generator=generator)
    x[positions] = torch.randn(n, generator=generator) * 10 ** uniform(-1.0, 0.0, n, generator)
    taps = torch.arange(round(0.004 * sample_rate)) / sample_rate
    ring = torch.cos(2 * torch.pi * float(uniform(500.0, 0.4 * sample_rate, 1, generator)) * taps)
    pulse = ring * torch.exp(-taps / float(uniform(1e-4, 1e-3, 1, generator)))
    size = 1 << (time + len(pulse)).bit_length()
    x = torch.fft.irfft(torch.fft.rfft(x, size) * torch.fft.rfft(pulse, size), size)[:time]
    return x / rms(x).clamp_min(1e-9)


def impacts(time: int, sample_rate: int, generator: Generator | None = None) -> Tensor:
    """Generate one to three impacts: bursts of coloured noise that decay within 0.3 s.

    Args:
        time: number of samples.
        sample_rate: in Hz.
        generator: source of randomness.

    Returns:
        (time,); the peak of the loudest impact is about 1.
    """
    x = torch.zeros(time)
    for _ in range(int(torch.randint(1, 4, (), generator=generator))):
        taps = min(time, round(float(uniform(0.02, 0.3, 1, generator)) * sample_rate))
        burst = colour(torch.randn(taps, generator=generator), float(uniform(0.0, 2.0, 1, generator)), sample_rate)
        burst = burst * torch.exp(-5 * torch.arange(taps) / taps)
        start = int(torch.randint(time - taps + 1, (), generator=generator))
        peak = float(uniform(0.2, 1.0, 1, generator))
        x[start : start + taps] += peak * burst / burst.abs().max().clamp_min(1e-9)
    return x


def wind(time: int, sample_rate: int, generator: Generator | None = None) -> Tensor:
    """Generate wind noise of a microphone: low-frequency rumble, modulated by gusts.

    Args:
        time: number of samples.
        sample_rate: in Hz.
        generator: source of randomness.

    Returns:
        (time,), RMS of 1.

    Reference:
        On the Measurement of Wind Noise, Strasberg, 1988 (spectra that decay steeply above some 10 Hz).
    """
    rumble = colour(torch.randn(time, generator=generator), float(uniform(2.0, 3.5, 1, generator)), sample_rate)
    points = max(2, round(time / sample_rate * float(uniform(1.0, 6.0, 1, generator)))) + 1
    gusts = torch.rand(1, 1, points, generator=generator) ** float(uniform(1.0, 4.0, 1, generator))
    x = rumble * torch.nn.functional.interpolate(gusts, time, mode="linear", align_corners=True)[0, 0]
    return x / rms(x).clamp_min(1e-9)


def tones(time: int, sample_rate: int, generator: Generator | None = None) -> Tensor:
    """Generate the steady tone of a transformer, lamp or motor: a fundamental of 50 to 500 Hz with few harmonics.

    Half of the fundamentals are 50, 60, 100 or 120 Hz within half a percent. The level varies slowly by up to 15 %.

    Args:
        time: number of samples.
        sample_rate: in Hz.
        generator: source of randomness.

    Returns:
        (time,), RMS of 1.
    """
    t = torch.arange(time, dtype=torch.float64) / sample_rate
    hz = 50.0 * 10 ** float(uniform(0.0, 1.0, 1, generator))
    if float(torch.rand((), generator=generator)) < 0.5:
        mains = (50.0, 60.0, 100.0, 120.0)[int(torch.randint(4, (), generator=generator))]
        hz = mains * float(uniform(0.995, 1.005, 1, generator))
    n = min(int(torch.randint(1, 13, (), generator=generator)), int(0.5 * sample_rate / hz))
    harmonics = torch.arange(1, n + 1, dtype=torch.float64)
    phases = 2 * torch.pi * torch.rand(n, generator=generator, dtype=torch.float64)
    levels = harmonics ** -float(uniform(0.0, 2.0, 1, generator)) * uniform(0.1, 1.0, n, generator)
    drift = 1 + 0.15 * torch.sin(2 * torch.pi * float(uniform(0.05, 1.0, 1, generator)) * t)
    x = (drift * (levels @ torch.sin(2 * torch.pi * hz * harmonics[:, None] * t + phases[:, None]))).float()
    return x / rms(x).clamp_min(1e-9)


def beeps(time: int, sample_rate: int, generator: Generator | None = None) -> Tensor:
    """Generate the beeps of a device: bursts of a tone of 300 to 3500 Hz, 0.05 to 0.6 s long, at regular intervals.

    Args:
        time: number of samples.
        sample_rate: in Hz.
        generator: source of randomness.

    Returns:
        (time,), RMS of the bursts of about 1.
    """
    t = torch.arange(time, dtype=torch.float64) / sample_rate
    period, length = (float(uniform(*bounds, 1, generator)) for bounds in ((0.2, 2.0), (0.05, 0.6)))
    age = torch.remainder(t + float(uniform(0.0, 2.0, 1, generator)), max(period, 1.3 * length))
    envelope = (torch.minimum(age, length - age) / 0.005).clamp(0, 1)
    hz, overtone = float(uniform(300.0, 3500.0, 1, generator)), float(uniform(0.0, 0.5, 1, generator))
    wave = torch.sin(2 * torch.pi * hz * t) + overtone * torch.sin(6 * torch.pi * hz * t) * (3 * hz < sample_rate / 2)
    return (1.41 * envelope * wave).float()


def broadband(time: int, sample_rate: int, generator: Generator | None = None) -> Tensor:
    """Generate hiss of tapes, amplifiers and fans: Gaussian noise of a random smooth spectrum and slowly varying level.

    The spectrum has a random tilt, -9 to +3 dB per octave, and deviates from it by some 4 dB, independently by octave.

    Args:
        time: number of samples.
        sample_rate: in Hz.
        generator: source of randomness.

    Returns:
        (time,), RMS of 1.
    """
    octaves = torch.log2(torch.fft.rfftfreq(time, 1 / sample_rate).clamp_min(20.0) / 20.0)
    tilt_db = float(uniform(-9.0, 3.0, 1, generator)) * float(torch.rand((), generator=generator))
    knots_db = 4 * torch.randn(13, generator=generator)
    lower = octaves.long().clamp_max(11)
    gain_db = tilt_db * octaves + torch.lerp(knots_db[lower], knots_db[lower + 1], octaves - lower)
    white = torch.randn(time, generator=generator)
    x = torch.fft.irfft(torch.fft.rfft(white) * 10 ** ((gain_db - gain_db.max()) / 20), time)
    points = max(2, round(time / sample_rate / 2)) + 1
    drift_db = float(uniform(0.0, 3.0, 1, generator)) * torch.randn(1, 1, points, generator=generator)
    drift_db = torch.nn.functional.interpolate(drift_db, time, mode="linear", align_corners=True)[0, 0]
    x = x * 10 ** (drift_db / 20)
    return x / rms(x).clamp_min(1e-9)
