"""Encoders and decoders of autoencoders: fully connected or convolutional, for sound and pictures alike."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from torch import nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.blocks import ACTIVATIONS, CONV, CONV_TRANSPOSE, ResidualBlock, into_patches, out_of_patches


@config
class BodyConfig:
    """``dense``: hidden layers of ``widths`` units. ``conv``: entry i of ``widths`` at a resolution halved i times,
    beginning with squares (or pieces) of ``patch`` a side as one position.

    Each resolution has ``blocks`` residual blocks. The latent of a dense body is a vector; that of a
    convolutional one too, through one full layer, unless it is ``spatial``: then it has a vector at each
    coarse position, and signals of any size are taken.
    """

    kind: Literal["dense", "conv"] = "dense"
    widths: tuple[int, ...] = (64, 32)
    blocks: int = 1
    patch: int = 1
    spatial: bool = False
    activation: str = "elu"

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1 or max(self.widths) > 1 << 14 or not 0 <= self.blocks <= 100:
            raise ConfigError(f"widths are {self.widths}, blocks {self.blocks}; expected at least 1 and 0.")
        if not 1 <= self.patch <= 64:
            raise ConfigError(f"patch is {self.patch}; expected 1 to 64.")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"activation is {self.activation!r}; expected one of {', '.join(ACTIVATIONS)}.")
        if self.spatial and self.kind == "dense":
            raise ConfigError("a dense body has one latent for the whole signal; spatial is for conv.")


def encoder(c: BodyConfig, shape: tuple[int, ...], features: int) -> nn.Module:
    """A network from events to ``features`` numbers, each coarse position its own ones if spatial.

    Shape:
        maps (batch, *shape) to (batch, features) or (batch, features, *coarse).
    """
    act = ACTIVATIONS[c.activation]
    if c.kind == "dense":
        sizes = [math.prod(shape), *c.widths]
        layers = [layer for a, b in zip(sizes, c.widths, strict=False) for layer in (nn.Linear(a, b), act())]
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(sizes[-1], features))
    ndim = _ndim(shape)
    layers = [into_patches(ndim, shape[0], c.widths[0], c.patch), *_blocks(c, ndim, c.widths[0])]
    for a, b in zip(c.widths, c.widths[1:], strict=False):
        layers += [act(), CONV[ndim](a, b, 4, stride=2, padding=1), *_blocks(c, ndim, b)]
    if c.spatial:
        return nn.Sequential(*layers, act(), CONV[ndim](c.widths[-1], features, 1))
    return nn.Sequential(*layers, act(), nn.Flatten(), nn.Linear(c.widths[-1] * math.prod(_coarse(c, shape)), features))


def decoder(c: BodyConfig, shape: tuple[int, ...], features: int, outputs: int) -> nn.Module:
    """The mirror of `encoder`, to ``outputs`` channels.

    Shape:
        maps (batch, features) or (batch, features, *coarse) to (batch, outputs, *shape[1:]).
    """
    act = ACTIVATIONS[c.activation]
    if c.kind == "dense":
        sizes = [features, *reversed(c.widths)]
        layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), act())]
        event = (outputs, *shape[1:])
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(sizes[-1], math.prod(event)), nn.Unflatten(1, event))
    ndim, last = _ndim(shape), c.widths[-1]
    if c.spatial:
        layers = [CONV[ndim](features, last, 1)]
    else:
        coarse = _coarse(c, shape)
        layers = [nn.Linear(features, last * math.prod(coarse)), nn.Unflatten(1, (last, *coarse))]
    layers += _blocks(c, ndim, last)
    for a, b in zip(c.widths[::-1], c.widths[-2::-1], strict=False):
        layers += [act(), CONV_TRANSPOSE[ndim](a, b, 4, stride=2, padding=1), *_blocks(c, ndim, b)]
    return nn.Sequential(*layers, act(), out_of_patches(ndim, c.widths[0], outputs, c.patch))


def size_multiple(c: BodyConfig) -> int:
    """What sizes must be a multiple of."""
    return c.patch << (len(c.widths) - 1) if c.kind == "conv" else 1


def _blocks(c: BodyConfig, ndim: int, width: int) -> list[nn.Module]:
    return [
        ResidualBlock(ndim, width, dilation=1, bias=True, activation=c.activation, norm=False) for _ in range(c.blocks)
    ]


def _ndim(shape: tuple[int, ...]) -> int:
    if len(shape) not in (2, 3):
        raise ConfigError(f"a conv body needs (channels, *space); the shape is {shape}.")
    return len(shape) - 1


def _coarse(c: BodyConfig, shape: tuple[int, ...]) -> tuple[int, ...]:
    multiple = size_multiple(c)
    if any(n % multiple for n in shape[1:]):
        raise ConfigError(
            f"the sizes of {shape} must be multiples of {multiple}: patches of {c.patch}, "
            f"halved {len(c.widths) - 1} times."
        )
    return tuple(n // multiple for n in shape[1:])
