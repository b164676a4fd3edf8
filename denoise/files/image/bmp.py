"""BMP."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin

from denoise.files.image.container import frame_info, interleave_alpha
from denoise.files.image.pillow import PillowContainer
from denoise.signals import Image, ImageFormat

DEFAULT_DPI = (96, 96)


class Bmp(PillowContainer[BmpImagePlugin.BmpImageFile]):
    """BMP, with alpha in files with a header of version 4."""

    name = "BMP"
    extensions = (".bmp", ".dib")
    modes: ClassVar[dict[str, str]] = {"L": "L", "LA": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}
    has_bilevel = True
    palette_modes = ("RGB",)
    plugin = BmpImagePlugin.BmpImageFile
    saved_info = ("dpi",)

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file starts with the signature of BMP."""
        return head.startswith(b"BM")

    @classmethod
    def write(cls, file: IO[bytes], frames: Iterator[Image], source: ImageFormat, name: str) -> None:
        """Write one frame.

        Args:
            file: empty file, readable and seekable.
            frames: one frame.
            source: format of the file that the frame comes from.
            name: name of the target in errors.

        Raises:
            InputError: BMP cannot hold the frame.
        """
        frame = next(frames)
        if cls.stored_mode(frame, frame_info(source, 0), name) == "RGBA":
            _write_with_alpha(file, interleave_alpha(frame), source.info.get("dpi") or DEFAULT_DPI)
        else:
            super().write(file, chain([frame], frames), source, name)


def _write_with_alpha(file: IO[bytes], samples: NDArray[Any], dpi: tuple[float, float]) -> None:
    """Write a header of version 4, since the one of Pillow's writer has no alpha."""
    height, width = samples.shape[:2]
    x_per_metre, y_per_metre = (round(value / 0.0254) for value in dpi)
    bgra = np.empty((height, width, 4), np.uint8)
    bgra[..., :3] = samples[..., -2::-1]
    bgra[..., 3] = samples[..., -1]
    file.write(struct.pack("<2sIII", b"BM", 122 + bgra.nbytes, 0, 122))
    file.write(struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, bgra.nbytes, x_per_metre, y_per_metre, 0, 0))
    file.write(struct.pack("<IIII4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs").ljust(68, b"\0"))
    file.write(bgra[::-1].tobytes())
