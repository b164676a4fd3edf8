"""Networks of one sample rate on recordings of any: resampling, and attenuation of the band above the network's."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from denoise.dsp import resample, stft

RESAMPLER_REACH_S = 0.1  # an upper bound of the length of the resampling filters


def denoise_full_band(denoise: Callable[[Tensor], Tensor], x: Tensor, sample_rate: int, network_rate: int) -> Tensor:
    """Denoise at the sample rate of a network, and keep the band above it, attenuated as the top of its band.

    Args:
        denoise: function of samples at ``network_rate``, (channels, time) to the same shape.
        x: noisy samples at ``sample_rate``, (channels, time), full scale 1.0.
        sample_rate: sample rate of ``x`` in Hz.
        network_rate: sample rate of the network in Hz.

    Returns:
        Denoised samples at ``sample_rate``, the shape of ``x``.
    """
    time = x.shape[1]
    low = resample(x.float(), sample_rate, network_rate)
    denoised_low = denoise(low)
    denoised = resample(denoised_low, network_rate, sample_rate)[:, :time]
    if sample_rate > network_rate:
        high = x - resample(low, network_rate, sample_rate)[:, :time]
        gain = top_band_gain(low, denoised_low, network_rate)
        hop = gain_hop(network_rate) * sample_rate / network_rate
        denoised = denoised + high * _interpolate(gain, time, hop)
    return denoised


def top_band_gain(noisy: Tensor, denoised: Tensor, sample_rate: int) -> Tensor:
    """Measure how much a network attenuated the top half of its band, over time.

    Args:
        noisy: input of the network, (channels, time).
        denoised: output of the network, (channels, time).
        sample_rate: sample rate of both in Hz.

    Returns:
        Gains of at most 1, (channels, frames), one every `gain_hop` samples from the first sample to beyond the last.
    """
    hop = gain_hop(sample_rate)
    n_fft = 2 * hop
    padding = -noisy.shape[-1] % hop
    top = slice(n_fft // 4, round(0.475 * n_fft))  # without the edge, which the resampler attenuates
    energies = [stft(F.pad(x, (0, padding)), n_fft, hop)[:, top].abs().square().sum(dim=1) for x in (noisy, denoised)]
    smooth = [F.avg_pool1d(e[None], 5, 1, 2, count_include_pad=False)[0] for e in energies]
    return (smooth[1] / smooth[0].clamp_min(1e-12)).clamp(0, 1).sqrt()


def gain_hop(sample_rate: int) -> int:
    """Return the hop of `top_band_gain` in samples: the power of two nearest to 16 ms.

    Args:
        sample_rate: sample rate in Hz.

    Returns:
        The number of samples.
    """
    return 2 ** round(math.log2(0.016 * sample_rate))


def full_band_context(stride: int, context: int, sample_rate: int, network_rate: int) -> tuple[int, int]:
    """Return the stride and the context of a network on recordings of another sample rate.

    Args:
        stride: windows of the network start at multiples of it, in samples at ``network_rate``.
        context: receptive field of the network to each side, in samples at ``network_rate``.
        sample_rate: sample rate of the recording in Hz.
        network_rate: sample rate of the network in Hz.

    Returns:
        Stride and context in samples at ``sample_rate``, with which `denoise_full_band` does not depend on the windows.
    """
    if sample_rate > network_rate:  # `top_band_gain` is then the same in all windows, too
        hop = gain_hop(network_rate)
        stride, context = math.lcm(stride, hop), context + 4 * hop
    common = math.gcd(sample_rate, network_rate)
    up, down = network_rate // common, sample_rate // common
    context = math.ceil(context * sample_rate / network_rate)
    if sample_rate != network_rate:
        context += math.ceil(RESAMPLER_REACH_S * sample_rate)
    return down * (stride // math.gcd(up, stride)), context


def _interpolate(gain: Tensor, time: int, hop: float) -> Tensor:
    """Interpolate frames, ``hop`` samples apart, linearly: (channels, frames) to (channels, time)."""
    position = torch.arange(time, dtype=torch.float64) / hop
    left = position.long().clamp(max=gain.shape[1] - 2)
    return torch.lerp(gain[:, left], gain[:, left + 1], (position - left).to(gain))
