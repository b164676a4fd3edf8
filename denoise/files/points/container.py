"""What the formats of point clouds have in common."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from itertools import chain
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from denoise.errors import InputError

TOKEN = re.compile(rb"[^\s,;]+")
MAX_TEXT = 1 << 29  # bytes; reading and writing take about twelve times as much memory
RESOLUTION = 1e-7  # of written text, relative to the extent of the cloud


class PointFile(ABC):
    """The bytes of a file with points in it.

    Args:
        data: the whole file.
        name: name of the file in messages.

    Raises:
        InputError: the file is damaged, or has no points or some that are not finite.
    """

    suffix: ClassVar[str]
    """Extension of such files, lower case with the dot."""
    points: NDArray[np.float64]
    """Coordinates, (n, 3)."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name = data, name
        self.points = self._read()
        if not len(self.points):
            raise InputError(f"{name}: holds no points; expected at least one. Export the cloud again.")
        try:
            require_finite_points(self.points)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None

    @abstractmethod
    def _read(self) -> NDArray[np.float64]:
        """Return the coordinates in the file, (n, 3)."""

    @abstractmethod
    def replace(self, points: NDArray[np.float64]) -> bytes:
        """Return the file with other coordinates, (n, 3); unchanged ones and everything else keep their bytes."""


def require_finite_points(points: NDArray[np.float64]) -> None:
    """Refuse points with coordinates that are not finite.

    Args:
        points: coordinates, (n, 3).

    Raises:
        InputError: there are such points.
    """
    if not np.isfinite(points).all():
        row, axis = (int(i) for i in np.argwhere(~np.isfinite(points))[0])
        raise InputError(
            f"{'xyz'[axis]} of point {row} is {points[row, axis]}; coordinates must be finite. Remove such points."
        )


class Lines:
    """Text whose rows begin with numbers, of which some columns are coordinates; blank lines and comments are kept.

    Args:
        text: the text.
        columns: indices of the columns of x, y and z.
        width: least number of columns.
        name: name of the file in messages.
        first: number of the first line in the file, for messages.
        comments: beginnings of lines that are no rows.

    Raises:
        InputError: the text is too long.
    """

    def __init__(
        self,
        text: bytes,
        columns: tuple[int, int, int],
        width: int,
        name: str,
        *,
        first: int = 1,
        comments: tuple[bytes, ...] = (),
    ) -> None:
        if len(text) > MAX_TEXT:
            raise InputError(
                f"{name}: holds {len(text) >> 20} MiB of text; expected {MAX_TEXT >> 20} at most. Convert it to a "
                "binary .ply, or split it."
            )
        self.columns, self.width, self.first, self.name = columns, width, first, name
        self.lines = text.splitlines(keepends=True)
        stripped = map(bytes.strip, self.lines)
        self.rows = np.fromiter(
            (i for i, line in enumerate(stripped) if line and not line.startswith(comments)), np.int64
        )
        """Indices of the lines that are rows."""

    def read(self, count: int | None = None) -> NDArray[np.float64]:
        """Return the coordinates of the first ``count`` rows, or of all, (rows, 3)."""
        coordinates = chain.from_iterable(map(self._read_row, self.rows[:count].tolist()))
        return np.fromiter(coordinates, np.float64).reshape(-1, 3)

    def replace(self, old: NDArray[np.float64], new: NDArray[np.float64]) -> bytes:
        """Return the text with new coordinates of the first rows, (rows, 3), where they differ from the old ones."""
        extent = float(np.ptp(new, axis=0).max()) or 1.0
        decimals = max(0, math.ceil(-math.log10(RESOLUTION * extent)))
        replaced = [*self.lines]
        for row in np.flatnonzero((old != new).any(axis=1)).tolist():
            i = int(self.rows[row])
            tokens, line = [*TOKEN.finditer(self.lines[i])], self.lines[i]
            for column, axis in sorted(zip(self.columns, range(3), strict=True), reverse=True):  # from right to left
                if old[row, axis] != new[row, axis]:
                    text = f"{new[row, axis]:.{decimals}f}".encode()
                    line = line[: tokens[column].start()] + text + line[tokens[column].end() :]
            replaced[i] = line
        return b"".join(replaced)

    def _read_row(self, i: int) -> list[float]:
        tokens = TOKEN.findall(self.lines[i])
        try:
            if len(tokens) < self.width:
                raise ValueError
            numbers = [tokens[column] for column in self.columns]
            if b"_" in b"".join(numbers):  # Python reads 1_0 as 10
                raise ValueError
            return [*map(float, numbers)]
        except ValueError:
            text = self.lines[i].strip()[:40].decode("ascii", "backslashreplace")
            raise InputError(
                f"{self.name}: line {self.first + i} is {text!r}; expected {self.width} numbers or more. Export the "
                "cloud again."
            ) from None
