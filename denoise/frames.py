"""Cut a signal of any length into overlapping windows and join the processed windows without a seam.

Both directions are generators over one axis, so a recording of hours or a band of a huge picture is
never in memory as a whole. Two dimensions are one dimension twice: bands of rows, tiles of columns.

The law: ``torch.cat([*overlap_add(split(chunks, grid), grid)])`` is ``torch.cat(chunks)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from denoise.errors import ConfigError


@dataclass(frozen=True)
class Grid:
    """Windows of ``window`` samples that overlap by ``2 * context + fade``.

    The ``context`` outermost samples of a window see its cut edge and are thrown away (weight 0); over
    the ``fade`` samples between, one window takes over from the other linearly. The weights sum to one
    everywhere. With a context no smaller than the network's, windows agree there, and the result does
    not depend on their size.
    """

    window: int
    context: int
    fade: int = 0

    def __post_init__(self) -> None:
        if self.context < 0 or self.fade < 0 or self.hop < max(1, self.overlap):
            raise ConfigError(
                f"a window of {self.window} is too small for a context of {self.context} and a fade of {self.fade}; "
                f"expected at least {max(1, self.overlap) + self.overlap}."
            )

    @property
    def overlap(self) -> int:
        return 2 * self.context + self.fade

    @property
    def hop(self) -> int:
        """Windows start at multiples of this."""
        return self.window - self.overlap

    @classmethod
    def fit(cls, window: int, context: int, fade: int, multiple: int = 1) -> Grid:
        """The grid whose windows are about ``window`` long and start at multiples of ``multiple``.

        A window that is too small for the context is enlarged.
        """
        overlap = 2 * context + fade
        hop = max(window - overlap, overlap, 1)
        hop = -(-hop // multiple) * multiple
        return cls(hop + overlap, context, fade)


@dataclass(frozen=True)
class Window:
    """A piece of the signal, where it starts, and whether the signal ends with it."""

    data: Tensor
    start: int
    last: bool

    def map(self, data: Tensor) -> Window:
        """The same place with other contents."""
        return replace(self, data=data)


def split(chunks: Iterable[Tensor], grid: Grid, dim: int = -1) -> Iterator[Window]:
    """Cut chunks of any sizes, joined along ``dim``, into the windows of ``grid``; the last may be shorter."""
    pieces: list[Tensor] = []
    length, start = 0, 0
    for chunk in chunks:
        pieces.append(chunk)
        length += chunk.shape[dim]
        if length <= grid.window:  # perhaps the last one: only what follows tells
            continue
        buffer = torch.cat(pieces, dim)
        while length > grid.window:
            yield Window(buffer.narrow(dim, 0, grid.window), start, last=False)
            length, start = length - grid.hop, start + grid.hop
            buffer = buffer.narrow(dim, grid.hop, length)
        pieces = [buffer]
    if length:
        yield Window(torch.cat(pieces, dim), start, last=True)


def overlap_add(windows: Iterable[Window], grid: Grid, dim: int = -1) -> Iterator[Tensor]:
    """Join windows along ``dim``, giving each sample out as soon as no later window reaches it."""
    up = (torch.arange(grid.fade) + 0.5) / max(1, grid.fade)
    rise = torch.cat([torch.zeros(grid.context), up, torch.ones(grid.context)])
    carry: Tensor | None = None
    for window in windows:
        x, n = window.data, window.data.shape[dim]
        shape = [-1 if d == dim % x.ndim else 1 for d in range(x.ndim)]
        ramp = rise.to(x).reshape(shape)
        if carry is not None:
            carry += x.narrow(dim, 0, grid.overlap) * ramp
            x = torch.cat([carry, x.narrow(dim, grid.overlap, n - grid.overlap)], dim)
        if window.last:
            yield x
        else:
            carry = x.narrow(dim, grid.hop, grid.overlap) * (1 - ramp)
            yield x.narrow(dim, 0, grid.hop)
        del window, x  # not kept while the next one is made


def gathered(pieces: Iterable[Tensor], shape: tuple[int, ...], dim: int = -1) -> Tensor:
    """What ``torch.cat([*pieces], dim)`` gives, float32 of ``shape``, in one block that is there before the pieces.

    They would lie in memory where the network needs whole blocks for the next one, and the process would grow.
    """
    whole, at = torch.empty(shape), 0
    for piece in pieces:
        whole.narrow(dim, at, piece.shape[dim]).copy_(piece)
        at += piece.shape[dim]
        del piece
    return whole
