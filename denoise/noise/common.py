"""Draws that sound and pictures share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor


def generator_for(seed: int, step: int, rank: int = 0) -> Generator:
    """A generator that depends on its three numbers alone, so that a step can be drawn again."""
    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def gaussian(x: Tensor, sigma: Tensor | float, generator: Generator | None = None) -> Tensor:
    """Add white Gaussian noise, unclipped.

    Shape:
        x, returns: any; sigma: a number or a tensor that broadcasts with x, in signal units.
    """
    return x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def uniform(low: float, high: float, n: int, generator: Generator | None = None) -> Tensor:
    """Draw ``n`` numbers between ``low`` and ``high``; the shape is (n,)."""
    return low + (high - low) * torch.rand(n, generator=generator)
