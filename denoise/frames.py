"""Split a signal of any length into overlapping windows, and join the processed windows without seams.

Both directions are generators along one axis, so that a long recording, or a band of a large image, is never in memory
as a whole. Two dimensions are one dimension twice: bands of rows, tiles of columns.

The law: ``np.concatenate([*overlap_add(split(chunks, grid), grid)], -1)`` is ``np.concatenate(chunks, -1)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise.errors import ConfigError

Array = NDArray[Any]


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

    data: Array
    start: int
    last: bool

    def map(self, data: Array) -> Window:
        """Return the window with other data.

        Args:
            data: processed section of the same length.

        Returns:
            A window with the same start.
        """
        return replace(self, data=data)


def split(chunks: Iterable[Array], grid: Grid, axis: int = -1) -> Iterator[Window]:
    """Split a signal into the windows of a grid.

    Args:
        chunks: consecutive sections of the signal, of any length along ``axis``.
        grid: of the windows.
        axis: axis of the windows.

    Returns:
        Windows, of which the last may be shorter.
    """
    pieces: list[Array] = []
    length, start = 0, 0
    for chunk in chunks:
        pieces.append(chunk)
        length += chunk.shape[axis]
        if length <= grid.window:  # perhaps the last window, unless more chunks follow
            continue
        buffer = np.concatenate(pieces, axis)
        while length > grid.window:
            yield Window(_section(buffer, axis, 0, grid.window), start, last=False)
            length, start = length - grid.hop, start + grid.hop
            buffer = _section(buffer, axis, grid.hop)
        pieces = [buffer]
    if length:
        yield Window(np.concatenate(pieces, axis), start, last=True)


def overlap_add(windows: Iterable[Window], grid: Grid, axis: int = -1) -> Iterator[Array]:
    """Join windows, and yield each sample as soon as no later window contains it.

    Args:
        windows: of `split`, processed.
        grid: of the windows.
        axis: axis of the windows.

    Returns:
        Consecutive sections of the joined signal.
    """
    fade = (np.arange(grid.fade, dtype=np.float32) + np.float32(0.5)) / max(1, grid.fade)
    fade_in = np.concatenate([np.zeros(grid.context), fade, np.ones(grid.context)])
    overlap: Array | None = None
    for window in windows:
        x = window.data
        weight = np.expand_dims(fade_in.astype(x.dtype), [d for d in range(x.ndim) if d != axis % x.ndim])
        if overlap is not None:
            overlap += _section(x, axis, 0, grid.overlap) * weight
            x = np.concatenate([overlap, _section(x, axis, grid.overlap)], axis)
        if window.last:
            yield x
        else:
            overlap = _section(x, axis, grid.hop) * (1 - weight)
            yield _section(x, axis, 0, grid.hop)
        del window, x  # not kept in memory while the next one is processed


def cat_preallocated(pieces: Iterable[Array], shape: tuple[int, ...], axis: int = -1) -> Array:
    """Concatenate arrays in memory that is allocated before the first of them.

    ``np.concatenate`` would keep the pieces in the memory where the network needs large blocks for the next one, and
    the process would grow.

    Args:
        pieces: arrays of any length along ``axis``.
        shape: of the result.
        axis: axis of concatenation.

    Returns:
        As ``np.concatenate([*pieces], axis)``, in float32.
    """
    out, start = np.empty(shape, np.float32), 0
    for piece in pieces:
        stop = start + piece.shape[axis]
        _section(out, axis, start, stop)[...] = piece
        start = stop
        del piece
    return out


def _section(x: Array, axis: int, start: int, stop: int | None = None) -> Array:
    """Return a view of part of an array along one axis."""
    return x[(slice(None),) * (axis % x.ndim) + (slice(start, stop),)]
