"""Priors of small patches, for images of any size: the density, and the denoiser at one or several scales."""

from __future__ import annotations

from itertools import product

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.probability_path import expand_like, noise_like
from denoise.protocols import PatchPrior, Progress
from denoise.sampling.solvers import Denoise

BATCH = 1 << 12  # patches that are computed at a time


def patch_grid(size: int, side: int, stride: int, offset: int = 0) -> Tensor:
    """Return the positions of the patches along one axis: a grid, with one patch at each end whatever its points are.

    Args:
        size: pixels of the axis, at least ``side``.
        side: pixels of a patch.
        stride: distance between points of the grid, 1 to ``side``.
        offset: first point of the grid, 0 to ``stride`` - 1.

    Returns:
        Positions of the first pixel of each patch, in ascending order.
    """
    last = size - side
    return torch.tensor(sorted({0, *range(offset, last, stride), last}))


def cut_patches(x: Tensor, side: int, stride: int, offset: int = 0) -> Tensor:
    """Return the patches of images.

    Args:
        x: images, (batch, channels, height, width), no smaller than a patch.
        side: as of `patch_grid`.
        stride: as of `patch_grid`, of both axes.
        offset: as of `patch_grid`, of both axes.

    Returns:
        Patches, (batch, rows, columns, channels, side, side).
    """
    rows, columns = (patch_grid(size, side, stride, offset).to(x.device) for size in x.shape[2:])
    return _gather(x, rows, columns, side)


def image_log_prob(prior: PatchPrior, x: Tensor, sigma: Tensor, *, stride: int = 1, offset: int = 0) -> Tensor:
    """Return the expected patch log-likelihood: the sum of the log-densities of all patches.

    It is the density of the image, up to a constant, only where the patches do not overlap. Its gradient, divided by
    the number of patches that each pixel is part of, is that of `denoise_patches`.

    Args:
        prior: prior of patches.
        x: noisy images, (batch, channels, height, width), no smaller than a patch.
        sigma: standard deviation of the noise, (batch,).
        stride: as of `patch_grid`.
        offset: as of `patch_grid`.

    Returns:
        Nats, (batch,).

    Reference:
        From Learning Models of Natural Image Patches to Whole Image Restoration, Zoran and Weiss, 2011, eq. 2.
    """
    patches = cut_patches(x, prior.event_shape[-1], stride, offset)
    n_patches = patches.shape[1] * patches.shape[2]
    return (
        prior.noisy_log_prob(patches.flatten(0, 2), sigma.repeat_interleave(n_patches))
        .unflatten(0, (len(x), -1))
        .sum(1)
    )


def denoise_patches(
    prior: PatchPrior,
    x: Tensor,
    sigma: Tensor,
    *,
    stride: int = 1,
    offset: int = 0,
    limit: float | None = None,
    generator: Generator | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Denoise all patches of images, and return the mean of the patches that overlap at each pixel.

    Args:
        prior: prior of patches.
        x: noisy images, (batch, channels, height, width); those smaller than a patch are mirrored to its size.
        sigma: standard deviation of the noise, (batch,).
        stride: as of `patch_grid`.
        offset: as of `patch_grid`.
        limit: largest rms of what is removed from a patch, relative to sigma: more of it cannot be noise. The gradient
            of a density that was learned is wrong, and perhaps large, far from the examples.
        generator: source of white noise of sigma that each patch gets first, for images without noise or of another
            kind, on which the gradient is wrong, too. The mean over patches averages it out.
        progress: called with the fraction done.

    Returns:
        Denoised images of the shape of ``x``.

    Reference:
        Plug-and-Play image restoration with Stochastic deNOising REgularization, 2024, arXiv:2402.01779, for noise of
        a generator.
    """
    side, (height, width) = prior.event_shape[-1], x.shape[2:]
    x = _mirror(_mirror(x, side, dim=2), side, dim=3)
    rows, columns = (patch_grid(size, side, stride, offset).to(x.device) for size in x.shape[2:])
    total, count = torch.zeros_like(x), x.new_zeros(x.shape[2:])
    n_done = 0
    for some_rows in rows.split(max(1, BATCH // (len(x) * len(columns)))):
        patches = _gather(x, some_rows, columns, side)
        sigmas = sigma.repeat_interleave(patches.shape[1] * patches.shape[2])
        flat = patches.flatten(0, 2)
        if generator is not None:
            flat = flat + expand_like(sigmas, flat) * noise_like(flat, generator)
        removed = flat - prior(flat, sigmas)
        if limit is not None:
            rms = removed.flatten(1).square().mean(dim=1).sqrt()
            removed = removed * expand_like((limit * sigmas / rms.clamp_min(1e-12)).clamp_max(1), removed)
        denoised = (flat - removed).reshape(patches.shape).permute(0, 3, 1, 2, 4, 5)
        for i in range(side):  # at a fixed pixel of the patches, no two of them meet
            for j in range(side):
                pixels = (some_rows[:, None] + i, columns + j)
                total[:, :, *pixels] += denoised[..., i, j].to(total)
                count[pixels] += 1
        n_done += len(some_rows)
        if progress:
            progress(n_done / len(rows))
    return (total / count)[:, :, :height, :width]


def denoise_at_scales(denoise: Denoise, x: Tensor, sigma: Tensor, scales: int) -> Tensor:
    """Denoise images at several scales, so that patches see noise that is smoother than they are large.

    Means of 2 x 2 pixels have half of the noise. The denoised image gets those of the image that is denoised at half
    the size, itself at several scales; of all four ways to divide the pixels, the mean is returned.

    Args:
        denoise: denoiser of x and sigma, (batch,), at one scale.
        x: noisy images, (batch, channels, height, width).
        sigma: standard deviation of the noise, (batch,).
        scales: number of scales, at least 1.

    Returns:
        Denoised images of the shape of ``x``.

    Reference:
        Multi-Scale Patch-Based Image Restoration, Papyan and Elad, 2016.
    """
    denoised = denoise(x, sigma)
    if scales == 1:
        return denoised
    total = torch.zeros_like(x)
    for top, left in product((0, 1), (0, 1)):
        noisy, fine = (_pad(image, top, left) for image in (x, denoised))
        means = denoise_at_scales(denoise, F.avg_pool2d(noisy, 2), sigma / 2, scales - 1)
        fine = fine + (means - F.avg_pool2d(fine, 2)).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        total += fine[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    return total / 4


def _pad(x: Tensor, top: int, left: int) -> Tensor:
    """Return images with ``top`` rows and ``left`` columns more, and even sizes; edges are repeated."""
    height, width = x.shape[2:]
    return F.pad(x, (left, (width + left) % 2, top, (height + top) % 2), mode="replicate")


def _gather(x: Tensor, rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """Return the patches at rows x columns, (batch, rows, columns, channels, side, side)."""
    steps = torch.arange(side, device=x.device)
    i, j = rows[:, None] + steps, columns[:, None] + steps
    return x[:, :, i[:, None, :, None], j[None, :, None, :]].permute(0, 2, 3, 1, 4, 5)


def _mirror(x: Tensor, size: int, dim: int) -> Tensor:
    """Return images that are mirrored at their end until they have at least a size along one axis."""
    n = x.shape[dim]
    if n >= size:
        return x
    wave = torch.arange(size, device=x.device) % (2 * n)
    return x.index_select(dim, torch.where(wave < n, wave, 2 * n - 1 - wave))
