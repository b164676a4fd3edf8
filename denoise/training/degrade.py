"""What real photographs suffer beside white noise: of the kinds in `denoise.noise`, then rounded or stored as JPEG."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise import noise
from denoise.files.image import read_image, write_image
from denoise.signals import Image, ImageFormat
from denoise.training.recipe import Degradations

SHOT = (1e-4, 1.2e-2)
GRAINS = 0.5  # of the sigma of white noise: large grains are weaker, or nobody would keep the picture
CROPPED = 0.5  # share of the JPEG whose blocks no longer begin at the corner


def degrade(clean: Tensor, noisy: Tensor, sigma: Tensor, s: Degradations, generator: Generator) -> Tensor:
    """Put noise of another kind into a drawn share of the patches, and let files round and pack a share of all.

    Shape:
        clean, noisy, returns: (batch, 3, height, width), full scale 1.0; sigma: (batch,), of the white noise
            that ``noisy`` has where nothing else is drawn.
    """
    shares = torch.tensor([s.sensor, s.film, s.coarse, s.correlated])
    shares = torch.cat([shares, 1 - shares.sum(dim=0, keepdim=True)]).clamp_min(0)
    kinds = torch.multinomial(shares, len(clean), replacement=True, generator=generator)
    out = noisy.clone()
    for row, kind in enumerate(kinds.tolist()):
        if kind < len(KINDS):
            out[row] = KINDS[kind](clean[row : row + 1], sigma[row : row + 1], generator)[0]
        if _chance(s.salt, generator):
            share = noise.uniform(0.0, s.salt_share, 1, generator)
            out[row] = noise.salt_and_pepper(out[row : row + 1], share, generator)[0]
        if _chance(s.jpeg, generator):
            quality = int(torch.randint(s.jpeg_quality[0], s.jpeg_quality[1] + 1, (), generator=generator))
            half_colour = _chance(0.7, generator)
            top, left = torch.randint(8, (2,), generator=generator).tolist() if _chance(CROPPED, generator) else (0, 0)
            around = F.pad(out[row : row + 1], (left, 0, top, 0), mode="reflect")[0]
            out[row] = jpeg(_bytes(around), quality, subsampling=2 if half_colour else 0)[:, top:, left:] / 255
        elif _chance(s.rounded, generator):
            out[row] = _bytes(out[row]) / 255
    return out


def sensor(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Shot noise of any ISO, and about the read noise that goes with it, whatever sigma.

    Reference:
        Unprocessing Images for Learned Raw Denoising, 2018, arXiv:1811.11127 (both distributions).
    """
    log_shot = noise.uniform(math.log(SHOT[0]), math.log(SHOT[1]), 1, generator)
    log_read = 2.18 * log_shot + 1.2 + 0.26 * torch.randn(1, generator=generator)  # of its variance
    return noise.sensor(x, log_shot.exp(), (log_read / 2).exp(), generator)


def film(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Film grain of a drawn size."""
    return noise.film_grain(x, GRAINS * sigma, _size(3.0, generator), generator)


def coarse(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Noise that was enlarged with its picture."""
    return noise.coarse(x, GRAINS * sigma, _size(4.0, generator), generator)


def correlated(x: Tensor, sigma: Tensor, generator: Generator) -> Tensor:
    """Noise whose channels go together, fine or coarse."""
    return noise.correlated_channels(x, sigma, generator)


Kind = Callable[[Tensor, Tensor, Generator], Tensor]
KINDS: tuple[Kind, ...] = (sensor, film, coarse, correlated)  # in the order of the shares


def jpeg(x: Tensor, quality: int, subsampling: int = 2) -> Tensor:
    """What JPEG keeps of it; quality 1 to 100, colour at half the resolution or (0) the full one.

    Shape:
        x, returns: uint8 (3, height, width).
    """
    file = io.BytesIO()
    pixels = np.ascontiguousarray(x.permute(1, 2, 0).numpy())
    info = {"jpeg": {"quality": quality, "subsampling": subsampling}}
    write_image(file, [Image(pixels)], ImageFormat("JPEG", info=info))
    file.seek(0)
    return torch.from_numpy(read_image(file).pixels).permute(2, 0, 1)


def _bytes(x: Tensor) -> Tensor:
    return (x * 255).round().clamp(0, 255).to(torch.uint8)


def _size(largest: float, generator: Generator) -> float:
    return float(noise.uniform(1.0, largest, 1, generator))


def _chance(p: float, generator: Generator) -> bool:
    return p > 0 and float(torch.rand((), generator=generator)) < p
