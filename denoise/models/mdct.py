"""Orthonormal transform of audio to real time-frequency coefficients, as a codec without weights."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError


@config
class MDCTConfig:
    """Configuration of `MDCT`.

    Args:
        time: samples of one signal, a multiple of ``bins``.
        bins: coefficients of each frame; a frame is ``2 * bins`` samples, ``bins`` after the previous one.
        layout: ``"map"`` of one channel, (1, bins, frames), for two-dimensional networks, or ``"channels"``, (bins,
            frames), for one-dimensional ones.
    """

    time: int
    bins: int = 256
    layout: Literal["map", "channels"] = "map"

    def __post_init__(self) -> None:
        if not (1 <= self.bins <= 1 << 10 and 1 <= self.time <= 1 << 24) or self.time % self.bins:
            raise ConfigError(f"time is {self.time}, bins {self.bins}; expected 1 to 1024 bins, time a multiple.")


class MDCT(nn.Module):
    """Modified discrete cosine transform with a sine window, of signals that are continued periodically.

    It is orthonormal: white noise stays white noise of the same sigma, so that a denoiser of the coefficients is a
    denoiser of signals.

    Args:
        config: see `MDCTConfig`.

    Reference:
        Subband/Transform Coding Using Filter Bank Designs Based on Time Domain Aliasing Cancellation,
        Princen, Johnson and Bradley, 1987.
    """

    orthonormal: Literal[True] = True
    basis: Tensor

    def __init__(self, config: MDCTConfig) -> None:
        super().__init__()
        self.config = config
        self.event_shape, self.size_multiple = torch.Size([1, config.time]), config.bins
        n, frames = config.bins, config.time // config.bins
        self.latent_shape = torch.Size((1, n, frames) if config.layout == "map" else (n, frames))
        time = torch.arange(2 * n, dtype=torch.float64) + 0.5
        frequency = torch.arange(n, dtype=torch.float64) + 0.5
        window = torch.sin(math.pi / (2 * n) * time)
        basis = (2 / n) ** 0.5 * torch.cos(math.pi / n * frequency[:, None] * (time + n / 2)) * window
        self.register_buffer("basis", basis.float(), persistent=False)  # (bins, 2 * bins)

    def encode(self, x: Tensor) -> Tensor:
        """Return the coefficients of signals, (batch, 1, time) to (batch, *latent_shape)."""
        hops = x[:, 0].float().unflatten(1, (-1, self.config.bins))
        frames = torch.cat([hops, hops.roll(-1, dims=1)], dim=2)
        with torch.autocast(x.device.type, enabled=False):  # in bfloat16 the transform would not be invertible
            return (frames @ self.basis.T).transpose(1, 2).unflatten(1, self.latent_shape[:-1])

    def decode(self, z: Tensor) -> Tensor:
        """Return the signals of coefficients, (batch, *latent_shape) to (batch, 1, time)."""
        with torch.autocast(z.device.type, enabled=False):
            first_half, second_half = (z.flatten(1, -2).transpose(1, 2).float() @ self.basis).chunk(2, dim=2)
        return (first_half + second_half.roll(1, dims=1)).flatten(1)[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Return signals unchanged except for rounding, (batch, 1, time) to the same shape."""
        return self.decode(self.encode(x))
