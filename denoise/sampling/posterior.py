"""Signals of which something is known: drawn from a prior so that they agree with it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.probability_path import karras_sigmas, noise_like
from denoise.sampling.operators import Operator
from denoise.sampling.solvers import Denoise, ancestral_step, dpmpp_2m_sde


def drawn_clean(
    denoiser: Denoise, noisy: Tensor, sigma: float, steps: int, *, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw a signal that ``noisy`` may have been before white noise of ``sigma``, and give the mean of all such.

    A noisy signal is a point on the way from noise to signals, so the way is gone on from there. An average draw
    has twice the mean's squared error. NFE: steps, of which the first gives the mean; 12 are enough.

    Shape:
        noisy, both results: (batch, *event).
    Reference:
        Stochastic Image Denoising by Sampling from the Posterior Distribution, 2021, arXiv:2101.09552.
    """
    means: list[Tensor] = []

    def heard(x: Tensor, level: Tensor) -> Tensor:
        answer = denoiser(x, level)
        if not means:
            means.append(answer)
        return answer

    drawn = dpmpp_2m_sde(heard, noisy, karras_sigmas(steps, sigma / 50, sigma), generator=generator)
    return drawn, means[0]


def inpaint(
    denoiser: Denoise,
    known: Tensor,
    mask: Tensor,
    sigmas: Tensor,
    *,
    start: Tensor,
    again: int = 4,
    generator: Generator | None = None,
) -> Tensor:
    """Fill what is missing: the known part is held at every level, and the rest goes down and up again to fit it.

    NFE: again * (steps - 1) + 1.

    Shape:
        known, mask, start, returns: (batch, *event); mask is 1 where ``known`` is known, and start has
            noise of ``sigmas[0]``; sigmas: (steps + 1,), decreasing, ending at 0.
    Reference:
        RePaint: Inpainting using Denoising Diffusion Probabilistic Models, 2022, arXiv:2201.09865, algorithm 1.
    """

    def noise(level: Tensor) -> Tensor:
        return level.to(known) * noise_like(known, generator)

    x = torch.where(mask > 0, known + noise(sigmas[0]), start)
    for sigma, after in pairwise(sigmas):
        for turn in range(again if after > 0 else 1):
            if turn:  # up again
                x = x + noise((sigma**2 - after**2).sqrt())
            x = ancestral_step(denoiser(x, sigma.to(x).expand(len(x))), x, sigma, after, generator)
            x = torch.where(mask > 0, known + noise(after), x)
    return x


def impute(
    codec: Any, known: Tensor, mask: Tensor, *, start: Tensor, turns: int = 60, generator: Generator | None = None
) -> Tensor:
    """Fill what is missing by remembering it again and again, the known part put back each time.

    It begins with the missing part of ``start``: of samples, say. Of noise a codec remembers what it never saw.

    Shape:
        known, mask, start, returns: (batch, *event), as in `inpaint`; the codec draws its latents.
    Reference:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models, 2014,
        arXiv:1401.4082, appendix F.
    """
    x = torch.where(mask > 0, known, start)
    for _ in range(turns):
        x = torch.where(mask > 0, known, codec.decode(codec.draw(x, generator)))
    return x


def coarse_mask(mask: Tensor, size: tuple[int, ...]) -> Tensor:
    """A mask at the positions of spatial latents: known where all is known. Shape: (batch, 1, *space) to size."""
    missing = 1 - mask.float()
    pool = F.adaptive_max_pool2d if len(size) == 2 else F.adaptive_max_pool1d
    return 1 - pool(missing, size)


def diffpir(
    denoiser: Denoise,
    y: Tensor,
    operator: Operator,
    sigma_y: float,
    sigmas: Tensor,
    *,
    start: Tensor,
    trust: float = 1.0,
    fresh: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Denoise, go to the nearest signal that fits the measurement, take up noise again. NFE: steps.

    ``trust`` is the weight of the prior (the paper's lambda, 1 as Bayes has it), ``fresh`` the share of noise that is
    drawn anew (its zeta; with less than all, errors of the first steps stay).

    Shape:
        y: a measurement of signals (batch, *event) with noise of ``sigma_y``; start, returns: (batch, *event).
    Reference:
        Denoising Diffusion Models for Plug-and-Play Image Restoration, 2023, arXiv:2305.08995, algorithm 1.
    """
    x = start
    for sigma, after in pairwise(sigmas):
        x0 = denoiser(x, sigma.to(x).expand(len(x)))
        damping = trust * max(sigma_y, 1e-4) ** 2 / sigma.to(x) ** 2
        x0 = x0 + operator.adjoint(operator.solve(y - operator.forward(x0), damping))
        eps = (x - x0) / sigma
        drawn = noise_like(x, generator)
        x = x0 + after * ((1 - fresh) ** 0.5 * eps + fresh**0.5 * drawn)
    return x


def ddrm(
    denoiser: Denoise,
    y: Tensor,
    operator: Operator,
    sigma_y: float,
    sigmas: Tensor,
    *,
    start: Tensor,
    eta: float = 0.85,
    generator: Generator | None = None,
) -> Tensor:
    """Denoise, and mix with the measurement coordinate by coordinate, as certain as each is. NFE: steps.

    Shape:
        as in `diffpir`.
    Reference:
        Denoising Diffusion Restoration Models, 2022, arXiv:2201.11793, eq. 7 and 8 (eta_b = 1).
    """
    x = start
    measured = operator.pseudoinverse(y)
    values = operator.singular(measured)
    blurred = torch.where(values > 1e-6, sigma_y / values.clamp_min(1e-6), torch.inf)  # noise of each coordinate
    for sigma, after in pairwise(sigmas):
        x0 = denoiser(x, sigma.to(x).expand(len(x)))
        z0, z = operator.spectral(x0), operator.spectral(x)
        drawn = noise_like(x, generator)
        white = operator.spectral(drawn)
        s = after.to(values)
        unseen = z0 + (1 - eta**2) ** 0.5 * s * (z - z0) / sigma + eta * s * white
        noisier = z0 + (1 - eta**2) ** 0.5 * s * (measured - z0) / blurred.clamp_min(1e-9) + eta * s * white
        surer = measured + (s**2 - blurred**2).clamp_min(0).sqrt() * white
        z = torch.where(values <= 1e-6, unseen, torch.where(blurred > s, noisier, surer))
        x = operator.signal(z)
    return x


def dps(
    denoiser: Denoise,
    y: Tensor,
    operator: Operator,
    sigmas: Tensor,
    *,
    start: Tensor,
    step: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Sample as if nothing were measured, and push each step towards the measurement. NFE: steps, with gradients.

    ``step`` is that of the gradient of half the squared misfit, 1 where one step would do for what is measured best.
    (The paper divides by the misfit in place of that, for a thousand steps.)

    Shape:
        as in `diffpir`.
    Reference:
        Diffusion Posterior Sampling for General Noisy Inverse Problems, 2022, arXiv:2209.14687, algorithm 1
        (on the exploding path).
    """
    x, largest = start, operator.singular(operator.spectral(start)).max().square()
    for sigma, after in pairwise(sigmas):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            x0 = denoiser(at, sigma.to(x).expand(len(x)))
            misfit = (y - operator.forward(x0)).square().sum() / 2
            (gradient,) = torch.autograd.grad(misfit, at)
        x = ancestral_step(x0.detach(), x, sigma, after, generator) - step / largest * gradient
    return x


def pnp_flow(
    denoiser: Denoise,
    y: Tensor,
    operator: Operator,
    sigmas: Tensor,
    *,
    start: Tensor,
    rate: float = 1.0,
    fall: float = 0.1,
    draws: int = 1,
    generator: Generator | None = None,
) -> Tensor:
    """Step towards the measurement, take up noise, denoise; with less and less noise. NFE: draws * steps.

    Its answer is one likely signal, not a draw. ``rate``, below 2, is the step of the gradient, 1 where one step would
    do for what is measured best; with the noise it falls, by the power ``fall`` (the paper's alpha).

    Shape:
        as in `diffpir`.
    Reference:
        PnP-Flow: Plug-and-Play Image Restoration with Flow Matching, 2024, arXiv:2410.02423, algorithm 3.
    """
    x, largest = start, operator.singular(operator.spectral(start)).max().square()
    for sigma in sigmas[:-1]:
        share = sigma.to(x) / (1 + sigma.to(x))  # the paper's 1 - t
        z = x - rate / largest * share**fall * operator.adjoint(operator.forward(x) - y)
        total = torch.zeros_like(x)
        for _ in range(draws):
            drawn = noise_like(x, generator)
            total = total + denoiser(z + sigma * drawn, sigma.to(x).expand(len(x)))
        x = total / draws
    return x
