"""What the formats of point clouds have in common."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from denoise.errors import InputError

TOKEN = re.compile(rb"[^\s,;]+")
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
        if not np.isfinite(self.points).all():
            row, axis = (int(i) for i in np.argwhere(~np.isfinite(self.points))[0])
            raise InputError(
                f"{name}: {'xyz'[axis]} of point {row} is {self.points[row, axis]}; coordinates must be finite. "
                "Remove such points."
            )

    @abstractmethod
    def _read(self) -> NDArray[np.float64]:
        """Return the coordinates in the file, (n, 3)."""

    @abstractmethod
    def replace(self, points: NDArray[np.float64]) -> bytes:
        """Return the file with other coordinates, (n, 3); unchanged ones and everything else keep their bytes."""


class Lines:
    """Lines of text that begin with numbers, of which some columns are coordinates.

    Args:
        lines: the lines, with their ends.
        columns: indices of the columns of x, y and z.
        width: least number of columns.
        first: number of the first line in the file, for messages.
        name: name of the file in messages.
    """

    def __init__(self, lines: list[bytes], columns: tuple[int, int, int], width: int, first: int, name: str) -> None:
        self.lines, self.columns, self.width, self.first, self.name = lines, columns, width, first, name

    def read(self) -> NDArray[np.float64]:
        """Return the coordinates, (lines, 3)."""
        return np.array([*self._rows()], np.float64).reshape(-1, 3)

    def replace(self, old: NDArray[np.float64], new: NDArray[np.float64]) -> list[bytes]:
        """Return the lines with new coordinates where they differ from the old ones."""
        extent = float(np.ptp(new, axis=0).max()) or 1.0
        decimals = max(0, math.ceil(-math.log10(RESOLUTION * extent)))
        replaced = [*self.lines]
        for row in np.flatnonzero((old != new).any(axis=1)).tolist():
            tokens, line = [*TOKEN.finditer(self.lines[row])], self.lines[row]
            for column, axis in sorted(zip(self.columns, range(3), strict=True), reverse=True):  # from right to left
                if old[row, axis] != new[row, axis]:
                    text = f"{new[row, axis]:.{decimals}f}".encode()
                    line = line[: tokens[column].start()] + text + line[tokens[column].end() :]
            replaced[row] = line
        return replaced

    def _rows(self) -> Iterator[list[float]]:
        for i, line in enumerate(self.lines):
            tokens = TOKEN.findall(line)
            try:
                if len(tokens) < self.width:
                    raise ValueError
                yield [float(tokens[column]) for column in self.columns]
            except ValueError:
                text = line.strip()[:40].decode("ascii", "backslashreplace")
                raise InputError(
                    f"{self.name}: line {self.first + i} is {text!r}; expected {self.width} numbers or more. Export "
                    "the cloud again."
                ) from None
