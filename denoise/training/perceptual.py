"""How far a listener would find denoised speech from clean speech: the model of hearing that PESQ is made of."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

HEARING_S = 0.032  # length of the windows of the spectra, two hops
BANDS, BIN_HZ, TOP_HZ = 49, 1 / HEARING_S, 8000.0
SPEECH_HZ = (325.0, 3250.0)  # the level of speech is that of its power here
SPEECH_POWER = 1e7  # mean square of 16-bit samples
# from the power of a Hann-windowed bin of 16-bit samples to hearing's scale, 1 at 0 dB SPL
CALIBRATION = 6.9e-6 * 60
LOUDNESS, EXPONENT = 0.187, 0.23
BINS = round(TOP_HZ / BIN_HZ) + 1


def disturbance(estimate: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """PESQ's symmetric and asymmetric disturbance of two spectra; 4.5 - 0.1 a - 0.0309 b is its raw score.

    The standard's model with three liberties, so that there is a gradient and no delay to look for: signals
    are taken as aligned in time, filters act on the spectrum, and Bark bands and the threshold of hearing are
    Traunmüller's and Terhardt's formulas in place of tables.

    Shape:
        estimate, clean: (batch, bins, frames), complex; Hann windows of 32 ms every 16 ms, so that a bin is
            31.25 Hz at any sample rate; those above 8 kHz are not heard. Any level, the same in both.
        returns: (batch,) twice.
    Reference:
        Perceptual evaluation of speech quality (PESQ), ITU-T P.862, 2001, and P.862.2, 2007 (wide band);
        A Deep Learning Loss Function Based on the Perceptual Evaluation of the Speech Quality, 2018.
    """
    bands, widths, threshold, exponent, _ = (x.to(clean.device) for x in hearing())
    power, target = (_received(x) @ bands.T for x in (estimate, clean))  # (batch, frames, bands)

    def audible(x: Tensor, times: float = 1.0) -> Tensor:
        return torch.where(x > times * threshold, x, 0.0)[..., 1:].sum(dim=-1, keepdim=True)

    with torch.no_grad():
        active = (audible(target, 100.0) >= 1e7).float()
    means = [(active * torch.where(x > 100 * threshold, x, 0.0)).sum(dim=1, keepdim=True) for x in (power, target)]
    count = active.sum(dim=1, keepdim=True).clamp_min(1)
    # a steady colour is half forgiven, so are slow changes of level
    target = target * ((means[0] / count + 1000) / (means[1] / count + 1000)).clamp(0.01, 100.0)
    heard = audible(target)
    ratio = (heard + 5e3) / (audible(power) + 5e3)
    ratio = torch.cat([ratio[:, :1], 0.8 * ratio[:, 1:] + 0.2 * ratio[:, :-1]], dim=1).clamp(3e-4, 5.0)
    power = power * ratio

    def loudness(x: Tensor) -> Tensor:
        scale = LOUDNESS * (threshold / 0.5) ** exponent
        return (scale * ((0.5 + 0.5 * x / threshold) ** exponent - 1)).clamp_min(0)

    a, b = loudness(power), loudness(target)
    error = (a - b).abs() - 0.25 * torch.minimum(a, b)
    error = error.clamp_min(0)
    added = ((power + 50) / (target + 50)) ** 1.2  # what was added disturbs more than what is missing
    added = torch.where(added < 3, 0.0, added.clamp_max(12.0))
    weighted = (error * widths)[..., 1:]
    total = widths[1:].sum()
    symmetric = (weighted.square().sum(dim=-1) / total).clamp_min(1e-9).sqrt() * total
    asymmetric = (weighted * added[..., 1:]).sum(dim=-1)
    quiet = ((heard[..., 0] + 1e5) / 1e7) ** 0.04
    symmetric, asymmetric = (_over_time((x / quiet).clamp_max(45.0)) for x in (symmetric, asymmetric))
    return symmetric, asymmetric


def _received(x: Tensor) -> Tensor:
    """Power at one level of speech through the filter of a wide-band handset. Shape: (batch, frames, bins)."""
    power = (x.real.square() + x.imag.square()).transpose(1, 2)[..., :BINS]
    power = F.pad(power, (0, BINS - power.shape[-1]))
    hz = BIN_HZ * torch.arange(BINS, device=x.device)
    speech = power[..., (hz >= SPEECH_HZ[0]) & (hz <= SPEECH_HZ[1])].sum(dim=-1).mean(dim=1)
    # a Hann window of n samples passes 3/8 n^2 / 2 of a mean square, spread over the positive bins
    wanted = SPEECH_POWER * 512 * 512 * 3 / 16
    return power * (wanted / speech.clamp_min(1e-12))[:, None, None] * hearing()[4].to(x.device)


def _over_time(x: Tensor) -> Tensor:
    """The loudest moments of each third of a second count most. Shape: (batch, frames) to (batch,)."""
    x = F.pad(x, (0, max(0, 20 - x.shape[1])))
    parts = (x.unfold(1, 20, 10) ** 6).mean(dim=-1).clamp_min(1e-12) ** (1 / 6)
    return parts.square().mean(dim=1).sqrt()


@cache
@torch.inference_mode(False)
def hearing() -> tuple[Tensor, ...]:
    """Bands, their widths in Bark, threshold in power, exponents of loudness, and the handset's gain in power.

    Shape:
        returns: (bands, bins), three of (bands,), (bins,).
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
    # the share of each bin's 31.25 Hz that lies in each band
    upper = torch.minimum(hz[None] + BIN_HZ / 2, edges_hz[1:, None])
    lower = torch.maximum(hz[None] - BIN_HZ / 2, edges_hz[:-1, None])
    bands = CALIBRATION * ((upper - lower) / BIN_HZ).clamp_min(0)
    centre = (edges_hz[1:] + edges_hz[:-1]) / 2 / 1000
    threshold_db = 3.64 * centre.clamp_min(0.02) ** -0.8 - 6.5 * torch.exp(-0.6 * (centre - 3.3) ** 2)
    threshold = 10 ** ((threshold_db + 1e-3 * centre**4) / 10)
    middle = (edges[1:] + edges[:-1]) / 2
    exponent = EXPONENT * (6 / (middle + 2)).clamp(1.0, 2.0) ** 0.15
    z = torch.exp(-1j * 2 * torch.pi * hz / 16_000)
    gain = (2.740826 * (1 - 2 * z + z * z) / (1 - 1.9444777 * z + 0.94597794 * z * z)).abs().square()
    return tuple(x.float() for x in (bands, edges.diff(), threshold, exponent, gain))
