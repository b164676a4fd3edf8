"""Sounds as real spectra of as many numbers by an orthonormal transform: noise that is white here is white there."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError


@config
class MDCTConfig:
    """Sounds of ``time`` samples in frames of ``2 * bins`` samples every ``bins``."""

    time: int
    bins: int = 256

    def __post_init__(self) -> None:
        if not (1 <= self.bins <= 1 << 10 and 1 <= self.time <= 1 << 24) or self.time % self.bins:
            raise ConfigError(f"time is {self.time}, bins {self.bins}; expected 1 to 1024 bins, time a multiple.")


class MDCT(nn.Module):
    """The modified discrete cosine transform with a sine window, orthonormal because circular: after the end
    comes the beginning.

    As it keeps distances, a prior that denoises its coefficients is one that denoises sounds, at the same sigma.

    Shape:
        x: (batch, 1, time); z: (batch, 1, bins, time / bins).
    Reference:
        Subband/Transform Coding Using Filter Bank Designs Based on Time Domain Aliasing Cancellation,
        Princen, Johnson and Bradley, 1987.
    """

    orthonormal = True
    basis: Tensor

    def __init__(self, config: MDCTConfig) -> None:
        super().__init__()
        self.config = config
        self.event_shape, self.size_multiple = torch.Size([1, config.time]), config.bins
        self.latent_shape = torch.Size([1, config.bins, config.time // config.bins])
        n = config.bins
        exact: Any = {"dtype": torch.float64, "device": "cpu"}  # even while weights are but shapes
        at, bins = torch.arange(2 * n, **exact) + 0.5, torch.arange(n, **exact) + 0.5
        window = torch.sin(math.pi / (2 * n) * at)
        basis = (2 / n) ** 0.5 * torch.cos(math.pi / n * bins[:, None] * (at + n / 2)) * window
        self.register_buffer("basis", basis.float(), persistent=False)  # (bins, 2 * bins)

    def encode(self, x: Tensor) -> Tensor:
        """The coefficients of sounds."""
        hops = x[:, 0].float().unflatten(1, (-1, self.config.bins))
        frames = torch.cat([hops, hops.roll(-1, dims=1)], dim=2)
        with torch.autocast(x.device.type, enabled=False):  # what is rounded is no longer the same sound
            return (frames @ self.basis.T).transpose(1, 2)[:, None]

    def decode(self, z: Tensor) -> Tensor:
        """The sounds of coefficients."""
        with torch.autocast(z.device.type, enabled=False):
            early, late = (z[:, 0].transpose(1, 2).float() @ self.basis).chunk(2, dim=2)
        return (early + late.roll(1, dims=1)).flatten(1)[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """The sounds as they were."""
        return self.decode(self.encode(x))
