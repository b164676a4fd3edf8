"""Losses of denoisers by name.

To add one: write a function of an `Estimate` and the recipe's `Loss` that returns a scalar, and add it to
`DENOISING_LOSSES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from denoise.dsp import power, stft
from denoise.training.losses.pesq import WINDOW_S, disturbance
from denoise.training.recipe import Loss

NATS = 5 * math.log(10)  # nats for each entry in one unit of the losses here
TYPICAL_MSE = 0.0075  # of denoised photographs, by the RMS of their noise: 34, 31 and 28 dB at sigma 15, 25 and 50
EASY_MSE, MIN_MSE = 0.002, 2e-6  # the same of patches whose structure can be restored, and without noise
PHASE_WEIGHT = 0.4  # of the error of complex spectra, relative to that of magnitudes
MIN_PATH_VARIANCE = 0.04  # bounds the weight 1 / t^2 of points on a path by 25
PERCEPTUAL_WEIGHTS = (0.1, 0.0309)  # of the symmetric and the asymmetric disturbance, as in PESQ


class Estimate(NamedTuple):
    """A batch of estimates and what they are compared with.

    Args:
        denoised: output of the network, (B, C, *space).
        noisy: noisy signals, as `denoised`.
        clean: clean signals, as `denoised`.
        sample_rate: sample rate of audio, Hz; None for images.
        path_noise: fraction of a flow's own noise in its input, (B,), 0 to 1. It is 0 for the posterior mean, so for
            every estimate of a network that is no flow.
    """

    denoised: Tensor
    noisy: Tensor
    clean: Tensor
    sample_rate: int | None
    path_noise: Tensor


DenoisingLoss = Callable[[Estimate, Loss], Tensor]


def psnr(estimate: Estimate, settings: Loss) -> Tensor:
    """Return the mean over the examples of a tenth of log10 of their MSE: their negative PSNR in units of 100 dB.

    Examples count equally at any noise level, except for those whose error is far below what is typical for their
    noise: patches of plain sky, whose PSNR says little about that of the image. The loss is the negative log-likelihood
    of a normal distribution about the estimate, in units of `NATS` for each entry. The variance of that distribution is
    fitted to each example, with a lower bound in proportion to the noise.

    Args:
        estimate: estimates of images or audio.
        settings: not used.

    Returns:
        Scalar.

    Reference:
        HINet: Half Instance Normalization Network for Image Restoration, 2021, arXiv:2105.06086 (PSNR loss);
        Simple and Effective VAE Training with Calibrated Decoders, 2020, arXiv:2006.13202 (the variance).
    """
    return _log_mse(estimate, TYPICAL_MSE, 1e-5)


def log_mse(estimate: Estimate, settings: Loss) -> Tensor:
    """Return `psnr` with an offset of the MSE that is about four times smaller.

    Photographs with weak noise, and patches that can be restored far better than photographs, such as text, flat
    colours and regular textures, count as much as others.

    Args:
        estimate: estimates of images.
        settings: not used.

    Returns:
        Scalar.
    """
    return _log_mse(estimate, EASY_MSE, MIN_MSE)


def _log_mse(estimate: Estimate, by_noise: float, offset: float) -> Tensor:
    """Return the mean over the examples of ``0.1 * log10(mse + offset + by_noise * rms of the noise)``."""
    clean = estimate.clean
    dims = tuple(range(1, clean.ndim))
    mse = (estimate.denoised - clean).square().mean(dim=dims)
    noise_rms = (estimate.noisy - clean).square().mean(dim=dims).sqrt()
    return 0.1 * torch.log10(mse + (offset + by_noise * noise_rms)).mean()


def compressed_spectral(estimate: Estimate, settings: Loss) -> Tensor:
    """Return the error of compressed spectra at three resolutions and of the waveform.

    All examples are normalised to one level first, otherwise loud ones would dominate. The disturbance of PESQ is added
    with the weight ``settings.perceptual``, the ratio of error to speech with the weight ``settings.waveform``.

    For an example with ``path_noise``, the loss is the squared error of the compressed complex spectra alone. The ODE
    of a flow needs the posterior mean, and a loss of magnitudes would fill uncertain bins with noise. Its weight is
    about that of the squared error of the velocity.

    Args:
        estimate: estimates of audio, (B, C, time).
        settings: weights of the terms.

    Returns:
        Scalar.

    Reference:
        A Consolidated View of Loss Functions for Supervised Deep Learning-based Speech Enhancement,
        2020, arXiv:2009.12286; Parallel WaveGAN, 2019, arXiv:1910.11480 (several resolutions);
        Flow Matching for Generative Modeling, 2022, arXiv:2210.02747 (the weight 1/t^2 of data prediction).
    """
    denoised, noisy, clean, sample_rate, path_noise = estimate
    rate = sample_rate or 16_000
    scale = _reference_level(noisy, clean)
    is_mean = (path_noise == 0).float()
    phase = torch.where(path_noise > 0, 1 / (path_noise.square() + MIN_PATH_VARIANCE), PHASE_WEIGHT)
    magnitude_weight, phase_weight = (w[:, None, None, None] for w in (is_mean, phase))
    loss = torch.zeros((), device=denoised.device)
    for seconds in (0.016, 0.032, 0.064):
        hop = round(seconds / 2 * rate)
        a, b = (_spectrum(x / scale, hop) for x in (denoised, clean))
        weight = _frequency_weight(a.shape[-2], hop, rate, a.device)
        distance = compressed_distance(a, b, phase_weight, magnitude_weight, over_attenuation=settings.over_attenuation)
        loss = loss + (weight * distance).mean()
        if settings.perceptual and seconds == WINDOW_S:
            terms = (d.view(len(a), -1) for d in disturbance(a.flatten(0, 1), b.flatten(0, 1)))
            symmetric, asymmetric = (w * d for w, d in zip(PERCEPTUAL_WEIGHTS, terms, strict=True))
            loss = loss + settings.perceptual * (is_mean[:, None] * (symmetric + asymmetric)).mean()
    return loss + settings.waveform * (is_mean * _log_error_ratio(estimate, scale, settings)).mean()


def compressed_distance(
    a: Tensor,
    b: Tensor,
    phase: float | Tensor,
    magnitude: float | Tensor = 1.0,
    exponent: float = 0.3,
    over_attenuation: float = 0.0,
) -> Tensor:
    """Return the distance of compressed spectra, entry by entry.

    It is ``magnitude * (|a|^e - |b|^e)^2 + phase * |a |a|^(e-1) - b |b|^(e-1)|^2``, computed in real numbers, which
    takes half the time. With ``over_attenuation``, that weight times ``max(0, |b|^e - |a|^e)^2`` is added.

    Args:
        a: complex spectra of estimates, any shape.
        b: complex spectra of what they are compared with, as `a`.
        phase: weight of the compressed complex spectra, broadcast with `a`.
        magnitude: weight of the compressed magnitudes, broadcast with `a`.
        exponent: exponent of the compression.
        over_attenuation: weight of magnitudes that are too small.

    Returns:
        Real distances, as `a`.

    Reference:
        DPDFNet: Boosting DeepFilterNet2 via Dual-Path RNN, 2025, arXiv:2512.16420 (the loss of over-attenuation).
    """
    logs = [(power(x) + 1e-8).log() for x in (a, b)]
    m, n = (torch.exp(exponent / 2 * x) for x in logs)
    aligned = (a.real * b.real + a.imag * b.imag) * torch.exp((exponent - 1) / 2 * (logs[0] + logs[1]))
    distance = (magnitude + phase) * (m.square() + n.square()) - 2 * magnitude * m * n - 2 * phase * aligned
    return distance + over_attenuation * (n - m).clamp_min(0).square() if over_attenuation else distance


def _reference_level(noisy: Tensor, clean: Tensor) -> Tensor:
    """Return the level that is normalised to 0.1, (B, 1, 1): that of the speech.

    Noise that is far louder, or in short bursts, must not make errors small.
    """
    noisy_rms, clean_rms = (x.square().mean(dim=(1, 2), keepdim=True).sqrt() for x in (noisy, clean))
    return torch.maximum(clean_rms, noisy_rms / 4).clamp_min(1e-5) * 10


def _spectrum(x: Tensor, hop: int) -> Tensor:
    """Return the spectrum of frames of two hops, scaled equally at any rate."""
    return stft(x[..., : x.shape[-1] // hop * hop], 2 * hop, hop) * (128 / hop) ** 0.5


def _frequency_weight(bins: int, hop: int, sample_rate: int, device: torch.device) -> Tensor:
    """Return weights of the bins, (bins, 1). Those above 8 kHz count less: they are many and hold little speech."""
    hz = torch.arange(bins, device=device) / (2 * hop) * sample_rate
    return torch.where(hz <= 8000, 1.0, 0.25)[:, None] * len(hz) / (hz <= 8000).sum()


def _log_error_ratio(estimate: Estimate, scale: Tensor, settings: Loss) -> Tensor:
    """Return log10 of the energy of the error by that of the clean signal, (B,), bounded so that none dominates."""
    clean = estimate.clean
    energy = clean.square().sum(dim=(1, 2)) + 1e-4 * scale[:, 0, 0].square() * clean[0].numel()
    ratio = (estimate.denoised - clean).square().sum(dim=(1, 2)) / energy
    return torch.log10(ratio + 10 ** (settings.waveform_floor_db / 10))


DENOISING_LOSSES: dict[str, dict[str, DenoisingLoss]] = {
    "image": {"psnr": psnr, "log-mse": log_mse},
    "audio": {"compressed-spectral": compressed_spectral},
}
"""Losses by modality and name; the first one of a modality is its default."""
