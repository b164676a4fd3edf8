"""Access to decoded Pillow images without a second copy of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

BAND_PIXELS = 1 << 20


def row_bands(picture: Pillow.Image, mode: str | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield a decoded image in bands of rows, since `numpy.asarray` of all of it would hold three copies at once.

    Args:
        picture: Pillow's image.
        mode: Pillow's mode to convert to; None keeps the mode of the image.

    Yields:
        Index of the first row and the rows, (rows, width) or (rows, width, channels).
    """
    rows = max(1, BAND_PIXELS // picture.width)
    for y in range(0, picture.height, rows):
        band = picture.crop((0, y, picture.width, min(y + rows, picture.height)))
        yield y, np.asarray(band.convert(mode) if mode and mode != band.mode else band)
