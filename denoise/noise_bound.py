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
MIN_MIXED = 0.05  # of the pixels of a block that are clipped, and that are not
DISTANCES = (3, 4, 5)  # pixels: demosaicking correlates nearer ones
MAX_CORRELATION, MAX_EQUAL_INSIDE = 0.1, 0.06  # of clipped pixels so far apart; of neighbours that are not clipped
MAX_SPACING = 8  # bins between the levels that an image uses; dither has levels that are farther apart
MAX_NOISY_SPACING = 48  # the same, where neighbours are farther apart than in dither
BLOCK = 16  # pixels: side of the blocks in which neighbours are compared
MIN_APART, QUIETEST = 0.12, 0.25  # of the neighbours in a block that are two levels apart; in the quietest blocks
MIN_LEVELS = 6  # that an image uses
MIN_UNEVEN = 0.04  # of the levels: fewer bins are empty or doubled by chance
SAME_RATIO = 1.35  # of the counts of neighbouring levels of photographs; rounding joins two levels or none
MAX_EQUAL = 0.35  # of the neighbours; of noise of one level, 0.28 are
MAX_UNLIKE = 0.2  # of the pixels: drawings and palettes have more at levels unlike their neighbours

Array = NDArray[Any]


def noise_bound(values: Array, *, has_palette: bool = False) -> Array:
    """Return the greatest standard deviation that noise at each intensity can have.

    Let h be the density of noisy values. The variance of the clean value given a noisy one is sigma^2 + sigma^4
    (log h)''. It is not negative, so sigma^2 is at most -1 / (log h)'' wherever the curvature is negative: no peak of
    the histogram is narrower than the noise. In images of black and white alone, noise cannot be stronger than their
    distance from both. Pages, codes, halftone and drawings have sharp peaks, photographs have none.

    Args:
        values: intensities of one channel, full scale about 1.0; the last axis is one of the image.
        has_palette: whether the colours are of a palette, each of them a peak, which bounds flat areas alone.

    Returns:
        Bound for each of `N_BINS` intensities from 0 to 1, full scale 1.0; infinite where there is none.

    Reference:
        Tweedie's Formula and Selection Bias, Efron, 2011 (the variance).
    """
    if has_palette and not _is_flat(values):
        return np.full(N_BINS, np.inf, np.float32)
    bins = np.rint(values * (N_BINS - 1))
    is_inside = (bins >= 0) & (bins < N_BINS)
    all_counts = np.bincount(bins[is_inside].astype(np.int64), minlength=N_BINS).astype(np.float64)
    first, counts = (1, all_counts[1:-1]) if _is_flat(values) else _density(all_counts, _max_spacing(bins))
    bound = np.full(N_BINS, np.inf)
    positions = np.arange(len(counts))
    for width in WIDTHS:
        smooth = 2 * (width // 4) + 1  # averages of neighbouring bins have a smaller error
        if len(counts) < 2 * width + smooth:
            break
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
            near = slice(max(0, first + i - reach - 1), first + i + reach + 2)
            bound[near] = bound[near].clip(max=sigma[i])
    distance = np.minimum(values, 1 - values).reshape(-1).clip(0) * (N_BINS - 1)  # to black or white
    rank = int((1 - END_TAIL) * (len(distance) - 1))
    reached = float(np.partition(distance, rank)[rank])
    if reached <= MAX_REACHED:
        bound = bound.clip(max=max(reached / END_SIGMAS, MIN_BOUND))
    last = first + len(counts) - N_BINS  # from the end
    for end, beside in ((0, slice(1, max(BESIDE, first) + 1)), (N_BINS - 1, slice(min(-BESIDE, last) - 1, -1))):
        n_beside = all_counts[beside].sum()
        most_beside = n_beside + SIGNIFICANCE * np.sqrt(n_beside + 1)
        is_peak = all_counts[end] >= MIN_END and most_beside < MAX_BESIDE * all_counts[end]
        if is_peak and not _is_clipped_noise(bins, end):
            bound[end] = MIN_BOUND
    return bound.astype(np.float32) / (N_BINS - 1)


def _is_flat(values: Array) -> bool:
    """Tell whether neighbours are equal more often than in noise."""
    return bool((values[..., :-1] == values[..., 1:]).mean() >= MAX_EQUAL) if values.shape[-1] > 1 else False


def _blocks(x: Array) -> Array:
    """Return the whole blocks of (..., height, width), (n, BLOCK, BLOCK)."""
    rows, columns = (n // BLOCK for n in x.shape[-2:]) if x.ndim > 1 else (0, 0)
    if not rows or not columns:
        return x.reshape(-1)[:0].reshape(0, BLOCK, BLOCK)
    whole = x[..., : rows * BLOCK, : columns * BLOCK].reshape(-1, rows, BLOCK, columns, BLOCK)
    return whole.swapaxes(2, 3).reshape(-1, BLOCK, BLOCK)


def _is_clipped_noise(bins: Array, end: int) -> bool:
    """Tell whether pixels at black or white are those of noise that is clipped there, (..., height, width).

    The curve of sRGB is so steep at black that it leaves few pixels beside. What is drawn goes on for several pixels,
    or leaves others of one level. Noise does neither.
    """
    blocks = _blocks(bins)
    is_end = blocks == end
    fraction = is_end.mean(axis=(1, 2))
    is_mixed = np.minimum(fraction, 1 - fraction) > MIN_MIXED
    if 2 * is_end[is_mixed].sum() <= is_end.sum() or not is_mixed.any():
        return False
    blocks, is_end, fraction = blocks[is_mixed], is_end[is_mixed], fraction[is_mixed]
    squares, n_equal, n_pairs = np.zeros(len(blocks)), 0, 0
    for _ in range(2):  # along rows, and along columns
        blocks, is_end = blocks.swapaxes(1, 2), is_end.swapaxes(1, 2)
        is_pair = ~(is_end[..., 1:] | is_end[..., :-1])
        n_equal += int((is_pair & (blocks[..., 1:] == blocks[..., :-1])).sum())
        n_pairs += int(is_pair.sum())
        x = is_end - fraction[:, None, None]
        squares += sum(np.square((x[..., n:] * x[..., :-n]).mean(axis=(1, 2))) for n in DISTANCES)
    correlation = np.sqrt(squares / (2 * len(DISTANCES))) / (fraction * (1 - fraction))
    is_uneven = n_equal + SIGNIFICANCE * np.sqrt(n_equal + 1) < MAX_EQUAL_INSIDE * n_pairs
    return bool(is_uneven and np.quantile(correlation, QUIETEST) < MAX_CORRELATION)


def _max_spacing(bins: Array) -> int:
    """Return how far apart levels may be that noise has in common, (..., height, width).

    Dither of few levels differs between neighbours as often as noise, but by one level alone where the image is smooth.
    Noise that is stronger than a level does not stop there.
    """
    levels = np.unique(bins[(bins >= 0) & (bins < N_BINS)])
    if len(levels) < MIN_LEVELS or not len(_blocks(bins)) or np.median(np.diff(levels)) <= MAX_SPACING:
        return MAX_SPACING
    ranks = np.searchsorted(levels, bins)
    steps = _blocks(np.abs(np.diff(ranks, axis=-1, append=ranks[..., -1:])))
    apart, alive = ((steps >= n).mean(axis=(1, 2)) for n in (2, 1))
    alive = alive > 0  # others are clipped
    is_noise = alive.any() and np.quantile(apart[alive], QUIETEST) >= MIN_APART
    return MAX_NOISY_SPACING if is_noise else MAX_SPACING


def _density(counts: Array, max_spacing: int) -> tuple[int, Array]:
    """Return the histogram without the peaks that clipping and tone curves cause, and the bin that it begins at.

    Clipping causes peaks at black and white. Contrast, gamma and levels map integers to integers: where the curve is
    steep, levels between stay empty, where it is flat, two levels become one, and black and white may become the lowest
    and the highest level used. Counts that follow their neighbours but for that show it; those of drawings do not.

    Args:
        counts: pixels of each bin.
        max_spacing: of levels that noise has in common, see `_max_spacing`.
    """
    levels = 1 + np.flatnonzero(counts[1:-1])
    if len(levels) < MIN_LEVELS:
        return 1, counts[1:-1]
    used = np.log(counts[levels])
    around = np.pad(used, 2, mode="reflect", reflect_type="odd")
    beside, farther = (around[1:-3] + around[3:-1]) / 2, (around[:-4] + around[4:]) / 2
    margin = np.log(SAME_RATIO) + SIGNIFICANCE * np.exp(-beside / 2)
    excess = used - beside
    is_doubled = (np.abs(excess) > margin) & (np.abs(excess) <= margin + np.log(2))
    spacing = np.diff(levels)
    n_uneven = (spacing[spacing <= max_spacing] - 1).sum() + is_doubled.sum()
    is_peak = excess > margin + np.log(2)
    n_pixels = counts[levels[1:-1]]
    if n_uneven <= MIN_UNEVEN * len(levels) or n_pixels[is_peak[1:-1]].sum() > MAX_UNLIKE * n_pixels.sum():
        return 1, counts[1:-1]
    typical = np.where(is_peak, used, np.median([used, beside, farther], axis=0))[1:-1]
    levels = levels[1:-1]
    filled = np.exp(np.interp(np.arange(levels[0], levels[-1] + 1), levels, typical))
    for i in np.flatnonzero(spacing[1:-1] > max_spacing):
        filled[levels[i] + 1 - levels[0] : levels[i + 1] - levels[0]] = 0
    filled = np.convolve(np.pad(filled, 1, mode="edge"), np.ones(3) / 3, "valid")  # every second may be doubled
    return int(levels[0]), filled


def look_up(bound: Array, values: Array) -> Array:
    """Return the bound at each value; it is infinite beyond black and white, as of floats.

    Args:
        bound: of `noise_bound`.
        values: any shape, full scale about 1.0.
    """
    bins = np.rint(values * (N_BINS - 1))
    is_inside = (bins >= 0) & (bins < N_BINS)
    return np.where(is_inside, bound[bins.clip(0, N_BINS - 1).astype(np.int64)], np.float32(np.inf))
