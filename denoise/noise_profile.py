"""Noise profile of an image: the standard deviation of its noise by intensity, and how far neighbours correlate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from denoise.noise_bound import look_up, noise_bound
from denoise.random_numbers import TorchRandom

N_LEVELS = 8  # intensities at which the noise is estimated, in each channel
MEAN_SIDE = 7  # pixels: windows whose mean is the intensity that is looked up
TABLE = 256  # intensities of the table that is looked up
BLOCK = 16  # pixels: side of the blocks that are weighted by what they tell about the noise
EPS = 0.3  # of sigma: the step of finite differences
MIN_FIRST = 0.5 / 255  # of full scale: the first estimate is at least this
MIN_SIGMA = 0.2 / 255  # of full scale: the step never becomes smaller than the rounding of the network
MIN_RESPONSE = 0.003  # removed fraction of the noise that halves the estimate: its residual tells nothing
PRIOR_WEIGHT = 0.03  # of the image-wide noise in the estimate for one intensity
MAX_BLUR, MIN_SIDE = 2.0, 8  # pixels
MAX_BY_FINEST = 5.0  # sigma by a measure of the finest detail alone, which demosaicking and JPEG damp
MAX_LEAST, MAX_MEAN = 1.1, 1.5  # sigma where the noise is weakest, and in the mean, by the greater first estimate
MAX_COARSE_RATIO = 1.3  # of the noise of the means by that of pixels, where the first estimates are of white noise
MIN_AGREEMENT = 0.87  # of the lower by the higher first estimate; more is white noise
MIN_REMAINDER, MAX_REMAINDER = 0.2, 0.85  # of the lower first estimate, between which it is averaged with the result
FIRST_WEIGHT = 0.6  # of the first estimate in that average, which is geometric
MAX_VARIATION, MAX_CHANNEL_RATIO = 0.035, 1.06  # of estimates of white noise: by intensity, and among channels
MIN_WHITE_RATIO, MAX_WHITE_RATIO = 0.98, 1.04  # of the noise of their means of 2 x 2 pixels, times 2, by that of pixels
LEVEL_SPREAD = 2.5  # sigma at one intensity by that of the image, at most

Array = NDArray[Any]
Denoise = Callable[[Array, Array], Array]
"""Denoises (batch, C, H, W), given the maps of its noise, (batch, 2 C, H, W)."""


class NoiseProfile(NamedTuple):
    """Standard deviation of the noise of each channel at some intensities, in the units of the image.

    The noise of the means of 2 x 2 pixels, times 2, is as strong if the noise is white, and up to twice as strong if
    neighbouring pixels are correlated, as after demosaicking, JPEG or enlargement.

    Args:
        levels: intensities, (C, n), ascending.
        sigma: standard deviations at these intensities, (2 C, n): of the noise of each channel, then of the noise of
            the means of 2 x 2 pixels, times 2.
    """

    levels: Array
    sigma: Array

    @classmethod
    def uniform(cls, sigma: float, channels: int) -> NoiseProfile:
        """Return the profile of white noise of one strength.

        Args:
            sigma: standard deviation.
            channels: C.
        """
        return cls(np.zeros((channels, 1), np.float32), np.full((2 * channels, 1), sigma, np.float32))

    @property
    def channels(self) -> int:
        """Number of channels, C."""
        return len(self.levels)

    @property
    def mean_sigma(self) -> float:
        """Root mean square over channels and intensities, without that of the means of 2 x 2 pixels."""
        return float(np.sqrt(np.square(self.sigma[: self.channels], dtype=np.float64).mean()))

    @property
    def is_white(self) -> bool:
        """Whether pixels are independent and of one strength, at all intensities and in all channels, but for errors.

        White noise that black and white clip, or that JPEG has changed, is not.
        """
        sigma = self.sigma.astype(np.float64)  # squares of units such as 1e30 are beyond float32
        fine, coarse = np.sqrt(np.square(sigma).mean(axis=1)).reshape(2, self.channels)
        if not fine.min() > 0:
            return False
        variation = (sigma.std(axis=1) / sigma.mean(axis=1))[: self.channels].max()
        ratios = coarse / fine
        return bool(
            variation < MAX_VARIATION
            and fine.max() < MAX_CHANNEL_RATIO * fine.min()
            and ratios.min() > MIN_WHITE_RATIO
            and ratios.max() < MAX_WHITE_RATIO
        )

    def scale(self, factor: float | Array) -> NoiseProfile:
        """Return the profile of noise that is ``factor``, or (2 C, 1), times as strong at the same intensities."""
        return self._replace(sigma=factor * self.sigma)

    def in_units(self, unit: float) -> NoiseProfile:
        """Return the profile of the same noise where intensities and noise are divided by ``unit``."""
        return NoiseProfile(self.levels / unit, self.sigma / unit)

    def clamp(self, greatest: float) -> NoiseProfile:
        """Return the profile with no standard deviation above ``greatest``."""
        return self._replace(sigma=self.sigma.clip(max=greatest))

    def maps(self, x: Array) -> Array:
        """Look up the noise at each pixel of an image, by its local mean.

        Args:
            x: noisy images, (batch, C, H, W).

        Returns:
            Standard deviations, (batch, 2 C, H, W); read-only if they are the same everywhere.
        """
        shape = (len(x), 2 * self.channels, *x.shape[2:])
        if (self.sigma == self.sigma[:, :1]).all():
            return np.broadcast_to(self.sigma[:, :1, None].astype(x.dtype), shape)
        seen = local_mean(x, MEAN_SIDE)
        maps = np.empty(shape, x.dtype)
        for i, levels in enumerate(self.levels):  # a table is several times as fast as interpolation at each pixel
            low, span = levels[0], max(levels[-1] - levels[0], np.float32(1e-9))
            index = ((seen[:, i] - low) * ((TABLE - 1) / span) + np.float32(0.5)).clip(0, TABLE - 1).astype(np.int32)
            at = low + span * np.linspace(0, 1, TABLE)
            is_first = np.diff(levels, prepend=-np.inf) > 0  # of equal levels, as of black or white areas
            for j in (i, i + self.channels):
                maps[:, j] = np.interp(at, levels[is_first], self.sigma[j][is_first]).astype(x.dtype)[index]
        return maps


def estimate_noise_profile(
    patches: Array,
    denoise: Denoise,
    sigma: float | Array,
    coarse_sigma: float | Array,
    *,
    n_steps: int = 5,
    n_uniform: int = 3,
    has_palette: bool = False,
) -> NoiseProfile:
    """Estimate the noise by the residual of a denoiser that is conditioned on it.

    For the posterior mean D of an image with noise of covariance C, the residual r = y - D(y) has the covariance
    C (I - J)^T, with the Jacobian J of D. The expectation-maximisation step from a first estimate is therefore the
    power of the residual by the fraction of noise that is removed, b . (b - J b) for a probe b with the covariance of
    the noise. Structure that the network recognises leaves no residual, so estimates that are too high because of it
    fall from step to step, whereas noise is a fixed point. Blocks are weighted by the square of that fraction. No step
    rises far above the first estimates: structure is in them, too.

    Args:
        patches: noisy patches of one image, (batch, C, H, W), full scale about 1.0.
        denoise: the conditioned denoiser.
        sigma: first estimate for the standard deviation of the noise, or one for each channel, (C,); better too high
            than too low.
        coarse_sigma: the same for the means of 2 x 2 pixels, times 2.
        n_steps: steps; each calls the denoiser twice.
        n_uniform: the first steps, of a third of the patches, in which the noise is the same at all intensities.
        has_palette: as of `denoise.noise_bound.noise_bound`.

    Returns:
        The profile.

    Reference:
        Estimation of the Mean of a Multivariate Normal Distribution, Stein, 1981; Monte-Carlo SURE, Ramani et al.,
        2008 (the probe); Maximum Likelihood from Incomplete Data via the EM Algorithm, Dempster et al., 1977.
    """
    channels = patches.shape[1]
    source = TorchRandom(0)
    sigma, coarse_sigma = np.atleast_1d(sigma), np.atleast_1d(coarse_sigma)
    bounds = _Bounds.by_first(sigma, coarse_sigma)
    fine = np.maximum(sigma, coarse_sigma / MAX_COARSE_RATIO)
    coarse = np.where(coarse_sigma < MAX_COARSE_RATIO * sigma, fine, coarse_sigma)
    start = np.stack([fine, coarse]).astype(np.float32).clip(MIN_FIRST)
    start = start.repeat(channels // len(sigma), axis=1).reshape(-1, 1)
    profile = bounds.apply(NoiseProfile(np.zeros((channels, 1), np.float32), start))
    by_value = [np.square(look_up(noise_bound(x, has_palette=has_palette), x)) for x in np.swapaxes(patches, 0, 1)]
    whole = _Evidence(patches, local_mean(patches, MEAN_SIDE), np.stack(by_value, axis=1), bounds)
    n = -(-len(patches) // 3)
    part = whole._replace(patches=patches[:n], seen=whole.seen[:n], max_power=whole.max_power[:n])
    for i in range(n_steps):
        is_uniform = i < n_uniform
        levels = np.zeros((channels, 1), np.float32) if is_uniform else _levels(whole.seen)
        profile = _update(part if is_uniform else whole, denoise, profile, levels, source)
    estimates = _grouped_rms(profile.sigma[:channels], len(sigma))
    factors = [_correction(*row) for row in zip(estimates, sigma, coarse_sigma, strict=True)]
    return profile.scale(np.tile(np.repeat(factors, channels // len(sigma)), 2)[:, None].astype(np.float32))


def _grouped_rms(sigma: Array, n: int) -> Array:
    """Root mean square over the levels of groups of channels, (n,), of (C, levels)."""
    return np.sqrt(np.square(sigma, dtype=np.float64).reshape(n, -1).mean(axis=1))


def _correction(estimate: float, sigma: float, coarse_sigma: float) -> float:
    """The factor of an estimate that is far below first estimates which agree at both scales.

    Noise that is white has the same strength at both, which structure seldom has. Where nothing but fine regular
    structure is seen, the steps lose some of the noise; they lose nearly all of what was structure.
    """
    low, high = sorted((sigma, coarse_sigma))
    if not low > MIN_AGREEMENT * high or not MIN_REMAINDER * low < estimate < MAX_REMAINDER * low:
        return 1.0
    return float((low / estimate) ** FIRST_WEIGHT)


class _Bounds(NamedTuple):
    """What the noise of an image cannot exceed by its first estimates, which structure makes too high.

    Args:
        least: standard deviation of the noise where it is weakest, which the first estimates measure, of each group of
            channels that have one, (groups,).
        mean: that of the group.
        coarse_ratio: noise of the means of 2 x 2 pixels, times 2, by that of single pixels.
    """

    least: Array
    mean: Array
    coarse_ratio: Array

    @classmethod
    def by_first(cls, sigma: Array, coarse_sigma: Array) -> _Bounds:
        """Return the bounds by the first estimates of `estimate_noise_profile`, (groups,)."""
        first, finest = np.maximum(sigma, coarse_sigma), MAX_BY_FINEST * sigma
        is_white = coarse_sigma < sigma / MIN_AGREEMENT
        least, mean = (np.minimum(factor * first, finest).clip(MIN_FIRST) for factor in (MAX_LEAST, MAX_MEAN))
        return cls(least, mean, np.where(is_white, MAX_COARSE_RATIO, 2.0))

    def apply(self, profile: NoiseProfile) -> NoiseProfile:
        """Return a profile within the bounds."""
        fine, coarse = np.split(profile.sigma, 2)
        n = len(self.least)
        weakest = fine.reshape(n, -1).min(axis=1).clip(1e-20)
        factor = np.minimum(self.least / weakest, self.mean / _grouped_rms(fine, n).clip(1e-20)).clip(max=1)
        factor, coarse_ratio = (
            x.repeat(profile.channels // n)[:, None].astype(np.float32) for x in (factor, self.coarse_ratio)
        )
        fine = factor * fine
        return profile._replace(sigma=np.concatenate([fine, np.minimum(factor * coarse, coarse_ratio * fine)]))


class _Evidence(NamedTuple):
    """What the noise is estimated from.

    Args:
        patches: noisy patches, (batch, C, H, W).
        seen: their local means.
        max_power: greatest power of the noise at each pixel, by the histogram.
        bounds: by the first estimates.
    """

    patches: Array
    seen: Array
    max_power: Array
    bounds: _Bounds


def _update(
    evidence: _Evidence, denoise: Denoise, profile: NoiseProfile, levels: Array, source: TorchRandom
) -> NoiseProfile:
    """One step of expectation-maximisation, to a profile at given levels."""
    patches = evidence.patches
    maps = profile.maps(patches)
    channels = patches.shape[1]
    fine, coarse = np.sqrt(np.square(profile.sigma).mean(axis=1)).reshape(2, channels)
    probe_sigma = maps[:, :channels].clip(MIN_SIGMA)
    probe = probe_sigma * _correlated_noise(patches.shape, coarse / fine.clip(1e-9), source)
    denoised = denoise(patches, maps)
    removed = probe - (denoise(patches + EPS * probe, maps) - denoised) / EPS
    residual = patches - denoised
    power = np.square(np.concatenate([residual, coarse_part(residual)], axis=1))
    coarse_probe = coarse_part(probe)
    response = np.concatenate([probe * removed, coarse_probe * coarse_part(removed)], axis=1)
    # of the means of 2 x 2 pixels, in power
    gain = np.square(coarse_probe).mean(axis=(0, 2, 3), keepdims=True) / np.square(probe).mean((0, 2, 3), keepdims=True)
    response /= np.concatenate([np.square(probe_sigma), gain * np.square(probe_sigma)], axis=1)
    weight = np.square(_block_mean(response.mean(axis=1, keepdims=True)).clip(0, 1))
    power, response = weight * power, weight * response
    rows = []
    for i in range(2 * channels):
        seen, curve = evidence.seen[:, i % channels], levels[i % channels]
        index = np.searchsorted((curve[1:] + curve[:-1]) / 2, seen)
        max_power = evidence.max_power[:, i % channels] * (1 if i < channels else 4)
        rows.append(_power_by_level(power[:, i], response[:, i], weight, index, len(curve)))
        rows[-1] = _bounded(rows[-1], max_power, index)
    return evidence.bounds.apply(NoiseProfile(levels, np.sqrt(np.stack(rows).clip(0)).astype(np.float32)))


def _power_by_level(power: Array, response: Array, weight: Array, index: Array, n: int) -> Array:
    """Power of the noise at each of n levels, (n,), where ``index`` is the level of each pixel."""
    total_power, total_response = float(power.mean()), max(0.0, float(response.mean()))
    floor = MIN_RESPONSE * float(weight.mean()) + 1e-12
    overall = total_power / (total_response + floor)
    sums = [n * np.bincount(index.reshape(-1), x.reshape(-1), n) / x.size for x in (power, response)]
    prior = PRIOR_WEIGHT * total_response + floor
    by_level = (sums[0] + prior * overall) / (sums[1].clip(0) + prior)
    return by_level.clip(max=LEVEL_SPREAD**2 * overall)


def _bounded(by_level: Array, max_power: Array, index: Array) -> Array:
    """Limit the power at each level by that of most of its pixels."""
    pixels = [max_power[index == level] for level in range(len(by_level))]
    ranks = [(len(x) - 1) // 2 for x in pixels]  # of the median; some powers are infinite
    limits = [np.partition(x, rank)[rank] if len(x) else np.inf for x, rank in zip(pixels, ranks, strict=True)]
    return np.minimum(by_level, limits)


def coarse_part(x: Array) -> Array:
    """Return the means of 2 x 2 pixels at every pixel, times 2: of white noise they are as strong as it.

    Args:
        x: images, (batch, C, H, W).
    """
    x = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="edge")
    return (x[..., :-1, :-1] + x[..., :-1, 1:] + x[..., 1:, :-1] + x[..., 1:, 1:]) / 2


def local_mean(x: Array, side: int) -> Array:
    """Return the means of windows of an odd number of pixels, fewer at the borders.

    Args:
        x: images, (batch, C, H, W).
        side: side of the window.
    """
    from scipy.ndimage import uniform_filter1d

    for axis in (-2, -1):
        is_inside = np.ones(x.shape[axis])
        fraction = uniform_filter1d(is_inside, side, mode="constant").astype(x.dtype)
        x = uniform_filter1d(x, side, axis, mode="constant") / (fraction if axis == -1 else fraction[:, None])
    return x


def _levels(seen: Array) -> Array:
    """Intensities with as many pixels between any two, (C, n)."""
    values = np.swapaxes(seen, 0, 1).reshape(seen.shape[1], -1)
    values = values[:, :: max(1, values.shape[1] // 4096)]
    quantiles = (np.arange(N_LEVELS) + 0.5) / N_LEVELS
    return np.quantile(values, quantiles, axis=1).T.astype(np.float32)


def _block_mean(x: Array) -> Array:
    """Means of blocks at each of their pixels, (batch, 1, H, W)."""
    if min(x.shape[2:]) < BLOCK:
        return x.mean(axis=(2, 3), keepdims=True)
    for axis in (2, 3):
        n = x.shape[axis]
        lengths = np.diff([*range(0, n, BLOCK), n])
        means = np.add.reduceat(x, range(0, n, BLOCK), axis) / np.expand_dims(lengths.astype(x.dtype), (0, 1, 5 - axis))
        x = means.repeat(lengths, axis)
    return x


def _correlated_noise(shape: tuple[int, ...], ratios: Array, source: TorchRandom) -> Array:
    """Noise of standard deviation 1, blurred so that the coarse part of each channel is ``ratios`` times as strong."""
    from scipy.ndimage import convolve1d

    noise = source.normal(shape)
    for channel, ratio in enumerate(ratios):
        if ratio <= 1.03 or min(shape[2:]) < MIN_SIDE:
            continue
        low, high = 0.0, MAX_BLUR
        for _ in range(12):
            blur = (low + high) / 2
            low, high = (blur, high) if _coarse_ratio(blur) < ratio else (low, blur)
        kernel = _gaussian(blur)
        kernel /= math.sqrt(np.square(kernel).sum())
        blurred = convolve1d(noise[:, channel], kernel, 1, mode="mirror")
        noise[:, channel] = convolve1d(blurred, kernel, 2, mode="mirror")
    return noise


def _gaussian(blur: float) -> Array:
    """A Gaussian of ``blur`` pixels, (2 r + 1,)."""
    radius = 1 + int(2.5 * MAX_BLUR)
    return np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(blur, 0.05)) ** 2)


def _coarse_ratio(blur: float) -> float:
    """The strength of the coarse part of white noise blurred by a Gaussian, relative to all of it."""
    kernel = _gaussian(blur)
    correlation = float((kernel[1:] * kernel[:-1]).sum() / np.square(kernel).sum())
    return 1 + correlation  # sqrt((2 + 2 c)(2 + 2 c)) / 2
