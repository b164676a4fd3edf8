"""Split a signal of any length into overlapping windows, and join the processed windows without seams.

Both directions are generators along one axis, so that a long recording, or a band of a large image, is never in memory
as a whole. Two dimensions are one dimension twice: bands of rows, tiles of columns.

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
    """Windows of equal length that overlap by ``2 * context + fade`` samples.

    The ``context`` outermost samples of a window depend on its cut edge and are discarded (weight 0); over the ``fade``
    samples between, one window fades linearly into the next. The weights sum to one everywhere. With a context no
    smaller than that of the network, windows agree there, and the output does not depend on their length.

    Args:
        window: length in samples.
        context: samples that are discarded at each edge.
        fade: samples of the cross-fade.

    Raises:
        ConfigError: the window is too short for context and fade, or one of them is negative.
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
        """Samples that two windows share."""
        return 2 * self.context + self.fade

    @property
    def hop(self) -> int:
        """Windows start at multiples of this."""
        return self.window - self.overlap

    @classmethod
    def fit(cls, window: int, context: int, fade: int, multiple: int = 1) -> Grid:
        """Return the grid whose windows are about ``window`` long and start at multiples of ``multiple``.

        Args:
            window: minimum length in samples; it is raised if it is too short for the context.
            context: as in `Grid`.
            fade: as in `Grid`.
            multiple: of the hop.

        Returns:
            The grid of the shortest such windows.
        """
        overlap = 2 * context + fade
        hop = max(window - overlap, overlap, 1)
        hop = -(-hop // multiple) * multiple
        return cls(hop + overlap, context, fade)


@dataclass(frozen=True)
class Window:
    """A section of a signal.

    Args:
        data: the section.
        start: index of its first sample in the signal.
        last: whether the signal ends with it.
    """

    data: Tensor
    start: int
    last: bool

    def map(self, data: Tensor) -> Window:
        """Return the window with other data.

        Args:
            data: processed section of the same length.

        Returns:
            A window with the same start.
        """
        return replace(self, data=data)


def split(chunks: Iterable[Tensor], grid: Grid, dim: int = -1) -> Iterator[Window]:
    """Split a signal into the windows of a grid.

    Args:
        chunks: consecutive sections of the signal, of any length along ``dim``.
        grid: of the windows.
        dim: axis of the windows.

    Returns:
        Windows, of which the last may be shorter.
    """
    pieces: list[Tensor] = []
    length, start = 0, 0
    for chunk in chunks:
        pieces.append(chunk)
        length += chunk.shape[dim]
        if length <= grid.window:  # perhaps the last window, unless more chunks follow
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
    """Join windows, and yield each sample as soon as no later window contains it.

    Args:
        windows: of `split`, processed.
        grid: of the windows.
        dim: axis of the windows.

    Returns:
        Consecutive sections of the joined signal.
    """
    fade = (torch.arange(grid.fade) + 0.5) / max(1, grid.fade)
    fade_in = torch.cat([torch.zeros(grid.context), fade, torch.ones(grid.context)])
    overlap: Tensor | None = None
    for window in windows:
        x, n = window.data, window.data.shape[dim]
        shape = [-1 if d == dim % x.ndim else 1 for d in range(x.ndim)]
        weight = fade_in.to(x).reshape(shape)
        if overlap is not None:
            overlap += x.narrow(dim, 0, grid.overlap) * weight
            x = torch.cat([overlap, x.narrow(dim, grid.overlap, n - grid.overlap)], dim)
        if window.last:
            yield x
        else:
            overlap = x.narrow(dim, grid.hop, grid.overlap) * (1 - weight)
            yield x.narrow(dim, 0, grid.hop)
        del window, x  # not kept in memory while the next one is processed


def cat_preallocated(pieces: Iterable[Tensor], shape: tuple[int, ...], dim: int = -1) -> Tensor:
    """Concatenate tensors in memory that is allocated before the first of them.

    ``torch.cat`` would keep the pieces in the memory where the network needs large blocks for the next one, and the
    process would grow.

    Args:
        pieces: tensors of any length along ``dim``.
        shape: of the result.
        dim: axis of concatenation.

    Returns:
        As ``torch.cat([*pieces], dim)``, in float32.
    """
    out, start = torch.empty(shape), 0
    for piece in pieces:
        out.narrow(dim, start, piece.shape[dim]).copy_(piece)
        start += piece.shape[dim]
        del piece
    return out
