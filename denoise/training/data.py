"""Batches of training data, and photographs as data of image denoisers.

A batch is a function of (seed, step, rank) alone, so a resumed training repeats the batches of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise import noise
from denoise.colour import luma
from denoise.errors import ConfigError
from denoise.files.find import find_files
from denoise.files.image import IMAGE_EXTENSIONS, read_image
from denoise.protocols import Label
from denoise.signals import Image
from denoise.training.conditioning import draw_sigma_maps
from denoise.training.degrade import degrade, jpeg
from denoise.training.image_recipe import ImageData

EXPOSURES = (0.15, 1.0)  # factors of the light


class Batch(NamedTuple):
    """Noisy and clean examples; codecs and priors use the clean ones alone.

    Args:
        noisy: noisy signals, (B, C, *space), full scale 1.0.
        clean: clean signals, as `noisy`.
        sample_rate: sample rate of audio, Hz; None for images.
        sigma: standard deviation of white noise, (B,), or maps of the noise with errors, (B, 2 C, H, W), for networks
            that are conditioned on them; None for audio.
        labels: B conditions for priors; None without labels.
        noise: noise alone, as `noisy`, for networks that take a noise profile; zeros where it is unknown.
    """

    noisy: Tensor
    clean: Tensor
    sample_rate: int | None = None
    sigma: Tensor | None = None
    labels: tuple[Label, ...] | None = None
    noise: Tensor | None = None

    def map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with a function applied to its tensors.

        Args:
            move: function of a tensor, e.g. one that moves it to a device.
        """
        sigma, noise = (None if x is None else move(x) for x in (self.sigma, self.noise))
        return self._replace(noisy=move(self.noisy), clean=move(self.clean), sigma=sigma, noise=noise)


class Source(Protocol):
    """Training data."""

    def batch(self, size: int, generator: Generator) -> Batch:
        """Return a batch that depends on the generator alone.

        Args:
            size: number of examples.
            generator: source of randomness.
        """


class ImagePatches:
    """Random patches of clean photographs and textures, rotated and mirrored, with white or other noise.

    Patches are float32, full scale 1.0, and not clipped unless they were stored in a file. CMYK images are left out.

    Args:
        settings: ``[image]`` section of the recipe.
        root: folder that the paths of the recipe are relative to.
        channels: 3 for RGB, 1 for luma.
        has_sigma_maps: whether ``sigma`` of the batches holds maps of the noise, for networks with ``sigma_maps``.

    Raises:
        ConfigError: there are no images that are large enough, or no such channels.
    """

    def __init__(self, settings: ImageData, root: Path, channels: int = 3, has_sigma_maps: bool = False) -> None:
        if channels not in (1, 3):
            raise ConfigError(f"the network takes {channels} channels; photographs have 1 (grey) or 3.")
        self.settings, self.channels, self.has_sigma_maps = settings, channels, has_sigma_maps
        self.images = self._load(root, settings.folders, settings.scales)
        self.textures = self._load(root, settings.textures) if settings.textures else []
        # with the square root, the few largest photographs do not dominate
        self.weights = torch.tensor([image[0].numel() for image in self.images], dtype=torch.float64).sqrt()

    def _load(self, root: Path, folders: tuple[str, ...], scales: tuple[float, ...] = (1.0,)) -> list[Tensor]:
        """Return the images of folders at all scales, uint8, (3, H, W)."""
        images, side = [], max(self.settings.sides)
        for path in find_files(root, folders, IMAGE_EXTENSIONS):
            stored = read_image(path)
            if stored.pixels.shape[2] == 4:
                continue
            image = to_8_bit_rgb(stored)
            for scale in scales:
                scaled = image if scale == 1 else downscale(image, scale)
                if min(scaled.shape[1:]) >= side:
                    images.append(scaled)
        if not images:
            raise ConfigError(
                f"{root}: no image in RGB or grey of at least {side} pixels a side in {', '.join(folders)}. Add images "
                "or reduce image.patch."
            )
        return images

    def batch(self, size: int, generator: Generator) -> Batch:
        """Return noisy and clean patches, (size, channels, patch, patch).

        Args:
            size: number of patches; of ``image.further_patches``, as many as have the same number of pixels.
            generator: source of randomness.
        """
        s, side = self.settings, self.settings.patch
        if s.further_patches:
            side = s.sides[int(torch.randint(len(s.sides), (), generator=generator))]
            size = max(1, round(size * (s.patch / side) ** 2))
        indices = torch.multinomial(self.weights, size, replacement=True, generator=generator)
        is_texture = torch.zeros(size, dtype=torch.bool)
        if self.textures:
            is_texture = torch.rand(size, generator=generator) < s.texture_fraction
        patches = [
            self._texture_patch(side, generator) if texture else self._clean_patch(self.images[index], side, generator)
            for index, texture in zip(indices.tolist(), is_texture.tolist(), strict=True)
        ]
        clean = torch.stack(patches).contiguous()  # those from JPEG files are in channels_last
        sigma = self._sample_sigma(size, generator)
        white = noise.gaussian(torch.zeros_like(clean), sigma[:, None, None, None], generator)
        is_grey = torch.rand(size, generator=generator) < (s.grey if self.channels == 3 else 2)
        clean[is_grey] = luma(clean[is_grey])
        white[is_grey] = white[is_grey, :1].expand(-1, 3, -1, -1)
        degraded = degrade(clean, clean + white, sigma, s.degrade, generator)
        noisy = degraded.noisy
        noisy[is_grey] = luma(noisy[is_grey])
        noisy, clean = noisy[:, : self.channels], clean[:, : self.channels]
        if self.has_sigma_maps:
            maps = [
                draw_sigma_maps(
                    noisy[i],
                    clean[i],
                    s.conditioning,
                    generator,
                    kind=degraded.kinds[i],
                    is_jpeg=bool(degraded.is_jpeg[i]),
                    is_texture=bool(is_texture[i]),
                )
                for i in range(size)
            ]
            sigma = torch.stack(maps)
            n = self.channels
            sigma[is_grey] = sigma[is_grey][:, [0] * n + [n] * n]  # grey images have one noise
        return Batch(noisy, clean, sigma=sigma)

    def _clean_patch(self, image: Tensor, side: int, generator: Generator) -> Tensor:
        """Return a random patch of a photograph, (3, side, side), full scale 1.0."""
        s = self.settings
        patch = _orient(_crop(image, side, generator), generator)
        if s.saturation != (1.0, 1.0):
            patch = adjust_saturation(patch, float(noise.uniform(*s.saturation, 1, generator)))
        if float(torch.rand((), generator=generator)) < s.jpeg:
            low, high = s.jpeg_quality
            patch = jpeg(patch, int(torch.randint(low, high + 1, (), generator=generator)))
        return self._recolour(patch / 255, generator)

    def _texture_patch(self, side: int, generator: Generator) -> Tensor:
        """Return a random patch of a texture, (3, side, side), full scale 1.0."""
        image = self.textures[int(torch.randint(len(self.textures), (), generator=generator))]
        patch = _crop(image, side, generator)
        if float(torch.rand((), generator=generator)) < 0.5:  # otherwise text stays upright
            patch = _orient(patch, generator)
        return self._recolour(patch / 255, generator)

    def _recolour(self, patch: Tensor, generator: Generator) -> Tensor:
        """Return a patch with a random order of the channels and a random exposure, by their probabilities."""
        s = self.settings
        if s.channel_order and float(torch.rand((), generator=generator)) < s.channel_order:
            patch = patch[torch.randperm(3, generator=generator)]
        if s.exposure and float(torch.rand((), generator=generator)) < s.exposure:
            patch = patch * noise.uniform(*EXPOSURES, 1, generator)
        return patch

    def _sample_sigma(self, size: int, generator: Generator) -> Tensor:
        """Return standard deviations of the noise, (size,)."""
        s = self.settings
        sigma = noise.uniform(*s.sigma, size, generator)
        if s.high_sigma_fraction:
            u, exponent = torch.rand(2, size, generator=generator)
            high_sigma = s.sigma[1] * (s.max_sigma / s.sigma[1]) ** exponent
            sigma = torch.where(u < s.high_sigma_fraction, high_sigma, sigma)
        if s.sigma_mixture:
            u, start = torch.rand(size, generator=generator), 0.0
            for part in s.sigma_mixture:
                t, (low, high) = torch.rand(size, generator=generator), part.sigma
                values = low * (high / low) ** t if part.logarithmic else low + (high - low) * t
                sigma = torch.where((u >= start) & (u < start + part.fraction), values, sigma)
                start += part.fraction
        return sigma


def _crop(image: Tensor, side: int, generator: Generator) -> Tensor:
    """Return a random patch of an image, (3, side, side)."""
    top, left = (int(torch.randint(n - side + 1, (), generator=generator)) for n in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def _orient(patch: Tensor, generator: Generator) -> Tensor:
    """Return a patch in one of its eight orientations."""
    orientation = int(torch.randint(8, (), generator=generator))
    patch = torch.rot90(patch, orientation % 4, (1, 2))
    return patch.flip(2) if orientation >= 4 else patch


def to_8_bit_rgb(image: Image) -> Tensor:
    """Return the colours of an RGB or grey image, uint8, (3, H, W).

    Args:
        image: image of any bit depth.
    """
    pixels = np.rint(255 * image.as_float().pixels).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1).expand(3, -1, -1).contiguous()


def adjust_saturation(x: Tensor, factor: float) -> Tensor:
    """Return an image whose colours have another distance from grey.

    Args:
        x: image, uint8, (3, H, W).
        factor: factor of the distance.
    """
    pixels = x.float()
    grey = luma(pixels)
    return (grey + factor * (pixels - grey)).round().clamp(0, 255).to(torch.uint8)


def downscale(x: Tensor, scale: float) -> Tensor:
    """Return a smaller image, without aliasing.

    Args:
        x: image, uint8, (3, H, W).
        scale: factor of its height and width, at most 1.
    """
    size = [max(1, round(n * scale)) for n in x.shape[1:]]
    return F.interpolate(x[None], size, mode="bicubic", antialias=True)[0]
