"""Which pictures go through integers of 8 bits, and what of them the network is calibrated and tried by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from denoise.nn.int8 import has_vnni, int8_blocks, quantized
from denoise.pipelines.device import precision_of
from denoise.signals import Image

LARGE = 2_000_000  # pixels: below them 8 bits save less than a second or two
LOUDEST = 12.0  # of 255: with more noise, the rounding would differ between tiles by more than 1 of 255
FAITHFUL = 0.25  # of 255, rms: more than 8 bits may change no square; the rounding of the file itself changes 0.29
SQUARE = 128  # pixels: the sides of the squares that stand for a picture
CALIBRATED, TRIED = 16, 6  # squares

Fed = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""What the network takes for 8-bit pixels (batch, channels, height, width)."""


def worth_int8(network: nn.Module, device: torch.device, image: Image) -> bool:
    """Whether a picture has no more than 8 bits, nothing hidden, and is large, and device and network are for such."""
    x = image.pixels
    if x.dtype != np.uint8 or image.seen is not None or x[..., 0].size < LARGE or min(x.shape[:2]) < SQUARE:
        return False
    slow = device.type == "cpu" and precision_of(device) == "float32" and has_vnni()
    return slow and any(int8_blocks(network))


@torch.inference_mode()
def in_8_bits(network: nn.Module, image: Image, fed: Fed) -> nn.Module:
    """The network in integers of 8 bits, calibrated by the liveliest squares; itself where that is not `FAITHFUL`.

    Beside text or a dither, which need a wide range, the steps of the integers are coarse for calm parts.
    """
    squares = by_liveliness(image.pixels)
    quick = quantized(network, *fed(stacked(squares[-CALIBRATED:])))
    x, sigma = fed(stacked(squares[:: max(1, len(squares) // TRIED)]))
    apart = (quick(x, sigma) - network(x, sigma)).square().mean(dim=(1, 2, 3)).sqrt()
    return quick if 255 * float(apart.max()) <= FAITHFUL else network


def by_liveliness(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """Squares that cover a picture, last those in which a channel deviates most. Shape: (height, width, channels).

    The last ones of rows and columns overlap those before.
    """
    rows, columns = ([*range(0, size - SQUARE, SQUARE), size - SQUARE] for size in pixels.shape[:2])
    squares = [pixels[i : i + SQUARE, j : j + SQUARE] for i in rows for j in columns]
    # every fourth row and column tell as much in a tenth of the time
    return sorted(squares, key=lambda x: float(x[::4, ::4].std(axis=(0, 1), dtype=np.float32).max()))


def stacked(squares: list[NDArray[Any]]) -> Tensor:
    """Shape: squares (height, width, channels); returns (n, channels, height, width)."""
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
