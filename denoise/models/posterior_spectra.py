"""Spectra of posterior samples beside posterior means: their noise, and where a sample is rejected."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from denoise.dsp import compress_spectrum, expand_spectrum, power

POWER_FLOOR = 1e-10**2  # powers far below it are not compressed
SMOOTHING_BINS = 17  # half a kilohertz
REJECTION_RANGE = (2.0, 4.0)  # power of sample - mean over noise power, from no rejection to full rejection


@dataclass(frozen=True)
class PowerSums:
    """Sums of powers over all bins so far, from which `SpeechFlowSampler.diagnostics` are computed.

    Args:
        removed: power of the noisy spectrum minus the output.
        noise: estimated power of the noise.
        cross: inner product of the removed part and the output.
        output: power of the output.
        rejected: power of sample - mean that was rejected.
        change: power of sample - mean.
    """

    removed: float = 0.0
    noise: float = 0.0
    cross: float = 0.0
    output: float = 0.0
    rejected: float = 0.0
    change: float = 0.0

    def __add__(self, other: PowerSums) -> PowerSums:
        return PowerSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @classmethod
    def of(cls, noisy: Tensor, output: Tensor, noise: Tensor, change: Tensor, rejection: Tensor) -> PowerSums:
        """Compute the sums of some frames.

        Args:
            noisy: noisy spectrum, (batch, channels, frames, bins).
            output: output spectrum, the same shape.
            noise: estimated power of the noise, the same shape.
            change: sample minus mean, the same shape.
            rejection: weight of the mean in place of the sample, the same shape.
        """
        removed, change_power = noisy - output, power(change)
        cross = removed.real * output.real + removed.imag * output.imag
        terms = [power(removed), noise, cross, power(output), rejection * change_power, change_power]
        return cls(*torch.stack([term.sum() for term in terms]).tolist())


def estimate_noise_power(noisy: Tensor, mean: Tensor) -> Tensor:
    """Estimate the power of the noise from the posterior mean, smoothed over frequency.

    A Wiener filter for a signal of power s and noise of power n removes the fraction n / (s + n) of the amplitude. The
    removed part has the power n^2 / (s + n), the noisy signal s + n; n is their geometric mean.

    Args:
        noisy: noisy spectrum, (batch, channels, frames, bins).
        mean: posterior mean of the clean spectrum, the same shape.

    Returns:
        Power, the same shape.
    """
    return (smoothed_power(noisy - mean) * smoothed_power(noisy)).sqrt()


def rejection_weight(noise: Tensor, sample: Tensor, mean: Tensor) -> Tensor:
    """Return the weight of the mean where a posterior sample differs from it by more than the noise explains.

    The posterior variance of a signal is at most that of the noise. A sample that differs more has replaced a part of
    the signal.

    Args:
        noise: power of the noise as of `estimate_noise_power`, (batch, channels, frames, bins).
        sample: posterior sample of the clean spectrum, the same shape.
        mean: posterior mean, the same shape.

    Returns:
        Weights from 0 (keep the sample) to 1 (use the mean), the same shape.
    """
    low, high = REJECTION_RANGE
    ratio = smoothed_power(sample - mean) / (noise + POWER_FLOOR)
    return ((ratio - low) / (high - low)).clamp(0, 1)


def channel_gains(spectrum: Tensor) -> Tensor:
    """Return the amplitude of each channel relative to the rms of all channels, smoothed over frequency.

    Args:
        spectrum: complex spectrum, (batch, channels, frames, bins).

    Returns:
        Gains, the same shape.
    """
    channel_power = smoothed_power(spectrum) + POWER_FLOOR
    return (channel_power / channel_power.mean(dim=1, keepdim=True)).sqrt()


def smoothed_power(spectrum: Tensor) -> Tensor:
    """Return the power of a spectrum (batch, channels, frames, bins), averaged over `SMOOTHING_BINS` bins."""
    flat = power(spectrum).flatten(0, 1)
    return F.avg_pool1d(flat, SMOOTHING_BINS, 1, SMOOTHING_BINS // 2, count_include_pad=False).reshape(spectrum.shape)


def compress(spectrum: Tensor, exponent: float) -> Tensor:
    """Compress a spectrum of any shape; see `denoise.dsp.compress_spectrum`."""
    return compress_spectrum(spectrum, exponent, POWER_FLOOR)


def expand(spectrum: Tensor, exponent: float) -> Tensor:
    """Invert `compress` for magnitudes well above the floor."""
    return expand_spectrum(spectrum, exponent, POWER_FLOOR)
