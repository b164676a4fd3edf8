"""Convolutions of 3x3 pixels with a quarter of the multiplications: float32 images take 0.8 of the time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

TILE = 4  # side of an output tile
INPUT_TILE = TILE + 2  # side of the input tile that it depends on
CHUNK = 1 << 20  # elements of the transformed tiles of a step: few enough for caches, enough for matrix products
MIN_CHANNELS, MIN_TILES = 64, 16  # below, the transforms take longer than what they save

FLOAT64_CPU: Any = {"dtype": torch.float64, "device": "cpu"}  # whatever the default device

# Interpolation at 0, 1, -1, 2, -2 and infinity: an input tile becomes BT d B, a filter G g GT, an output tile AT m A.
BT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    **FLOAT64_CPU,
)
G = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], **FLOAT64_CPU) / 24
AT = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], **FLOAT64_CPU)
# both axes at once: one matrix product replaces many sums and differences
INPUT_TRANSFORM, FILTER_TRANSFORM, OUTPUT_TRANSFORM = (torch.kron(m, m).float() for m in (BT, G, AT))


class Conv3x3(nn.Conv2d):
    """`torch.nn.Conv2d` of 3x3 pixels that keeps the size, computed by `Winograd` where that is faster.

    That is in float32 on CPUs with MKL, with enough channels and pixels. It is differentiable once, in reverse mode.
    Compiled, exported and traced networks keep PyTorch's convolution.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        bias: whether there is a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of ``x``, (batch, in_channels, height, width)."""
        weight = self.weight
        is_faster = (
            x.ndim == 4
            and x.device.type == weight.device.type == "cpu"
            and x.dtype == weight.dtype == torch.float32
            and torch.backends.mkl.is_available()
            and min(weight.shape[:2]) >= MIN_CHANNELS
            and len(x) * (x.shape[2] // TILE) * (x.shape[3] // TILE) >= MIN_TILES
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        )
        if not is_faster:
            return super().forward(x)
        y: Tensor = Winograd.apply(x, weight) if torch.is_grad_enabled() else convolve(x, weight)
        return y if self.bias is None else y + self.bias[:, None, None]


class Winograd(torch.autograd.Function):
    """Convolution of images with 3x3 filters and a border of zeros, differentiable once.

    ``apply(x, weight)`` takes (batch, in_channels, height, width) and (out_channels, in_channels, 3, 3), float32, and
    returns (batch, out_channels, height, width), channels last in memory. Errors are below 2e-5 of what the sums would
    be without cancellation. Outputs of one tile share errors, and NaN.

    Reference:
        Fast Algorithms for Convolutional Neural Networks, 2015, arXiv:1509.09308 (F(4x4, 3x3) and its matrices).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution."""
        needs_x, needs_weight = ctx.needs_input_grad
        ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)
        return convolve(x, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of the input and of the filters."""
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        return (
            convolve(grad, weight.flip(2, 3).transpose(0, 1)) if needs_x else None,
            weight_gradient(x, grad).to(memory_format=torch.channels_last) if needs_weight else None,
        )


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution of images with 3x3 filters and a border of zeros.

    Args:
        x: float32 images, (batch, in_channels, height, width).
        weight: float32 filters, (out_channels, in_channels, 3, 3).

    Returns:
        Images (batch, out_channels, height, width), channels last in memory.
    """
    n, in_channels, height, width = x.shape
    out_channels = len(weight)
    filters = FILTER_TRANSFORM @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    filters = filters.view(INPUT_TILE**2, in_channels, out_channels)
    rows, columns = -(-height // TILE), -(-width // TILE)
    size = n, out_channels, rows * TILE, columns * TILE
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    out_rows = out.permute(0, 2, 3, 1)
    tiles = TransformedTiles(x, INPUT_TILE, max(in_channels, out_channels))
    product_buffer, output_buffer = (tiles.buffer(side**2, out_channels) for side in (INPUT_TILE, TILE))
    for chunk in tiles:
        n_tiles = chunk.transformed.shape[1]
        products, outputs = (_first_tiles(buffer, n_tiles) for buffer in (product_buffer, output_buffer))
        torch.bmm(chunk.transformed, filters, out=products)
        torch.mm(OUTPUT_TRANSFORM, products.view(INPUT_TILE**2, -1), out=outputs.view(TILE**2, -1))
        target = out_rows[chunk.images, chunk.tile_rows.start * TILE : chunk.tile_rows.stop * TILE]
        target = target.unflatten(1, (-1, TILE)).unflatten(3, (-1, TILE))
        outputs = outputs.view(TILE, TILE, *target.shape[:2], columns, out_channels)
        target.copy_(outputs.permute(2, 3, 0, 4, 1, 5))
    has_whole_tiles = out.shape[2:] == x.shape[2:]
    return out if has_whole_tiles else out[:, :, :height, :width].clone(memory_format=torch.channels_last)


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of the filters.

    Args:
        x: input of the convolution, (batch, in_channels, height, width).
        grad: gradient of its output, (batch, out_channels, height, width).

    Returns:
        Gradient (out_channels, in_channels, 3, 3).
    """
    max_channels = max(x.shape[1], grad.shape[1])
    total = x.new_zeros(INPUT_TILE**2, x.shape[1], grad.shape[1])
    x_chunks, grad_chunks = TransformedTiles(x, INPUT_TILE, max_channels), TransformedTiles(grad, TILE, max_channels)
    for x_chunk, grad_chunk in zip(x_chunks, grad_chunks, strict=True):
        total.baddbmm_(x_chunk.transformed.transpose(1, 2), grad_chunk.transformed)
    return (FILTER_TRANSFORM.T @ total.view(INPUT_TILE**2, -1)).view(3, 3, *total.shape[1:]).permute(3, 2, 0, 1)


class TileChunk(NamedTuple):
    """Some transformed tiles: those of some rows of tiles of some images. They are valid until the next chunk.

    Args:
        images: indices in the batch.
        tile_rows: rows of tiles.
        transformed: (36, tiles, channels).
    """

    images: slice
    tile_rows: slice
    transformed: Tensor


class TransformedTiles:
    """The transformed tiles of images, some at a time.

    Args:
        x: images, (batch, channels, height, width).
        side: of the tiles, `INPUT_TILE` or `TILE`; they start at every fourth row and column.
        max_channels: largest number of channels of the buffers of a step.
    """

    def __init__(self, x: Tensor, side: int, max_channels: int) -> None:
        self.x, self.side = x.permute(0, 2, 3, 1), side
        self.n, self.height, self.width, self.channels = self.x.shape
        self.rows, self.columns = -(-self.height // TILE), -(-self.width // TILE)
        max_tiles = max(1, CHUNK // (INPUT_TILE**2 * max_channels))
        self.chunk_rows = min(self.rows, max(1, max_tiles // self.columns))
        self.chunk_images = min(self.n, max(1, max_tiles // (self.rows * self.columns)))

    def buffer(self, positions: int, channels: int) -> Tensor:
        """Return memory for the tiles of a chunk, (positions, tiles, channels)."""
        return self.x.new_empty(positions, self.chunk_images * self.chunk_rows * self.columns, channels)

    def __iter__(self) -> Iterator[TileChunk]:
        side, columns, channels = self.side, self.columns, self.channels
        border = (side - TILE) // 2
        padded_rows, padded_columns = self.chunk_rows * TILE + 2 * border, columns * TILE + 2 * border
        padded = self.x.new_zeros(self.chunk_images, padded_rows, padded_columns, channels)
        tile_buffer, transformed_buffer = self.buffer(side**2, channels), self.buffer(INPUT_TILE**2, channels)
        transform = INPUT_TRANSFORM if side == INPUT_TILE else OUTPUT_TRANSFORM.T.contiguous()
        for image in range(0, self.n, self.chunk_images):
            images = slice(image, min(self.n, image + self.chunk_images))
            for row in range(0, self.rows, self.chunk_rows):
                tile_rows = slice(row, min(self.rows, row + self.chunk_rows))
                top, bottom = row * TILE - border, tile_rows.stop * TILE + border
                strip = padded[: images.stop - image, : bottom - top]
                first, last = max(0, top), min(self.height, bottom)
                strip[:, : first - top].zero_()
                strip[:, last - top :].zero_()
                strip[:, first - top : last - top, border : border + self.width].copy_(self.x[images, first:last])
                a, b, c, _ = strip.stride()
                shape = (side, side, len(strip), tile_rows.stop - row, columns, channels)
                n_tiles = shape[2] * shape[3] * columns
                tiles = _first_tiles(tile_buffer, n_tiles)
                transformed = _first_tiles(transformed_buffer, n_tiles)
                tiles.view(shape).copy_(strip.as_strided(shape, (b, c, a, TILE * b, TILE * c, 1)))
                torch.mm(transform, tiles.view(side**2, -1), out=transformed.view(INPUT_TILE**2, -1))
                yield TileChunk(images, tile_rows, transformed)


def _first_tiles(buffer: Tensor, n_tiles: int) -> Tensor:
    """The memory of a buffer (positions, tiles, channels) for fewer tiles, contiguous."""
    positions, _, channels = buffer.shape
    return buffer.view(-1)[: positions * n_tiles * channels].view(positions, n_tiles, channels)
