"""Samplers that fill in missing entries: of signals by a denoiser, of signals by a codec, of noise by a likelihood."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.probability_path import expand_like, noise_like, standard_uniform
from denoise.protocols import Progress, StochasticCodec
from denoise.sampling.solvers import Denoise, ancestral_step, heun

MAX_SHRINKS = 60  # of the bracket of an angle: it is then nil, and the chain stays


def inpaint(
    denoiser: Denoise,
    observed: Tensor,
    mask: Tensor,
    sigmas: Tensor,
    *,
    start: Tensor,
    resamplings: int = 4,
    order: Literal[1, 2] = 1,
    generator: Generator | None = None,
) -> Tensor:
    """Fill in missing entries by RePaint: replace the observed entries at every noise level and resample the others.

    Ancestral steps, of order 1, lose some of the variance each time. Signals of many scales, such as the coefficients
    of speech, fade to silence; they need steps of Heun's method, of order 2.
    NFE: order * resamplings * (steps - 1) + 1.

    Args:
        denoiser: function of x and sigma, (batch,).
        observed: signals, (batch, *event); missing entries have any value.
        mask: 1 where entries are observed, 0 where they are missing, (batch, *event).
        sigmas: noise levels, (steps + 1,), decreasing, ending at 0.
        start: signals with noise of ``sigmas[0]``, (batch, *event).
        resamplings: repetitions of each step, with forward diffusion between them.
        order: 1 for ancestral steps, 2 for steps of Heun's method.
        generator: source of the noise.

    Returns:
        Signals that agree with ``observed`` where the mask is 1, (batch, *event).

    Reference:
        RePaint: Inpainting using Denoising Diffusion Probabilistic Models, 2022, arXiv:2201.09865, algorithm 1.
    """

    def noise(sigma: Tensor) -> Tensor:
        return sigma.to(observed) * noise_like(observed, generator)

    x = torch.where(mask > 0, observed + noise(sigmas[0]), start)
    for sigma, sigma_next in pairwise(sigmas):
        for repetition in range(resamplings if sigma_next > 0 else 1):
            if repetition:  # diffuse forward, from sigma_next to sigma
                x = x + noise((sigma**2 - sigma_next**2).sqrt())
            if order == 1:
                x = ancestral_step(denoiser(x, sigma.to(x).expand(len(x))), x, sigma, sigma_next, generator)
            else:
                x = heun(denoiser, x, torch.stack([sigma, sigma_next]))
            x = torch.where(mask > 0, observed + noise(sigma_next), x)
    return x


def gibbs_inpaint(
    codec: StochasticCodec,
    observed: Tensor,
    mask: Tensor,
    *,
    start: Tensor,
    iterations: int = 60,
    generator: Generator | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Fill in missing entries by pseudo-Gibbs sampling: encode and decode repeatedly, with the observed entries fixed.

    Args:
        codec: codec that samples its latents.
        observed: signals, (batch, *event); missing entries have any value.
        mask: 1 where entries are observed, 0 where they are missing, (batch, *event).
        start: initial values of the missing entries, (batch, *event). Use samples: noise is not like training data.
        iterations: number of iterations.
        generator: source of the latents' noise.
        progress: called with the fraction of the iterations that are done.

    Returns:
        Signals that agree with ``observed`` where the mask is 1, (batch, *event).

    Reference:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models, 2014,
        arXiv:1401.4082, appendix F.
    """
    x = torch.where(mask > 0, observed, start)
    for i in range(iterations):
        x = torch.where(mask > 0, observed, codec.decode(codec.sample_posterior(x, generator)))
        if progress:
            progress((i + 1) / iterations)
    return x


def elliptical_slice(
    log_likelihood: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    iterations: int = 50,
    generator: Generator | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Sample the posterior of standard normal noise by elliptical slice sampling, in parallel chains.

    It has no step size and needs no gradient: each chain moves on a random ellipse through its noise and shrinks the
    bracket of the angle until the likelihood is above a random level.

    Args:
        log_likelihood: function of noise, (batch, *event) to (batch,), nats.
        start: initial noise, (batch, *event).
        iterations: number of moves of each chain.
        generator: source of randomness on the CPU.
        progress: called with the fraction of the moves that are done.

    Returns:
        Noise, (batch, *event).

    Reference:
        Elliptical Slice Sampling, 2010, arXiv:1001.0381, figure 2.
    """

    def uniform() -> Tensor:
        return standard_uniform((len(start),), generator).to(start)

    noise, nats = start, log_likelihood(start)
    for i in range(iterations):
        ellipse, level = noise_like(noise, generator), nats + uniform().log()
        angle = 2 * torch.pi * uniform()
        low, high = angle - 2 * torch.pi, angle
        is_open = torch.ones_like(nats, dtype=torch.bool)
        moved, moved_nats = noise, nats
        for _ in range(MAX_SHRINKS):
            proposal = expand_like(angle.cos(), noise) * noise + expand_like(angle.sin(), noise) * ellipse
            proposal_nats = log_likelihood(proposal)
            is_accepted = is_open & (proposal_nats > level)
            moved = torch.where(expand_like(is_accepted, noise) > 0, proposal, moved)
            moved_nats = torch.where(is_accepted, proposal_nats, moved_nats)
            is_open = is_open & ~is_accepted
            if not is_open.any():
                break
            low, high = torch.where(angle < 0, angle, low), torch.where(angle < 0, high, angle)
            angle = low + (high - low) * uniform()
        noise, nats = moved, moved_nats
        if progress:
            progress((i + 1) / iterations)
    return noise


def coarse_mask(mask: Tensor, size: tuple[int, ...]) -> Tensor:
    """Reduce a mask to the positions of spatial latents, which are observed where all of their entries are.

    Args:
        mask: 1 where entries are observed, 0 where they are missing, (batch, 1, *space).
        size: spatial size of the latents.

    Returns:
        Mask of the latents, (batch, 1, *size).
    """
    missing = 1 - mask.float()
    pool = F.adaptive_max_pool2d if len(size) == 2 else F.adaptive_max_pool1d
    return 1 - pool(missing, size)
