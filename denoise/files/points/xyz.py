"""XYZ: lines of text that begin with the three coordinates of a point; other columns, comments and blanks are kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from denoise.files.points.container import Lines, PointFile

BOM = b"\xef\xbb\xbf"  # at the beginning of text in UTF-8
COMMENTS = (b"#", b"//")


class XyzFile(PointFile):
    """A file of lines ``x y z ...``, with spaces, tabs, commas or semicolons between the columns."""

    suffix = ".xyz"

    def _read(self) -> NDArray[np.float64]:
        text = self.data.removeprefix(BOM)
        self.start = self.data[: len(self.data) - len(text)]
        self.text = Lines(text, (0, 1, 2), 3, self.name, comments=COMMENTS)
        return self.text.read()

    def replace(self, points: NDArray[np.float64]) -> bytes:
        """Return the file with other coordinates; see `PointFile.replace`."""
        return self.start + self.text.replace(self.points, points)


def encode_xyz(points: NDArray[np.float64]) -> bytes:
    """Return a new file of points, (n, 3), with 7 significant digits."""
    return "".join(f"{x:.7g} {y:.7g} {z:.7g}\n" for x, y, z in points.tolist()).encode()
