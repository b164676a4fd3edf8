"""XYZ: lines of text that begin with the three coordinates of a point; other columns, comments and blanks are kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from denoise.files.points.container import Lines, PointFile

COMMENTS = (b"#", b"//")


class XyzFile(PointFile):
    """A file of lines ``x y z ...``, with spaces, tabs, commas or semicolons between the columns."""

    suffix = ".xyz"

    def _read(self) -> NDArray[np.float64]:
        self.all_lines = self.data.splitlines(keepends=True)
        self.rows = [i for i, line in enumerate(self.all_lines) if line.strip() and not line.startswith(COMMENTS)]
        first = self.rows[0] + 1 if self.rows else 1
        self.lines = Lines([self.all_lines[i] for i in self.rows], (0, 1, 2), 3, first, self.name)
        return self.lines.read()

    def replace(self, points: NDArray[np.float64]) -> bytes:
        """Return the file with other coordinates; see `PointFile.replace`."""
        lines = [*self.all_lines]
        for i, line in zip(self.rows, self.lines.replace(self.points, points), strict=True):
            lines[i] = line
        return b"".join(lines)


def encode_xyz(points: NDArray[np.float64]) -> bytes:
    """Return a new file of points, (n, 3)."""
    return "".join(f"{x:.7g} {y:.7g} {z:.7g}\n" for x, y, z in points.tolist()).encode()
