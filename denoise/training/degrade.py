"""Noise and damage of real photographs beside white noise: the noise of `denoise.noise`, rounding and JPEG."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise import noise
from denoise.files.image import read_image, write_image
from denoise.signals import Image, ImageFormat
from denoise.training.recipe import Degradations

SHOT_NOISE = (1e-4, 1.2e-2)  # range of the variance at full scale
GRAIN_SCALE = 0.5  # of the sigma of white noise: large grains as strong as white noise would spoil the image
CROPPED_FRACTION = 0.5  # of the JPEG patches: their blocks do not start at the corner
HALF_CHROMA_FRACTION = 0.7  # of the JPEG patches: their chroma has half the resolution


def degrade(clean: Tensor, noisy: Tensor, sigma: Tensor, s: Degradations, generator: Generator) -> Tensor:
    """Replace the white noise of random patches by other noise, and apply the damage of files.

    Args:
        clean: clean patches, (B, 3, H, W), full scale 1.0.
        noisy: patches with white noise, as `clean`.
        sigma: standard deviation of the white noise, (B,).
        s: probabilities.
        generator: source of randomness.

    Returns:
        Noisy patches, as `clean`.
    """
    probabilities = torch.tensor([s.sensor, s.film, s.coarse, s.correlated])
    probabilities = torch.cat([probabilities, 1 - probabilities.sum(dim=0, keepdim=True)]).clamp_min(0)
    kinds = torch.multinomial(probabilities, len(clean), replacement=True, generator=generator)
    degraded = noisy.clone()
    for row, kind in enumerate(kinds.tolist()):
        if kind < len(KINDS):
            degraded[row] = KINDS[kind](clean[row : row + 1], sigma[row : row + 1], generator)[0]
        if _happens(s.salt_and_pepper, generator):
            fraction = noise.uniform(0.0, s.salt_and_pepper_fraction, 1, generator)
            degraded[row] = noise.salt_and_pepper(degraded[row : row + 1], fraction, generator)[0]
        if _happens(s.jpeg, generator):
            degraded[row] = _random_jpeg(degraded[row], s.jpeg_quality, generator)
        elif _happens(s.rounded, generator):
            degraded[row] = _to_8_bits(degraded[row]) / 255
    return degraded


def sensor(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Add the noise of a camera sensor at a random ISO.

    Args:
        x: clean patches, (B, 3, H, W), full scale 1.0.
        sigma: not used.
        generator: source of randomness.

    Returns:
        Noisy patches, as `x`.

    Reference:
        Unprocessing Images for Learned Raw Denoising, 2018, arXiv:1811.11127 (distributions of shot and read noise).
    """
    log_shot = noise.uniform(math.log(SHOT_NOISE[0]), math.log(SHOT_NOISE[1]), 1, generator)
    log_read_variance = 2.18 * log_shot + 1.2 + 0.26 * torch.randn(1, generator=generator)
    return noise.sensor(x, log_shot.exp(), (log_read_variance / 2).exp(), generator)


def film(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Add film grain of a random size.

    Args:
        x: clean patches, (B, 3, H, W), full scale 1.0.
        sigma: standard deviation of white noise, (B,).
        generator: source of randomness.

    Returns:
        Noisy patches, as `x`.
    """
    return noise.film_grain(x, GRAIN_SCALE * sigma, _random_size(3.0, generator), generator)


def coarse(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Add noise that was enlarged with its image by a random factor.

    Args:
        x: clean patches, (B, 3, H, W), full scale 1.0.
        sigma: standard deviation of white noise, (B,).
        generator: source of randomness.

    Returns:
        Noisy patches, as `x`.
    """
    return noise.coarse(x, GRAIN_SCALE * sigma, _random_size(4.0, generator), generator)


def correlated(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Add white noise with correlated channels.

    Args:
        x: clean patches, (B, 3, H, W), full scale 1.0.
        sigma: standard deviation of white noise, (B,).
        generator: source of randomness.

    Returns:
        Noisy patches, as `x`.
    """
    return noise.correlated_channels(x, sigma, generator)


Kind = Callable[[Tensor, Tensor, Generator], Tensor]
KINDS: tuple[Kind, ...] = (sensor, film, coarse, correlated)
"""Kinds of noise in the order of their probabilities in `degrade`."""


def jpeg(x: Tensor, quality: int, subsampling: int = 2) -> Tensor:
    """Compress an image as JPEG and decode it.

    Args:
        x: image, uint8, (3, H, W).
        quality: 1 to 100.
        subsampling: 2 for chroma at half the resolution, 0 for the full one.

    Returns:
        Decoded image, as `x`.
    """
    file = io.BytesIO()
    pixels = np.ascontiguousarray(x.permute(1, 2, 0).numpy())
    info = {"jpeg": {"quality": quality, "subsampling": subsampling}}
    write_image(file, [Image(pixels)], ImageFormat("JPEG", info=info))
    file.seek(0)
    return torch.from_numpy(read_image(file).pixels).permute(2, 0, 1)


def _random_jpeg(x: Tensor, quality_range: tuple[int, int], generator: Generator) -> Tensor:
    """Compress a patch, (3, H, W), full scale 1.0, with random quality, subsampling and position of the blocks."""
    quality = int(torch.randint(quality_range[0], quality_range[1] + 1, (), generator=generator))
    subsampling = 2 if _happens(HALF_CHROMA_FRACTION, generator) else 0
    top, left = 0, 0
    if _happens(CROPPED_FRACTION, generator):
        top, left = torch.randint(8, (2,), generator=generator).tolist()
    padded = F.pad(x[None], (left, 0, top, 0), mode="reflect")[0]
    return jpeg(_to_8_bits(padded), quality, subsampling)[:, top:, left:] / 255


def _to_8_bits(x: Tensor) -> Tensor:
    return (x * 255).round().clamp(0, 255).to(torch.uint8)


def _random_size(largest: float, generator: Generator) -> float:
    return float(noise.uniform(1.0, largest, 1, generator))


def _happens(probability: float, generator: Generator) -> bool:
    """Return whether a random event occurs; no random number is drawn for probability 0."""
    return probability > 0 and float(torch.rand((), generator=generator)) < probability
