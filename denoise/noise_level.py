"""Estimation of the white noise in an image: a sigma for models that take one, and for reports."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from denoise.colour import CHROMA_601, LUMA_601
from denoise.random_numbers import TorchRandom

MAX_PATCHES = 40_000
SMOOTH_FRACTION = 0.05  # of the patches: the smoothest, from which the noise is measured
NOISE_FRACTION = 0.75  # of the principal components: in smooth patches they hold noise alone
SUBSAMPLED_RATIO = 0.58  # fine by coarse detail of the chroma; below it the chroma has no white noise
GREY_FRACTION = 0.9  # of the patches without colour: the image is grey, perhaps with a coloured stamp
CLIPPED_FRACTION = 1e-4  # of the pixels at black or white: more of them mean that the noise is clipped

Array = NDArray[Any]


def estimate_sigma(x: Array, full_scale: float = 1.0, visible: NDArray[np.bool_] | None = None) -> float:
    """Estimate the standard deviation of white noise in an image, also where black and white clip it.

    Patches are transformed to their principal components. Noise has the same variance in all of them and scenes
    concentrate in few, so the weakest components of the smoothest patches hold noise alone. The estimate is the mean
    of the largest set of them whose mean is its median.

    Patches that are black or white in every pixel are ignored, and so are patches with hidden pixels. Where the chroma
    is subsampled, as in JPEG, or the image is grey, the luma alone is used; the estimate is then the white noise that
    would cause the noise of the luma.

    Args:
        x: image, (C, H, W).
        full_scale: value of white.
        visible: mask of the pixels that are not transparent, (H, W).

    Returns:
        Standard deviation in the units of ``x``; 0 for images that are too small to estimate it.

    Reference:
        An Efficient Statistical Method for Image Noise Level Estimation, Chen et al., 2015 (the set of components);
        Single-Image Noise Level Estimation for Blind Denoising, Liu et al., 2013 (smooth patches).
    """
    use_luma = len(x) == 3 and min(x.shape[1:]) > 3 and _is_chroma_coarse(_patches(x, 4, visible))
    channels = 1 if use_luma else len(x)
    side = 5 if channels > 1 else 7  # channels are correlated and separate noise from scene as more pixels do
    while side > 1 and math.prod(max(0, n - side + 1) for n in x.shape[1:]) < 4 * channels * side**2:
        side -= 1
    if side < 2:
        return 0.0
    min_patches = 2 * channels * side**2
    patches = _patches(x, side, visible) / np.float32(full_scale)
    if len(patches) < min_patches:
        return 0.0
    is_bounded = bool(patches.min() >= 0 and patches.max() <= 1)
    # per channel: there the noise is clipped away
    saturated: Any = ((patches <= 0) | (patches >= 1)).all(axis=2) & is_bounded
    if use_luma:
        is_grey = (patches == patches[:, :1]).all(axis=(1, 2)).mean() > GREY_FRACTION
        full_scale /= 1.0 if is_grey else math.hypot(*LUMA_601)  # luma has less white noise than each channel
        patches = np.einsum("ncp,c->np", patches, np.array(LUMA_601, np.float32))[:, None]
        saturated = saturated.all(axis=1, keepdims=True)
    unsaturated = ~saturated.any(axis=1)
    patches = patches[unsaturated] if unsaturated.sum() >= min_patches else patches[~saturated.all(axis=1)]
    if len(patches) < min_patches:
        return 0.0
    means = patches.mean(axis=2)
    sigma = _noise_std(patches)
    if is_bounded and ((patches <= 0) | (patches >= 1)).mean() > CLIPPED_FRACTION:
        headroom = np.minimum(means, 1 - means).min(axis=1)  # to black and white
        for _ in range(10):
            inner = headroom >= min(2.5 * sigma, float(np.quantile(headroom, 0.6)))
            remaining = float(clipped_variance(means[inner].clip(0, 1), sigma + 1e-4).mean())
            previous, sigma = sigma, _noise_std(patches[inner]) / max(remaining, 0.05) ** 0.5
            if abs(previous - sigma) <= 0.002 * sigma:
                break
    return sigma * full_scale


def clipped_variance(mean: Array, sigma: float) -> Array:
    """Return the fraction of its variance that Gaussian noise keeps when it is clipped to [0, 1].

    Args:
        mean: mean of the signal before clipping, any shape.
        sigma: standard deviation of the noise before clipping.

    Returns:
        Fractions, shape of ``mean``.
    """
    from scipy.special import ndtr

    a, b = -mean / sigma, (1 - mean) / sigma
    pdf_a, pdf_b = (np.exp(-np.square(z) / 2) / math.sqrt(2 * math.pi) for z in (a, b))
    inside, white = ndtr(b) - ndtr(a), 1 - ndtr(b)
    first = mean * inside + sigma * (pdf_a - pdf_b) + white
    second = (mean**2 + sigma**2) * inside + 2 * mean * sigma * (pdf_a - pdf_b)
    second = second + sigma**2 * (a * pdf_a - b * pdf_b) + white
    return (second - first**2) / sigma**2


def _is_chroma_coarse(patches: Array) -> bool:
    """Whether chroma varies far less between pixels than between 2 x 2 blocks; patches are (N, 3, 16)."""
    if not len(patches):
        return False
    pixels = patches.reshape(*patches.shape[:2], 4, 4)
    means = pixels.reshape(*patches.shape[:2], 2, 2, 2, 2).mean(axis=(3, 5))
    fine, coarse = _diagonal(pixels[..., :2, :2] / 2), _diagonal(means)  # equal for white noise
    tolerance = 1e-6 * np.abs(patches).max()  # the chroma of grey is rounding error
    return all(
        np.median(np.abs(fine @ w)) <= SUBSAMPLED_RATIO * np.median(np.abs(coarse @ w)) + tolerance
        for w in np.array(CHROMA_601, np.float32)
    )


def _diagonal(x: Array) -> Array:
    """Diagonal Haar detail of (..., 2, 2)."""
    return x[..., 0, 0] - x[..., 0, 1] - x[..., 1, 0] + x[..., 1, 1]


def _patches(x: Array, side: int, visible: NDArray[np.bool_] | None) -> Array:
    """All patches, or a random subset of `MAX_PATCHES`, (N, C, side * side), float32."""
    rows, columns = (n - side + 1 for n in x.shape[1:])
    n = rows * columns
    index = TorchRandom(0).integers(n, MAX_PATCHES) if n > MAX_PATCHES else np.arange(n)
    if visible is not None:
        is_visible = sliding_window_view(visible, (side, side))[index // columns, index % columns]
        index = index[is_visible.all(axis=(1, 2))]
    windows = sliding_window_view(x, (side, side), axis=(1, 2))[:, index // columns, index % columns]
    return np.swapaxes(windows, 0, 1).reshape(len(index), len(x), side * side).astype(np.float32, copy=False)


def _noise_std(patches: Array) -> float:
    """Standard deviation of the noise in (N, C, pixels)."""
    flat = patches.reshape(len(patches), -1)
    flat = flat - flat.mean(axis=0)
    _, components = np.linalg.eigh((flat.T @ flat).astype(np.float64) / len(flat))  # in ascending order of variance
    energies = np.square(flat @ components.astype(np.float32))
    n_noise = round(NOISE_FRACTION * energies.shape[1])
    n_detail = energies.shape[1] - patches.shape[1]  # the strongest are the mean intensity and colour of a patch
    detail = energies[:, n_noise:n_detail].sum(axis=1)
    smooth = detail.argsort()[: max(500, round(SMOOTH_FRACTION * len(flat)))]
    variances = np.sort(energies[smooth, :n_noise].mean(axis=0, dtype=np.float64))
    for n in range(n_noise, 1, -1):
        mean = variances[:n].mean()
        if (variances[:n] > mean).sum() >= (variances[:n] < mean).sum():
            return math.sqrt(mean)
    return math.sqrt(variances[0])
