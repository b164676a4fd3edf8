"""Pictures back into palettes."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from denoise.files.image.png16 import bands


def to_palette(picture: Pillow.Image, colors: int) -> tuple[Pillow.Image, bytes | None]:
    """The picture with a palette of at most ``colors``, and the alpha of each (None: all opaque).

    Exact where it has no more than ``colors`` colours, else the nearest of a new palette, without
    dithering, which would bring noise back.
    """
    whole = picture.convert("RGBA")
    found = whole.getcolors(colors)
    if found is None:
        return _quantise(whole, colors)
    table = np.array([struct.unpack("<I", bytes(colour)) for _, colour in found], np.uint32)[:, 0]  # type: ignore[arg-type]
    table.sort()
    index = np.empty((whole.height, whole.width), np.uint8)
    for y, band in bands(whole):
        packed = np.ascontiguousarray(band).view("<u4")[..., 0]
        index[y : y + len(packed)] = np.searchsorted(table, packed)
    return _with_palette(index, table.astype("<u4").view(np.uint8).reshape(-1, 4))


def _quantise(whole: Pillow.Image, colors: int) -> tuple[Pillow.Image, bytes | None]:
    """A palette for each level of alpha, as large as its share of the picture: none is blended away."""
    levels = {level: count for level, count in enumerate(whole.getchannel("A").histogram()) if count}
    if len(levels) > colors:
        tree = whole.quantize(colors, Pillow.Quantize.FASTOCTREE, dither=Pillow.Dither.NONE)
        return _with_palette(np.asarray(tree), np.array(tree.getpalette("RGBA"), np.uint8).reshape(-1, 4))
    pixels, alpha = np.asarray(whole.convert("RGB")), np.asarray(whole.getchannel("A"))
    index, tables, first = np.empty(alpha.shape, np.uint8), [], 0
    for level, count in levels.items():
        share = 1 if level == 0 else 1 + (colors - len(levels)) * count // alpha.size
        here = alpha == level
        flat = Pillow.fromarray(pixels[here][None]).quantize(
            share, Pillow.Quantize.MEDIANCUT, dither=Pillow.Dither.NONE
        )
        table = np.array(flat.getpalette(), np.uint8).reshape(-1, 3)
        index[here] = first + np.asarray(flat)[0]
        tables.append(np.insert(table, 3, level, axis=1))
        first += len(table)
    return _with_palette(index, np.concatenate(tables))


def _with_palette(index: NDArray[np.uint8], rgba: NDArray[np.uint8]) -> tuple[Pillow.Image, bytes | None]:
    picture = Pillow.fromarray(index)
    picture.putpalette(rgba[:, :3].tobytes(), "RGB")
    return picture, None if (rgba[:, 3] == 255).all() else rgba[:, 3].tobytes()
