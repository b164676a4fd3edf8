"""Noise of images: sensors, film, defective pixels, resized images.

Images are (B, 3, H, W), full scale 1.0. Noisy images may leave [0, 1]; writing them to a file clips them.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.colour import LUMA_709
from denoise.noise.common import uniform


def shot_and_read(x: Tensor, shot: Tensor, read: Tensor, generator: Generator | None = None) -> Tensor:
    """Add the noise of a sensor in linear light: photon shot noise and read noise.

    The variance is ``shot * x + read ** 2``.

    Args:
        x: clean image in linear light, (B, C, H, W).
        shot: variance of the shot noise at full scale, (B,).
        read: standard deviation of the read noise, (B,).
        generator: source of randomness.

    Returns:
        Noisy image, (B, C, H, W).

    Reference:
        Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image Raw-Data, Foi et al., 2008.
    """
    variance = _per_image(shot) * x.clamp_min(0) + _per_image(read).square()
    return x + variance.sqrt() * torch.randn(x.shape, generator=generator)


def correlated_channels(x: Tensor, sigma: Tensor, generator: Generator | None = None) -> Tensor:
    """Add white noise with a random correlation between channels, as after a change of colour space.

    Args:
        x: clean image, (B, 3, H, W).
        sigma: root mean square of the noise over all channels, (B,).
        generator: source of randomness.

    Returns:
        Noisy image, (B, 3, H, W).

    Reference:
        Practical Blind Image Denoising via Swin-Conv-UNet and Data Synthesis, 2022, arXiv:2203.13278.
    """
    mix = torch.randn(len(x), 3, 3, generator=generator)
    mix = mix * (3 / mix.square().sum(dim=(1, 2), keepdim=True)).sqrt()  # keeps the mean variance
    white = torch.randn(x.shape, generator=generator)
    return x + _per_image(sigma) * torch.einsum("bij,bjhw->bihw", mix, white)


def coarse(x: Tensor, sigma: Tensor, size: float, generator: Generator | None = None) -> Tensor:
    """Add noise with grains of several pixels, as in images that were enlarged or blurred.

    Args:
        x: clean image, (B, C, H, W).
        sigma: standard deviation of the noise, (B,).
        size: side of a grain in pixels.
        generator: source of randomness.

    Returns:
        Noisy image, (B, C, H, W).
    """
    small = [max(2, round(n / size)) for n in x.shape[2:]]
    grain = torch.randn(*x.shape[:2], *small, generator=generator)
    grain = F.interpolate(grain, x.shape[2:], mode="bicubic", antialias=True)
    return x + _per_image(sigma) * grain / grain.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)


def film_grain(x: Tensor, sigma: Tensor, size: float, generator: Generator | None = None) -> Tensor:
    """Add film grain: correlated channels, strongest in mid-tones, absent in black and white.

    Args:
        x: clean image, (B, 3, H, W).
        sigma: standard deviation in mid-tones, (B,).
        size: side of a grain in pixels.
        generator: source of randomness.

    Returns:
        Noisy image, (B, 3, H, W).

    Reference:
        Film Grain Synthesis for AV1 Video Codec, Norkin and Birkbeck, 2018 (a template of correlated
        noise, scaled by intensity).
    """
    intensity = x.mean(dim=1, keepdim=True).clamp(0, 1)
    scale = 2 * (intensity * (1 - intensity)).sqrt()
    zeros = torch.zeros_like(x)
    unit = torch.ones(len(x))
    silver = coarse(zeros[:, :1], unit, size, generator)
    dyes = coarse(zeros, unit, size, generator)
    return x + _per_image(sigma) * scale * (0.9 * silver + 0.436 * dyes)


def salt_and_pepper(x: Tensor, fraction: Tensor, generator: Generator | None = None) -> Tensor:
    """Set a fraction of the pixels to black or white, in all channels or in single ones.

    Args:
        x: clean image, (B, 3, H, W).
        fraction: fraction of affected pixels, 0 to 1, (B,).
        generator: source of randomness.

    Returns:
        Noisy image, (B, 3, H, W).
    """
    uniform_noise = torch.rand(len(x), 3, *x.shape[2:], generator=generator)
    is_grey = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    uniform_noise = torch.where(is_grey, uniform_noise[:, :1], uniform_noise)
    is_defective = uniform_noise < _per_image(fraction)
    return torch.where(is_defective, (uniform_noise < _per_image(fraction) / 2).float(), x)


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
    has_tone_curve = bool(torch.rand((), generator=generator) < 0.7)  # some cameras apply gamma alone
    linear = _srgb_to_linear(_inverse_tone_curve(x.clamp(0, 1)) if has_tone_curve else x.clamp(0, 1))
    raw = torch.einsum("bij,bjhw->bihw", torch.linalg.inv(matrix), linear) / gains[:, :, None, None]
    noise = demosaic(shot_and_read(raw, shot, read, generator) - raw)
    developed = torch.einsum("bij,bjhw->bihw", matrix, (raw + noise) * gains[:, :, None, None])
    encoded = _linear_to_srgb(developed.clamp(0, 1))
    return (_tone_curve(encoded) if has_tone_curve else encoded) + (x - x.clamp(0, 1))


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
        x: (B, 3, H, W).

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


def _per_image(x: Tensor) -> Tensor:
    """Broadcast (B,) against (B, C, H, W)."""
    return x[:, None, None, None]
