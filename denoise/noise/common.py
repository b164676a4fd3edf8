"""Random numbers and white noise for audio and images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor


def generator_for(seed: int, step: int, rank: int = 0) -> Generator:
    """Return a generator that depends on three numbers alone, so that any training step can be repeated.

    Args:
        seed: seed of the run.
        step: index of the step.
        rank: index of the process.
    """
    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def gaussian(x: Tensor, sigma: Tensor | float, generator: Generator | None = None) -> Tensor:
    """Add white Gaussian noise, unclipped.

    Args:
        x: clean signal, any shape.
        sigma: standard deviation in signal units, a number or a tensor that broadcasts with ``x``.
        generator: source of randomness.

    Returns:
        Noisy signal, shape of ``x``.
    """
    return x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def uniform(low: float, high: float, n: int, generator: Generator | None = None) -> Tensor:
    """Return ``n`` numbers drawn uniformly from [low, high), shape (n,)."""
    return low + (high - low) * torch.rand(n, generator=generator)
