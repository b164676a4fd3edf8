"""Noise and damage of real photographs beside white noise: the noise of `denoise.noise`, rounding and JPEG."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise import noise
from denoise.files.image import read_image, write_image
from denoise.signals import Image, ImageFormat
from denoise.training.chance import happens, log_uniform, uniform
from denoise.training.image_recipe import NOISE_KINDS, Degradations

SHOT_NOISE = (1e-4, 1.2e-2)  # range of the variance at full scale
READ_SPREAD = 0.26  # standard deviation of the logarithm of the variance of read noise at one ISO
CAMERA_SHOT_NOISE, CAMERA_READ_SPREAD = (5e-5, 2e-2), 0.5  # the same of `camera`
GRAIN_SCALE = 0.5  # of the sigma of white noise: large grains as strong as white noise would spoil the image
MAX_GRAIN = 0.3  # standard deviation
UNEQUAL_SPREAD = 0.5  # standard deviation of the logarithm of the sigma of a channel
CROPPED_FRACTION = 0.5  # of the JPEG patches: their blocks do not start at the corner
HALF_CHROMA_FRACTION = 0.7  # of the JPEG patches: their chroma has half the resolution
ENLARGED, REDUCED = (0.5, 0.95), (1.1, 2.0)  # size of an image before it was resized, by its size


class Degraded(NamedTuple):
    """Noisy patches, and what was done to them.

    Args:
        noisy: noisy patches, (B, 3, H, W), full scale 1.0.
        kinds: kind of the noise of each patch, a name in `denoise.training.image_recipe.NOISE_KINDS`.
        is_jpeg: which patches are stored as JPEG, (B,).
    """

    noisy: Tensor
    kinds: tuple[str, ...]
    is_jpeg: Tensor


def degrade(clean: Tensor, noisy: Tensor, sigma: Tensor, s: Degradations, generator: Generator) -> Degraded:
    """Replace the white noise of random patches by other noise, and apply the damage of files.

    Args:
        clean: clean patches, (B, 3, H, W), full scale 1.0.
        noisy: patches with white noise, as `clean`.
        sigma: standard deviation of the white noise, (B,).
        s: probabilities.
        generator: source of randomness.
    """
    probabilities = torch.tensor([getattr(s, kind) for kind in NOISE_KINDS[:-1]])
    probabilities = torch.cat([probabilities, 1 - probabilities.sum(dim=0, keepdim=True)]).clamp_min(0)
    indices = torch.multinomial(probabilities, len(clean), replacement=True, generator=generator)
    kinds = tuple(NOISE_KINDS[int(index)] for index in indices)
    degraded, is_jpeg = noisy.clone(), torch.zeros(len(clean), dtype=torch.bool)
    for row, kind in enumerate(kinds):
        x, row_sigma = clean[row : row + 1], sigma[row : row + 1]
        if _happens(_probability(s.resized, kind), generator):
            degraded[row] = _resized(x, row_sigma, KINDS[kind], generator)[0]
        elif kind != "white":
            degraded[row] = KINDS[kind](x, row_sigma, generator)[0]
        if _happens(s.salt_and_pepper, generator):
            fraction = noise.uniform(0.0, s.salt_and_pepper_fraction, 1, generator)
            degraded[row] = noise.salt_and_pepper(degraded[row : row + 1], fraction, generator)[0]
        if _happens(_probability(s.jpeg, kind), generator):
            degraded[row] = _random_jpeg(degraded[row], s.jpeg_quality, s.jpeg_offsets, generator)
            is_jpeg[row] = True
        elif _happens(s.rounded, generator):
            degraded[row] = _to_8_bits(degraded[row]) / 255
    return Degraded(degraded, kinds, is_jpeg)


def sensor(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Add the noise of a camera sensor at a random ISO.

    Args:
        x: clean patches, (B, 3, H, W), full scale 1.0.
        sigma: not used.
        generator: source of randomness.

    Returns:
        Noisy patches, as `x`.
    """
    return noise.sensor(x, *shot_and_read_noise(SHOT_NOISE, READ_SPREAD, generator), generator)


def shot_and_read_noise(shot: tuple[float, float], spread: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw the noise of a sensor at a random ISO, which both shot and read noise grow with.

    Args:
        shot: range of the variance of the shot noise at full scale; its logarithm is uniformly distributed.
        spread: standard deviation of the logarithm of the variance of the read noise at one ISO.
        generator: source of randomness.

    Returns:
        Variance of the shot noise at full scale and standard deviation of the read noise, (1,) each.

    Reference:
        Unprocessing Images for Learned Raw Denoising, 2018, arXiv:1811.11127 (the distributions).
    """
    log_shot = noise.uniform(math.log(shot[0]), math.log(shot[1]), 1, generator)
    log_read_variance = 2.18 * log_shot + 1.2 + spread * torch.randn(1, generator=generator)
    return log_shot.exp(), (log_read_variance / 2).exp()


def film(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Add film grain of a random size.

    Args:
        x: clean patches, (B, 3, H, W), full scale 1.0.
        sigma: standard deviation of white noise, (B,).
        generator: source of randomness.

    Returns:
        Noisy patches, as `x`.
    """
    return noise.film_grain(x, _grain_sigma(sigma), _random_size(3.0, generator), generator)


def coarse(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Add noise that was enlarged with its image by a random factor.

    Args:
        x: clean patches, (B, 3, H, W), full scale 1.0.
        sigma: standard deviation of white noise, (B,).
        generator: source of randomness.

    Returns:
        Noisy patches, as `x`.
    """
    return noise.coarse(x, _grain_sigma(sigma), _random_size(4.0, generator), generator)


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


def white(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Add white noise.

    Args:
        x: clean patches, (B, 3, H, W), full scale 1.0.
        sigma: standard deviation of white noise, (B,).
        generator: source of randomness.

    Returns:
        Noisy patches, as `x`.
    """
    return noise.gaussian(x, sigma[:, None, None, None], generator)


def unequal(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Add white noise of another strength in each channel.

    Args:
        x: clean patches, (B, 3, H, W), full scale 1.0.
        sigma: standard deviation of white noise, (B,).
        generator: source of randomness.

    Returns:
        Noisy patches, as `x`.
    """
    factors = torch.exp(UNEQUAL_SPREAD * torch.randn(len(x), 3, 1, 1, generator=generator))
    return noise.gaussian(x, sigma[:, None, None, None] * factors, generator)


def uneven(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Add white noise whose strength depends on intensity or position.

    Args:
        x: clean patches, (B, 3, H, W), full scale 1.0.
        sigma: standard deviation where the noise is strongest, (B,).
        generator: source of randomness.

    Returns:
        Noisy patches, as `x`.
    """
    low, high = sigma * torch.rand(len(x), generator=generator), sigma
    if _happens(0.4, generator):
        field = noise.smooth_field(low, high, (x.shape[2], x.shape[3]), generator)
        return noise.position_dependent(x, field, generator)
    if _happens(0.5, generator):
        low, high = high, low
    return noise.intensity_dependent(x, low, high, log_uniform(0.4, 2.0, generator), generator)


def camera(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Add the noise of a camera sensor at a random ISO and exposure, as cameras of many kinds process it.

    Some have row noise, write linear light, leave out colours or demosaicking, reduce noise before or after the tone
    curve, or sharpen.

    Args:
        x: clean patches, (B, 3, H, W), full scale 1.0.
        sigma: not used.
        generator: source of randomness.

    Returns:
        Noisy patches, as `x`.
    """
    matrix, gains = noise.colour_matrices(len(x), generator), noise.white_balances(len(x), generator)
    if _happens(0.1, generator):
        matrix, gains = torch.eye(3).expand_as(matrix), torch.ones_like(gains)
    is_linear, has_tone_curve = _happens(0.08, generator), _happens(0.7, generator)
    rendering = noise.Rendering(matrix, gains, has_tone_curve, is_linear)
    inside = x.clamp(0, 1)
    raw = rendering.to_raw(inside)
    exposure = log_uniform(0.25, 1.0, generator) if _happens(0.4, generator) else 1.0
    added = _raw_noise(exposure * raw, generator) / exposure
    if _happens(0.85, generator):
        added = _demosaic(added, generator)
    if _happens(0.4, generator):
        added = _reduce_noise(added, generator)
    added = rendering.render(raw + added) - inside
    if _happens(0.35, generator):
        added = noise.sharpen(added, uniform(0.2, 1.5, generator), uniform(0.5, 1.3, generator))
    elif _happens(0.25, generator):
        added = _reduce_noise(added, generator)
    return x + added


def clean(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Add no noise.

    Args:
        x: clean patches, (B, 3, H, W), full scale 1.0.
        sigma: not used.
        generator: not used.

    Returns:
        `x`.
    """
    return x


Kind = Callable[[Tensor, Tensor, Generator], Tensor]
KINDS: dict[str, Kind] = {
    "sensor": sensor,
    "film": film,
    "coarse": coarse,
    "correlated": correlated,
    "unequal": unequal,
    "uneven": uneven,
    "camera": camera,
    "clean": clean,
    "white": white,
}
"""Kinds of noise by their names in `denoise.training.image_recipe.NOISE_KINDS`."""


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


def _raw_noise(raw: Tensor, generator: Generator) -> Tensor:
    """Return the noise of a sensor at a random ISO, sometimes with offsets of rows or columns, and bands of them."""
    shot, read = shot_and_read_noise(CAMERA_SHOT_NOISE, CAMERA_READ_SPREAD, generator)
    added = noise.shot_and_read(raw, shot, read, generator) - raw
    if not _happens(0.25, generator):
        return added
    is_columns = _happens(0.3, generator)
    added = added.transpose(2, 3) if is_columns else added
    added = noise.add_row_noise(added, uniform(0.05, 0.6, generator) * read, generator=generator)
    if _happens(0.4, generator):
        added = noise.add_row_noise(
            added, uniform(0.03, 0.4, generator) * read, uniform(1.0, 5.0, generator), generator
        )
    return added.transpose(2, 3) if is_columns else added


def _demosaic(x: Tensor, generator: Generator) -> Tensor:
    """Demosaic noise in a random phase of the mosaic."""
    top, left = torch.randint(2, (2,), generator=generator).tolist()
    return noise.demosaic(F.pad(x, (left, 0, top, 0), mode="reflect"))[:, :, top:, left:]


def _reduce_noise(x: Tensor, generator: Generator) -> Tensor:
    """Filter noise as the noise reduction of a camera of random strength does."""
    size, kept = log_uniform(0.7, 4.0, generator), uniform(0.0, 0.5, generator)
    luma_size, luma_kept = 0.0, 1.0
    if _happens(0.6, generator):
        luma_size, luma_kept = uniform(0.5, 1.2, generator), uniform(0.2, 0.9, generator)
    return noise.reduce_noise(x, chroma_size=size, chroma_kept=kept, luma_size=luma_size, luma_kept=luma_kept)


def _resized(x: Tensor, sigma: Tensor, kind: Kind, generator: Generator) -> Tensor:
    """Add noise of an image that was smaller or larger."""
    factor = uniform(*(ENLARGED if _happens(0.6, generator) else REDUCED), generator)
    mode: Literal["bilinear", "bicubic"] = "bicubic" if _happens(0.7, generator) else "bilinear"
    return noise.resized(x, factor, lambda before: kind(before, sigma, generator), mode)


def _random_jpeg(x: Tensor, quality_range: tuple[int, int], offsets: int, generator: Generator) -> Tensor:
    """Compress a patch, (3, H, W), full scale 1.0, with random quality, subsampling and position of the blocks."""
    quality = int(torch.randint(quality_range[0], quality_range[1] + 1, (), generator=generator))
    subsampling = 2 if _happens(HALF_CHROMA_FRACTION, generator) else 0
    top, left = 0, 0
    if _happens(CROPPED_FRACTION, generator):
        top, left = torch.randint(offsets, (2,), generator=generator).tolist()
    padded = F.pad(x[None], (left, 0, top, 0), mode="reflect")[0]
    return jpeg(_to_8_bits(padded), quality, subsampling)[:, top:, left:] / 255


def _to_8_bits(x: Tensor) -> Tensor:
    return (x * 255).round().clamp(0, 255).to(torch.uint8)


def _grain_sigma(sigma: Tensor) -> Tensor:
    return (GRAIN_SCALE * sigma).clamp_max(MAX_GRAIN)


def _random_size(largest: float, generator: Generator) -> float:
    return uniform(1.0, largest, generator)


def _probability(value: float | dict[str, float], kind: str) -> float:
    """Return a probability for one kind of noise."""
    return value.get(kind, 0.0) if isinstance(value, dict) else value


def _happens(probability: float, generator: Generator) -> bool:
    """Return whether a random event occurs; no random number is drawn for probability 0."""
    return probability > 0 and happens(probability, generator)
