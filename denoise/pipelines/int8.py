"""Which pictures go through integers of 8 bits, and what of them the network is calibrated by."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from denoise.nn.int8 import has_vnni, int8_blocks
from denoise.pipelines.device import precision_of

LARGE = 2_000_000  # pixels: below them 8 bits save less than a second or two
CALM = 12.0  # of 255: with more noise, the rounding would differ between tiles by more than 1 of 255
SQUARE = 128  # pixels: the sides of the squares that stand for a picture


def worth_int8(network: nn.Module, device: torch.device, pixels: NDArray[Any]) -> bool:
    """Whether a picture has no more than 8 bits and is large, and device and network are made for such."""
    if pixels.dtype != np.uint8 or pixels[..., 0].size < LARGE or min(pixels.shape[:2]) < SQUARE:
        return False
    slow = device.type == "cpu" and precision_of(device) == "float32" and has_vnni()
    return slow and any(int8_blocks(network))


def liveliest(pixels: NDArray[Any], n: int = 16) -> Tensor:
    """The squares in which a channel deviates most. Shape: (height, width, channels) to (n, channels, SQUARE, SQUARE).

    They cover the picture; the last ones of rows and columns overlap those before.
    """
    rows, columns = ([*range(0, size - SQUARE, SQUARE), size - SQUARE] for size in pixels.shape[:2])
    squares = [pixels[i : i + SQUARE, j : j + SQUARE] for i in rows for j in columns]
    # every fourth row and column tell as much in a tenth of the time
    best = sorted(squares, key=lambda x: -float(x[::4, ::4].std(axis=(0, 1), dtype=np.float32).max()))[:n]
    return torch.from_numpy(np.stack(best)).permute(0, 3, 1, 2)
