"""Noise of camera sensors, and what cameras do to it: demosaicking, colours, tones, noise reduction, sharpening.

Images are (B, 3, H, W), full scale 1.0. Raw images are linear sensor values of red, green and blue at every pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.colour import LUMA_709, luma
from denoise.noise.common import uniform
from denoise.noise.filters import gaussian_blur, gaussian_kernel
from denoise.noise.image import shot_and_read


class Rendering(NamedTuple):
    """Conversion of raw images to the images that a camera writes.

    Args:
        matrix: colour matrices from sensor RGB to linear sRGB, (B, 3, 3).
        gains: white-balance gains, (B, 3).
        has_tone_curve: whether a contrast curve is applied after gamma; some cameras apply gamma alone.
        is_linear: whether the image is stored in linear light, without gamma and contrast curve.

    Reference:
        Unprocessing Images for Learned Raw Denoising, 2018, arXiv:1811.11127.
    """

    matrix: Tensor
    gains: Tensor
    has_tone_curve: bool = True
    is_linear: bool = False

    def to_raw(self, x: Tensor) -> Tensor:
        """Return the raw image of a rendered one.

        Args:
            x: rendered image, (B, 3, H, W), 0 to 1.
        """
        if not self.is_linear:
            x = _srgb_to_linear(_inverse_tone_curve(x) if self.has_tone_curve else x)
        return torch.einsum("bij,bjhw->bihw", torch.linalg.inv(self.matrix), x) / self.gains[:, :, None, None]

    def render(self, raw: Tensor) -> Tensor:
        """Return the rendered image of a raw one, clipped to [0, 1].

        Args:
            raw: raw image, (B, 3, H, W).
        """
        linear = torch.einsum("bij,bjhw->bihw", self.matrix, raw * self.gains[:, :, None, None]).clamp(0, 1)
        if self.is_linear:
            return linear
        encoded = _linear_to_srgb(linear)
        return _tone_curve(encoded) if self.has_tone_curve else encoded


def sensor(x: Tensor, shot: Tensor, read: Tensor, generator: Generator | None = None) -> Tensor:
    """Add sensor noise as a camera renders it: correlated by demosaicking, scaled by the tone curve.

    The image is unprocessed to linear sensor values (inverse tone curve, gamma, colour matrix, white balance). Shot
    and read noise are added on the Bayer mosaic, and the image is processed again. Only the noise is demosaicked, so
    that the scene keeps its sharpness.

    Args:
        x: clean sRGB image, (B, 3, H, W).
        shot: variance of the sensor's shot noise at full scale, (B,); 1e-4 to 1e-2 is about ISO 100 to 10 000.
        read: standard deviation of the sensor's read noise, (B,).
        generator: source of randomness.

    Returns:
        Noisy sRGB image, (B, 3, H, W).

    Reference:
        Unprocessing Images for Learned Raw Denoising, 2018, arXiv:1811.11127 (demosaicking of the noise alone differs).
    """
    matrix, gains = colour_matrices(len(x), generator), white_balances(len(x), generator)
    has_tone_curve = bool(torch.rand((), generator=generator) < 0.7)
    rendering = Rendering(matrix, gains, has_tone_curve)
    inside = x.clamp(0, 1)
    raw = rendering.to_raw(inside)
    noise = demosaic(shot_and_read(raw, shot, read, generator) - raw)
    return rendering.render(raw + noise) + (x - inside)


def add_row_noise(x: Tensor, sigma: Tensor, size: float = 0.0, generator: Generator | None = None) -> Tensor:
    """Add one offset to each row of a raw image, as the amplifiers of its rows do.

    Args:
        x: raw image, (B, C, H, W).
        sigma: standard deviation of the offsets, (B,).
        size: width in rows of the Gaussian that the offsets are smoothed by: 0 for independent rows, more for bands.
        generator: source of randomness.

    Returns:
        Noisy raw image, (B, C, H, W).

    Reference:
        A Physics-based Noise Formation Model for Extreme Low-light Raw Denoising, 2020, arXiv:2003.12751 (row noise).
    """
    kernel = gaussian_kernel(size)
    kernel = kernel / kernel.square().sum().sqrt()  # keeps the variance
    white = torch.randn(len(x), 1, x.shape[2] + len(kernel) - 1, generator=generator)
    offsets = F.conv1d(white, kernel[None, None])
    return x + sigma[:, None, None, None] * offsets[..., None]


def reduce_noise(
    x: Tensor, *, chroma_size: float, chroma_kept: float, luma_size: float = 0.0, luma_kept: float = 1.0
) -> Tensor:
    """Filter noise as the noise reduction of a camera does: colour noise becomes coarse and weak, fine grain is damped.

    A fraction of the chroma and of the luma is kept, the rest is blurred. That is linear, so the scene is left out.

    Args:
        x: noise alone, (B, 3, H, W).
        chroma_size: width of the blur of the chroma in pixels.
        chroma_kept: fraction of the chroma that is not blurred, 0 to 1.
        luma_size: width of the blur of the luma in pixels.
        luma_kept: fraction of the luma that is not blurred, 0 to 1.

    Returns:
        Filtered noise, (B, 3, H, W).
    """
    y = luma(x)
    chroma = x - y
    y = luma_kept * y + (1 - luma_kept) * gaussian_blur(y, luma_size)
    return y + chroma_kept * chroma + (1 - chroma_kept) * gaussian_blur(chroma, chroma_size)


def sharpen(x: Tensor, amount: float, size: float) -> Tensor:
    """Amplify fine detail by an unsharp mask, as cameras do.

    Args:
        x: image, or noise alone, (B, C, H, W).
        amount: gain of what the blur removes.
        size: width of the blur in pixels.

    Returns:
        (B, C, H, W).
    """
    return x + amount * (x - gaussian_blur(x, size))


def colour_matrices(n: int, generator: Generator | None = None) -> Tensor:
    """Draw colour matrices from sensor RGB to linear sRGB; they increase saturation and keep white.

    Args:
        n: number of matrices.
        generator: source of randomness.

    Returns:
        (n, 3, 3), rows sum to one.
    """
    saturation = uniform(1.3, 2.0, n, generator)[:, None, None]
    grey = torch.tensor(LUMA_709).expand(3, 3)
    tint = 0.05 * torch.randn(n, 3, 3, generator=generator)
    tint = tint - tint.mean(dim=2, keepdim=True)
    return saturation * torch.eye(3) + (1 - saturation) * grey + tint


def white_balances(n: int, generator: Generator | None = None) -> Tensor:
    """Draw white-balance gains of daylight to incandescent light.

    Args:
        n: number of gains.
        generator: source of randomness.

    Returns:
        (n, 3): red, green (1) and blue.
    """
    red, blue = uniform(1.4, 2.4, n, generator), uniform(1.4, 2.2, n, generator)
    return torch.stack([red, torch.ones(n), blue], dim=1)


def demosaic(x: Tensor) -> Tensor:
    """Sample an image by a Bayer mosaic (RGGB) and interpolate the missing colours linearly.

    Args:
        x: (B, 3, H, W). Pad its start by a row or column for another phase of the mosaic.

    Returns:
        (B, 3, H, W); the sampled colours are unchanged.
    """
    height, width = x.shape[2:]
    rows, columns = torch.arange(height)[:, None] % 2, torch.arange(width) % 2
    mosaic = torch.stack([(rows == 0) & (columns == 0), rows != columns, (rows == 1) & (columns == 1)])
    cross = torch.tensor([[0.0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    square = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    kernels = torch.stack([square, cross, square])[:, None]
    weights = F.conv2d(mosaic.float()[None], kernels, padding=1, groups=3)  # less at the borders
    return F.conv2d(x * mosaic, kernels, padding=1, groups=3) / weights


def _linear_to_srgb(x: Tensor) -> Tensor:
    """Encode linear light as sRGB (IEC 61966-2-1)."""
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


def _srgb_to_linear(x: Tensor) -> Tensor:
    """Decode sRGB to linear light."""
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055).clamp_min(0) ** 2.4)


def _tone_curve(x: Tensor) -> Tensor:
    """Apply a smoothstep contrast curve, steepest in mid-tones."""
    return 3 * x**2 - 2 * x**3


def _inverse_tone_curve(x: Tensor) -> Tensor:
    """Invert `_tone_curve`."""
    return 0.5 - torch.sin(torch.asin((1 - 2 * x).clamp(-1, 1)) / 3)
