"""Fully connected autoencoder for images of one small size."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.blocks import ACTIVATIONS
from denoise.nn.conditioning import check_sigma


@config
class DenseAEConfig:
    """Configuration of `DenseAE`.

    Args:
        shape: (channels, height, width), height and width equal.
        widths: units of the layers from the input to the latents.
        activation: key of `denoise.nn.blocks.ACTIVATIONS`.
    """

    shape: tuple[int, int, int] = (3, 32, 32)
    widths: tuple[int, ...] = (1024, 512, 128)
    activation: str = "elu"

    def __post_init__(self) -> None:
        if not self.widths or not all(1 <= n <= 1 << 16 for n in (*self.shape, *self.widths)):
            raise ConfigError(f"shape is {self.shape}, widths {self.widths}; expected 1 to {1 << 16}.")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"activation is {self.activation!r}; expected one of {', '.join(ACTIVATIONS)}.")


class DenseAE(nn.Module):
    """Fully connected encoder and mirrored decoder, with a tanh output.

    Pixels from 0 to 1 are mapped to [-1, 1] for the network and back. Smaller tiles are padded by repeating their last
    row and column, and the output is cropped.

    Args:
        config: see `DenseAEConfig`.

    Raises:
        ConfigError: the shape is not square.

    Reference:
        Reducing the Dimensionality of Data with Neural Networks, Hinton and Salakhutdinov, 2006;
        ELU: Fast and Accurate Deep Network Learning, 2015, arXiv:1511.07289.
    """

    ndim = 2
    blind = True
    variational = False
    sigma_maps = 1
    size_multiple = 1
    context = 0

    def __init__(self, config: DenseAEConfig) -> None:
        super().__init__()
        self.config = config
        self.channels, height, width = config.shape
        if height != width:
            raise ConfigError(f"shape is {config.shape}; expected a square.")
        self.window = height
        self.event_shape, self.latent_shape = torch.Size(config.shape), torch.Size(config.widths[-1:])
        sizes = [math.prod(config.shape), *config.widths]
        self.encoder = _build_mlp(sizes, config.activation)
        self.decoder = _build_mlp(sizes[::-1], config.activation)

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of tiles, (batch, *config.shape) to (batch, widths[-1])."""
        return self.encoder((2 * x - 1).flatten(1))

    def decode(self, z: Tensor) -> Tensor:
        """Return the tiles of latents, (batch, widths[-1]) to (batch, *config.shape)."""
        return (torch.tanh(self.decoder(z)).unflatten(1, self.config.shape) + 1) / 2

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Denoise tiles.

        Args:
            x: noisy tiles, (batch, channels, up to height, up to width), full scale 1.0.
            sigma: must be None, as the network is blind.

        Returns:
            Denoised tiles of the shape of ``x``.

        Raises:
            ConfigError: sigma is given, or the tiles are too large.
        """
        check_sigma(sigma, blind=self.blind)
        height, width = x.shape[2:]
        if max(height, width) > self.window:
            raise ConfigError(f"x is {height}x{width}; this model takes at most {self.window}x{self.window}.")
        padded = nn.functional.pad(x, (0, self.window - width, 0, self.window - height), mode="replicate")
        return self.decode(self.encode(padded))[..., :height, :width].to(x.dtype)


def _build_mlp(sizes: list[int], activation: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])
