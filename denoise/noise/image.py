"""Noise as pictures have it: of sensors, of film, of faulty pixels, of pictures that were resized.

All functions take and give (batch, 3, height, width), full scale 1.0, and draw from a generator. A noisy
picture may leave [0, 1]; what stores it clips it.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.noise.common import uniform

LUMA = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709, of linear light


def shot_and_read(x: Tensor, shot: Tensor, read: Tensor, generator: Generator | None = None) -> Tensor:
    """Add a sensor's noise: photons in numbers that vary, and electronics. The variance is ``shot * x + read ** 2``.

    Shape:
        x, returns: (batch, channels, height, width), linear light; shot, read: (batch,).
    Reference:
        Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image Raw-Data, Foi et al., 2008.
    """
    variance = _each(shot) * x.clamp_min(0) + _each(read).square()
    return x + variance.sqrt() * torch.randn(x.shape, generator=generator)


def correlated_channels(x: Tensor, sigma: Tensor, generator: Generator | None = None) -> Tensor:
    """Add white noise whose channels go together in a drawn way, as after a change of colour space.

    Shape:
        sigma: (batch,), the root mean square over all channels.
    Reference:
        Practical Blind Image Denoising via Swin-Conv-UNet and Data Synthesis, 2022, arXiv:2203.13278.
    """
    mix = torch.randn(len(x), 3, 3, generator=generator)
    mix = mix * (3 / mix.square().sum(dim=(1, 2), keepdim=True)).sqrt()  # keeps the mean variance
    white = torch.randn(x.shape, generator=generator)
    return x + _each(sigma) * torch.einsum("bij,bjhw->bihw", mix, white)


def coarse(x: Tensor, sigma: Tensor, size: float, generator: Generator | None = None) -> Tensor:
    """Add noise whose grains are ``size`` pixels large, as in pictures that were enlarged or blurred.

    Shape:
        sigma: (batch,).
    """
    small = [max(2, round(n / size)) for n in x.shape[2:]]
    grain = torch.randn(*x.shape[:2], *small, generator=generator)
    grain = F.interpolate(grain, x.shape[2:], mode="bicubic", antialias=True)
    return x + _each(sigma) * grain / grain.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)


def film_grain(x: Tensor, sigma: Tensor, size: float, generator: Generator | None = None) -> Tensor:
    """Add grain that is the same in all channels nearly, strongest in the middle tones and absent in black and white.

    Shape:
        sigma: (batch,), of the middle tones.
    Reference:
        Film Grain Synthesis for AV1 Video Codec, Norkin and Birkbeck, 2018 (a template of correlated
        noise, scaled by the tone).
    """
    tone = x.mean(dim=1, keepdim=True).clamp(0, 1)
    scale = 2 * (tone * (1 - tone)).sqrt()
    flat = torch.zeros_like(x)
    unit = torch.ones(len(x))
    silver = coarse(flat[:, :1], unit, size, generator)
    dyes = coarse(flat, unit, size, generator)
    return x + _each(sigma) * scale * (0.9 * silver + 0.436 * dyes)


def salt_and_pepper(x: Tensor, share: Tensor, generator: Generator | None = None) -> Tensor:
    """Set a share of the pixels to black or white, in all channels or in single ones.

    Shape:
        share: (batch,), 0 to 1.
    """
    chance = torch.rand(len(x), 3, *x.shape[2:], generator=generator)
    whole = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    chance = torch.where(whole, chance[:, :1], chance)
    hit = chance < _each(share)
    return torch.where(hit, (chance < _each(share) / 2).float(), x)


def sensor(x: Tensor, shot: Tensor, read: Tensor, generator: Generator | None = None) -> Tensor:
    """Add what a camera makes of its sensor's noise: spread by demosaicking, bent by the tone curve.

    A picture is taken back to the sensor's linear light (tone curve, gamma, colour matrix, white balance),
    gets shot and read noise on the mosaic of red, green and blue, and is developed again. Only the noise
    goes through the interpolation of missing colours, so that the scene stays as sharp as it is.

    Shape:
        shot, read: (batch,), of the sensor, full scale 1.0; 1e-4 to 1e-2 of shot is ISO 100 to 10 000 or so.
    Reference:
        Unprocessing Images for Learned Raw Denoising, 2018, arXiv:1811.11127 (all but the mosaic's noise alone).
    """
    matrix, gains = colour_matrices(len(x), generator), white_balances(len(x), generator)
    bent = bool(torch.rand((), generator=generator) < 0.7)  # some cameras apply gamma alone
    linear = _linear(_unsmooth(x.clamp(0, 1)) if bent else x.clamp(0, 1))
    raw = torch.einsum("bij,bjhw->bihw", torch.linalg.inv(matrix), linear) / gains[:, :, None, None]
    added = demosaic(shot_and_read(raw, shot, read, generator) - raw)
    developed = torch.einsum("bij,bjhw->bihw", matrix, (raw + added) * gains[:, :, None, None])
    shown = _gamma(developed.clamp(0, 1))
    return (_smooth(shown) if bent else shown) + (x - x.clamp(0, 1))


def colour_matrices(n: int, generator: Generator | None = None) -> Tensor:
    """Matrices from a sensor's colours to sRGB: rows sum to one, more saturated than the sensor. Shape: (n, 3, 3)."""
    saturation = uniform(1.3, 2.0, n, generator)[:, None, None]
    grey = torch.tensor(LUMA).expand(3, 3)
    tint = 0.05 * torch.randn(n, 3, 3, generator=generator)
    tint = tint - tint.mean(dim=2, keepdim=True)
    return saturation * torch.eye(3) + (1 - saturation) * grey + tint


def white_balances(n: int, generator: Generator | None = None) -> Tensor:
    """Gains of red, green and blue in daylight and lamplight. Shape: (n, 3)."""
    red, blue = uniform(1.4, 2.4, n, generator), uniform(1.4, 2.2, n, generator)
    return torch.stack([red, torch.ones(n), blue], dim=1)


def demosaic(x: Tensor) -> Tensor:
    """Keep of each pixel the one colour that a Bayer sensor (RGGB) sees there, and interpolate the others linearly.

    Shape:
        x, returns: (batch, 3, height, width).
    """
    height, width = x.shape[2:]
    rows, columns = torch.arange(height)[:, None] % 2, torch.arange(width) % 2
    seen = torch.stack([(rows == 0) & (columns == 0), rows != columns, (rows == 1) & (columns == 1)])
    cross = torch.tensor([[0.0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    square = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    kernels = torch.stack([square, cross, square])[:, None]
    weights = F.conv2d(seen.float()[None], kernels, padding=1, groups=3)  # less at the borders
    return F.conv2d(x * seen, kernels, padding=1, groups=3) / weights


def _gamma(x: Tensor) -> Tensor:
    """Linear light to sRGB (IEC 61966-2-1)."""
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


def _linear(x: Tensor) -> Tensor:
    """sRGB to linear light."""
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055).clamp_min(0) ** 2.4)


def _smooth(x: Tensor) -> Tensor:
    """A camera's contrast curve, steepest in the middle."""
    return 3 * x**2 - 2 * x**3


def _unsmooth(x: Tensor) -> Tensor:
    """The inverse of `_smooth`."""
    return 0.5 - torch.sin(torch.asin((1 - 2 * x).clamp(-1, 1)) / 3)


def _each(x: Tensor) -> Tensor:
    return x[:, None, None, None]
