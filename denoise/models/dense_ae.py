"""The fully connected autoencoder for images of one small size."""

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
    """``shape`` is (channels, height, width); ``widths`` the layers from the input down to the latents."""

    shape: tuple[int, int, int] = (3, 32, 32)
    widths: tuple[int, ...] = (1024, 512, 128)
    activation: str = "elu"

    def __post_init__(self) -> None:
        if not self.widths or not all(1 <= n <= 1 << 16 for n in (*self.shape, *self.widths)):
            raise ConfigError(f"shape {self.shape} and widths {self.widths} must be 1 to {1 << 16}.")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"activation is {self.activation!r}; expected one of {', '.join(ACTIVATIONS)}.")


class DenseAE(nn.Module):
    """Fully connected encoder and mirrored decoder with ELU between and Tanh at the end.

    Pixels in [0, 1] are mapped to [-1, 1] for the network and back. A tile that is smaller than
    ``shape`` is padded by repeating its last row and column, and the result is cut back.

    Shape:
        x, returns: (batch, channels, up to height, up to width); sigma is refused, the model is blind.
        z: (batch, widths[-1]).
    Reference:
        Reducing the Dimensionality of Data with Neural Networks, Hinton and Salakhutdinov, 2006;
        ELU: Fast and Accurate Deep Network Learning, 2015, arXiv:1511.07289.
    """

    ndim = 2
    blind = True
    size_multiple = 1
    context = 0

    def __init__(self, config: DenseAEConfig) -> None:
        super().__init__()
        self.config = config
        self.channels, height, width = config.shape
        if height != width:
            raise ConfigError(f"shape is {config.shape}; expected a square.")
        self.window = height
        sizes = [math.prod(config.shape), *config.widths]
        self.encoder = _mlp(sizes, config.activation)
        self.decoder = _mlp(sizes[::-1], config.activation)

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder((2 * x - 1).flatten(1))

    def decode(self, z: Tensor) -> Tensor:
        return (torch.tanh(self.decoder(z)).unflatten(1, self.config.shape) + 1) / 2

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        check_sigma(sigma, blind=self.blind)
        height, width = x.shape[2:]
        if max(height, width) > self.window:
            raise ConfigError(f"x is {height}x{width}; this model takes at most {self.window}x{self.window}.")
        padded = nn.functional.pad(x, (0, self.window - width, 0, self.window - height), mode="replicate")
        return self.decode(self.encode(padded))[..., :height, :width].to(x.dtype)


def _mlp(sizes: list[int], activation: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])
