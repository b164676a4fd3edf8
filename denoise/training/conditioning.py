"""Maps of sigma that networks are conditioned on in training: those of the true noise, with the errors of estimates."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from denoise import noise
from denoise.noise_profile import NoiseProfile, coarse_part, local_mean
from denoise.training.chance import happens, log_uniform, uniform
from denoise.training.image_recipe import Conditioning

MapKind = Literal["uniform", "local", "intensity"]

N_LEVELS, SEEN_SIDE = 8, 7  # intensities of a curve, and pixels of the windows whose mean is looked up
WINDOWS = (13, 39)  # pixels: smallest and largest side of the windows of local maps
COMMON_FRACTION = 0.1  # of the maps: all channels have those of their mean power
GOOD_FRACTION, GOOD_ERROR = 0.5, 0.15  # of the maps, and their error as a fraction of the largest one
SEPARATE_FRACTION, SEPARATE_ERROR = 0.5, 0.4  # of the others: standard deviation of the error of each map
FLOOR_FRACTION, ZERO_FLOOR_FRACTION, FLOOR_SPREAD = 0.3, 0.3, 0.2
TOO_LOW = (0.15, 1.0)  # factor of the noise of JPEG
TOO_HIGH = (2 / 255, 60 / 255)  # sigma of structure


def sigma_maps(noisy: Tensor, clean: Tensor, kind: MapKind, window: int = 25) -> Tensor:
    """Return maps of the true noise of an image: its standard deviation, and that of means of 2 x 2 pixels, times 2.

    Args:
        noisy: noisy image, (C, H, W).
        clean: clean image, (C, H, W).
        kind: ``"uniform"`` for one number for each channel, ``"local"`` for local means of the power, ``"intensity"``
            for the mean power of pixels of similar intensity.
        window: side of the windows of local means, an odd number of pixels.

    Returns:
        (2 C, H, W), in the units of the image.
    """
    x, error = noisy[None].numpy(), (noisy - clean)[None].numpy()
    power = np.square(np.concatenate([error, coarse_part(error)], axis=1))
    if kind == "uniform":
        maps = np.sqrt(power.mean(axis=(2, 3), keepdims=True))
    elif kind == "local":
        maps = np.sqrt(local_mean(local_mean(power, window), window // 2 | 1).clip(0))
    else:
        maps = _profile(local_mean(x, SEEN_SIDE)[0], power[0]).maps(x)
    return torch.tensor(maps[0]).expand(-1, *noisy.shape[1:])


def draw_sigma_maps(
    noisy: Tensor,
    clean: Tensor,
    s: Conditioning,
    generator: Generator,
    *,
    kind: str = "white",
    is_jpeg: bool = False,
    is_texture: bool = False,
) -> Tensor:
    """Draw maps of sigma as an estimate might be: those of the true noise, with errors.

    Args:
        noisy: noisy image, (C, H, W).
        clean: clean image, (C, H, W).
        s: probabilities and sizes of the errors.
        generator: source of randomness.
        kind: kind of the noise, a name in `denoise.training.image_recipe.NOISE_KINDS`; in ``"clean"`` images, a floor
            is found.
        is_jpeg: whether the image was stored as JPEG, which makes noise sparse, so that estimates of it are too low.
        is_texture: whether the image is a texture, whose structure is taken for noise more often.

    Returns:
        (2 C, H, W), in the units of the image.
    """
    u = float(torch.rand((), generator=generator))
    map_kind: MapKind = "uniform" if u < s.uniform else "local" if u < s.uniform + s.local else "intensity"
    window = int(torch.randint(WINDOWS[0] // 2, WINDOWS[1] // 2 + 1, (), generator=generator)) * 2 + 1
    maps = sigma_maps(noisy, clean, map_kind, window)
    if happens(COMMON_FRACTION, generator):
        maps = torch.cat([_mean_power(half).expand_as(half) for half in maps.chunk(2)]).sqrt()
    maps = maps * _relative_error(len(maps), s.max_error, generator)
    is_clean = kind == "clean" and not is_jpeg
    if is_jpeg and kind != "clean" and happens(s.too_low_jpeg, generator):
        return maps * log_uniform(*TOO_LOW, generator)
    if happens(s.too_high_textures if is_texture else s.too_high, generator):
        level = log_uniform(*TOO_HIGH, generator)
        return maps.clamp_min(level) if happens(0.5, generator) else (maps.square() + level**2).sqrt()
    if is_clean or happens(FLOOR_FRACTION, generator):
        floor = 0.0 if happens(ZERO_FLOOR_FRACTION, generator) else uniform(0, s.floor, generator)
        spread = torch.exp(FLOOR_SPREAD * torch.randn(len(maps), 1, 1, generator=generator))
        maps = (maps.square() + (floor * spread).clamp_max(s.floor).square()).sqrt()
    return maps


def _profile(seen: NDArray[Any], power: NDArray[Any]) -> NoiseProfile:
    """Return the mean power of the pixels near each of `N_LEVELS` intensities, as a profile.

    Args:
        seen: local means of the noisy image, (C, H, W).
        power: squared noise, and that of means of 2 x 2 pixels, (2 C, H, W).
    """
    values = seen.reshape(len(seen), -1)
    quantiles = (np.arange(N_LEVELS) + 0.5) / N_LEVELS
    levels = np.quantile(values[:, :: max(1, values.shape[1] // 4096)], quantiles, axis=1).T.astype(np.float32)
    rows = []
    for i, channel_power in enumerate(power.reshape(len(power), -1)):
        channel = i % len(levels)
        middles = (levels[channel, 1:] + levels[channel, :-1]) / 2
        nearest = np.searchsorted(middles, values[channel])
        count = np.bincount(nearest, minlength=N_LEVELS)
        total = np.bincount(nearest, channel_power, N_LEVELS)
        rows.append(np.where(count > 0, total / count.clip(1), channel_power.mean()))
    return NoiseProfile(levels, np.sqrt(np.stack(rows)).astype(np.float32))


def _relative_error(n: int, max_error: float, generator: Generator) -> Tensor:
    """Return factors of maps, (n, 1, 1)."""
    is_good = happens(GOOD_FRACTION, generator)
    bound = GOOD_ERROR * max_error if is_good else max_error
    error = noise.uniform(-bound, bound, 1, generator).expand(n)
    if not is_good and happens(SEPARATE_FRACTION, generator):
        error = error + SEPARATE_ERROR * max_error * torch.randn(n, generator=generator)
    return error.exp()[:, None, None]


def _mean_power(maps: Tensor) -> Tensor:
    return maps.square().mean(dim=0, keepdim=True)
