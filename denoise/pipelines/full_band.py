"""Networks of one sample rate on recordings of any: resampling, and attenuation of the band above the network's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from denoise.resampling import resample

Array = NDArray[Any]

RESAMPLER_REACH_S = 0.1  # an upper bound of the length of the resampling filters


def denoise_full_band(denoise: Callable[[Array], Array], x: Array, sample_rate: int, network_rate: int) -> Array:
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
    low = resample(x.astype(np.float32, copy=False), sample_rate, network_rate)
    denoised_low = denoise(low)
    denoised = resample(denoised_low, network_rate, sample_rate)[:, :time]
    if sample_rate > network_rate:
        high = x - resample(low, network_rate, sample_rate)[:, :time]
        gain = top_band_gain(low, denoised_low, network_rate)
        hop = gain_hop(network_rate) * sample_rate / network_rate
        denoised = denoised + high * _interpolate(gain, time, hop)
    return denoised


def top_band_gain(noisy: Array, denoised: Array, sample_rate: int) -> Array:
    """Measure how much a network attenuated the top half of its band, over time.

    Args:
        noisy: input of the network, (channels, time).
        denoised: output of the network, (channels, time).
        sample_rate: sample rate of both in Hz.

    Returns:
        Gains of at most 1, (channels, frames), one every `gain_hop` samples from the first sample to beyond the last.
    """
    before, after = (_moving_mean(_top_band_energy(x, gain_hop(sample_rate))) for x in (noisy, denoised))
    return np.sqrt((after / before.clip(1e-12)).clip(0, 1))


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


def _top_band_energy(x: Array, hop: int) -> Array:
    """Energies of the top half of the band in frames of two hops centred on multiples of one, (channels, frames)."""
    n_fft, time = 2 * hop, x.shape[1]
    window = np.sin(np.pi * np.arange(n_fft) / n_fft).astype(np.float32)
    frames = sliding_window_view(np.pad(x, ((0, 0), (hop, hop + -time % hop))), n_fft, axis=1)[:, ::hop]
    top = slice(n_fft // 4, round(0.475 * n_fft))  # without the edge, which the resampler attenuates
    lines = np.fft.rfft(frames * window)[..., top]
    return np.square(lines.real).sum(axis=-1) + np.square(lines.imag).sum(axis=-1)


def _moving_mean(energies: Array) -> Array:
    """Mean of each frame and two on each side of it, fewer at the ends."""
    padded, is_frame = (np.pad(e, ((0, 0), (2, 2))) for e in (energies, np.ones_like(energies[:1])))
    return sliding_window_view(padded, 5, axis=1).sum(axis=-1) / sliding_window_view(is_frame, 5, axis=1).sum(axis=-1)


def _interpolate(gain: Array, time: int, hop: float) -> Array:
    """Interpolate frames, ``hop`` samples apart, linearly: (channels, frames) to (channels, time)."""
    position = np.arange(time) / hop
    left = position.astype(np.int64).clip(max=gain.shape[1] - 2)
    start, end = gain[:, left], gain[:, left + 1]
    return start + (position - left).astype(gain.dtype) * (end - start)
