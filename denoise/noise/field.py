"""White noise as a function of position: overlapping windows of it agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from denoise.errors import ConfigError
from denoise.noise.common import generator_for
from denoise.probability_path import standard_normal

BLOCK = 64


def noise_field(seed: int, level: int, channels: int, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return a window of an unbounded field of standard normal noise.

    Args:
        seed: seed of the field.
        level: index of an independent field of the same seed, e.g. of one level of latents.
        channels: number of channels.
        start: first position of the window on each axis, at least 0.
        size: size of the window on each axis.

    Returns:
        (channels, *size).

    Raises:
        ConfigError: the seed is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed is {seed}; expected at least 0.")
    out = torch.empty(channels, *size, dtype=torch.float32)
    blocks = [range(a // BLOCK, -(-(a + n) // BLOCK)) for a, n in zip(start, size, strict=True)]
    for index in product(*blocks):
        block = standard_normal((channels, *[BLOCK] * len(size)), generator_for(seed, level, _cantor(index)))
        target, source = [slice(None)], [slice(None)]
        for i, a, n in zip(index, start, size, strict=True):
            low, high = max(a, i * BLOCK), min(a + n, (i + 1) * BLOCK)
            target.append(slice(low - a, high - a))
            source.append(slice(low - i * BLOCK, high - i * BLOCK))
        out[tuple(target)] = block[tuple(source)]
    return out


def _cantor(index: Sequence[int]) -> int:
    """Map a tuple to one integer by Cantor's pairing function."""
    number = index[0]
    for other in index[1:]:
        number = (number + other) * (number + other + 1) // 2 + other
    return number
