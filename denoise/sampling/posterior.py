"""Posterior samplers: signals from a prior that are consistent with a measurement."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Generator, Tensor

from denoise.probability_path import karras_sigmas, noise_like
from denoise.sampling.operators import Operator
from denoise.sampling.solvers import Denoise, ancestral_step, dpmpp_2m_sde


def sample_posterior(
    denoiser: Denoise, noisy: Tensor, sigma: float, steps: int, *, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Sample the clean signals that a noisy signal may come from, and return the mean of all of them, too.

    A signal with white noise is a point on the exploding path, so that the reverse process starts there. A posterior
    sample has on average twice the squared error of the mean. NFE: steps, of which the first is the mean; 12 suffice.

    Args:
        denoiser: function of x and sigma, (batch,).
        noisy: noisy signals, (batch, *event).
        sigma: standard deviation of the white noise, in signal units.
        steps: steps of the solver.
        generator: source of the noise.

    Returns:
        Posterior samples and posterior means, (batch, *event) each.

    Reference:
        Stochastic Image Denoising by Sampling from the Posterior Distribution, 2021, arXiv:2101.09552.
    """
    means: list[Tensor] = []

    def recording_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = denoiser(x, sigma)
        if not means:
            means.append(denoised)
        return denoised

    sigmas = karras_sigmas(steps, sigma / 50, sigma)
    samples = dpmpp_2m_sde(recording_denoiser, noisy, sigmas, generator=generator)
    return samples, means[0]


def diffpir(
    denoiser: Denoise,
    y: Tensor,
    operator: Operator,
    sigma_y: float,
    sigmas: Tensor,
    *,
    start: Tensor,
    prior_weight: float = 1.0,
    zeta: float = 1.0,
    generator: Generator | None = None,
    noise: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Restore a signal by DiffPIR: denoise, solve for the nearest signal that fits, add noise again. NFE: steps.

    Results differ by less than samples of the posterior do, and are nearer to its mean: with all noise drawn anew, the
    variance of what is normally distributed becomes half of the true one with many steps. `sample_posterior` has the
    true one, where noise alone is removed.

    Args:
        denoiser: function of x and sigma, (batch,).
        y: measurement of signals (batch, *event).
        operator: measurement operator.
        sigma_y: standard deviation of the noise of the measurement, in signal units.
        sigmas: noise levels, (steps + 1,), decreasing, ending at 0.
        start: signals with noise of ``sigmas[0]``, (batch, *event).
        prior_weight: weight of the prior (lambda in the paper); 1 is Bayes' rule.
        zeta: fraction of the noise that is drawn anew (zeta in the paper); below 1, errors of the first steps persist.
        generator: source of the noise.
        noise: function of the number of the step that returns its noise, of the shape of signals, in place of the
            generator: the windows of one signal then share it where they overlap.

    Returns:
        Signals, (batch, *event).

    Reference:
        Denoising Diffusion Models for Plug-and-Play Image Restoration, 2023, arXiv:2305.08995, algorithm 1.
    """
    x = start
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoiser(x, sigma.to(x).expand(len(x)))
        x0 = _fit(x0, y, operator, sigma_y, sigma.to(x), prior_weight)
        eps = (x - x0) / sigma
        eps_new = noise_like(x, generator) if noise is None else noise(step)
        x = x0 + sigma_next * ((1 - zeta) ** 0.5 * eps + zeta**0.5 * eps_new)
    return x


def half_quadratic_splitting(
    denoiser: Denoise, y: Tensor, operator: Operator, sigma_y: float, sigmas: Tensor, *, start: Tensor
) -> Tensor:
    """Restore a signal by half-quadratic splitting: denoise, then solve for the nearest signal that fits. NFE: steps.

    The result is one probable signal, not a sample: a denoised signal is separated from the one that fits, and drawn
    to it by a penalty whose weight, 1 / sigma^2, rises with each of ``sigmas``.

    Args:
        denoiser: function of x and sigma, (batch,).
        y: measurement of signals (batch, *event).
        operator: measurement operator.
        sigma_y: standard deviation of the noise of the measurement, in signal units.
        sigmas: noise levels, (steps,), decreasing, above 0.
        start: first signals, (batch, *event).

    Returns:
        Signals, (batch, *event).

    Reference:
        From Learning Models of Natural Image Patches to Whole Image Restoration, Zoran and Weiss, 2011, eq. 5 to 8;
        Plug-and-Play Image Restoration with Deep Denoiser Prior, 2020, arXiv:2008.13751, eq. 6.
    """
    x = start
    for sigma in sigmas:
        x = _fit(denoiser(x, sigma.to(x).expand(len(x))), y, operator, sigma_y, sigma.to(x))
    return x


def _fit(x0: Tensor, y: Tensor, operator: Operator, sigma_y: float, sigma: Tensor, weight: float = 1.0) -> Tensor:
    """Return the most probable signal for a measurement and a normal distribution of sigma around another signal."""
    damping = weight * max(sigma_y, 1e-4) ** 2 / sigma**2
    return x0 + operator.adjoint(operator.solve(y - operator.forward(x0), damping))


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
    """Restore a signal by DDRM: denoise, and combine with the measurement by the noise of each coordinate. NFE: steps.

    Args:
        denoiser: function of x and sigma, (batch,).
        y: measurement of signals (batch, *event).
        operator: linear measurement operator.
        sigma_y: standard deviation of the noise of the measurement, in signal units.
        sigmas: noise levels, (steps + 1,), decreasing, ending at 0.
        start: signals with noise of ``sigmas[0]``, (batch, *event).
        eta: fraction of the noise that is drawn anew; 0 is deterministic.
        generator: source of the noise.

    Returns:
        Signals, (batch, *event).

    Reference:
        Denoising Diffusion Restoration Models, 2022, arXiv:2201.11793, eq. 7 and 8 (eta_b = 1).
    """
    x = start
    measured = operator.pseudoinverse(y)
    values = operator.singular_values(measured)
    sigma_measured = torch.where(values > 1e-6, sigma_y / values.clamp_min(1e-6), torch.inf)  # of each coordinate
    for sigma, sigma_next in pairwise(sigmas):
        x0 = denoiser(x, sigma.to(x).expand(len(x)))
        z0, z = operator.to_spectral(x0), operator.to_spectral(x)
        eps = noise_like(x, generator)
        white = operator.to_spectral(eps)
        s = sigma_next.to(values)
        unobserved = z0 + (1 - eta**2) ** 0.5 * s * (z - z0) / sigma + eta * s * white
        noisier = z0 + (1 - eta**2) ** 0.5 * s * (measured - z0) / sigma_measured.clamp_min(1e-9) + eta * s * white
        cleaner = measured + (s**2 - sigma_measured**2).clamp_min(0).sqrt() * white
        z = torch.where(values <= 1e-6, unobserved, torch.where(sigma_measured > s, noisier, cleaner))
        x = operator.from_spectral(z)
    return x


def dps(
    denoiser: Denoise,
    y: Tensor,
    operator: Operator,
    sigmas: Tensor,
    *,
    start: Tensor,
    step_size: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Restore a signal by DPS: sample unconditionally, with a gradient step on the misfit. NFE: steps, with gradients.

    Args:
        denoiser: differentiable function of x and sigma, (batch,).
        y: measurement of signals (batch, *event).
        operator: measurement operator.
        sigmas: noise levels, (steps + 1,), decreasing, ending at 0.
        start: signals with noise of ``sigmas[0]``, (batch, *event).
        step_size: factor of the gradient of half the squared misfit, in units of the inverse of the largest squared
            singular value. The paper divides by the misfit instead, for a thousand steps.
        generator: source of the noise.

    Returns:
        Signals, (batch, *event).

    Reference:
        Diffusion Posterior Sampling for General Noisy Inverse Problems, 2022, arXiv:2209.14687, algorithm 1
        (on the exploding path).
    """
    x, lipschitz = start, operator.singular_values(operator.to_spectral(start)).max().square()
    for sigma, sigma_next in pairwise(sigmas):
        with torch.enable_grad():
            x_input = x.detach().requires_grad_()
            x0 = denoiser(x_input, sigma.to(x).expand(len(x)))
            misfit = (y - operator.forward(x0)).square().sum() / 2
            (gradient,) = torch.autograd.grad(misfit, x_input)
        x = ancestral_step(x0.detach(), x, sigma, sigma_next, generator) - step_size / lipschitz * gradient
    return x


def pnp_flow(
    denoiser: Denoise,
    y: Tensor,
    operator: Operator,
    sigmas: Tensor,
    *,
    start: Tensor,
    step_size: float = 1.0,
    alpha: float = 0.1,
    samples: int = 1,
    generator: Generator | None = None,
) -> Tensor:
    """Restore a signal by PnP-Flow: gradient step on the misfit, add noise, denoise. NFE: samples * steps.

    The result is one likely signal, not a posterior sample.

    Args:
        denoiser: function of x and sigma, (batch,).
        y: measurement of signals (batch, *event).
        operator: measurement operator.
        sigmas: noise levels, (steps + 1,), decreasing, ending at 0.
        start: initial signals, (batch, *event).
        step_size: step of the gradient, below 2, in units of the inverse of the largest squared singular value.
        alpha: exponent of the decay of the step size with the noise (alpha in the paper).
        samples: noisy signals of each step whose denoised versions are averaged.
        generator: source of the noise.

    Returns:
        Signals, (batch, *event).

    Reference:
        PnP-Flow: Plug-and-Play Image Restoration with Flow Matching, 2024, arXiv:2410.02423, algorithm 3.
    """
    x, lipschitz = start, operator.singular_values(operator.to_spectral(start)).max().square()
    for sigma in sigmas[:-1]:
        t = sigma.to(x) / (1 + sigma.to(x))  # 1 - t in the paper
        z = x - step_size / lipschitz * t**alpha * operator.adjoint(operator.forward(x) - y)
        total = torch.zeros_like(x)
        for _ in range(samples):
            eps = noise_like(x, generator)
            total = total + denoiser(z + sigma * eps, sigma.to(x).expand(len(x)))
        x = total / samples
    return x
