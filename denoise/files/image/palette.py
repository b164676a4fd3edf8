"""Convert images to palettes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from denoise.files.image.bands import row_bands

ROUNDING_ERROR = 1 / 12  # mean square of the error of rounding to integers
N_REFINEMENTS = 3  # of a median cut: further ones hardly lower its error
MIN_GAIN = 1.5  # of the mean squared error by a new palette: of clean images it is up to 1.2, of noisy ones from 1.8 on
ALPHA_SCALE = 1024  # of a step of alpha: farther than any two colours, so that the nearest colour has the same alpha


class Palette(NamedTuple):
    """The colours of a palette in their order.

    Args:
        rgba: (colours, 4), uint8.
        is_used: whether pixels have it, (colours,): of equal colours, those are taken.
    """

    rgba: NDArray[np.uint8]
    is_used: NDArray[np.bool_]


EMPTY = Palette(np.empty((0, 4), np.uint8), np.empty(0, np.bool_))


def read_palette(picture: Pillow.Image) -> Palette | None:
    """Return the palette of a loaded image, or None if it has none."""
    if picture.mode != "P":
        return None
    rgb = np.array(picture.getpalette(), np.uint8).reshape(-1, 3)
    is_used = np.array(picture.histogram()[: len(rgb)]) > 0
    return Palette(to_rgba(rgb, picture.info.get("transparency")), is_used)


def to_rgba(rgb: NDArray[np.uint8], transparency: int | bytes | None) -> NDArray[np.uint8]:
    """Return the colours of a palette with their alpha, (colours, 4).

    Args:
        rgb: (colours, 3).
        transparency: index of the transparent colour, or the alpha of the first colours; None if all are opaque.
    """
    rgba = np.insert(rgb, 3, 255, axis=1)
    if isinstance(transparency, bytes):
        rgba[: len(transparency), 3] = np.frombuffer(transparency, np.uint8)[: len(rgba)]
    elif transparency is not None:
        rgba[transparency : transparency + 1, 3] = 0
    return rgba


def to_palette(
    picture: Pillow.Image, max_colours: int, source: Palette | None = None
) -> tuple[Pillow.Image, bytes | None]:
    """Convert an image to a palette.

    Each pixel gets the nearest colour of the source's palette if that is as good as rounding. Otherwise the result is
    exact where the new colours fit into the free and unused entries; or else a new palette is taken if its error is
    clearly smaller, as of noisy images, whose palette holds noise. Nothing is dithered, which would add noise. Unless
    the palette is new, pixels of an unchanged colour keep their index, but for colours that are in it twice.

    Args:
        picture: image of any mode that Pillow converts to RGBA.
        max_colours: maximum length of the palette, 1 to 256.
        source: palette of the image that this one was made of.

    Returns:
        Image of mode ``"P"``, and the alpha of each colour of its palette, or None if all are opaque.
    """
    rgba = picture.convert("RGBA")
    colours, counts = _count_colours(rgba)
    if source is None or len(source.rgba) > max_colours:
        source = EMPTY
    palette, index = _fit(rgba, _unpack(colours), counts, max_colours, source)
    indices = np.empty((rgba.height, rgba.width), np.uint8)
    for y, band in row_bands(rgba):
        packed = _pack(band)
        indices[y : y + len(packed)] = index[np.searchsorted(colours, packed)]
    result = Pillow.fromarray(indices)
    result.putpalette(palette[:, :3].tobytes(), "RGB")
    return result, None if (palette[:, 3] == 255).all() else palette[:, 3].tobytes()


def _fit(
    picture: Pillow.Image, colours: NDArray[np.uint8], counts: NDArray[np.float64], max_colours: int, source: Palette
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a palette for the colours of an image, (n, 4), and the index in it of each of them."""
    index, distance = _nearest(colours, source)
    counts = np.where(colours[:, 3] > 0, counts, 0)  # nobody sees the colours of hidden pixels
    error = _error(counts, distance)
    if error <= 3 * ROUNDING_ERROR * counts.sum():
        return source.rgba, index
    is_new = distance > 0
    n_free = max_colours - len(source.rgba)
    is_unused = source.rgba[:, 3] > 0  # but for what may be needed to clear a canvas
    is_unused[index[~is_new]] = False
    places = np.concatenate([np.arange(n_free) + len(source.rgba), np.flatnonzero(is_unused)])
    if is_new.sum() <= len(places):
        places = np.sort(places[: is_new.sum()])
        palette = np.concatenate([source.rgba, np.empty((n_free, 4), np.uint8)])
        palette[places], index[is_new] = colours[is_new], places
        return palette[: max(len(source.rgba), places[-1] + 1)], index
    palette = _quantise(picture, max_colours)
    for _ in range(N_REFINEMENTS):
        palette = _to_means(palette, colours, counts)
    new_index, distance = _nearest(colours, _all_used(palette))
    new_error = _error(counts, distance)
    return (source.rgba, index) if error < min(MIN_GAIN * new_error, np.inf) else (palette, new_index)


def _to_means(palette: NDArray[np.uint8], colours: NDArray[np.uint8], counts: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Move each colour of a palette to the mean of those that it is the nearest of, as k-means does."""
    index, _ = _nearest(colours, _all_used(palette))
    n_pixels = np.bincount(index, counts, len(palette))
    sums = np.stack([np.bincount(index, counts * channel, len(palette)) for channel in colours[:, :3].T], axis=1)
    moved = palette.copy()
    moved[n_pixels > 0, :3] = np.rint(sums[n_pixels > 0] / n_pixels[n_pixels > 0, None])
    return moved


def _all_used(palette: NDArray[np.uint8]) -> Palette:
    return Palette(palette, np.ones(len(palette), np.bool_))


def _error(counts: NDArray[np.float64], distance: NDArray[np.float64]) -> float:
    """Return the sum of squared errors, infinite where any alpha is wrong, even of hidden pixels."""
    return float((counts * distance).sum()) if np.isfinite(distance).all() else np.inf


def _nearest(colours: NDArray[np.uint8], palette: Palette) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return the index of the nearest colour of the same alpha, and its squared distance.

    If there is none of the same alpha, it is the nearest of all, and the distance is infinite.
    """
    from scipy.spatial import cKDTree

    if not len(palette.rgba):
        return np.zeros(len(colours), np.uint8), np.full(len(colours), np.inf)
    order = np.argsort(~palette.is_used, kind="stable")
    order = order[np.sort(np.unique(_pack(palette.rgba[order]), return_index=True)[1])]
    scale = (1, 1, 1, ALPHA_SCALE)
    distance, nearest = cKDTree(palette.rgba[order] * scale).query(colours * scale)
    has_wrong_alpha = distance >= ALPHA_SCALE
    if has_wrong_alpha.any():
        nearest[has_wrong_alpha] = cKDTree(palette.rgba[order]).query(colours[has_wrong_alpha])[1]
    return order[nearest].astype(np.uint8), np.where(has_wrong_alpha, np.inf, np.rint(distance**2))


def _count_colours(rgba: Pillow.Image) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    """Return the colours of an image, packed and ascending, and the number of pixels of each."""
    bands = [np.unique(_pack(band), return_counts=True) for _, band in row_bands(rgba)]
    colours, inverse = np.unique(np.concatenate([colours for colours, _ in bands]), return_inverse=True)
    counts = np.concatenate([counts for _, counts in bands])
    return colours, np.bincount(inverse, counts).astype(np.float64)


def _pack(rgba: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return one integer for each colour, (..., 4) -> (...)."""
    return np.ascontiguousarray(rgba).view("<u4")[..., 0].astype(np.uint32)


def _unpack(colours: NDArray[np.uint32]) -> NDArray[np.uint8]:
    return colours.astype("<u4").view(np.uint8).reshape(-1, 4)


def _quantise(rgba: Pillow.Image, max_colours: int) -> NDArray[np.uint8]:
    """Return a palette with colours for each level of alpha, in proportion to its pixels, so that no level is lost."""
    counts = {level: count for level, count in enumerate(rgba.getchannel("A").histogram()) if count}
    if len(counts) > max_colours:
        tree = rgba.quantize(max_colours, Pillow.Quantize.FASTOCTREE, dither=Pillow.Dither.NONE)
        return np.array(tree.getpalette("RGBA"), np.uint8).reshape(-1, 4)
    pixels, alpha = np.asarray(rgba.convert("RGB")), np.asarray(rgba.getchannel("A"))
    palettes = []
    for level, count in counts.items():
        n_colours = 1 if level == 0 else 1 + (max_colours - len(counts)) * count // alpha.size
        quantised = Pillow.fromarray(pixels[alpha == level][None]).quantize(
            n_colours, Pillow.Quantize.MEDIANCUT, dither=Pillow.Dither.NONE
        )
        palette = np.array(quantised.getpalette(), np.uint8).reshape(-1, 3)
        palettes.append(np.insert(palette, 3, level, axis=1))
    return np.concatenate(palettes)
