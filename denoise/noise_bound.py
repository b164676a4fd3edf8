"""Upper bound of the noise at each intensity, by the sharpest peaks of the histogram."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

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

Array = NDArray[Any]


def noise_bound(values: Array) -> Array:
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
    bins = np.rint(values.reshape(-1) * (N_BINS - 1))
    is_inside = (bins >= 0) & (bins < N_BINS)
    all_counts = np.bincount(bins[is_inside].astype(np.int64), minlength=N_BINS).astype(np.float64)
    counts = all_counts[1:-1]  # clipping causes peaks at black and white
    bound = np.full(N_BINS, np.inf)
    positions = np.arange(len(counts))
    for width in WIDTHS:
        smooth = 2 * (width // 4) + 1  # averages of neighbouring bins have a smaller error
        window = np.ones(smooth)
        h = np.convolve(counts, window, "same") / np.convolve(np.ones_like(counts), window, "same")
        margin = width + smooth // 2
        is_whole = (positions >= margin) & (positions < len(counts) - margin)
        padded = np.pad(h, width, mode="reflect")
        left, right = padded[: -2 * width], padded[2 * width :]
        n = smooth
        error = np.sqrt(4 / (n * h).clip(1) + 1 / (n * left + 1) + 1 / (n * right + 1))
        drop = 2 * np.log(h + 1e-9) - np.log(left + 1 / n) - np.log(right + 1 / n) - SIGNIFICANCE * error
        is_peak = (drop >= MIN_DROP) & is_whole
        sigma = np.sqrt((width**2 / drop.clip(MIN_DROP) - (smooth**2 - 1) / 12).clip(MIN_BOUND**2))
        for i in np.flatnonzero(is_peak):
            reach = max(1, round(EXTENT * float(sigma[i])))
            near = slice(max(0, i - reach), i + reach + 3)  # the first of the counts is that of intensity 1
            bound[near] = bound[near].clip(max=sigma[i])
    distance = np.minimum(values, 1 - values).reshape(-1).clip(0) * (N_BINS - 1)  # to black or white
    rank = int((1 - END_TAIL) * (len(distance) - 1))
    reached = float(np.partition(distance, rank)[rank])
    if reached <= MAX_REACHED:
        bound = bound.clip(max=max(reached / END_SIGMAS, MIN_BOUND))
    for end, beside in ((0, slice(1, 1 + BESIDE)), (N_BINS - 1, slice(-1 - BESIDE, -1))):
        n_beside = all_counts[beside].sum()
        most_beside = n_beside + SIGNIFICANCE * np.sqrt(n_beside + 1)
        if all_counts[end] >= MIN_END and most_beside < MAX_BESIDE * all_counts[end]:
            bound[end] = MIN_BOUND
    return bound.astype(np.float32) / (N_BINS - 1)


def look_up(bound: Array, values: Array) -> Array:
    """Return the bound at each value; it is infinite beyond black and white, as of floats.

    Args:
        bound: of `noise_bound`.
        values: any shape, full scale about 1.0.
    """
    bins = np.rint(values * (N_BINS - 1))
    is_inside = (bins >= 0) & (bins < N_BINS)
    return np.where(is_inside, bound[bins.clip(0, N_BINS - 1).astype(np.int64)], np.float32(np.inf))
