"""Building blocks in one and two dimensions."""

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
    "relu": partial(nn.ReLU, inplace=True),  # halves the memory of a block
    "elu": nn.ELU,
    "leaky-relu": partial(nn.LeakyReLU, 0.2),  # of discriminators
}


Layer = TypeVar("Layer", bound=nn.Module)


def zero_init(layer: Layer) -> Layer:
    """Set the parameters of a layer to zero, so that a residual branch which ends in it starts as zero.

    Args:
        layer: layer to change in place.

    Returns:
        The layer.
    """
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


def add(x: Tensor, y: Tensor) -> Tensor:
    """Return ``x + y``, in the memory of ``x`` where no gradient needs it: new pages cost as much time as the sum.

    Args:
        x: tensor that may be overwritten.
        y: tensor of the same shape.

    Returns:
        The sum, in the wider of both dtypes.
    """
    if torch.is_grad_enabled():
        return x + y
    return x.to(torch.promote_types(x.dtype, y.dtype)).add_(y)  # mixed dtypes: `x + y` would hold two copies


def patch_conv(ndim: int, channels: int, width: int, patch: int) -> nn.Module:
    """Return a strided convolution from patches to positions.

    Args:
        ndim: spatial dimensions, 1 or 2.
        channels: channels of the input.
        width: channels of the output.
        patch: side of a patch, which is the stride.

    Returns:
        The layer; its kernel overlaps neighbouring patches by one sample.
    """
    return CONV[ndim](channels, width, patch + 2, stride=patch, padding=1)


def unpatch_conv(ndim: int, width: int, channels: int, patch: int) -> nn.Module:
    """Return the transposed convolution from positions to patches that mirrors `patch_conv`.

    Args:
        ndim: spatial dimensions, 1 or 2.
        width: channels of the input.
        channels: channels of the output.
        patch: side of a patch.

    Returns:
        The layer.
    """
    return CONV_TRANSPOSE[ndim](width, channels, patch + 2, stride=patch, padding=1)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each position.

    There are no statistics over time or space, so windows of a signal are normalised as the whole signal is.

    Args:
        channels: channels of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, (batch, channels, *space)."""
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class ResidualBlock(nn.Module):
    """Residual block ``x + conv(act(conv(norm(x))))`` that keeps the size.

    Args:
        ndim: spatial dimensions, 1 or 2.
        channels: channels of input and output.
        dilation: of the convolutions.
        bias: whether they have biases.
        activation: a name in `ACTIVATIONS`.
        norm: whether the input of the branch is normalised by `ChannelNorm`.
        pointwise: whether the last convolution has kernel size 1.

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
        with torch.no_grad():  # nearly the identity at first: deep stacks then train without warm-up
            last.weight.mul_(0.2)
        norms = [ChannelNorm(channels)] if norm else []
        self.body = nn.Sequential(*norms, conv(), ACTIVATIONS[activation](), last)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, (batch, channels, *space), plus the residual branch; a float32 ``x`` is not rounded."""
        return add(self.body(x), x)
