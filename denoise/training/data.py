"""Training batches, each a pure function of (seed, step, rank): a resumed run sees what it would have seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise import noise
from denoise.errors import ConfigError
from denoise.files.find import find_files
from denoise.files.image import IMAGE_EXTENSIONS, read_image
from denoise.nn.embeddings import Label
from denoise.signals import Image
from denoise.training.degrade import degrade, jpeg
from denoise.training.recipe import ImageData


class Batch(NamedTuple):
    """Noisy and clean examples, full scale 1.0; audio has its sample rate in Hz, white noise its sigma (batch,).

    What priors learn is clean alone, with labels.
    """

    noisy: Tensor
    clean: Tensor
    sample_rate: int | None = None
    sigma: Tensor | None = None
    labels: tuple[Label, ...] | None = None

    def map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch elsewhere, on a device."""
        sigma = None if self.sigma is None else move(self.sigma)
        return self._replace(noisy=move(self.noisy), clean=move(self.clean), sigma=sigma)


class ImagePatches:
    """Random patches of clean photographs, turned and mirrored, with white or other noise.

    Networks of one channel see luma. Pictures of four inks are left out.

    Shape:
        noisy, clean: (batch, channels, patch, patch), float32, full scale 1.0, unclipped unless a file was in between.
    """

    def __init__(self, settings: ImageData, root: Path, channels: int = 3) -> None:
        if channels not in (1, 3):
            raise ConfigError(f"the network takes {channels} channels; photographs have 1 (grey) or 3.")
        self.settings, self.channels = settings, channels
        self.images = []
        for path in find_files(root, settings.folders, IMAGE_EXTENSIONS):
            found = read_image(path)
            if found.pixels.shape[2] == 4:
                continue
            image = in_8_bits(found)
            for scale in settings.scales:
                reduced = image if scale == 1 else shrink(image, scale)
                if min(reduced.shape[1:]) >= settings.patch:
                    self.images.append(reduced)
        if not self.images:
            raise ConfigError(f"{root}: no image in RGB or grey of at least {settings.patch} pixels a side.")
        # The square root keeps the few largest photographs from being most of what is seen.
        self.shares = torch.tensor([image[0].numel() for image in self.images], dtype=torch.float64).sqrt()

    def batch(self, size: int, generator: Generator) -> Batch:
        s = self.settings
        clean = torch.empty(size, 3, s.patch, s.patch)
        for row, index in enumerate(torch.multinomial(self.shares, size, replacement=True, generator=generator)):
            image = self.images[int(index)]
            top, left = (int(torch.randint(n - s.patch + 1, (), generator=generator)) for n in image.shape[1:])
            patch = image[:, top : top + s.patch, left : left + s.patch]
            turn = int(torch.randint(8, (), generator=generator))
            patch = torch.rot90(patch, turn % 4, (1, 2))
            patch = patch.flip(2) if turn >= 4 else patch
            if s.saturation != (1.0, 1.0):
                patch = saturate(patch, float(noise.uniform(*s.saturation, 1, generator)))
            if float(torch.rand((), generator=generator)) < s.jpeg:
                low, high = s.jpeg_quality
                patch = jpeg(patch, int(torch.randint(low, high + 1, (), generator=generator)))
            clean[row] = patch / 255
        sigma = noise.uniform(*s.sigma, size, generator)
        if s.strong:
            drawn, place = torch.rand(2, size, generator=generator)
            sigma = torch.where(drawn < s.strong, s.sigma[1] * (s.strongest / s.sigma[1]) ** place, sigma)
        added = noise.gaussian(torch.zeros_like(clean), sigma[:, None, None, None], generator)
        grey = torch.rand(size, generator=generator) < (s.grey if self.channels == 3 else 2)
        clean[grey] = luma(clean[grey])
        added[grey] = added[grey, :1].expand(-1, 3, -1, -1)
        noisy = degrade(clean, clean + added, sigma, s.degrade, generator)
        noisy[grey] = luma(noisy[grey])
        return Batch(noisy[:, : self.channels], clean[:, : self.channels], sigma=sigma)


def in_8_bits(image: Image) -> Tensor:
    """The colours of a picture in RGB or grey. Shape: returns uint8 (3, height, width)."""
    light = image.as_float().pixels
    pixels = np.rint(255 * light).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1).expand(3, -1, -1).contiguous()


def saturate(x: Tensor, factor: float) -> Tensor:
    """Bring the colours to ``factor`` times their distance from grey. Shape: uint8 (3, height, width)."""
    light = x.float()
    grey = luma(light)
    return (grey + factor * (light - grey)).round().clamp(0, 255).to(torch.uint8)


def shrink(x: Tensor, scale: float) -> Tensor:
    """Reduce an image, without aliases. Shape: uint8 (3, height, width)."""
    size = [max(1, round(n * scale)) for n in x.shape[1:]]
    return F.interpolate(x[None], size, mode="bicubic", antialias=True)[0]


def luma(x: Tensor) -> Tensor:
    """ITU-R BT.601 luma in all three channels. Shape: (..., 3, height, width)."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype)[:, None, None]
    return (x * weights).sum(dim=-3, keepdim=True).expand_as(x)
