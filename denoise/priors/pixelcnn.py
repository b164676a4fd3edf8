"""Gated PixelCNN of images, and its one-dimensional twin for audio, the causal dilated convolutions of WaveNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.embeddings import embed_labels
from denoise.nn.masked import RowConv, RowsAbove
from denoise.priors.autoregressive import AutoregressiveConfig
from denoise.priors.raster import RasterNetwork
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

    vertical: Any  # RowsAbove, None of audio
    down: Any

    def __init__(self, c: PixelCNNConfig, dilation: int) -> None:
        super().__init__()
        n, channels = c.features, c.shape[0]
        self.vertical = RowsAbove(n, 2 * n, c.kernel, dilation, own_row=True) if len(c.shape) == 3 else None
        self.down = nn.Conv2d(n, 2 * n, 1) if len(c.shape) == 3 else None
        self.horizontal = RowConv(n, 2 * n, channels, taps=c.kernel // 2 + 1, dilation=dilation, chunks=2)
        self.residual = RowConv(n, n, channels)
        self.shift = nn.Linear(c.embedding, 2 * n) if c.classes else None

    def forward(self, above: Tensor | None, row: Tensor, embedding: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """Map the features of both stacks, (batch, features, height, width), to the same shapes.

        Args:
            above: features of the vertical stack; None of audio.
            row: features of the horizontal stack.
            embedding: embedding of the classes, (batch, embedding); None without classes.
        """
        shift = self.class_shift(row, embedding)[:, :, None, None]
        gates = self.horizontal(row) + shift
        if above is not None:
            above = above + gate(self.vertical(above) + shift)
            gates = gates + self.down(above)
        return above, row + self.residual(gate(gates))

    def class_shift(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """Return what the class adds to the features before a gate, (batch, 2 * features)."""
        if self.shift is None or embedding is None:
            return x.new_zeros(len(x), 2 * self.residual.in_channels)
        return self.shift(embedding)


class GatedScan:
    """A `GatedBlock` pixel by pixel.

    Args:
        block: block.
        image: images, (batch, channels, height, width), for the sizes.
        embedding: embedding of the classes, (batch, embedding); None without classes.
    """

    def __init__(self, block: GatedBlock, image: Tensor, embedding: Tensor | None) -> None:
        self.block, self.shift = block, block.class_shift(image, embedding)
        self.matrix, self.out = block.horizontal.matrix(), block.residual.matrix()
        (batch, _, height, self.width), n = image.shape, block.residual.in_channels
        if block.vertical is not None:
            self.i, self.padded = 0, image.new_zeros(batch, n, block.vertical.padding_above + height, self.width)
        self.row = image.new_zeros(batch, block.horizontal.padding_left + self.width, n)

    def begin_row(self, above: Tensor | None) -> Tensor | None:
        """Begin a row and map the features of the vertical stack, (batch, features, 1, width)."""
        block, bias = self.block, self.shift + self.block.horizontal.bias
        self.row = torch.zeros_like(self.row)
        if above is None:
            self.gates = (bias,) * self.width
            return None
        self.padded[:, :, block.vertical.padding_above + self.i] = above[:, :, 0]
        window = self.padded[:, :, self.i : self.i + block.vertical.window]
        self.i += 1
        above = above + gate(block.vertical.forward_window(window) + self.shift[:, :, None, None])
        self.gates = (block.down(above)[:, :, 0] + bias[:, :, None]).unbind(2)
        return above

    def step(self, x: Tensor, j: int) -> Tensor:
        """Map the features of the horizontal stack at column j, (batch, features)."""
        conv, residual = self.block.horizontal, self.block.residual
        self.row[:, conv.padding_left + j] = x
        taps = self.row[:, j : j + conv.padding_left + 1 : conv.dilation[1]].flatten(1)
        gates = torch.addmm(self.gates[j], taps, self.matrix)
        return x + torch.addmm(residual.bias, gate(gates), self.out)


def gate(x: Tensor, dim: int = 1) -> Tensor:
    """Return tanh(a) * sigmoid(b) of the two halves of features."""
    a, b = x.chunk(2, dim=dim)
    return a.tanh() * b.sigmoid()


class PixelCNN(RasterNetwork):
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
        if self.is_image:
            self.first_vertical = RowsAbove(config.shape[0], config.features, config.first_kernel, own_row=False)
        self.first = self.build_first(config.first_kernel)
        self.blocks = nn.ModuleList(GatedBlock(config, dilation) for dilation in config.dilations)
        self.hidden, self.head = self.build_last()

    @property
    def first_rows(self) -> RowsAbove | None:
        """The first convolution of the rows above; None of audio."""
        return self.first_vertical if self.is_image else None

    def layers_forward(self, above: Tensor | None, row: Tensor, image: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the features of the horizontal stack; see `RasterNetwork.layers_forward`."""
        embedding = embed_labels(self.condition, labels)
        for block in self.blocks:
            above, row = block(above, row, embedding)
        return row

    def layers_scan(self, image: Tensor, labels: Sequence[Label]) -> PixelCNNScan:
        """Return the blocks pixel by pixel."""
        embedding = embed_labels(self.condition, labels)
        return PixelCNNScan([GatedScan(block, image, embedding) for block in self.blocks])


class PixelCNNScan:
    """The blocks of a `PixelCNN` pixel by pixel; see `LayerScan`.

    Args:
        blocks: the blocks.
    """

    def __init__(self, blocks: Sequence[GatedScan]) -> None:
        self.blocks = blocks

    def begin_row(self, above: Tensor | None, pixels: Tensor | None) -> None:
        """Compute the vertical stack for a row."""
        for block in self.blocks:
            above = block.begin_row(above)

    def step(self, x: Tensor, j: int) -> Tensor:
        """Map the features of the pixel at column j, (batch, features)."""
        for block in self.blocks:
            x = block.step(x, j)
        return x
