"""EXIF orientations: how stored pixels are turned for display, and back."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL.ExifTags import Base as Tag

from denoise.files.image.damage import DAMAGE_ERRORS
from denoise.signals import Image, ImageFormat

DISPLAYED_TO_STORED: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: np.rot90,
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
}
"""Views of displayed pixels, (height, width, ...), as they are stored, by orientation."""

STORED_TO_DISPLAYED = DISPLAYED_TO_STORED | {6: DISPLAYED_TO_STORED[8], 8: DISPLAYED_TO_STORED[6]}
"""The inverse; all others are their own inverse."""


def read_orientation(format: ImageFormat) -> int:
    """Return the EXIF orientation of a file, 1 to 8; 1, which turns nothing, if it has none that can be read.

    Args:
        format: format of the file, with the EXIF.
    """
    exif, orientation = Pillow.Exif(), 1
    with warnings.catch_warnings(action="ignore"), suppress(*DAMAGE_ERRORS):
        exif.load(format.info.get("exif", b""))
        orientation = exif.get(Tag.Orientation, 1)
    return orientation if orientation in STORED_TO_DISPLAYED else 1


def to_displayed(stored: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return a view of stored pixels as viewers show them.

    Args:
        stored: (height, width, ...).
        orientation: EXIF orientation, 1 to 8.
    """
    turn = STORED_TO_DISPLAYED.get(orientation)
    return stored if turn is None else turn(stored)


def to_stored(displayed: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return displayed pixels as they are stored, contiguous.

    Args:
        displayed: (height, width, ...).
        orientation: EXIF orientation, 1 to 8.
    """
    turn = DISPLAYED_TO_STORED.get(orientation)
    return displayed if turn is None else np.ascontiguousarray(turn(displayed))


def apply_orientation(frame: Image, format: ImageFormat) -> Image:
    """Return a frame as viewers show it, turned by its EXIF orientation.

    Args:
        frame: frame as stored.
        format: format of its file, with the EXIF.

    Returns:
        A view of the frame, not a copy. EXIF that cannot be read turns nothing, as in viewers.
    """
    return _turn(frame, to_displayed, read_orientation(format))


def undo_orientation(frame: Image, orientation: int) -> Image:
    """Return a displayed frame as it is stored.

    Args:
        frame: frame as viewers show it.
        orientation: EXIF orientation, 1 to 8.

    Returns:
        The frame itself, or a turned copy.
    """
    return _turn(frame, to_stored, orientation)


def _turn(frame: Image, turn: Callable[[NDArray[Any], int], NDArray[Any]], orientation: int) -> Image:
    if orientation not in STORED_TO_DISPLAYED:
        return frame
    alpha = None if frame.alpha is None else turn(frame.alpha, orientation)
    return replace(frame, pixels=turn(frame.pixels, orientation), alpha=alpha)
