"""White noise that has a place: the same wherever a window is cut from it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from denoise.errors import ConfigError
from denoise.noise.common import generator_for

BLOCK = 64


def noise_field(seed: int, level: int, channels: int, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """The part of an endless standard normal field that begins at ``start``; each ``level`` has a field of its own.

    Shape:
        start, size: one number, 0 or more, for each axis of space; returns (channels, *size).
    Raises:
        ConfigError: the seed is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed is {seed}; expected at least 0.")
    out = torch.empty(channels, *size)
    blocks = [range(a // BLOCK, -(-(a + n) // BLOCK)) for a, n in zip(start, size, strict=True)]
    for place in product(*blocks):
        block = torch.randn(channels, *[BLOCK] * len(size), generator=generator_for(seed, level, _index(place)))
        into, of = [slice(None)], [slice(None)]
        for at, a, n in zip(place, start, size, strict=True):
            low, high = max(a, at * BLOCK), min(a + n, (at + 1) * BLOCK)
            into.append(slice(low - a, high - a))
            of.append(slice(low - at * BLOCK, high - at * BLOCK))
        out[tuple(into)] = block[tuple(of)]
    return out


def _index(place: Sequence[int]) -> int:
    """One number for each block, by Cantor's pairing."""
    index = place[0]
    for other in place[1:]:
        index = (index + other) * (index + other + 1) // 2 + other
    return index
