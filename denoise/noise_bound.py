"""Upper bound of the noise at each intensity, by the sharpest peaks of the histogram."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

N_BINS = 256  # of full scale
WIDTHS = (1, 2, 3, 4, 6, 8, 11, 15, 20, 27, 36, 48)  # bins at which curvature is measured
MIN_DROP = 0.5  # of the logarithm on both sides together; less has too large a statistical error
SIGNIFICANCE = 3.5  # standard errors of a drop that are subtracted
EXTENT = 1.5  # sigma: pixels so near to a peak are bounded by it
END_TAIL, END_SIGMAS = 0.02, 1.75  # more noise than this of black and white pixels is beyond so many sigma
MAX_REACHED = 64  # bins: images of other intensities reach farther
MIN_BOUND = 0.28  # bins: rounding
MIN_END = 200  # pixels: fewer at black or white tell nothing
BESIDE, MAX_BESIDE = 3, 0.05  # bins beside black or white, and their pixels by those that are clipped without noise


def noise_bound(values: Tensor) -> Tensor:
    """Return the greatest standard deviation that noise at each intensity can have.

    Let h be the density of noisy values. The variance of the clean value given a noisy one is sigma^2 + sigma^4
    (log h)''. It is not negative, so sigma^2 is at most -1 / (log h)'' wherever the curvature is negative: no peak of
    the histogram is narrower than the noise. In images of black and white alone, noise cannot be stronger than their
    distance from both. Pages, codes, halftone and drawings have sharp peaks, photographs have none.

    Args:
        values: intensities of one channel, any shape, full scale about 1.0.

    Returns:
        Bound for each of `N_BINS` intensities from 0 to 1, full scale 1.0; infinite where there is none.

    Reference:
        Tweedie's Formula and Selection Bias, Efron, 2011 (the variance).
    """
    bins = (values.flatten() * (N_BINS - 1)).round()
    is_inside = (bins >= 0) & (bins < N_BINS)
    all_counts = torch.bincount(bins[is_inside].long(), minlength=N_BINS).double()
    counts = all_counts[1:-1]  # clipping causes peaks at black and white
    bound = torch.full((N_BINS,), torch.inf, dtype=torch.float64)
    positions = torch.arange(len(counts))
    for width in WIDTHS:
        smooth = 2 * (width // 4) + 1  # averages of neighbouring bins have a smaller error
        h = F.avg_pool1d(counts[None], smooth, 1, smooth // 2, count_include_pad=False)[0]
        margin = width + smooth // 2
        is_whole = (positions >= margin) & (positions < len(counts) - margin)
        padded = F.pad(h[None], (width, width), mode="reflect")[0]
        left, right = padded[: -2 * width], padded[2 * width :]
        n = smooth
        error = (4 / (n * h).clamp_min(1) + 1 / (n * left + 1) + 1 / (n * right + 1)).sqrt()
        drop = 2 * (h + 1e-9).log() - (left + 1 / n).log() - (right + 1 / n).log() - SIGNIFICANCE * error
        is_peak = (drop >= MIN_DROP) & is_whole
        sigma = width / drop.clamp_min(MIN_DROP).sqrt()
        sigma = (sigma.square() - (smooth**2 - 1) / 12).clamp_min(MIN_BOUND**2).sqrt()
        for i in is_peak.nonzero()[:, 0].tolist():
            reach = max(1, round(EXTENT * float(sigma[i])))
            near = slice(max(0, i - reach), i + reach + 3)  # the first of the counts is that of intensity 1
            bound[near] = bound[near].clamp_max(float(sigma[i]))
    distance = torch.minimum(values, 1 - values).flatten().clamp_min(0) * (N_BINS - 1)  # to black or white
    reached = float(distance.kthvalue(1 + int((1 - END_TAIL) * (len(distance) - 1))).values)
    if reached <= MAX_REACHED:
        bound = bound.clamp_max(max(reached / END_SIGMAS, MIN_BOUND))
    for end, beside in ((0, slice(1, 1 + BESIDE)), (N_BINS - 1, slice(-1 - BESIDE, -1))):
        if all_counts[end] >= MIN_END and all_counts[beside].sum() < MAX_BESIDE * all_counts[end]:
            bound[end] = MIN_BOUND
    return bound.float() / (N_BINS - 1)


def look_up(bound: Tensor, values: Tensor) -> Tensor:
    """Return the bound at each value; it is infinite beyond black and white, as of floats.

    Args:
        bound: of `noise_bound`.
        values: any shape, full scale about 1.0.
    """
    bins = (values * (N_BINS - 1)).round()
    is_inside = (bins >= 0) & (bins < N_BINS)
    return torch.where(is_inside, bound[bins.clamp(0, N_BINS - 1).long()], torch.inf)
