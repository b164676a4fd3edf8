"""Convolutions of 3x3 pixels by a quarter of the products: photographs are denoised in 0.8 of the time in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

TILE = 4  # a side of the squares that are made at a time
SEEN = TILE + 2  # a side of what they see
CHUNK = 1 << 20  # numbers in the transformed tiles of a step: few enough for caches, enough for matrix products
LEAST, LEAST_TILES = 64, 16  # channels and tiles, or the transforms take longer than what they save

CPU: Any = {"dtype": torch.float64, "device": "cpu"}  # whatever the device of networks that are made meanwhile

# Polynomials through 0, 1, -1, 2, -2 and infinity. A tile is BT d B, a filter G g GT, an answer AT m A.
BT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    **CPU,
)
G = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], **CPU) / 24
AT = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], **CPU)
# of both axes at once: one matrix product does in a step what sums and differences do in many
INTO, FILTERS, OUT_OF = (torch.kron(m, m).float() for m in (BT, G, AT))


class Conv3x3(nn.Conv2d):
    """`torch.nn.Conv2d` of 3x3 pixels that keeps the size; in float32 on CPUs with MKL, where it pays, by `Winograd`.

    That is differentiable once and backwards alone; compiled, exported and traced networks keep PyTorch's.

    Shape:
        x, returns: (batch, channels, height, width).
    """

    def __init__(self, before: int, after: int, *, bias: bool = True) -> None:
        super().__init__(before, after, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        worth = (
            x.ndim == 4
            and x.device.type == weight.device.type == "cpu"
            and x.dtype == weight.dtype == torch.float32
            and torch.backends.mkl.is_available()
            and min(weight.shape[:2]) >= LEAST
            and len(x) * (x.shape[2] // TILE) * (x.shape[3] // TILE) >= LEAST_TILES
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        )
        if not worth:
            return super().forward(x)
        y: Tensor = Winograd.apply(x, weight) if torch.is_grad_enabled() else convolved(x, weight)
        return y if self.bias is None else y + self.bias[:, None, None]


class Winograd(torch.autograd.Function):
    """The convolution of a picture with filters of 3x3 pixels and a border of zeros, differentiable once.

    Errors are below 2e-5 of what the sums would be if nothing cancelled. Answers of a tile share them, and NaN.

    Shape:
        x: (batch, channels, height, width); weight: (after, channels, 3, 3), float32; returns (batch, after, height,
        width), channels last.
    Reference:
        Fast Algorithms for Convolutional Neural Networks, 2015, arXiv:1509.09308 (F(4x4, 3x3) and its matrices).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        needs_x, needs_weight = ctx.needs_input_grad
        ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)
        return convolved(x, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        return (
            convolved(grad, weight.flip(2, 3).transpose(0, 1)) if needs_x else None,
            correlated(x, grad).to(memory_format=torch.channels_last) if needs_weight else None,
        )


def convolved(x: Tensor, weight: Tensor) -> Tensor:
    """Shape: as `Winograd`."""
    n, before, h, w = x.shape
    after = len(weight)
    filters = (FILTERS @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(SEEN**2, before, after)
    rows, columns = -(-h // TILE), -(-w // TILE)
    size = n, after, rows * TILE, columns * TILE
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    into = out.permute(0, 2, 3, 1)
    tiles = Tiles(x, SEEN, max(before, after))
    products, answers = tiles.room(SEEN**2, after), tiles.room(TILE**2, after)
    for (images, strips), seen in tiles:
        m, y = (part(of, seen.shape[1]) for of in (products, answers))
        torch.bmm(seen, filters, out=m)
        torch.mm(OUT_OF, m.view(SEEN**2, -1), out=y.view(TILE**2, -1))
        there = into[images, strips.start * TILE : strips.stop * TILE].unflatten(1, (-1, TILE)).unflatten(3, (-1, TILE))
        there.copy_(y.view(TILE, TILE, *there.shape[:2], columns, after).permute(2, 3, 0, 4, 1, 5))
    exact = out.shape[2:] == x.shape[2:]
    return out if exact else out[:, :, :h, :w].clone(memory_format=torch.channels_last)


def correlated(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the filters. Shape: x (batch, channels, height, width), grad (batch, after, height, width)."""
    widest = max(x.shape[1], grad.shape[1])
    total = x.new_zeros(SEEN**2, x.shape[1], grad.shape[1])
    for (_, seen), (_, made) in zip(Tiles(x, SEEN, widest), Tiles(grad, TILE, widest), strict=True):
        total.baddbmm_(seen.transpose(1, 2), made)
    return (FILTERS.T @ total.view(SEEN**2, -1)).view(3, 3, *total.shape[1:]).permute(3, 2, 0, 1)


def part(of: Tensor, count: int) -> Tensor:
    """The memory of ``of``, (places, most, channels), for fewer. Shape: (places, count, channels), contiguous."""
    places, _, channels = of.shape
    return of.view(-1)[: places * count * channels].view(places, count, channels)


class Tiles:
    """The transformed tiles of a picture, some at a time: squares of ``side`` pixels at each fourth row and column.

    Iterates over ((the images, the rows of tiles), tiles (36, how many, channels)), valid until the next.
    """

    def __init__(self, x: Tensor, side: int, widest: int) -> None:
        self.x, self.side = x.permute(0, 2, 3, 1), side
        self.n, self.h, self.w, self.channels = self.x.shape
        self.rows, self.columns = -(-self.h // TILE), -(-self.w // TILE)
        at_once = max(1, CHUNK // (SEEN**2 * widest))
        self.strips = min(self.rows, max(1, at_once // self.columns))
        self.images = min(self.n, max(1, at_once // (self.rows * self.columns)))

    def room(self, places: int, channels: int) -> Tensor:
        return self.x.new_empty(places, self.images * self.strips * self.columns, channels)

    def __iter__(self) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
        side, columns, channels = self.side, self.columns, self.channels
        border = (side - TILE) // 2
        padded = self.x.new_zeros(self.images, self.strips * TILE + 2 * border, columns * TILE + 2 * border, channels)
        gathered, tiles = self.room(side**2, channels), self.room(SEEN**2, channels)
        transform = INTO if side == SEEN else OUT_OF.T.contiguous()
        for image in range(0, self.n, self.images):
            images = slice(image, min(self.n, image + self.images))
            for strip in range(0, self.rows, self.strips):
                strips = slice(strip, min(self.rows, strip + self.strips))
                top, low = strip * TILE - border, strips.stop * TILE + border
                around = padded[: images.stop - image, : low - top]
                first, last = max(0, top), min(self.h, low)
                around[:, : first - top].zero_()
                around[:, last - top :].zero_()
                around[:, first - top : last - top, border : border + self.w].copy_(self.x[images, first:last])
                a, b, c, _ = around.stride()
                shape = (side, side, len(around), strips.stop - strip, columns, channels)
                count = shape[2] * shape[3] * columns
                there, out = part(gathered, count), part(tiles, count)
                there.view(shape).copy_(around.as_strided(shape, (b, c, a, TILE * b, TILE * c, 1)))
                torch.mm(transform, there.view(side**2, -1), out=out.view(SEEN**2, -1))
                yield (images, strips), out
