"""Fully connected autoencoder for images of one small size."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.blocks import ACTIVATIONS
from denoise.nn.conditioning import check_sigma
from denoise.protocols import Support


@config
class DenseAEConfig:
    """Configuration of `DenseAE`.

    Args:
        shape: (channels, height, width), height and width equal.
        widths: units of the layers from the input to the latents.
        activation: of the hidden layers, key of `denoise.nn.blocks.ACTIVATIONS`.
        tanh: what a Tanh limits to -1 to 1, the latents or the output. The other one is linear.
        mean: mean of the pixels, which the network sees normalised, full scale 1.0.
        std: standard deviation of the pixels, full scale 1.0.
    """

    shape: tuple[int, int, int] = (3, 32, 32)
    widths: tuple[int, ...] = (512, 256, 64)
    activation: str = "elu"
    tanh: Literal["latents", "output"] = "latents"
    mean: float = 0.5
    std: float = 0.5

    def __post_init__(self) -> None:
        if not self.widths or not all(1 <= n <= 1 << 16 for n in (*self.shape, *self.widths)):
            raise ConfigError(f"shape is {self.shape}, widths {self.widths}; expected 1 to {1 << 16}.")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"activation is {self.activation!r}; expected one of {', '.join(ACTIVATIONS)}.")
        if self.shape[1] != self.shape[2]:
            raise ConfigError(f"shape is {self.shape}; expected a square.")
        if not 0 < self.std < math.inf or not math.isfinite(self.mean):
            raise ConfigError(f"mean is {self.mean}, std {self.std}; expected finite numbers, std of more than 0.")


class DenseAE(nn.Module):
    """Fully connected encoder and mirrored decoder of normalised pixels: a codec and a blind denoiser.

    Smaller tiles are padded by repeating their last row and column, and the output is cropped.

    Args:
        config: see `DenseAEConfig`.

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
        self.channels, self.window, _ = config.shape
        self.event_shape, self.latent_shape = torch.Size(config.shape), torch.Size(config.widths[-1:])
        self.support = Support(config.shape)
        sizes = [math.prod(config.shape), *config.widths]
        self.encoder = _build_mlp(sizes, config.activation, has_tanh=config.tanh == "latents")
        self.decoder = _build_mlp(sizes[::-1], config.activation, has_tanh=config.tanh == "output")

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of tiles, (batch, *config.shape) to (batch, widths[-1])."""
        return self.encoder(((x - self.config.mean) / self.config.std).flatten(1))

    def decode(self, z: Tensor) -> Tensor:
        """Return the tiles of latents, (batch, widths[-1]) to (batch, *config.shape)."""
        return self.config.std * self.decoder(z).unflatten(1, self.config.shape) + self.config.mean

    def likelihood(self, z: Tensor) -> Independent:
        """Return p(x|z), normal with unit variance of the normalised pixels: -log p is half their squared error.

        Args:
            z: latents, (batch, widths[-1]).
        """
        return Independent(Normal(self.decode(z), self.config.std, validate_args=False), 3)

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


def _build_mlp(sizes: list[int], activation: str, *, has_tanh: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1], *([nn.Tanh()] if has_tanh else []))
