"""Gated PixelCNN of images, and its one-dimensional twin for audio, the causal dilated convolutions of WaveNet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.config import config
from denoise.errors import ConfigError
from denoise.priors.autoregressive import Autoregressive, AutoregressiveConfig, Entry
from denoise.protocols import Label


@config
class PixelCNNConfig(AutoregressiveConfig):
    """Settings of a PixelCNN; see `AutoregressiveConfig` for the others.

    Args:
        dilations: distance between the entries that a convolution reads, of each block.
        kernel: side of the convolutions of the blocks before masking, odd; audio has (kernel + 1) / 2 taps.
        first_kernel: side of the first convolution, odd.
    """

    dilations: tuple[int, ...] = (1,) * 8
    kernel: int = 3
    first_kernel: int = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dilations or min(self.dilations) < 1 or max(self.dilations) > 1 << 14 or len(self.dilations) > 256:
            raise ConfigError(f"dilations are {self.dilations}; expected 1 to 256 numbers from 1 to {1 << 14}.")
        if not all(n % 2 and 3 <= n <= 63 for n in (self.kernel, self.first_kernel)):
            raise ConfigError(f"kernels are {self.kernel} and {self.first_kernel}; expected odd numbers from 3 to 63.")


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
        self.reach = dilation * (taps - 1)
        colour_in = torch.arange(inputs) * channels // inputs
        colour_out = (torch.arange(outputs // chunks) * channels // (outputs // chunks)).repeat(chunks)[:, None]
        allowed = torch.ones(outputs, inputs, 1, taps)
        allowed[:, :, 0, -1] = (colour_in < colour_out if mask == "A" else colour_in <= colour_out).float()
        self.register_buffer("mask", allowed, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows, (batch, inputs, height, width) to (batch, outputs, height, width)."""
        return F.conv2d(F.pad(x, (self.reach, 0)), self.weight * self.mask, self.bias, dilation=self.dilation)

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
        self.own_row, self.reach = own_row, dilation * (kernel // 2)
        self.window = dilation * (rows - 1) + 1  # rows, from the uppermost to the lowest that is read

    def forward(self, x: Tensor) -> Tensor:
        """Map images, (batch, inputs, height, width) to (batch, outputs, height, width)."""
        x = x if self.own_row else x[:, :, :-1]
        return self.of_window(F.pad(x, (0, 0, self.reach, 0)))

    def of_window(self, x: Tensor) -> Tensor:
        """Map as many rows as are read, (batch, inputs, window, width), to the row that reads them, of height 1."""
        return super().forward(x)


class GatedBlock(nn.Module):
    """A vertical stack, which sees the rows above, and a horizontal one, which sees the row so far and the vertical.

    Together they see every earlier pixel of their receptive field: one stack of masked convolutions has a blind spot to
    the right.

    Departures from the figure: the vertical stack has residuals, too, so that gradients reach its first layers without
    the horizontal one; what goes down are its features behind the gate, with half as many weights as those before it.
    WaveNet's skip connections are left out: through the residuals, the output reads the sum of all blocks anyway.

    Args:
        c: settings.
        dilation: distance between the entries that are read.

    Reference:
        Conditional Image Generation with PixelCNN Decoders, 2016, arXiv:1606.05328, eq. 2 and 4, figure 2.
    """

    def __init__(self, c: PixelCNNConfig, dilation: int) -> None:
        super().__init__()
        n, channels = c.features, c.shape[0]
        if len(c.shape) == 3:
            self.vertical = RowsAbove(n, 2 * n, c.kernel, dilation, own_row=True)
            self.down = nn.Conv2d(n, 2 * n, 1)
        self.horizontal = RowConv(n, 2 * n, channels, taps=c.kernel // 2 + 1, dilation=dilation, chunks=2)
        self.residual = RowConv(n, n, channels)
        self.shift = nn.Linear(c.embedding, 2 * n) if c.classes else None


def gate(x: Tensor, dim: int = 1) -> Tensor:
    """Return tanh(a) * sigmoid(b) of the two halves of features."""
    a, b = x.chunk(2, dim=dim)
    return a.tanh() * b.sigmoid()


class PixelCNN(Autoregressive):
    """Masked convolutions whose output at an entry depends on all entries before it, up to their receptive field.

    Audio is an image of one row: the horizontal stack alone, with growing dilations, is WaveNet.

    Args:
        config: settings.

    Reference:
        Conditional Image Generation with PixelCNN Decoders, 2016, arXiv:1606.05328; WaveNet: A Generative Model for Raw
        Audio, 2016, arXiv:1609.03499.
    """

    config: PixelCNNConfig
    blocks: Any  # of GatedBlock

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__(config)
        channels, n = config.shape[0], config.features
        self.is_image = len(config.shape) == 3
        if self.is_image:
            self.first_vertical = RowsAbove(channels, n, config.first_kernel, own_row=False)
        self.first = RowConv(channels, n, channels, taps=config.first_kernel // 2 + 1, mask="A")
        self.blocks = nn.ModuleList(GatedBlock(config, dilation) for dilation in config.dilations)
        self.hidden = RowConv(n, n, channels)
        self.head = RowConv(n, channels * self.outputs, channels)

    def forward(self, inputs: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the logits of each entry; see `Autoregressive.forward`."""
        x = inputs if self.is_image else inputs[:, :, None]
        above = self.first_vertical(x) if self.is_image else None
        row = self.first(x)
        for block, shift in zip(self.blocks, self._shifts(labels), strict=True):
            gates = block.horizontal(row) + shift[:, :, None, None]
            if above is not None:
                above = above + gate(block.vertical(above) + shift[:, :, None, None])
                gates = gates + block.down(above)
            row = row + block.residual(gate(gates))
        logits = self.head(self.hidden(row.relu()).relu()).unflatten(1, (-1, self.outputs)).movedim(2, -1)
        return logits if self.is_image else logits[:, :, 0]

    def scan(self, inputs: Tensor, labels: Sequence[Label]) -> Iterator[tuple[Entry, Tensor]]:
        """Yield the logits of each entry in order, from cached rows; see `Autoregressive.scan`.

        The vertical stack is computed once for each row, the horizontal one at one pixel from the cached features of
        the row so far.
        """
        x = inputs if self.is_image else inputs[:, :, None]
        batch, channels, height, width = x.shape
        shifts = self._shifts(labels)
        convs = [self.first, *(block.horizontal for block in self.blocks)]
        steps = [(conv, conv.matrix(), conv.bias) for conv in convs]
        residuals = [(block.residual.matrix(), block.residual.bias) for block in self.blocks]
        (hidden, hidden_bias), (head, head_bias) = ((m.matrix(), m.bias) for m in (self.hidden, self.head))
        rows_above = [self.first_vertical, *(block.vertical for block in self.blocks)] if self.is_image else []
        images = [x.new_zeros(batch, conv.in_channels, conv.reach + height, width) for conv in rows_above]
        for i in range(height):
            # cache[k][:, reach + j]: input of horizontal convolution k at column j of this row
            caches = [x.new_zeros(batch, conv.reach + width, conv.in_channels) for conv in convs]
            if self.is_image:
                biases = self._scan_row(images, i, shifts)
            else:
                biases = [
                    (shift + block.horizontal.bias)[:, None].expand(-1, width, -1)
                    for block, shift in zip(self.blocks, shifts, strict=True)
                ]
            for j in range(width):

                def taps(k: int, j: int = j, caches: list[Tensor] = caches) -> Tensor:
                    reach, dilation = convs[k].reach, convs[k].dilation[1]
                    return caches[k][:, j : j + reach + 1 : dilation].flatten(1)

                for channel in range(channels):
                    row = torch.addmm(steps[0][2], taps(0), steps[0][1])
                    for k, (matrix, bias) in enumerate(residuals, 1):
                        caches[k][:, convs[k].reach + j] = row
                        gates = torch.addmm(biases[k - 1][:, j], taps(k), steps[k][1])
                        row = row + torch.addmm(bias, gate(gates), matrix)
                    logits = torch.addmm(head_bias, torch.addmm(hidden_bias, row.relu(), hidden).relu(), head)
                    entry = (channel, i, j) if self.is_image else (channel, j)
                    yield entry, logits.unflatten(1, (channels, -1))[:, channel]
                    caches[0][:, convs[0].reach + j, channel] = x[:, channel, i, j]
            if self.is_image:
                images[0][:, :, self.first_vertical.reach + i] = x[:, :, i]

    def _scan_row(self, images: list[Tensor], i: int, shifts: list[Tensor]) -> list[Tensor]:
        """Return what the vertical stack and the class add to each horizontal convolution of row i, (batch, W, 2 n).

        Args:
            images: inputs of the vertical convolutions, below rows of zeros; row i of those of the blocks is added.
            i: index of the row.
            shifts: features of the class, for each block.
        """

        def rows(k: int, conv: RowsAbove) -> Tensor:
            return images[k][:, :, i : i + conv.window]

        above = self.first_vertical.of_window(rows(0, self.first_vertical))
        biases = []
        for k, (block, shift) in enumerate(zip(self.blocks, shifts, strict=True), 1):
            conv = block.vertical
            images[k][:, :, conv.reach + i] = above[:, :, 0]
            above = above + gate(conv.of_window(rows(k, conv)) + shift[:, :, None, None])
            total = block.down(above)[:, :, 0] + (shift + block.horizontal.bias)[:, :, None]
            biases.append(total.transpose(1, 2))
        return biases

    def _shifts(self, labels: Sequence[Label]) -> list[Tensor]:
        """Return the features of the labels for each block, (batch, 2 n); zeros without classes."""
        if self.condition is None:
            return [self.hidden.weight.new_zeros(len(labels), 2 * self.config.features)] * len(self.blocks)
        embedding = self.condition(labels)
        return [block.shift(embedding) for block in self.blocks]
