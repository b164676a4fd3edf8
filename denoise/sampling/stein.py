"""The noise level of signals, estimated with a denoiser that is conditioned on it."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from denoise.probability_path import noise_like
from denoise.sampling.solvers import Denoise

PROBE = 0.05  # size of the perturbation that measures the divergence, in units of sigma
BISECTIONS = 10


@torch.no_grad()
def sigma_from_residual(
    denoiser: Denoise, x: Tensor, low: float, high: float, *, generator: Generator | None = None
) -> float:
    """Return the noise level at which the residual of a denoiser is as large as Stein's identity says.

    For signals with noise of sigma, ``E |x - D(x)|^2 = sigma^2 (d - E div D(x))`` of the posterior mean D in d
    dimensions. The equation holds at the true sigma alone. Bisection assumes that the residual is larger at every lower
    level and smaller at every higher one. It needs many dimensions, over which the expectation is taken. NFE: 2 *
    BISECTIONS.

    Args:
        denoiser: function of x and sigma, (batch,).
        x: noisy signals of one noise level, (batch, *event).
        low: least level.
        high: greatest level.
        generator: source of the random directions.

    Returns:
        The noise level, between ``low`` and ``high``.

    Reference:
        Estimation of the Mean of a Multivariate Normal Distribution, Stein, 1981, lemma 2.
    """
    direction = noise_like(x, generator).sign()
    for _ in range(BISECTIONS):
        sigma = math.sqrt(low * high)
        levels, step = x.new_full((len(x),), sigma), PROBE * sigma
        denoised = denoiser(x, levels)
        divergence = (direction * (denoiser(x + step * direction, levels) - denoised)).mean() / step
        is_too_low = (x - denoised).square().mean() > sigma**2 * (1 - divergence)
        low, high = (sigma, high) if is_too_low else (low, sigma)
    return math.sqrt(low * high)
