"""The noise of a frame: patches -> first estimate -> residual of the conditioned network -> noise profile."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denoise.noise_level import estimate_sigma
from denoise.noise_profile import Denoise, NoiseProfile, estimate_noise_profile
from denoise.pipelines.precision import autocast, float_precision
from denoise.pipelines.transparency import fill_hidden
from denoise.protocols import Network
from denoise.registry import NOISE_MODEL, load
from denoise.signals import Image

PATCH = 96  # pixels
MAX_CANDIDATES = 64  # patches that the first estimate is made of
N_INTENSITIES, N_FLAT, N_USUAL = 3, 3, 1  # the network gets so many patches of each third of the intensities
MAX_EQUAL = 0.9  # of neighbouring pixels: more of them are clipped or drawn and tell nothing about the noise
N_UNIFORM, N_BY_INTENSITY = 3, 2  # steps of `estimate_noise_profile`
MIN_VISIBLE = 0.5  # of the pixels of a patch
MIN_ALIVE = 4  # patches, or else those without noise are kept

FrameNoise = tuple[NoiseProfile, ...]
"""Noise of each group of channels that a network takes together, see `channel_groups`."""


def channel_groups(channels: int) -> list[slice]:
    """Return the channels that a network takes together: the black ink of CMYK is a grey image of its own.

    Args:
        channels: 1, 3 or 4.
    """
    return [slice(0, 3), slice(3, 4)] if channels == 4 else [slice(0, channels)]


def uniform_noise(sigma: float, channels: int) -> FrameNoise:
    """Return white noise of one strength.

    Args:
        sigma: standard deviation, full scale 1.0.
        channels: of the frame: 1, 3 or 4.
    """
    return tuple(NoiseProfile.uniform(sigma, len(range(channels)[group])) for group in channel_groups(channels))


def to_network(
    x: Tensor, noise: NoiseProfile | None, network: Network, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Turn images and their noise into the inputs of a network.

    Grey images are repeated for networks of three channels, and colours are put along the batch for those of one.

    Args:
        x: (batch, 1 or 3, height, width).
        noise: its noise, of as many channels; None for blind networks.
        network: denoiser.
        device: where it runs.

    Returns:
        Images with the network's channels on the device, and its sigma: maps, one number per image, or None.
    """
    maps = None if noise is None or network.sigma_maps == 1 else noise.maps(x)
    images, sigma = _with_channels(x, maps, network.channels)
    if noise is not None and maps is None:
        sigma = torch.full((len(images),), noise.mean_sigma)
    return _on_device(images, sigma, device)


@torch.inference_mode()
def estimate_noise(image: Image, device: torch.device, precision: str, *, by_intensity: bool = True) -> FrameNoise:
    """Estimate the noise of a frame, whatever network denoises it.

    Args:
        image: noisy frame, full scale about 1.0 if in floats.
        device: where the network runs.
        precision: as of `denoise.pipelines.image.ImagePipeline`.
        by_intensity: whether the noise may depend on intensity; without, the estimate takes a third of the time.

    Returns:
        Noise profile of each group of channels, full scale 1.0.

    Reference:
        See `denoise.noise_profile.estimate_noise_profile`.
    """
    network = _noise_network(device)

    def denoise(x: Tensor, maps: Tensor) -> Tensor:
        inputs = _on_device(*_with_channels(x, maps, network.channels), device)
        with autocast(device, float_precision(precision, device)):
            y = network(*inputs).float().cpu()
        return y.mean(dim=1, keepdim=True) if x.shape[1] < y.shape[1] else y

    candidates = _candidates(image)
    channels = image.pixels.shape[2]
    if candidates is None:
        return uniform_noise(0.0, channels)
    n_steps = N_UNIFORM + (N_BY_INTENSITY if by_intensity else 0)
    return tuple(_estimate_group(candidates[:, group], denoise, n_steps) for group in channel_groups(channels))


def _estimate_group(candidates: Tensor, denoise: Denoise, n_steps: int) -> NoiseProfile:
    """Noise profile of (n, channels, height, width), channels 1 or 3."""
    channels = candidates.shape[1]
    if channels > 1 and bool((candidates == candidates[:, :1]).all()):  # grey: the noise of all channels is the same
        profile = _estimate_group(candidates[:, :1], denoise, n_steps)
        return NoiseProfile(profile.levels.expand(channels, -1), profile.sigma.repeat_interleave(channels, dim=0))
    montage = _montage(candidates)
    sigma = estimate_sigma(montage)
    coarse_sigma = 2 * estimate_sigma(torch.nn.functional.avg_pool2d(montage, 2)) if min(montage.shape[1:]) > 1 else 0.0
    return estimate_noise_profile(_pick(candidates), denoise, sigma, coarse_sigma, n_steps=n_steps, n_uniform=N_UNIFORM)


def _candidates(image: Image) -> Tensor | None:
    """Patches from all over a frame, (n, channels, height, width), full scale 1.0; None if no pixel is visible."""
    top, left, height, width = 0, 0, *image.pixels.shape[:2]
    if image.visible is not None and image.visible.any():
        rows, columns = (np.flatnonzero(image.visible.any(axis=axis)) for axis in (1, 0))
        top, left = int(rows[0]), int(columns[0])
        height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
    sides = min(PATCH, height), min(PATCH, width)
    starts = [(top + i, left + j) for i in _starts(height, sides[0]) for j in _starts(width, sides[1])]
    if len(starts) > MAX_CANDIDATES:
        order = torch.randperm(len(starts), generator=torch.Generator().manual_seed(0))
        starts = [starts[i] for i in order]
    patches: list[NDArray[Any]] = []
    partial: list[tuple[float, NDArray[Any]]] = []  # mostly hidden: they count where there is nothing better
    for i, j in starts:
        box = (slice(i, i + sides[0]), slice(j, j + sides[1]))
        x = np.moveaxis(Image(image.pixels[box]).as_float().pixels, -1, 0)
        if image.visible is not None:
            visible = image.visible[box]
            if not visible.any():
                continue
            x, visible_fraction = fill_hidden(x, visible), float(visible.mean())
            if visible_fraction < MIN_VISIBLE:
                partial.append((visible_fraction, x))
                continue
        patches.append(x)
        if len(patches) == MAX_CANDIDATES:
            break
    if not patches:
        patches = [x for _, x in sorted(partial, key=lambda pair: -pair[0])[:MIN_ALIVE]]
    return torch.from_numpy(np.stack(patches)) if patches else None


def _starts(size: int, side: int) -> list[int]:
    """Begin of windows that cover an axis."""
    n = -(-size // side)
    return [round(i * (size - side) / max(1, n - 1)) for i in range(n)]


def _montage(patches: Tensor) -> Tensor:
    """Patches side by side, (channels, rows * height, columns * width)."""
    columns = max(1, round(len(patches) ** 0.5))
    rows = len(patches) // columns
    grid = patches[: rows * columns].unflatten(0, (rows, columns))
    return grid.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)


def _pick(patches: Tensor) -> Tensor:
    """The patches that tell most about the noise: smooth ones and usual ones of all intensities."""
    grey = patches.mean(dim=1)
    if len(patches) <= N_INTENSITIES * (N_FLAT + N_USUAL) or min(grey.shape[1:]) < 2:
        return patches
    equal = (patches[..., 1:] == patches[..., :-1]).float().mean(dim=(1, 2, 3))
    alive = (equal < MAX_EQUAL).nonzero()[:, 0]
    alive = alive if len(alive) >= MIN_ALIVE else torch.arange(len(patches))
    detail = grey[:, 1:, 1:] - grey[:, 1:, :-1] - grey[:, :-1, 1:] + grey[:, :-1, :-1]
    roughness = detail.abs().mean(dim=(1, 2))
    by_intensity = alive[grey.mean(dim=(1, 2))[alive].argsort()]
    ranked = [part[roughness[part].argsort()] for part in by_intensity.tensor_split(N_INTENSITIES)]
    flat = [part[i] for i in range(N_FLAT) for part in ranked if len(part) > i]
    usual = [part[len(part) // 2] for part in ranked if len(part) > 2 * N_FLAT]
    return patches[torch.stack([*flat, *usual])]


def _with_channels(x: Tensor, maps: Tensor | None, channels: int) -> tuple[Tensor, Tensor | None]:
    """Images (batch, 1 or 3, height, width) and maps of twice as many channels, for a network of 1 or 3 channels."""
    if x.shape[1] == channels:
        return x, maps
    if x.shape[1] == 1:
        return x.expand(-1, channels, -1, -1), None if maps is None else maps.repeat_interleave(channels, dim=1)
    if maps is not None:
        maps = maps.unflatten(1, (2, x.shape[1])).transpose(1, 2).flatten(0, 1)
    return x.reshape(-1, 1, *x.shape[2:]), maps


def _on_device(images: Tensor, sigma: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor | None]:
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    return images, None if sigma is None else sigma.to(device)


@cache
def _noise_network(device: torch.device) -> Network:
    return load(NOISE_MODEL, kind="denoiser", modality="image")[0].to(device)
