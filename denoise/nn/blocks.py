"""Building blocks that are the same in one and two dimensions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from denoise.nn.winograd import Conv3x3

CONV = {1: nn.Conv1d, 2: nn.Conv2d}
CONV_TRANSPOSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "mish": nn.Mish,
    "relu": partial(nn.ReLU, inplace=True),  # half the memory of a block
    "elu": nn.ELU,
}


Layer = TypeVar("Layer", bound=nn.Module)


def zero_init(layer: Layer) -> Layer:
    """Let a layer give nothing until it has learnt something: what it adds is nothing at first."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


def added(x: Tensor, y: Tensor) -> Tensor:
    """``x + y``, in the memory of x where no gradient may want that: fresh pages cost as much as the adding."""
    return x + y if torch.is_grad_enabled() or x.dtype != y.dtype else x.add_(y)


def into_patches(ndim: int, channels: int, width: int, patch: int) -> nn.Module:
    """The convolution that makes squares (or pieces) of ``patch`` a side one position; `out_of_patches` mirrors it."""
    return CONV[ndim](channels, width, patch + 2, stride=patch, padding=1)


def out_of_patches(ndim: int, width: int, channels: int, patch: int) -> nn.Module:
    """The transposed convolution from positions to squares (or pieces) of ``patch`` a side."""
    return CONV_TRANSPOSE[ndim](width, channels, patch + 2, stride=patch, padding=1)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each position alone.

    Nothing is averaged over time or space, so windows of a signal are normalised as the whole is.

    Shape:
        x, returns: (batch, channels, *space).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class ResidualBlock(nn.Module):
    """``x + conv(act(conv(norm(x))))`` that keeps the size; the last convolution may be ``pointwise``.

    Shape:
        x, returns: (batch, channels, *space).
    Reference:
        Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        *,
        dilation: int,
        bias: bool,
        activation: str,
        norm: bool,
        pointwise: bool = False,
    ) -> None:
        super().__init__()

        def conv() -> Any:
            if ndim == 2 and dilation == 1:
                return Conv3x3(channels, channels, bias=bias)
            return CONV[ndim](channels, channels, 3, padding=dilation, dilation=dilation, bias=bias)

        last = CONV[ndim](channels, channels, 1, bias=bias) if pointwise else conv()
        with torch.no_grad():  # nearly the identity at first: deep stacks then train without warm-up tricks
            last.weight.mul_(0.2)
        first = [ChannelNorm(channels)] if norm else []
        self.body = nn.Sequential(*first, conv(), ACTIVATIONS[activation](), last)

    def forward(self, x: Tensor) -> Tensor:
        return added(self.body(x), x)
