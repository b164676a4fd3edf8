"""The variational bound of a diffusion: the likelihood of signals with discrete levels, from its denoiser alone."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from denoise.probability_path import expand_like, noise_like, standard_uniform
from denoise.sampling.solvers import Denoise


def variational_bound(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    mean: float,
    std: float,
    samples: int,
    interval: tuple[float, float],
    levels: int,
    generator: Generator | None = None,
) -> Tensor:
    """Estimate a lower bound of the log-likelihood of signals under DDPM's ancestral sampling.

    The bound has a term for the highest noise level, one for each step to a lower one, and the probability of the
    levels given the lowest, under a normal distribution of the lowest noise level around the denoised signals (the
    sampler returns the denoised signals themselves). In signal units, with the noise added to unscaled signals, a step
    from sigma to sigma_next costs ``(1 / sigma_next^2 - 1 / sigma^2) / 2`` times the squared error of the denoiser at
    sigma.

    Args:
        denoiser: function of x and sigma, (batch,).
        x: signals on the levels, (batch, *event).
        sigmas: noise levels of the diffusion, (timesteps,), increasing, at least 2.
        mean: mean of the signals, about which noise of the highest level starts.
        std: standard deviation of the signals, by which noise of the highest level is wider than that level.
        samples: steps that are evaluated for each signal, at random; all of them if there are no more.
        interval: lowest and highest level.
        levels: number of levels.
        generator: source of the noise and of the steps.

    Returns:
        Estimates in nats, (batch,), whose expectation is the bound.

    Raises:
        ValueError: there is only one noise level.

    Reference:
        Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239, eq. 5 and 13; Variational Diffusion Models,
        2021, arXiv:2107.00630, eq. 13 (the cost of a step).
    """
    if len(sigmas) < 2:
        raise ValueError(f"there are {len(sigmas)} noise levels; expected at least 2.")
    sigmas = sigmas.to(x)
    first = sigmas[0].expand(len(x))
    reconstruction = discretised_log_prob(
        x, denoiser(_noisy(x, first, generator), first), sigmas[0], interval=interval, levels=levels
    )
    # steps of equal ratios of sigma cost about the same, so that they are drawn with equal probability
    probabilities = sigmas.log().diff()
    probabilities = probabilities / probabilities.sum()
    cost = x.new_zeros(len(x))
    if samples >= len(probabilities):
        steps = torch.arange(len(probabilities)).expand(len(x), -1)
        weights = torch.ones_like(probabilities)
    else:  # one step of each of equally probable strata
        uniform = (torch.arange(samples) + standard_uniform((len(x), samples), generator)) / samples
        steps = torch.searchsorted(probabilities.cumsum(dim=0).cpu(), uniform).clamp_max(len(probabilities) - 1)
        weights = 1 / (samples * probabilities)
    for step in steps.to(x.device).unbind(dim=1):
        sigma, sigma_next = sigmas[step + 1], sigmas[step]
        error = (denoiser(_noisy(x, sigma, generator), sigma) - x).square().flatten(1).sum(dim=1)
        cost = cost + weights[step] * 0.5 * (sigma_next.square().reciprocal() - sigma.square().reciprocal()) * error
    variance, total = sigmas[-1].square(), sigmas[-1].square() + std**2
    divergence = 0.5 * ((total / variance).log() + (variance + (x - mean).square()) / total - 1)
    return reconstruction - cost - divergence.flatten(1).sum(dim=1)


def discretised_log_prob(x: Tensor, mean: Tensor, std: Tensor, *, interval: tuple[float, float], levels: int) -> Tensor:
    """Return the log-probability of levels under normal distributions, whose tails belong to the outermost levels.

    Args:
        x: signals on the levels, (batch, *event).
        mean: means, of the shape of x.
        std: standard deviation, ().
        interval: lowest and highest level.
        levels: number of levels.

    Returns:
        Log-probabilities in nats, (batch,).

    Reference:
        Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239, eq. 13.
    """
    low, high = interval
    half = 0.5 * (high - low) / (levels - 1)
    below = torch.where(x < low + half, -torch.inf, (x - half - mean) / std)
    above = torch.where(x > high - half, torch.inf, (x + half - mean) / std)
    # in the lower tail, where differences of the cumulative distribution keep their precision
    below, above = torch.where(below > 0, -above, below), torch.where(below > 0, -below, above)
    log_above, log_below = torch.special.log_ndtr(above), torch.special.log_ndtr(below)
    return (log_above + torch.log1p(-(log_below - log_above).exp())).flatten(1).sum(dim=1)


def _noisy(x: Tensor, sigma: Tensor, generator: Generator | None) -> Tensor:
    return x + expand_like(sigma, x) * noise_like(x, generator)
