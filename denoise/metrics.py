"""Measures of quality, thin over kept libraries. All take (estimate, reference) in that order."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def mse(estimate: Tensor, reference: Tensor) -> Tensor:
    """Mean squared error over all entries. Shape: same, returns ()."""
    return (estimate - reference).square().mean()


def r2(estimate: Tensor, reference: Tensor) -> Tensor:
    """Coefficient of determination over all entries: 1 is perfect, 0 as good as the mean. Shape: returns ()."""
    return 1 - mse(estimate, reference) / (reference - reference.mean()).square().mean().clamp_min(1e-12)


def psnr(estimate: Tensor, reference: Tensor, full_scale: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio in dB, per example.

    Shape:
        estimate, reference: (batch, channels, height, width); returns (batch,).
    """
    error = (estimate - reference).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(full_scale**2 / error)


def ssim(estimate: Tensor, reference: Tensor, full_scale: float = 1.0) -> Tensor:
    """Structural similarity, 11 x 11 Gaussian window of sigma 1.5, mean over channels, per example.

    Shape:
        estimate, reference: (batch, channels, height, width), sides of at least 11; returns (batch,).
    Reference:
        Image Quality Assessment: From Error Visibility to Structural Similarity, Wang et al., 2004.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = structural_similarity_index_measure(estimate, reference, data_range=full_scale, reduction="none")
    return cast(Tensor, values)


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, at most 100, over the last axis, the mean not removed.

    Shape:
        estimate, reference: (..., time); returns (...,).
    Reference:
        SDR - Half-baked or Well Done?, 2018, arXiv:1811.02508, eq. 3 to 5.
    """
    # in double precision: in single, 1 - target has no digits left above 60 dB
    target = F.cosine_similarity(estimate.double(), reference.double(), dim=-1, eps=1e-8).square()
    target = target.clamp(1e-10, 1 - 1e-10)
    return (10 * torch.log10(target / (1 - target))).to(estimate.dtype)


def pesq(estimate: Tensor, reference: Tensor, sample_rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2), 1 to 4.6, of one mono recording at 16 kHz; 1 where all is silent.

    Shape:
        estimate, reference: (time,).
    Raises:
        pesq.NoUtterancesError: there is no speech in the reference.
    """
    from pesq import pesq as pesq_wb

    if not estimate.any():  # the library divides by its peak
        return 1.0
    return float(pesq_wb(sample_rate, _numpy(reference), _numpy(estimate), "wb"))


def stoi(estimate: Tensor, reference: Tensor, sample_rate: int) -> float:
    """Short-time objective intelligibility, 0 to 1, of one mono recording.

    Shape:
        estimate, reference: (time,).
    Reference:
        An Algorithm for Intelligibility Prediction of Time-Frequency Weighted Noisy Speech, Taal et al., 2011.
    """
    from pystoi import stoi as stoi_classic

    return float(stoi_classic(_numpy(reference), _numpy(estimate), sample_rate))


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()
