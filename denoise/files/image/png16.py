"""Codec for PNG of 16 bits per channel, grey or colour, with alpha or without.

Pillow decodes 16-bit colour to 8 bits. Other libraries have costs of their own: OpenCV (60 MB; loses ICC, DPI and
text), imagecodecs (26 MB, bundles LGPL code), pyvips (LGPL), pypng (loops in Python: minutes per image). But Pillow
decodes the high byte of each sample in one pass and the low byte in a second one, interlaced files included. Only the
encoder has to be written here.
"""

from __future__ import annotations

import struct
import zlib
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from denoise.files.image.bands import row_bands

Chunks = list[tuple[bytes, bytes]]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by samples per pixel
RAW_MODES = {2: ("RGBA",), 3: ("RGB;16B", "RGB;16L"), 4: ("RGBA;16B", "RGBA;16L")}  # of each pass
ROWS_PER_CHUNK = 64
COMPRESS_LEVEL = 4


def read_png16(file: IO[bytes], samples: int) -> NDArray[np.uint16]:
    """Decode a 16-bit PNG.

    Args:
        file: the open file, seekable.
        samples: samples per pixel, 2, 3 or 4.

    Returns:
        Pixels, (height, width, samples).

    Raises:
        OSError: from Pillow, for a damaged file.
        SyntaxError: from Pillow, for a damaged file.
        ValueError: from Pillow, for a damaged file.
    """
    result: NDArray[np.uint8] | None = None
    for low_byte, raw_mode in enumerate(RAW_MODES[samples]):
        file.seek(0)
        picture = PngImagePlugin.PngImageFile(file)
        picture.tile = [tile._replace(args=raw_mode) for tile in picture.tile]
        picture.load()
        if result is None:
            result = np.empty((picture.height, picture.width, samples, 2), np.uint8)
        for y, band in row_bands(picture):
            if samples == 2:  # grey and alpha are 4 bytes per pixel: "RGBA" holds all of them in one pass
                result[y : y + len(band)] = band.reshape(*band.shape[:2], 2, 2)
            else:
                result[y : y + len(band), ..., low_byte] = band
    assert result is not None
    pixels = result.view(">u2")[..., 0]
    if pixels.dtype.isnative:
        return pixels
    return pixels.byteswap(inplace=True).view(np.uint16)


def write_png16(file: IO[bytes], pixels: NDArray[np.uint16], chunks: Chunks) -> None:
    """Encode a 16-bit PNG.

    Args:
        file: file to write to.
        pixels: (height, width, samples), samples 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).
        chunks: (type, data) of ancillary chunks, written before the image data.
    """
    height, width, samples = pixels.shape
    file.write(PNG_SIGNATURE)
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[samples], 0, 0, 0)
    PngImagePlugin.putchunk(file, b"IHDR", header)
    for kind, data in chunks:
        PngImagePlugin.putchunk(file, kind, data)
    compressor = zlib.compressobj(COMPRESS_LEVEL, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
    previous_row = np.zeros((1, width * samples * 2), np.uint8)
    for y in range(0, height, ROWS_PER_CHUNK):
        rows = pixels[y : y + ROWS_PER_CHUNK].astype(">u2").view(np.uint8).reshape(-1, width * samples * 2)
        PngImagePlugin.putchunk(file, b"IDAT", compressor.compress(_filter_rows(rows, previous_row, samples * 2)))
        previous_row = rows[-1:]
    PngImagePlugin.putchunk(file, b"IDAT", compressor.flush())
    PngImagePlugin.putchunk(file, b"IEND", b"")


def _filter_rows(rows: NDArray[np.uint8], previous_row: NDArray[np.uint8], pixel_bytes: int) -> bytes:
    """Filter each row by type 0 to 3 (none, sub, up, average), whichever has the least sum of absolute differences."""
    up = np.concatenate([previous_row, rows[:-1]])
    left = np.zeros_like(rows)
    left[:, pixel_bytes:] = rows[:, :-pixel_bytes]
    average = (left.astype(np.uint16) + up >> 1).astype(np.uint8)
    filtered = np.concatenate([np.zeros((len(rows), 1), np.uint8), rows], axis=1)
    lowest_cost = np.abs(rows.view(np.int8).astype(np.int16)).sum(axis=1)
    for filter_type, prediction in ((1, left), (2, up), (3, average)):
        residual = rows - prediction
        cost = np.abs(residual.view(np.int8).astype(np.int16)).sum(axis=1)
        is_lower = cost < lowest_cost
        filtered[is_lower, 0], filtered[is_lower, 1:] = filter_type, residual[is_lower]
        lowest_cost = np.minimum(lowest_cost, cost)
    return filtered.tobytes()
