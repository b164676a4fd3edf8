"""A frame through a network: bands -> tiles -> groups of channels -> network -> overlap-add -> rows -> frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from denoise.colour import LUMA_601
from denoise.errors import InputError
from denoise.frames import Grid, Window, cat_preallocated, overlap_add, split
from denoise.noise_profile import NoiseProfile
from denoise.options import DenoiseOptions
from denoise.pipelines.noise_estimate import FrameNoise, channel_groups, to_network
from denoise.pipelines.transparency import fill_hidden
from denoise.protocols import ArrayNetwork, ArrayVariationalNetwork, Progress
from denoise.signals import Image

BAND_ROWS = 256

Array = NDArray[Any]


class TileDenoiser(NamedTuple):
    """What all tiles of a frame have in common.

    Args:
        network: the network in the precision that was selected for the frame.
        grid: tiles and how they overlap.
        noise: noise that the network is conditioned on, full scale 1.0; None for blind networks.
        options: options of the run: strength, luminance and colour.
        seed: seed of the latents of a variational network; None takes their mean.
        batch: tiles of a band that the network gets at a time; latents are sampled for one.
    """

    network: ArrayNetwork
    grid: Grid
    noise: FrameNoise | None
    options: DenoiseOptions
    seed: int | None = None
    batch: int = 1

    def rows(self, image: Image, progress: Progress | None) -> Iterator[Array]:
        """Denoise a frame.

        Args:
            image: noisy frame.
            progress: called with the finished fraction, 0 to 1.

        Yields:
            Rows, (channels, rows, width), full scale 1.0.
        """

        def denoise_band(band: Window) -> Array:
            def prepare(tile: Window) -> Window:  # only one batch at a time is in float32, the band in the file's dtype
                x = tile.data.astype(np.float32) / np.float32(image.full_scale)
                return tile.map(x if image.visible is None else fill_hidden(x[:-1], x[-1] > 0))

            prepared = map(prepare, split([band.data], self.grid, axis=2))
            batches = make_batches(prepared, self.batch if self.seed is None else 1)
            tiles = chain.from_iterable(self._denoise_tiles(batch, band.start) for batch in batches)
            shape = (image.pixels.shape[2], *band.data.shape[1:])
            return cat_preallocated(overlap_add(tiles, self.grid, axis=2), shape, axis=2)

        n_rows = 0
        bands = (band.map(denoise_band(band)) for band in split(_read_bands(image), self.grid, axis=1))
        for rows in overlap_add(bands, self.grid, axis=1):
            yield rows
            n_rows += rows.shape[1]
            if progress:
                progress(n_rows / image.pixels.shape[0])

    def _denoise_tiles(self, tiles: Sequence[Window], row: int) -> list[Window]:
        """Tiles of one shape, (channels, height, width), channels 1, 3 or 4, full scale 1.0, that begin at a row."""
        x = np.stack([tile.data for tile in tiles])
        noise = self.noise or [None] * len(channel_groups(x.shape[1]))
        groups = zip(channel_groups(x.shape[1]), noise, strict=True)
        start = row, tiles[0].start
        denoised = np.concatenate(
            [self._denoise_group(x[:, group], profile, start) for group, profile in groups], axis=1
        )
        return [tile.map(y) for tile, y in zip(tiles, denoised, strict=True)]

    def _denoise_group(self, x: Array, noise: NoiseProfile | None, start: tuple[int, int]) -> Array:
        """Channels that the network takes together, (tiles, 1 or 3, height, width)."""
        denoise = self.network.denoise
        if self.seed is not None:
            assert isinstance(self.network, ArrayVariationalNetwork)
            denoise = partial(self.network.sample, seed=self.seed, start=start)
        denoised = denoise(*to_network(x, noise, self.network.facts)).reshape(len(x), -1, *x.shape[2:])
        if denoised.shape[1] > x.shape[1]:  # grey images as RGB
            denoised = denoised.mean(axis=1, keepdims=True)
        return x + np.stack([weigh(change, self.options) for change in denoised - x])


def make_batches(windows: Iterable[Window], size: int) -> Iterator[list[Window]]:
    """Group consecutive windows of one shape.

    Args:
        windows: windows in order.
        size: greatest number of them in a group.

    Yields:
        Groups, each as soon as it is complete.
    """
    batch: list[Window] = []
    for window in windows:
        if batch and window.data.shape != batch[0].data.shape:
            yield batch
            batch = []
        batch.append(window)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def weigh(change: Array, options: DenoiseOptions) -> Array:
    """Apply the strengths of the options to the change of an image, of luminance and colour apart.

    Args:
        change: output minus input, (1 or 3, height, width).
        options: options of the run.
    """
    strength = options.limited_strength
    if len(change) == 1 or options.luminance == options.colour:
        return strength * options.luminance * change
    luminance = np.tensordot(np.array(LUMA_601, change.dtype), change, axes=1)
    return strength * (options.colour * change + (options.luminance - options.colour) * luminance)


def frame_of(bands: Iterator[Array], image: Image) -> Image:
    """Return rows as a frame in the dtype of another one, with its hidden pixels.

    Args:
        bands: rows of floats, (channels, rows, width), full scale 1.0.
        image: frame of the same shape.

    Raises:
        InputError: they are not finite.
    """
    pixels = np.empty_like(image.pixels)
    row = 0
    for band in bands:
        pixels_float = np.moveaxis(band, 0, -1)
        pixels[row : row + len(pixels_float)] = image.from_float(pixels_float)
        row += len(pixels_float)
    if image.visible is not None:
        pixels = np.where(image.visible[..., None], pixels, image.pixels)
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        raise InputError(
            f"the output of the network is not finite; its pixels range from {image.pixels.min():.3g} to "
            f"{image.pixels.max():.3g}, expected about 0 to 1. Scale the image or use another model."
        )
    return replace(image, pixels=pixels)


def _read_bands(image: Image) -> Iterator[Array]:
    """Pixels (channels, rows, width), a few rows at a time; the mask of visible pixels is one more channel."""
    for start in range(0, image.pixels.shape[0], BAND_ROWS):
        x = image.pixels[start : start + BAND_ROWS]
        if image.visible is not None:
            x = np.concatenate([x, image.visible[start : start + BAND_ROWS, :, None].astype(x.dtype)], axis=2)
        yield np.moveaxis(x, -1, 0)
