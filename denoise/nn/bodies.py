"""Encoders and decoders of autoencoders: fully connected or convolutional, for audio and images."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from torch import nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.blocks import ACTIVATIONS, CONV, CONV_TRANSPOSE, ResidualBlock, patch_conv, unpatch_conv


@config
class BodyConfig:
    """Configuration of the encoder and the mirrored decoder of an autoencoder.

    Args:
        kind: ``"dense"`` for fully connected layers, ``"conv"`` for convolutions.
        widths: units of the hidden layers (dense), or channels at resolutions that are halved each time (conv).
        blocks: residual blocks at each resolution.
        patch: side of the squares (or length of the pieces) that are one position of the first resolution.
        spatial: whether there is a latent vector at each position of the last resolution, so that signals of any size
            are accepted, in place of one for the whole signal.
        activation: key of `denoise.nn.blocks.ACTIVATIONS`.
    """

    kind: Literal["dense", "conv"] = "dense"
    widths: tuple[int, ...] = (64, 32)
    blocks: int = 1
    patch: int = 1
    spatial: bool = False
    activation: str = "elu"

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1 or max(self.widths) > 1 << 14 or not 0 <= self.blocks <= 100:
            raise ConfigError(
                f"widths are {self.widths}, blocks {self.blocks}; expected widths of 1 to {1 << 14}, blocks up to 100."
            )
        if not 1 <= self.patch <= 64:
            raise ConfigError(f"patch is {self.patch}; expected 1 to 64.")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"activation is {self.activation!r}; expected one of {', '.join(ACTIVATIONS)}.")
        if self.spatial and self.kind == "dense":
            raise ConfigError("a dense body has one latent vector for the whole signal; leave spatial out or use conv.")


def build_encoder(config: BodyConfig, shape: tuple[int, ...], features: int) -> nn.Module:
    """Build an encoder.

    Args:
        config: layers of the encoder.
        shape: shape of one signal, (channels, *space).
        features: numbers per latent vector.

    Returns:
        Module from (batch, *shape) to (batch, features), or (batch, features, *coarse) if spatial.

    Raises:
        ConfigError: the shape does not fit the configuration.
    """
    activation = ACTIVATIONS[config.activation]
    if config.kind == "dense":
        sizes = [math.prod(shape), *config.widths]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), activation())]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], features))
    ndim, width = _ndim(shape), config.widths[-1]
    layers = [patch_conv(ndim, shape[0], config.widths[0], config.patch), *_blocks(config, ndim, config.widths[0])]
    for a, b in zip(config.widths, config.widths[1:], strict=False):
        layers += [activation(), CONV[ndim](a, b, 4, stride=2, padding=1), *_blocks(config, ndim, b)]
    if config.spatial:
        return nn.Sequential(*layers, activation(), CONV[ndim](width, features, 1))
    positions = math.prod(_coarse_size(config, shape))
    return nn.Sequential(*layers, activation(), nn.Flatten(), nn.Linear(width * positions, features))


def build_decoder(config: BodyConfig, shape: tuple[int, ...], features: int, outputs: int) -> nn.Module:
    """Build a decoder, the mirror of the encoder of `build_encoder`.

    Args:
        config: layers of the encoder.
        shape: shape of one signal, (channels, *space).
        features: numbers per latent vector.
        outputs: channels of the output.

    Returns:
        Module from (batch, features), or (batch, features, *coarse) if spatial, to (batch, outputs, *space).

    Raises:
        ConfigError: the shape does not fit the configuration.
    """
    activation = ACTIVATIONS[config.activation]
    if config.kind == "dense":
        sizes = [features, *reversed(config.widths)]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), activation())]
        event = (outputs, *shape[1:])
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], math.prod(event)), nn.Unflatten(1, event))
    ndim, width = _ndim(shape), config.widths[-1]
    layers: list[nn.Module]
    if config.spatial:
        layers = [CONV[ndim](features, width, 1)]
    else:
        coarse = _coarse_size(config, shape)
        layers = [nn.Linear(features, width * math.prod(coarse)), nn.Unflatten(1, (width, *coarse))]
    layers += _blocks(config, ndim, width)
    for a, b in zip(config.widths[::-1], config.widths[-2::-1], strict=False):
        layers += [activation(), CONV_TRANSPOSE[ndim](a, b, 4, stride=2, padding=1), *_blocks(config, ndim, b)]
    return nn.Sequential(*layers, activation(), unpatch_conv(ndim, config.widths[0], outputs, config.patch))


def size_multiple(config: BodyConfig) -> int:
    """Return the number that the size of each axis of a signal must be a multiple of."""
    return config.patch << (len(config.widths) - 1) if config.kind == "conv" else 1


def _blocks(config: BodyConfig, ndim: int, width: int) -> list[nn.Module]:
    return [
        ResidualBlock(ndim, width, dilation=1, bias=True, activation=config.activation, norm=False)
        for _ in range(config.blocks)
    ]


def _ndim(shape: tuple[int, ...]) -> int:
    if len(shape) not in (2, 3):
        raise ConfigError(f"shape is {shape}; a conv body expects (channels, *space) of one or two axes of space.")
    return len(shape) - 1


def _coarse_size(config: BodyConfig, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size of the last resolution."""
    multiple = size_multiple(config)
    if any(n % multiple for n in shape[1:]):
        raise ConfigError(
            f"shape is {shape}; expected sizes that are multiples of {multiple}: patches of {config.patch}, "
            f"halved {len(config.widths) - 1} times."
        )
    return tuple(n // multiple for n in shape[1:])
