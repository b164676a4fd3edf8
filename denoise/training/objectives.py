"""What differs between trainings: the loss of one batch, and the numbers reported beside it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from denoise.dsp import stft
from denoise.metrics import mse, r2, si_sdr
from denoise.protocols import Denoiser

Objective = Callable[[Denoiser, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


def image_denoising(model: Denoiser, noisy: Tensor, clean: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean absolute error; reports MSE, PSNR and R^2.

    Shape:
        noisy, clean: (batch, channels, height, width).
    """
    out = model(noisy)
    error = mse(out, clean).detach()
    return (out - clean).abs().mean(), {"mse": error, "psnr": -10 * torch.log10(error), "r2": r2(out, clean).detach()}


def audio_denoising(model: Denoiser, noisy: Tensor, clean: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Compressed spectra at three resolutions plus the waveform; reports MSE, R^2 and the gain in SI-SDR.

    All examples are brought to one level first, or the loud ones would be all that is learnt.

    Shape:
        noisy, clean: (batch, channels, time).
    Reference:
        A Consolidated View of Loss Functions for Supervised Deep Learning-based Speech Enhancement,
        2020, arXiv:2009.12286; Parallel WaveGAN, 2019, arXiv:1910.11480 (several resolutions).
    """
    out = model(noisy).float()
    level = noisy.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-5) * 10
    loss = torch.zeros((), device=out.device)
    for n_fft in (256, 512, 1024):
        a, b = (_compressed(x / level, n_fft) for x in (out, clean))
        loss = loss + (a.abs() - b.abs()).square().mean() + 0.4 * (a - b).abs().square().mean()
    # The ratio of error to speech in decibels, soft at both ends so that no single clip rules the batch.
    energy = clean.square().sum(dim=(1, 2)) + 1e-4 * level[:, 0, 0].square() * clean[0].numel()
    ratio = (out - clean).square().sum(dim=(1, 2)) / energy
    loss = loss + 0.02 * torch.log10(ratio + 1e-3).mean()
    with torch.no_grad():
        gain = si_sdr(out, clean) - si_sdr(noisy, clean)
        heard = torch.isfinite(gain) & (noisy != clean).flatten(1).any(dim=1, keepdim=True)
        metrics = {
            "mse": mse(out, clean),
            "r2": r2(out, clean),
            "si_sdr_gain": gain[heard].clamp(-30, 30).sum() / heard.sum().clamp_min(1),
        }
    return loss, metrics


def _compressed(x: Tensor, n_fft: int, exponent: float = 0.3) -> Tensor:
    hop = n_fft // 4
    spectrum = stft(x[..., : x.shape[-1] // hop * hop], n_fft, hop)
    power = spectrum.real.square() + spectrum.imag.square() + 1e-8
    return spectrum * power ** ((exponent - 1) / 2)


OBJECTIVES: dict[str, Objective] = {"image": image_denoising, "audio": audio_denoising}
