"""Random numbers and events of training data."""

from __future__ import annotations

import math

import torch
from torch import Generator

from denoise import noise


def happens(probability: float, generator: Generator) -> bool:
    """Return whether a random event occurs; one random number is drawn, also for probability 0."""
    return float(torch.rand((), generator=generator)) < probability


def uniform(low: float, high: float, generator: Generator) -> float:
    """Return a number drawn uniformly from [low, high)."""
    return float(noise.uniform(low, high, 1, generator))


def log_uniform(low: float, high: float, generator: Generator) -> float:
    """Return a number from [low, high) whose logarithm is uniformly distributed."""
    return math.exp(uniform(math.log(low), math.log(high), generator))
