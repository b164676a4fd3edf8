"""Convert images to palettes."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from denoise.files.image.bands import row_bands


def to_palette(picture: Pillow.Image, max_colours: int) -> tuple[Pillow.Image, bytes | None]:
    """Convert an image to a palette.

    The result is exact where the image has no more than ``max_colours`` colours. Otherwise each pixel gets the
    nearest colour of a new palette, without dithering, which would add noise.

    Args:
        picture: image of any mode that Pillow converts to RGBA.
        max_colours: maximum length of the palette, 1 to 256.

    Returns:
        Image of mode ``"P"``, and the alpha of each colour of its palette, or None if all are opaque.
    """
    rgba = picture.convert("RGBA")
    counted_colours = rgba.getcolors(max_colours)
    if counted_colours is None:
        return _quantise(rgba, max_colours)
    colours = [struct.unpack("<I", bytes(colour))[0] for _, colour in counted_colours]  # type: ignore[arg-type]
    palette = np.array(colours, np.uint32)
    palette.sort()
    indices = np.empty((rgba.height, rgba.width), np.uint8)
    for y, band in row_bands(rgba):
        packed = np.ascontiguousarray(band).view("<u4")[..., 0]
        indices[y : y + len(packed)] = np.searchsorted(palette, packed)
    return _with_palette(indices, palette.astype("<u4").view(np.uint8).reshape(-1, 4))


def _quantise(rgba: Pillow.Image, max_colours: int) -> tuple[Pillow.Image, bytes | None]:
    """Quantise each level of alpha on its own, with colours in proportion to its pixels, so that no level is lost."""
    counts = {level: count for level, count in enumerate(rgba.getchannel("A").histogram()) if count}
    if len(counts) > max_colours:
        tree = rgba.quantize(max_colours, Pillow.Quantize.FASTOCTREE, dither=Pillow.Dither.NONE)
        return _with_palette(np.asarray(tree), np.array(tree.getpalette("RGBA"), np.uint8).reshape(-1, 4))
    pixels, alpha = np.asarray(rgba.convert("RGB")), np.asarray(rgba.getchannel("A"))
    indices, palettes, first_index = np.empty(alpha.shape, np.uint8), [], 0
    for level, count in counts.items():
        n_colours = 1 if level == 0 else 1 + (max_colours - len(counts)) * count // alpha.size
        mask = alpha == level
        quantised = Pillow.fromarray(pixels[mask][None]).quantize(
            n_colours, Pillow.Quantize.MEDIANCUT, dither=Pillow.Dither.NONE
        )
        palette = np.array(quantised.getpalette(), np.uint8).reshape(-1, 3)
        indices[mask] = first_index + np.asarray(quantised)[0]
        palettes.append(np.insert(palette, 3, level, axis=1))
        first_index += len(palette)
    return _with_palette(indices, np.concatenate(palettes))


def _with_palette(indices: NDArray[np.uint8], rgba_palette: NDArray[np.uint8]) -> tuple[Pillow.Image, bytes | None]:
    picture = Pillow.fromarray(indices)
    picture.putpalette(rgba_palette[:, :3].tobytes(), "RGB")
    alphas = rgba_palette[:, 3]
    return picture, None if (alphas == 255).all() else alphas.tobytes()
