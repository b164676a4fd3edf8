"""Salt-and-pepper noise: pixels that are black or white by chance, wherever they are in an image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from denoise.random_numbers import TorchRandom

SIDE = 5  # pixels: windows in which the other values tell what a pixel should be
MIN_OTHERS = 3  # pixels of a window that are neither black nor white
MIN_CONTRAST, MIN_RATIO = 0.15, 5.0  # of the range, and of the standard deviation of a window: impulses that prove
LEAST_CONTRAST, LEAST_RATIO = 0.05, 3.0  # of the range, and of the noise beside them: impulses
MIN_EXPECTED = 0.5  # impulses of a block
MIN_POSSIBLE = 0.1  # of the pixels of patches: where fewer windows are smooth, these are no fair sample
MIN_COUNT = 24  # of black and of white impulses
MAX_DENSITY = 0.35  # of each of them
MAX_IMBALANCE = 3.0  # of one density by the other
NEAR, MIN_PEAK = 1 / 8, 10.0  # of the range: outliers as near are fewer by this factor; clipped noise has as many
REACH_OF_NOISE, MAX_REACH = 4.0, 0.15  # standard deviations of noise behind impulses, and of the range
REACHES = (1.0, 0.5, 0.0)  # of it: dark and bright areas hide what is as far from black and white as they are
MIN_FRACTION = 1 / 3  # of impulses before noise that it clips, and that it moves: half of them each
MIN_MOVED = 10.0  # or the fraction that it moves by its standard deviation, of the range: rounding stops weak noise
MEDIAN = 0.6745  # of the absolute values of Gaussian noise, in standard deviations
MAX_BLEED = 0.03  # of the contrast, in the pixels beside impulses: details are blurred by optics
N_ERRORS = 4.0  # standard errors by which impulses may differ from chance,
PAIR_TOLERANCE, SPREAD_TOLERANCE = 0.1, 0.2  # and this fraction: of their pairs, and of the variance in blocks
LAGS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))  # of pairs: rows, columns
BLOCK = 16  # pixels: side of the squares whose numbers of impulses are compared
PATCH, MAX_PATCHES = 128, 32  # pixels: noise is proved in patches from all over an image
BLURS = (0.6, 1.2, 2.4, 4.8, 9.6)  # pixels: each is taken where the one before reaches too few pixels
REACH, MIN_WEIGHT = 3.0, 0.05  # in standard deviations, and of the pixels within them
BAND = 512  # rows that are processed at a time
MAX_CLUSTER = 4.0  # standard deviations by which impulses of a window may exceed their mean; more of them are content
MAX_VALUE = 1e15  # squares of it are within float32
CROSS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32)

Array = NDArray[Any]
Mask = NDArray[np.bool_]


def find_impulses(x: Array) -> Mask | None:
    """Find salt-and-pepper noise, if it is beyond doubt.

    In smooth windows, isolated pixels at the least and at the greatest value of the image must be as frequent and
    independent of each other as by chance, without values that are nearly as extreme and without a trace in the pixels
    beside them. Stars, text, glints, dots of a screen and clipped noise fail at one or the other.

    Noise that came behind them, clipped, leaves half of them at these values and moves the others by a few of its
    standard deviations: values as near then count as they do, if there are none beyond.

    Args:
        x: image, (H, W, C), of any dtype and scale.

    Returns:
        Mask of the impulses of each channel, (H, W, C); None if there are none.
    """
    channels = [_Channel.measure(x[..., i]) for i in range(x.shape[2])]
    moved = [channel.with_noise_behind() for channel in channels]
    if any(channel.ends.reach and channel.evidence.is_proof for channel in moved):
        channels = moved
    proofs = [channel.evidence.density for channel in channels if channel.evidence.is_proof]
    if not proofs:
        return None
    density = np.mean(proofs, axis=0)
    impulses = np.stack([channel.find_impulses(density) for channel in channels], axis=-1)
    return impulses if impulses.any() else None


def replace_impulses(x: Array, impulses: Mask) -> Array:
    """Replace impulses by the mean of the pixels around, weighted by a Gaussian of their distance.

    Args:
        x: image, (H, W, C).
        impulses: mask of the impulses of each channel.

    Returns:
        The image without them, of the same dtype.

    Reference:
        Normalized and Differential Convolution, Knutsson and Westin, 1993.
    """
    filled = x.copy()
    for target, around, inner in _bands(len(x), int(REACH * BLURS[-1]) + 1):
        for i in range(x.shape[2]):
            filled[target, :, i] = _replace_in_channel(x[around, :, i], impulses[around, :, i])[inner]
    return filled


def _replace_in_channel(x: Array, impulses: Mask) -> Array:
    from scipy.ndimage import gaussian_filter

    filled, missing = x.copy(), impulses.copy()
    others = (~impulses).astype(np.float32)
    values = np.where(impulses, 0, x).astype(np.float32)
    for blur in BLURS:
        if not missing.any():
            break
        weight = gaussian_filter(others, blur, truncate=REACH)
        is_within_reach = missing & (weight > MIN_WEIGHT)
        mean = gaussian_filter(values, blur, truncate=REACH)[is_within_reach] / weight[is_within_reach]
        filled[is_within_reach] = np.rint(mean) if np.issubdtype(x.dtype, np.integer) else mean
        missing &= ~is_within_reach
    return filled


def _bands(height: int, margin: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield bands of rows, which bound the memory: their rows, those with a margin, and the former among the latter."""
    for start in range(0, height, BAND):
        stop, top = min(height, start + BAND), max(0, start - margin)
        yield slice(start, stop), slice(top, min(height, stop + margin)), slice(start - top, stop - top)


class _Ends(NamedTuple):
    """What is black and white in one channel.

    Args:
        values: least and greatest value, (2,), float32.
        reach: distance from them of what counts as black and white, too.
    """

    values: Array
    reach: float

    @property
    def inner(self) -> Array:
        """The values that are the nearest to the others, (2,)."""
        return self.values + np.float32(self.reach) * np.array([1, -1], np.float32)

    @property
    def scale(self) -> float:
        """Range of the values."""
        return float(np.ptp(self.values))

    def extend(self, noise: float) -> _Ends:
        """Return the same ends, with the reach of noise of a standard deviation, of the range."""
        return _Ends(self.values, min(REACH_OF_NOISE * noise, MAX_REACH) * self.scale)

    def contain(self, x: Array) -> Mask:
        """Masks of the black and of the white pixels of a channel, (2, H, W)."""
        return np.stack([x <= self.inner[0], x >= self.inner[1]])


class _Windows(NamedTuple):
    """What is around the pixels of one channel, (H, W), without themselves.

    Args:
        mean: of the values that are neither black nor white; where they are few, black or white, what is more frequent.
        std: standard deviation of these values.
        has_others: whether there are enough of them.
        n_ends: number of black and of white pixels, (2, H, W).
    """

    mean: Array
    std: Array
    has_others: Mask
    n_ends: Array

    @classmethod
    def measure(cls, x: Array, ends: _Ends) -> _Windows:
        """Measure the windows of a channel, float32."""
        from scipy.ndimage import uniform_filter

        def total(values: Array) -> Array:
            return SIDE**2 * uniform_filter(values.astype(np.float32), SIDE, mode="mirror")

        def around(values: Array) -> Array:
            return total(values) - values

        is_end = ends.contain(x)
        n_ends = np.stack([total(mask) for mask in is_end])
        is_other = ~np.logical_or(*is_end)
        n_others = around(is_other)
        has_others = n_others > MIN_OTHERS - 0.5
        centre = np.float32(ends.values.mean())  # squares of deviations from it are as exact as float32 allows
        deviation = np.where(is_other, x - centre, 0)
        mean = around(deviation) / n_others.clip(1)
        std = np.sqrt((around(np.square(deviation)) / n_others.clip(1) - np.square(mean)).clip(0))
        return cls(np.where(has_others, mean + centre, ends.values[n_ends.argmax(axis=0)]), std, has_others, n_ends)

    def min_contrast(self, scale: float) -> Array:
        """Contrast from which on an isolated pixel is no part of what is around, in values of a range."""
        return np.maximum(MIN_CONTRAST * scale, MIN_RATIO * self.std)


class _Evidence(NamedTuple):
    """What patches of one channel tell about black and white impulses.

    Args:
        n_pixels: all pixels.
        n_possible: pixels where an impulse would prove noise, (2,).
        n_impulses: impulses there.
        n_extreme: those of them at the least and at the greatest value.
        n_near: values there that are nearly as extreme.
        bleed: contrast of the pixels beside impulses to their windows.
        contrast: that of the impulses.
        n_pairs: pairs of impulses at each of `LAGS`.
        n_chance_pairs: those that are expected if impulses are independent.
        spread: sum over blocks of the squared error of the expected number of impulses, by its variance.
        n_blocks: what it is expected to be, the number of blocks.
        spread_variance: its variance by chance.
        noise_behind: standard deviation of the noise that has moved impulses from these values, of the range.
    """

    n_pixels: int
    n_possible: Array
    n_impulses: Array
    n_extreme: Array
    n_near: Array
    bleed: Array
    contrast: Array
    n_pairs: Array
    n_chance_pairs: Array
    spread: float
    n_blocks: float
    spread_variance: float
    noise_behind: float

    @property
    def density(self) -> Array:
        """Fraction of the pixels that are black and white impulses, (2,)."""
        return self.n_impulses / self.n_possible.clip(1)

    @property
    def is_proof(self) -> bool:
        """Whether these impulses are noise beyond doubt."""
        density = self.density
        max_error = N_ERRORS * np.sqrt(self.n_chance_pairs + 1) + PAIR_TOLERANCE * self.n_chance_pairs
        min_moved = min(MIN_FRACTION, MIN_MOVED * self.noise_behind) * self.n_impulses.sum()
        max_spread_error = N_ERRORS * self.spread_variance**0.5 + SPREAD_TOLERANCE * self.n_blocks
        return bool(
            self.n_impulses.min() >= MIN_COUNT
            and self.n_possible.min() >= MIN_POSSIBLE * self.n_pixels
            and density.max() <= min(MAX_DENSITY, MAX_IMBALANCE * density.min())
            and (self.n_extreme >= MIN_FRACTION * self.n_impulses).all()
            and self.n_impulses.sum() - self.n_extreme.sum() >= min_moved
            and (self.n_impulses >= MIN_PEAK * self.n_near).all()
            and (np.abs(self.bleed) <= MAX_BLEED * self.contrast).all()
            and (np.abs(self.n_pairs - self.n_chance_pairs) <= max_error).all()
            and abs(self.spread - self.n_blocks) <= max_spread_error
        )


class _Channel:
    """One channel, (H, W), of any dtype.

    Args:
        x: its values.
        patches: of them.
        ends: what is black and white.
    """

    def __init__(self, x: Array, patches: Sequence[Array], ends: _Ends) -> None:
        self.x, self.patches, self.ends = x, patches, ends
        self.windows = [_Windows.measure(patch, ends) for patch in patches]
        self.evidence = _collect(patches, self.windows, ends)

    @classmethod
    def measure(cls, x: Array) -> _Channel:
        """Measure a channel whose impulses are its least and its greatest value."""
        values = np.array([x.min(), x.max()], np.float32)
        n_ends = min(np.count_nonzero(x == value) for value in values)
        has_both = values[0] < values[1] and n_ends >= MIN_COUNT and float(np.abs(values).max()) < MAX_VALUE
        return cls(x, _patches(x) if has_both else [], _Ends(values, 0.0))

    def with_noise_behind(self) -> _Channel:
        """Return the channel with impulses that noise has moved: by that of the image at most, then by their own."""
        noise = _noise(self.patches) / self.ends.scale if self.patches else 0.0
        for _ in range(2):
            channel = self._extend(noise)
            noise = min(noise, channel.evidence.noise_behind)
        return channel if noise else self

    def _extend(self, noise: float) -> _Channel:
        return _Channel(self.x, self.patches, self.ends.extend(noise))

    def find_impulses(self, density: Array) -> Mask:
        """Find the black and white impulses of a channel where ``density``, (2,), of the pixels are noise.

        Most channels of an image have the same noise. Those that have much less of it stay as they are.
        """
        impulses = np.zeros(self.x.shape, np.bool_)
        if (density > MAX_IMBALANCE * self.evidence.density).any():
            return impulses
        noise = np.median(np.concatenate([window.std[window.has_others] for window in self.windows]))
        min_contrast = max(LEAST_CONTRAST * self.ends.scale, LEAST_RATIO * noise)
        most = _most_in_window(density)[:, None, None]
        for target, around, inner in _bands(len(impulses), SIDE // 2):
            x = self.x[around].astype(np.float32)
            for reach in {fraction * self.ends.reach for fraction in REACHES}:
                ends = self.ends._replace(reach=reach)
                windows = _Windows.measure(x, ends)
                has_contrast = np.abs(x - windows.mean) > min_contrast
                impulses[target] |= (has_contrast & ends.contain(x) & (windows.n_ends <= most)).any(axis=0)[inner]
        return impulses


def _patches(x: Array) -> list[Array]:
    """Patches from all over a channel, float32."""
    starts = [range(0, max(1, n - PATCH // 2 + 1), PATCH) for n in x.shape]
    corners = list(itertools.product(*starts))
    if len(corners) > MAX_PATCHES:
        corners = [corners[i] for i in TorchRandom(0).permutation(len(corners))[:MAX_PATCHES]]
    return [x[i : i + PATCH, j : j + PATCH].astype(np.float32) for i, j in corners]


def _noise(patches: Sequence[Array]) -> float:
    """Standard deviation of the noise of patches with impulses, by the median, which hardly sees these."""
    differences = np.concatenate([np.diff(x, axis=axis).reshape(-1) for x in patches for axis in (0, 1)])
    return float(np.median(np.abs(differences))) / (MEDIAN * math.sqrt(2))


def _collect(patches: Sequence[Array], windows: Sequence[_Windows], ends: _Ends) -> _Evidence:
    """Collect the evidence of patches."""
    from scipy.ndimage import convolve, maximum_filter

    scale, inner = ends.scale, ends.inner[:, None, None]
    contrasts = [np.array([[[-1]], [[1]]]) * (inner - window.mean) for window in windows]
    possible = [
        window.has_others & (contrast > window.min_contrast(scale))
        for window, contrast in zip(windows, contrasts, strict=True)
    ]
    if patches:  # black and white areas are no noise, and their borders would look like it
        counts = [
            (mask.sum(axis=(1, 2)), (mask & ends.contain(x)).sum(axis=(1, 2)))
            for x, mask in zip(patches, possible, strict=True)
        ]
        usual = np.median([n_impulses / n.clip(1) for n, n_impulses in counts], axis=0)
        for mask, window in zip(possible, windows, strict=True):
            nearby = maximum_filter(window.n_ends, (1, SIDE, SIDE), mode="mirror")
            mask &= nearby <= _most_in_window(usual)[:, None, None]
    sums = np.zeros((6, 2))
    masks, shifts = [], []
    for x, window, contrast, is_possible in zip(patches, windows, contrasts, possible, strict=True):
        is_end = ends.contain(x)
        impulses = is_possible & is_end
        masks.append((is_possible, impulses))
        is_other = ~is_end.any(axis=0)
        beside = convolve(np.where(is_other, x - window.mean, 0), CROSS, mode="constant")
        is_far = np.abs(x - window.mean) > window.min_contrast(scale)
        n_beside = convolve(is_other.astype(np.float32), CROSS, mode="constant")
        for k in range(2):
            is_near = is_possible[k] & is_far & ~impulses[k] & (np.abs(x - inner[k]) <= NEAR * scale)
            is_extreme = impulses[k] & (x == ends.values[k])
            bleed = (-1, 1)[k] * beside[impulses[k]].sum()
            depth = (contrast[k] * n_beside)[impulses[k]].sum()
            counts_of_end = (mask.sum() for mask in (is_possible[k], impulses[k], is_extreme, is_near))
            shifts.append(np.abs(x - ends.values[k])[impulses[k] & ~is_extreme])
            sums[:, k] += *counts_of_end, bleed, depth
    density = sums[1] / sums[0].clip(1)
    pairs = np.zeros((2, len(LAGS)))
    blocks = np.zeros(3)
    for is_possible, impulses in masks:
        found, expected = impulses.any(axis=0).astype(np.float64), np.tensordot(density, is_possible, 1)
        for i, lag in enumerate(LAGS):
            for j, x in enumerate((found, expected)):
                first, second = _shift(x, *lag)
                pairs[j, i] += (first * second).sum()
        error, variance = _block_sums(found - expected), _block_sums(expected * (1 - expected))
        error, variance = error[variance > MIN_EXPECTED], variance[variance > MIN_EXPECTED]
        blocks += (np.square(error) / variance).sum(), len(error), (2 + 1 / variance).sum()
    shift = np.concatenate([*shifts, np.zeros(0)])
    noise_behind = float(np.median(shift)) / (MEDIAN * scale) if len(shift) else 0.0
    return _Evidence(sum(x.size for x in patches), *sums, *pairs, *[*blocks.tolist(), noise_behind])


def _most_in_window(density: Array) -> Array:
    """The most impulses that a window has by chance; more of them are content."""
    expected = density * SIDE**2
    return expected + MAX_CLUSTER * np.sqrt(expected) + 2


def _block_sums(x: Array) -> Array:
    """Sums of the blocks of a patch, (n,)."""
    for axis in (0, 1):
        x = np.add.reduceat(x, range(0, x.shape[axis], BLOCK), axis)
    return x.reshape(-1)


def _shift(x: Array, rows: int, columns: int) -> tuple[Array, Array]:
    """Pixels and those that are ``rows`` below and ``columns`` to the right of them."""
    height, width = x.shape
    return (
        x[: height - rows, max(0, -columns) : width - max(0, columns)],
        x[rows:, max(0, columns) : width + min(0, columns)],
    )
