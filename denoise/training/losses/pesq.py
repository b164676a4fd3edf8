"""Perceptual distance of denoised and clean speech: the psychoacoustic model of PESQ, differentiable."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from denoise import dsp

WINDOW_S = 0.032  # of the spectra; their hop is half of it
BANDS, BIN_HZ, MAX_HZ = 49, 1 / WINDOW_S, 8000.0
BINS = round(MAX_HZ / BIN_HZ) + 1
SPEECH_HZ = (325.0, 3250.0)  # band of the power that defines the level of speech
SPEECH_POWER = 1e7  # mean square of 16-bit samples that levels are normalised to
CALIBRATION = 6.9e-6 * 60  # power of a Hann-windowed bin of 16-bit samples to that of the model, 1 at 0 dB SPL
LOUDNESS_SCALE, ZWICKER_EXPONENT = 0.187, 0.23
MASKING = 0.25  # fraction of the smaller loudness by which a difference is inaudible
MAX_DISTURBANCE = 45.0  # of one frame
FRAMES, FRAME_HOP = 20, 10  # of the intervals in time, a third of a second


class Psychoacoustics(NamedTuple):
    """Constants of the model of hearing.

    Args:
        bands: weights of the bins in each Bark band, (bands, bins).
        widths: widths of the bands in Bark, (bands,).
        threshold: power of the absolute threshold of hearing, (bands,).
        exponent: exponents of loudness, (bands,).
        handset_gain: power gain of a wide-band handset, (bins,).
    """

    bands: Tensor
    widths: Tensor
    threshold: Tensor
    exponent: Tensor
    handset_gain: Tensor


def disturbance(estimate: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Return PESQ's symmetric and asymmetric disturbance; 4.5 - 0.1 a - 0.0309 b is its raw score.

    It departs from the standard in three points, so that it has a gradient and needs no search for a delay: signals are
    taken as aligned in time, filters are applied to the spectrum, and Bark bands and the threshold of hearing are
    formulas of Traunmüller and Terhardt in place of tables.

    Args:
        estimate: complex spectra, (B, bins, frames), of Hann windows of 32 ms every 16 ms, so that a bin is 31.25 Hz at
            any sample rate. Bins above 8 kHz are ignored. Any level.
        clean: as `estimate`, at the same level.

    Returns:
        Symmetric and asymmetric disturbance, (B,) each.

    Reference:
        Perceptual evaluation of speech quality (PESQ), ITU-T P.862, 2001, and P.862.2, 2007 (wide band);
        A Deep Learning Loss Function Based on the Perceptual Evaluation of the Speech Quality, 2018.
    """
    model = Psychoacoustics(*(x.to(clean.device) for x in psychoacoustics()))
    power, target = (_received_power(x, model) @ model.bands.T for x in (estimate, clean))  # (B, frames, bands)

    def audible(x: Tensor, factor: float = 1.0) -> Tensor:
        return torch.where(x > factor * model.threshold, x, 0.0)[..., 1:].sum(dim=-1, keepdim=True)

    target = target * _frequency_compensation(power, target, audible(target.detach(), 100.0), model.threshold)
    target_audible = audible(target)
    power = power * _gain_compensation(audible(power), target_audible)
    a, b = (_loudness(x, model) for x in (power, target))
    error = (a - b).abs() - MASKING * torch.minimum(a, b)
    error = error.clamp_min(0)
    asymmetry = ((power + 50) / (target + 50)) ** 1.2  # added components disturb more than missing ones
    asymmetry = torch.where(asymmetry < 3, 0.0, asymmetry.clamp_max(12.0))
    weighted = (error * model.widths)[..., 1:]
    total_width = model.widths[1:].sum()
    symmetric = (weighted.square().sum(dim=-1) / total_width).clamp_min(1e-9).sqrt() * total_width
    asymmetric = (weighted * asymmetry[..., 1:]).sum(dim=-1)
    level_weight = ((target_audible[..., 0] + 1e5) / 1e7) ** 0.04
    symmetric, asymmetric = (_over_time((x / level_weight).clamp_max(MAX_DISTURBANCE)) for x in (symmetric, asymmetric))
    return symmetric, asymmetric


@cache
@torch.inference_mode(False)
def psychoacoustics() -> Psychoacoustics:
    """Return the constants of the model of hearing, on the CPU.

    Reference:
        Analytical expressions for the tonotopic sensory scale, Traunmüller, 1990; Calculating virtual
        pitch, Terhardt, 1979 (threshold).
    """
    hz = BIN_HZ * torch.arange(BINS, dtype=torch.float64)

    def bark(f: Tensor) -> Tensor:
        return (26.81 * f / (1960 + f) - 0.53).clamp_min(0)

    edges = torch.linspace(0, float(bark(hz[-1])), BANDS + 1, dtype=torch.float64)
    edges_hz = 1960 * (edges + 0.53) / (26.28 - edges)
    edges_hz[0] = 0
    # the fraction of the width of each bin that lies in each band
    upper = torch.minimum(hz[None] + BIN_HZ / 2, edges_hz[1:, None])
    lower = torch.maximum(hz[None] - BIN_HZ / 2, edges_hz[:-1, None])
    bands = CALIBRATION * ((upper - lower) / BIN_HZ).clamp_min(0)
    centre_khz = (edges_hz[1:] + edges_hz[:-1]) / 2 / 1000
    threshold_db = 3.64 * centre_khz.clamp_min(0.02) ** -0.8 - 6.5 * torch.exp(-0.6 * (centre_khz - 3.3) ** 2)
    threshold = 10 ** ((threshold_db + 1e-3 * centre_khz**4) / 10)
    centre_bark = (edges[1:] + edges[:-1]) / 2
    exponent = ZWICKER_EXPONENT * (6 / (centre_bark + 2)).clamp(1.0, 2.0) ** 0.15
    z = torch.exp(-1j * 2 * torch.pi * hz / 16_000)
    gain = (2.740826 * (1 - 2 * z + z * z) / (1 - 1.9444777 * z + 0.94597794 * z * z)).abs().square()
    return Psychoacoustics(*(x.float() for x in (bands, edges.diff(), threshold, exponent, gain)))


def _received_power(x: Tensor, model: Psychoacoustics) -> Tensor:
    """Return the power at a fixed level of speech through a wide-band handset, (B, frames, bins)."""
    power = dsp.power(x).transpose(1, 2)[..., :BINS]
    power = F.pad(power, (0, BINS - power.shape[-1]))
    hz = BIN_HZ * torch.arange(BINS, device=x.device)
    speech = power[..., (hz >= SPEECH_HZ[0]) & (hz <= SPEECH_HZ[1])].sum(dim=-1).mean(dim=1)
    # a Hann window of n samples passes 3/8 n^2 / 2 of a mean square, spread over the positive bins
    target = SPEECH_POWER * 512 * 512 * 3 / 16
    return power * (target / speech.clamp_min(1e-12))[:, None, None] * model.handset_gain


def _frequency_compensation(power: Tensor, target: Tensor, audible: Tensor, threshold: Tensor) -> Tensor:
    """Return factors of the bands, (B, 1, bands), that partly compensate a constant difference in timbre."""
    active = (audible >= 1e7).float()
    means = [(active * torch.where(x > 100 * threshold, x, 0.0)).sum(dim=1, keepdim=True) for x in (power, target)]
    count = active.sum(dim=1, keepdim=True).clamp_min(1)
    return ((means[0] / count + 1000) / (means[1] / count + 1000)).clamp(0.01, 100.0)


def _gain_compensation(audible: Tensor, target_audible: Tensor) -> Tensor:
    """Return factors of the frames, (B, frames, 1), that compensate slow changes of level."""
    ratio = (target_audible + 5e3) / (audible + 5e3)
    return torch.cat([ratio[:, :1], 0.8 * ratio[:, 1:] + 0.2 * ratio[:, :-1]], dim=1).clamp(3e-4, 5.0)


def _loudness(x: Tensor, model: Psychoacoustics) -> Tensor:
    """Return the loudness of the power in each band, in sone per Bark."""
    scale = LOUDNESS_SCALE * (model.threshold / 0.5) ** model.exponent
    return (scale * ((0.5 + 0.5 * x / model.threshold) ** model.exponent - 1)).clamp_min(0)


def _over_time(x: Tensor) -> Tensor:
    """Average over time, (B, frames) to (B,); the largest values of each interval dominate."""
    x = F.pad(x, (0, max(0, FRAMES - x.shape[1])))
    intervals = (x.unfold(1, FRAMES, FRAME_HOP) ** 6).mean(dim=-1).clamp_min(1e-12) ** (1 / 6)
    return intervals.square().mean(dim=1).sqrt()
