"""PNG of 16 bits per channel, grey or colour, with or without alpha.

Pillow decodes 16-bit colour to 8 bits. The libraries that could help: OpenCV (60 MB; loses ICC, DPI
and text), imagecodecs (26 MB, bundles LGPL code), pyvips (LGPL), pypng (Python loops: minutes a
picture). But Pillow can be asked for the high byte of each sample in one pass and for the low byte
in a second one, interlaced files included; only the writer has to be our own.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import PngImagePlugin

Chunks = list[tuple[bytes, bytes]]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by samples per pixel


def png_chunks(fp: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, data) of every chunk of a PNG but its picture data, without checking the sums."""
    fp.seek(len(PNG_SIGNATURE))
    while len(head := fp.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IDAT", b"fdAT"):
            fp.seek(length + 4, io.SEEK_CUR)
        else:
            yield kind, fp.read(length)
            fp.seek(4, io.SEEK_CUR)


def read_png16(fp: IO[bytes], samples: int) -> NDArray[np.uint16]:
    """Decode a 16-bit PNG of 2, 3 or 4 samples per pixel.

    Shape:
        result: (height, width, samples), uint16.
    Raises:
        OSError, SyntaxError, ValueError: Pillow's own, for a damaged file.
    """
    # "RGBA" of grey + alpha: its 4 bytes a pixel are already all there is, in one pass.
    modes = {2: ("RGBA",), 3: ("RGB;16B", "RGB;16L"), 4: ("RGBA;16B", "RGBA;16L")}[samples]
    out: NDArray[np.uint8] | None = None
    for low, rawmode in enumerate(modes):
        fp.seek(0)
        picture = PngImagePlugin.PngImageFile(fp)
        picture.tile = [tile._replace(args=rawmode) for tile in picture.tile]
        picture.load()
        if out is None:
            out = np.empty((picture.height, picture.width, samples, 2), np.uint8)
        for y, band in bands(picture):
            if samples == 2:
                out[y : y + len(band)] = band.reshape(*band.shape[:2], 2, 2)
            else:
                out[y : y + len(band), ..., low] = band
    assert out is not None
    result = out.view(">u2")[..., 0]
    if result.dtype.isnative:
        return result
    return result.byteswap(inplace=True).view(np.uint16)


def write_png16(fp: IO[bytes], pixels: NDArray[np.uint16], chunks: Chunks) -> None:
    """Write a 16-bit PNG with the given ancillary chunks before its picture data.

    Shape:
        pixels: (height, width, samples), samples 1 (grey), 2 (+ alpha), 3 (RGB) or 4 (+ alpha).
    """
    height, width, samples = pixels.shape
    fp.write(PNG_SIGNATURE)
    PngImagePlugin.putchunk(fp, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, PNG_COLOUR_TYPES[samples], 0, 0, 0))
    for kind, data in chunks:
        PngImagePlugin.putchunk(fp, kind, data)
    squeeze = zlib.compressobj(4, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
    above = np.zeros((1, width * samples * 2), np.uint8)
    for y in range(0, height, 64):
        rows = pixels[y : y + 64].astype(">u2").view(np.uint8).reshape(-1, width * samples * 2)
        PngImagePlugin.putchunk(fp, b"IDAT", squeeze.compress(_filter_rows(rows, above, samples * 2)))
        above = rows[-1:]
    PngImagePlugin.putchunk(fp, b"IDAT", squeeze.flush())
    PngImagePlugin.putchunk(fp, b"IEND", b"")


def _filter_rows(rows: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> bytes:
    """PNG filters 0 to 3 (none, sub, up, average), row by row the one of least sum of differences."""
    up = np.concatenate([above, rows[:-1]])
    left = np.zeros_like(rows)
    left[:, step:] = rows[:, :-step]
    average = (left.astype(np.uint16) + up >> 1).astype(np.uint8)
    best = np.concatenate([np.zeros((len(rows), 1), np.uint8), rows], axis=1)
    cost = np.abs(rows.view(np.int8).astype(np.int16)).sum(axis=1)
    for kind, guess in ((1, left), (2, up), (3, average)):
        rest = rows - guess
        price = np.abs(rest.view(np.int8).astype(np.int16)).sum(axis=1)
        better = price < cost
        best[better, 0], best[better, 1:] = kind, rest[better]
        cost = np.minimum(cost, price)
    return best.tobytes()


def bands(picture: Pillow.Image, mode: str | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, rows as an array) of a decoded picture, converted to ``mode``.

    Band by band, since `numpy.asarray` of the whole would hold three copies of it at once.
    """
    rows = max(1, (1 << 20) // picture.width)
    for y in range(0, picture.height, rows):
        band = picture.crop((0, y, picture.width, min(y + rows, picture.height)))
        yield y, np.asarray(band.convert(mode) if mode and mode != band.mode else band)
