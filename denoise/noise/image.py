"""Noise of images: sensors, film, defective pixels, resized images. Rendering by cameras is in `denoise.noise.camera`.

Images are (B, 3, H, W), full scale 1.0. Noisy images may leave [0, 1]; writing them to a file clips them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


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


def intensity_dependent(
    x: Tensor, sigma_black: Tensor, sigma_white: Tensor, gamma: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Add white noise whose strength depends on the intensity of each channel.

    The variance is ``sigma_black ** 2 + (sigma_white ** 2 - sigma_black ** 2) * x ** gamma``.

    Args:
        x: clean image, (B, C, H, W).
        sigma_black: standard deviation at 0 and below, (B,).
        sigma_white: standard deviation at 1 and above, (B,).
        gamma: exponent of the intensity.
        generator: source of randomness.

    Returns:
        Noisy image, (B, C, H, W).
    """
    black, white = _per_image(sigma_black).square(), _per_image(sigma_white).square()
    variance = black + (white - black) * x.clamp(0, 1) ** gamma
    return x + variance.clamp_min(0).sqrt() * torch.randn(x.shape, generator=generator)


def position_dependent(x: Tensor, sigma: Tensor, generator: Generator | None = None) -> Tensor:
    """Add white noise whose strength depends on the position.

    Args:
        x: clean image, (B, C, H, W).
        sigma: standard deviation at each pixel, (B, 1 or C, H, W), e.g. of `smooth_field`.
        generator: source of randomness.

    Returns:
        Noisy image, (B, C, H, W).
    """
    return x + sigma * torch.randn(x.shape, generator=generator)


def smooth_field(low: Tensor, high: Tensor, size: tuple[int, int], generator: Generator | None = None) -> Tensor:
    """Draw a smooth function of position: 3 x 3 random values, interpolated.

    Args:
        low: smallest value, (B,).
        high: largest value, (B,).
        size: height and width.
        generator: source of randomness.

    Returns:
        (B, 1, H, W).
    """
    values = torch.rand(len(low), 1, 3, 3, generator=generator)
    t = F.interpolate(values, size, mode="bicubic").clamp(0, 1)
    return _per_image(low) + (_per_image(high) - _per_image(low)) * t


def resized(
    x: Tensor,
    factor: float,
    add_noise: Callable[[Tensor], Tensor],
    mode: Literal["bilinear", "bicubic"] = "bicubic",
) -> Tensor:
    """Add the noise of an image that had another size: coarse if it was enlarged, weaker if it was reduced.

    Only the noise is resized, so that the scene keeps its sharpness.

    Args:
        x: clean image, (B, C, H, W).
        factor: size of the image before, by its size.
        add_noise: function of the clean image before, which returns the noisy one.
        mode: interpolation of the noise; with an anti-aliasing filter where it is reduced.

    Returns:
        Noisy image, (B, C, H, W).
    """
    before = F.interpolate(x, [max(2, round(n * factor)) for n in x.shape[2:]], mode="bicubic", antialias=True)
    noise = add_noise(before) - before
    return x + F.interpolate(noise, x.shape[2:], mode=mode, antialias=factor > 1)


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


def _per_image(x: Tensor) -> Tensor:
    """Broadcast (B,) against (B, C, H, W)."""
    return x[:, None, None, None]
