"""PixelRNN: two-dimensional LSTMs over images, by rows or along diagonals in two directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.embeddings import embed_labels
from denoise.nn.masked import RowConv, RowsAbove
from denoise.priors.autoregressive import AutoregressiveConfig
from denoise.priors.raster import RasterNetwork
from denoise.protocols import Label

TAPS = 2  # of the convolution of a Row LSTM along the row so far: a masked kernel of 3


@config
class PixelRNNConfig(AutoregressiveConfig):
    """Settings of a PixelRNN; see `AutoregressiveConfig` for the others.

    Args:
        kind: ``"diagonal"`` for the Diagonal BiLSTM, ``"row"`` for the Row LSTM.
        hidden: units of each LSTM and direction.
        layers: number of layers.
        first_kernel: side of the first, masked convolution, odd.
    """

    kind: Literal["diagonal", "row"] = "diagonal"
    hidden: int = 16
    layers: int = 7
    first_kernel: int = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.shape) != 3:
            raise ConfigError(f"shape is {self.shape}; expected (channels, height, width). Use a pixelcnn for audio.")
        if not 1 <= self.hidden <= 1 << 14 or self.hidden % self.shape[0]:
            raise ConfigError(f"hidden is {self.hidden}; expected a multiple of the {self.shape[0]} channels.")
        if not 1 <= self.layers <= 256 or not (self.first_kernel % 2 and 3 <= self.first_kernel <= 63):
            raise ConfigError(
                f"layers is {self.layers}, first_kernel {self.first_kernel}; expected 1 to 256, and an odd number "
                "from 3 to 63."
            )


def skew(x: Tensor) -> Tensor:
    """Shift each row by one column more than the one above, so that diagonals become columns.

    Args:
        x: (..., height, width).

    Returns:
        (..., height, width + height - 1), with zeros where nothing was shifted to.
    """
    height, width = x.shape[-2:]
    # rows of width + height read as rows of one column less: each begins one column later
    return F.pad(x, (0, height)).flatten(-2)[..., :-height].unflatten(-1, (height, width + height - 1))


def unskew(x: Tensor) -> Tensor:
    """Invert `skew`: (..., height, width + height - 1) to (..., height, width)."""
    height = x.shape[-2]
    return F.pad(x.flatten(-2), (0, height)).unflatten(-1, (height, -1))[..., :-height]


def lstm(gates: Tensor, cell: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Return the next output and cell of LSTMs from the sums of their gates (input, forget, output, candidate)."""
    i, f, o, candidate = gates.chunk(4, dim=dim)
    cell = f.sigmoid() * cell + i.sigmoid() * candidate.tanh()
    return o.sigmoid() * cell.tanh(), cell


class DiagonalBiLSTM(nn.Module):
    """Two LSTMs whose states come from the pixel beside and the one above: all of the context, in each layer.

    The one from the left sees everything above and to the left of a pixel. The one from the right runs over the
    mirrored image; its states are moved down by one row, because it sees pixels to the right of its own. So it may read
    the pixel itself, too, which features do not contain; otherwise the last pixel of the row above would not be seen.

    Args:
        c: settings.

    Reference:
        Pixel Recurrent Neural Networks, 2016, arXiv:1601.06759, section 3.2.
    """

    def __init__(self, c: PixelRNNConfig) -> None:
        super().__init__()
        n, channels = c.features, c.shape[0]
        self.hidden = c.hidden
        self.from_left = RowConv(n, 4 * c.hidden, channels, chunks=4)
        self.from_right = nn.Conv2d(n + channels, 4 * c.hidden, 1)
        bound = (2 * c.hidden) ** -0.5  # weights of the states beside and above, for both directions
        self.recurrent = nn.Parameter(torch.empty(2, 2 * c.hidden, 4 * c.hidden).uniform_(-bound, bound))
        self.residual = RowConv(c.hidden, n, channels)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """Map features to features, (batch, features, height, width), given the input of the network."""
        batch, _, height, _ = x.shape
        gates = skew(torch.stack([self.from_left(x), self.from_right(torch.cat([x, image], dim=1).flip(-1))]))
        columns = gates.permute(4, 0, 1, 3, 2).flatten(2, 3)  # each (2, batch * height, 4 hidden)
        state = cell = gates.new_zeros(2, batch * height, self.hidden)
        states = []
        for column in columns.unbind():
            above = F.pad(state.unflatten(1, (batch, height))[:, :, :-1], (0, 0, 1, 0)).flatten(1, 2)
            gates = torch.baddbmm(column, torch.cat([state, above], dim=2), self.recurrent)
            state, cell = lstm(gates, cell, dim=2)
            states.append(state)
        left, right = unskew(torch.stack(states, dim=-1).unflatten(1, (batch, height)).transpose(2, 3))
        return x + self.residual(left + F.pad(right.flip(-1)[:, :, :-1], (0, 0, 1, 0)))


class DiagonalScan:
    """A `DiagonalBiLSTM` pixel by pixel.

    Args:
        layer: layer.
        x: images, (batch, channels, height, width), for the sizes.
    """

    def __init__(self, layer: DiagonalBiLSTM, x: Tensor) -> None:
        self.layer, self.zeros = layer, x.new_zeros(len(x), layer.hidden)
        self.matrix, self.out = layer.from_left.matrix(), layer.residual.matrix()
        self.left = [self.zeros] * x.shape[3]  # states of the row so far, and above it of the one before
        self.right = list(self.left)  # states of the row above
        self.row = x.new_zeros(len(x), layer.from_left.in_channels, 1, x.shape[3])  # features that the layer reads

    def begin_row(self, pixels: Tensor | None) -> None:
        """Begin a row, given the pixels of the one above, (batch, channels, 1, width)."""
        self.above, self.left = self.left, [self.zeros] * len(self.left)
        self.cells = [self.zeros] * len(self.left)
        if pixels is None:
            return
        state = cell = self.zeros
        columns = self.layer.from_right(torch.cat([self.row, pixels], dim=1))[:, :, 0].unbind(-1)
        for j in reversed(range(len(columns))):
            both = torch.cat([state, self.right[j]], dim=1)
            state, cell = lstm(torch.addmm(columns[j], both, self.layer.recurrent[1]), cell)
            self.right[j] = state

    def step(self, x: Tensor, j: int) -> Tensor:
        """Map the features of the pixel at column j, (batch, n)."""
        self.row[:, :, 0, j] = x
        state, cell = (self.left[j - 1], self.cells[j - 1]) if j else (self.zeros, self.zeros)
        gates = torch.addmm(self.layer.from_left.bias, x, self.matrix)
        gates = torch.addmm(gates, torch.cat([state, self.above[j]], dim=1), self.layer.recurrent[0])
        self.left[j], self.cells[j] = lstm(gates, cell)
        return x + torch.addmm(self.layer.residual.bias, self.left[j] + self.right[j], self.out)


class RowLSTM(nn.Module):
    """An LSTM from row to row, whose states come from three pixels above: a triangle of the context in each layer.

    Args:
        c: settings.

    Reference:
        Pixel Recurrent Neural Networks, 2016, arXiv:1601.06759, section 3.1.
    """

    def __init__(self, c: PixelRNNConfig) -> None:
        super().__init__()
        self.hidden = c.hidden
        self.from_row = RowConv(c.features, 4 * c.hidden, c.shape[0], taps=TAPS, chunks=4)
        self.recurrent = nn.Conv1d(c.hidden, 4 * c.hidden, 3, padding=1, bias=False)
        self.residual = RowConv(c.hidden, c.features, c.shape[0])

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """Map features to features, (batch, features, height, width); the input of the network is not needed."""
        state = cell = x.new_zeros(len(x), self.hidden, x.shape[3])
        states = []
        for gates in self.from_row(x).unbind(2):
            state, cell = lstm(gates + self.recurrent(state), cell)
            states.append(state)
        return x + self.residual(torch.stack(states, dim=2))


class RowScan:
    """A `RowLSTM` pixel by pixel.

    Args:
        layer: layer.
        x: images, (batch, channels, height, width), for the sizes.
    """

    def __init__(self, layer: RowLSTM, x: Tensor) -> None:
        self.layer, self.width = layer, x.shape[3]
        self.matrix, self.out = layer.from_row.matrix(), layer.residual.matrix()
        self.states = [x.new_zeros(len(x), layer.hidden)] * self.width
        self.cells = list(self.states)
        self.row = x.new_zeros(len(x), TAPS - 1 + self.width, layer.from_row.in_channels)

    def begin_row(self, pixels: Tensor | None) -> None:
        """Begin a row; the pixels of the one above are not needed."""
        gates = self.layer.recurrent(torch.stack(self.states, dim=2)) + self.layer.from_row.bias[:, None]
        self.gates, self.above = gates.unbind(2), list(self.cells)

    def step(self, x: Tensor, j: int) -> Tensor:
        """Map the features of the pixel at column j, (batch, n)."""
        self.row[:, TAPS - 1 + j] = x
        gates = torch.addmm(self.gates[j], self.row[:, j : j + TAPS].flatten(1), self.matrix)
        self.states[j], self.cells[j] = lstm(gates, self.above[j])
        return x + torch.addmm(self.layer.residual.bias, self.states[j], self.out)


class PixelRNN(RasterNetwork):
    """Layers of LSTMs over an image, after one masked convolution.

    Args:
        config: settings.

    Reference:
        Pixel Recurrent Neural Networks, 2016, arXiv:1601.06759.
    """

    config: PixelRNNConfig
    layers: Any  # of DiagonalBiLSTM or RowLSTM

    def __init__(self, config: PixelRNNConfig) -> None:
        super().__init__(config)
        layer = DiagonalBiLSTM if config.kind == "diagonal" else RowLSTM
        self.first_above = RowsAbove(config.shape[0], config.features, config.first_kernel, own_row=False)
        self.first = self.build_first(config.first_kernel)
        self.shift = nn.Linear(config.embedding, config.features) if config.classes else None
        self.layers = nn.ModuleList(layer(config) for _ in range(config.layers))
        self.hidden, self.head = self.build_last()

    @property
    def first_rows(self) -> RowsAbove:
        """The first convolution of the rows above."""
        return self.first_above

    def layers_forward(self, above: Tensor | None, row: Tensor, image: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the features of the last layer; see `RasterNetwork.layers_forward`."""
        assert above is not None  # images alone
        x = above + row + self._shift(labels)[:, :, None, None]
        for layer in self.layers:
            x = layer(x, image)
        return x

    def layers_scan(self, image: Tensor, labels: Sequence[Label]) -> PixelRNNScan:
        """Return the layers pixel by pixel."""
        scan = DiagonalScan if self.config.kind == "diagonal" else RowScan
        return PixelRNNScan([scan(layer, image) for layer in self.layers], self._shift(labels))

    def _shift(self, labels: Sequence[Label]) -> Tensor:
        """Return the features of the labels, (batch, n); zeros without classes."""
        embedding = embed_labels(self.condition, labels)
        if embedding is None or self.shift is None:
            return self.first.weight.new_zeros(len(labels), self.config.features)
        return self.shift(embedding)


class PixelRNNScan:
    """The layers of a `PixelRNN` pixel by pixel; see `LayerScan`.

    Args:
        layers: the layers.
        shift: features of the class, (batch, features).
    """

    def __init__(self, layers: Sequence[DiagonalScan | RowScan], shift: Tensor) -> None:
        self.layers, self.shift = layers, shift

    def begin_row(self, above: Tensor | None, pixels: Tensor | None) -> None:
        """Begin a row of all layers."""
        assert above is not None  # images alone
        self.base = (above[:, :, 0] + self.shift[:, :, None]).unbind(2)
        for layer in self.layers:
            layer.begin_row(pixels)

    def step(self, x: Tensor, j: int) -> Tensor:
        """Map the features of the pixel at column j, (batch, features)."""
        x = self.base[j] + x
        for layer in self.layers:
            x = layer.step(x, j)
        return x
