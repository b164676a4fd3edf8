"""What PixelCNN and PixelRNN have in common: masked convolutions before and after their layers, and cached sampling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from denoise.nn.masked import RowConv, RowsAbove
from denoise.priors.autoregressive import Autoregressive, AutoregressiveConfig, Entry
from denoise.protocols import Label


class LayerScan(Protocol):
    """The layers of a network, pixel by pixel in raster order."""

    def begin_row(self, above: Tensor | None, pixels: Tensor | None) -> None:
        """Begin a row.

        Args:
            above: features that the first convolution computes of the rows above, (batch, features, 1, width); None of
                audio.
            pixels: the row above, (batch, channels, 1, width); None for the first row.
        """

    def step(self, x: Tensor, j: int) -> Tensor:
        """Map the features of the pixel at column j, (batch, features), by all layers.

        The colours of a pixel are steps at the same column, each with the features of the colours before it.
        """


class RasterNetwork(Autoregressive):
    """Layers between a masked convolution of the signal and two of one pixel, which return the logits.

    Audio is an image of one row.

    Subclasses create the layers, in the order in which signals pass them.

    Args:
        config: settings.
    """

    first: RowConv
    hidden: RowConv
    head: RowConv

    def __init__(self, config: AutoregressiveConfig) -> None:
        super().__init__(config)
        self.is_image = len(config.shape) == 3

    def build_first(self, kernel: int) -> RowConv:
        """Return the first convolution of the row so far, given the side of the kernel before masking."""
        channels = self.config.shape[0]
        return RowConv(channels, self.config.features, channels, taps=kernel // 2 + 1, mask="A")

    def build_last(self) -> tuple[RowConv, RowConv]:
        """Return the two convolutions of one pixel that map features to logits, hidden and head."""
        channels, n = self.config.shape[0], self.config.features
        return RowConv(n, n, channels), RowConv(n, channels * self.outputs, channels)

    @property
    @abstractmethod
    def first_rows(self) -> RowsAbove | None:
        """The first convolution of the rows above; None of audio."""

    @abstractmethod
    def layers_forward(self, above: Tensor | None, row: Tensor, image: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the features after all layers, (batch, features, height, width).

        Args:
            above: features of the rows above, (batch, features, height, width); None of audio.
            row: features of the row so far, (batch, features, height, width).
            image: input of the network, (batch, channels, height, width).
            labels: condition of each signal.
        """

    @abstractmethod
    def layers_scan(self, image: Tensor, labels: Sequence[Label]) -> LayerScan:
        """Return the layers for `scan`; see `layers_forward`."""

    def forward(self, inputs: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the logits of each entry; see `Autoregressive.forward`."""
        image = inputs if self.is_image else inputs[:, :, None]
        above = self.first_rows(image) if self.first_rows is not None else None
        row = self.first(image).contiguous(memory_format=torch.channels_last)  # twice as fast where rows are long
        x = self.layers_forward(above, row, image, labels)
        logits = self.head(self.hidden(x.relu()).relu()).unflatten(1, (-1, self.outputs)).movedim(2, -1)
        return logits if self.is_image else logits[:, :, 0]

    def scan(self, inputs: Tensor, labels: Sequence[Label]) -> Iterator[tuple[Entry, Tensor]]:
        """Yield the logits of each entry in order, from what was computed for earlier ones; see `Autoregressive.scan`.

        Convolutions over rows above are computed once for each row, all others at one pixel.
        """
        image = inputs if self.is_image else inputs[:, :, None]
        batch, channels, height, width = image.shape
        layers = self.layers_scan(image, labels)
        rows = self.first_rows
        padded = image.new_zeros(batch, channels, height + (rows.padding_above if rows is not None else 0), width)
        first, hidden, head = ((conv.matrix(), conv.bias) for conv in (self.first, self.hidden, self.head))
        left = self.first.padding_left
        for i in range(height):
            above = rows.forward_window(padded[:, :, i : i + rows.window]) if rows is not None else None
            layers.begin_row(above, image[:, :, i - 1 : i] if i else None)
            pixels = image.new_zeros(batch, left + width, channels)
            for j in range(width):
                for channel in range(channels):
                    x = layers.step(_linear(pixels[:, j : j + left + 1].flatten(1), *first), j)
                    logits = _linear(_linear(x.relu(), *hidden).relu(), *head).unflatten(1, (channels, -1))
                    yield (channel, i, j) if self.is_image else (channel, j), logits[:, channel]
                    pixels[:, left + j, channel] = image[:, channel, i, j]
            if rows is not None:
                padded[:, :, rows.padding_above + i] = image[:, :, i]


def _linear(x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, x, matrix)
