"""Convolutions whose output at a pixel depends on earlier pixels alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RowConv(nn.Conv2d):
    """Causal convolution along rows: the pixel itself, masked over colours, and pixels to its left.

    Features are divided into as many groups as there are colours. At the pixel itself, a group of the output reads the
    groups of earlier colours, and with mask B also its own.

    Args:
        inputs: features of the input.
        outputs: features of the output.
        channels: number of colours.
        taps: pixels that are read, the pixel itself included.
        dilation: distance between them.
        mask: ``"A"`` or ``"B"``.
        chunks: equal chunks of the output, each divided into groups: gates and what they act on.

    Reference:
        Pixel Recurrent Neural Networks, 2016, arXiv:1601.06759, section 3.4.
    """

    mask: Tensor
    bias: nn.Parameter

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: int,
        *,
        taps: int = 1,
        dilation: int = 1,
        mask: Literal["A", "B"] = "B",
        chunks: int = 1,
    ) -> None:
        super().__init__(inputs, outputs, (1, taps), dilation=(1, dilation))
        self.padding_left = dilation * (taps - 1)
        colour_in = torch.arange(inputs) * channels // inputs
        colour_out = (torch.arange(outputs // chunks) * channels // (outputs // chunks)).repeat(chunks)[:, None]
        allowed = torch.ones(outputs, inputs, 1, taps, dtype=torch.float32)
        allowed[:, :, 0, -1] = (colour_in < colour_out if mask == "A" else colour_in <= colour_out).float()
        self.register_buffer("mask", allowed, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows, (batch, inputs, height, width) to (batch, outputs, height, width)."""
        return F.conv2d(F.pad(x, (self.padding_left, 0)), self.weight * self.mask, self.bias, dilation=self.dilation)

    def matrix(self) -> Tensor:
        """Return the weights of one pixel, (taps * inputs, outputs), the leftmost tap first."""
        return (self.weight * self.mask)[:, :, 0].permute(2, 1, 0).flatten(0, 1).contiguous()


class RowsAbove(nn.Conv2d):
    """Convolution over the rows above a pixel, at both sides of it.

    Args:
        inputs: features of the input.
        outputs: features of the output.
        kernel: columns that are read, odd; half as many rows above.
        dilation: distance between them.
        own_row: whether the row of the pixel is read, too, which itself contains nothing but rows above.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, *, own_row: bool) -> None:
        rows = kernel // 2 + own_row
        super().__init__(inputs, outputs, (rows, kernel), dilation=dilation, padding=(0, dilation * (kernel // 2)))
        self.own_row, self.padding_above = own_row, dilation * (kernel // 2)
        self.window = dilation * (rows - 1) + 1  # rows, from the uppermost to the lowest that is read

    def forward(self, x: Tensor) -> Tensor:
        """Map images, (batch, inputs, height, width) to (batch, outputs, height, width)."""
        x = x if self.own_row else x[:, :, :-1]
        return self.forward_window(F.pad(x, (0, 0, self.padding_above, 0)))

    def forward_window(self, x: Tensor) -> Tensor:
        """Map as many rows as are read, (batch, inputs, window, width), to the row that reads them, of height 1."""
        return super().forward(x)
