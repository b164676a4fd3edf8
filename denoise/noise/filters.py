"""Gaussian blur, which noise passes through in cameras."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian_kernel(size: float, limit: int | None = None) -> Tensor:
    """Return a Gaussian, cut at three standard deviations, whose sum is 1.

    Args:
        size: standard deviation in pixels; 0 for a unit impulse.
        limit: largest radius of the kernel in pixels.

    Returns:
        (2 r + 1,).
    """
    if size <= 0:
        return torch.ones(1)
    radius = max(1, round(3 * size))
    radius = radius if limit is None else min(radius, limit)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / size) ** 2)
    return kernel / kernel.sum()


def gaussian_blur(x: Tensor, size: float) -> Tensor:
    """Blur an image by a Gaussian; it is continued by reflection.

    Args:
        x: (B, C, H, W).
        size: standard deviation in pixels; 0 for none.

    Returns:
        (B, C, H, W).
    """
    channels = x.shape[1]
    for dim in (2, 3):
        kernel = gaussian_kernel(size, limit=x.shape[dim] - 1).to(x)
        radius = len(kernel) // 2
        padded = F.pad(x.transpose(dim, 3), (radius, radius, 0, 0), mode="reflect")
        x = F.conv2d(padded, kernel.expand(channels, 1, 1, -1), groups=channels).transpose(dim, 3)
    return x
