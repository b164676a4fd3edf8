"""Speech in coloured noise that varies slowly: power of the noise, the Wiener filter, and a whitened denoiser.

Spectra are those of `denoise.dsp.stft` with a hop of half the window; the coefficients of an MDCT with the same window
are aligned with them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from denoise.dsp import power
from denoise.protocols import OrthonormalCodec
from denoise.sampling.solvers import Denoise

SMOOTHING = (3, 3)  # bins and frames over which the power of the noise is averaged
MIN_POWER = 1e-10  # of a spectral line, far below the rounding of 16 bits
MEMORY = 0.96  # weight of the previous frame in the a-priori SNR
MIN_SNR = 10**-2.5  # a priori: the filter attenuates by at most 50 dB


def noise_power(residual: Tensor) -> Tensor:
    """Return the power of noise that varies slowly, given an estimate of the noise.

    Args:
        residual: complex spectra, (batch, bins, frames).

    Returns:
        Power, (batch, bins, frames), above 0.
    """
    height, width = SMOOTHING
    smooth = F.avg_pool2d(power(residual)[:, None], SMOOTHING, 1, (height // 2, width // 2), count_include_pad=False)
    return smooth[:, 0] + MIN_POWER


def wiener(noisy: Tensor, noise: Tensor) -> Tensor:
    """Filter noisy spectra by Wiener's rule, with the decision-directed estimate of the SNR.

    Args:
        noisy: complex spectra, (batch, bins, frames).
        noise: power of the noise, the same shape.

    Returns:
        Filtered spectra of the same shape.

    Reference:
        Speech Enhancement Using a Minimum Mean-Square Error Short-Time Spectral Amplitude Estimator,
        Ephraim and Malah, 1984, eq. 51.
    """
    snr = power(noisy) / noise
    gains, previous = torch.empty_like(snr), torch.zeros_like(snr[..., 0])
    for t in range(snr.shape[-1]):
        a_priori = MEMORY * previous + (1 - MEMORY) * (snr[..., t] - 1).clamp_min(0)
        gains[..., t] = (gain := (a_priori := a_priori.clamp_min(MIN_SNR)) / (1 + a_priori))
        previous = gain.square() * snr[..., t]
    return gains * noisy


def coefficient_variance(noise: Tensor) -> Tensor:
    """Return the variance of the noise of the MDCT coefficients of the same signals.

    Args:
        noise: power of the lines of `denoise.dsp.stft`, (batch, bins + 1, frames + 1), whose hop is ``bins``.

    Returns:
        Variances, (batch, 1, bins, frames).
    """
    bins = noise.shape[1] - 1
    return (noise[:, None, :-1, 1:] + noise[:, None, 1:, 1:]) / (2 * bins)


def denoise_whitened(
    denoiser: Denoise, noisy: Tensor, transform: OrthonormalCodec, variance: Tensor, level: float
) -> Tensor:
    """Apply a denoiser of white noise once, to whitened coefficients, and undo the whitening.

    The denoiser sees signals that are coloured in place of the noise. This is the posterior mean where its prior does
    not mind, as one of signals with all kinds of spectra.

    Args:
        denoiser: function of x and sigma, (batch,).
        noisy: noisy signals, (batch, 1, time).
        transform: orthonormal transform of signals.
        variance: variance of the noise of each coefficient, of the shape of coefficients.
        level: rms that the denoiser expects of clean signals.

    Returns:
        Denoised signals, (batch, 1, time).
    """
    axes = tuple(range(1, variance.ndim))
    gain = (variance.log().mean(dim=axes, keepdim=True).exp() / variance).sqrt()
    whitened = gain * transform.encode(noisy)
    noise = (gain.square() * variance).mean(dim=axes, keepdim=True)  # the same for all coefficients
    signal = (whitened.square().mean(dim=axes, keepdim=True) - noise).maximum(0.1 * noise)
    scale = level / signal.sqrt()
    denoised = denoiser(transform.decode(scale * whitened), (scale * noise.sqrt()).flatten())
    return transform.decode(transform.encode(denoised) / (scale * gain))
