"""Solvers that turn noise into signals: pure functions over a denoiser ``D(x, sigma)`` or a velocity ``v(x, t)``.

``sigmas`` decrease and end at 0; ``callback`` is called with (step, x) after each step. NFE is the number of function
evaluations, that is of network calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Generator, Tensor

from denoise.probability_path import convert, expand_like, exploding, noise_like

Denoise = Callable[[Tensor, Tensor], Tensor]
Velocity = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[int, Tensor], None]


def euler(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Integrate the probability flow by Euler's method, which is DDIM: first order, deterministic. NFE: steps.

    Args:
        denoiser: function of x and sigma, (batch,).
        x: signals with noise of ``sigmas[0]``, (batch, *event).
        sigmas: noise levels, (steps + 1,).
        generator: unused, since the solver is deterministic.
        callback: called with (step, x) after each step.

    Returns:
        Signals, (batch, *event).

    Reference:
        Denoising Diffusion Implicit Models, 2020, arXiv:2010.02502.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x = ddim_step(denoiser(x, _batched(sigma, x)), x, sigma, sigma_next)
        _report(callback, i, x)
    return x


def heun(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Integrate the probability flow by Heun's method: second order, deterministic. NFE: 2 * steps - 1.

    Args:
        denoiser: function of x and sigma, (batch,).
        x: signals with noise of ``sigmas[0]``, (batch, *event).
        sigmas: noise levels, (steps + 1,).
        generator: unused, since the solver is deterministic.
        callback: called with (step, x) after each step.

    Returns:
        Signals, (batch, *event).

    Reference:
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364, algorithm 1.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x = heun_step(denoiser, x, sigma, sigma_next)
        _report(callback, i, x)
    return x


def dpmpp_2m(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Sample by DPM-Solver++(2M): second order multistep, deterministic. NFE: steps.

    Args:
        denoiser: function of x and sigma, (batch,).
        x: signals with noise of ``sigmas[0]``, (batch, *event).
        sigmas: noise levels, (steps + 1,).
        generator: unused, since the solver is deterministic.
        callback: called with (step, x) after each step.

    Returns:
        Signals, (batch, *event).

    Reference:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, 2022, arXiv:2211.01095,
        algorithm 2 (data prediction, on the exploding path: lambda is -log sigma).
    """
    extrapolate = _Extrapolation()
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x = ddim_step(extrapolate(denoiser(x, _batched(sigma, x)), sigma, sigma_next), x, sigma, sigma_next)
        _report(callback, i, x)
    return x


def dpmpp_2m_sde(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Sample by SDE-DPM-Solver++(2M): second order multistep, stochastic. NFE: steps.

    It samples the posterior of a noisy signal. `ancestral` takes many more steps until the variance is right.

    Args:
        denoiser: function of x and sigma, (batch,).
        x: signals with noise of ``sigmas[0]``, (batch, *event).
        sigmas: noise levels, (steps + 1,).
        generator: source of the noise.
        callback: called with (step, x) after each step.

    Returns:
        Signals, (batch, *event).

    Reference:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, 2022, arXiv:2211.01095,
        SDE-DPM-Solver++(2M).
    """
    extrapolate = _Extrapolation()
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = extrapolate(denoiser(x, _batched(sigma, x)), sigma, sigma_next)
        x = ancestral_step(x0, x, sigma, sigma_next, generator)
        _report(callback, i, x)
    return x


class _Extrapolation:
    """Extrapolates each denoised signal to the middle of its step, by the one of the step before."""

    def __init__(self) -> None:
        self.x0_previous: Tensor | None = None
        self.step = torch.tensor(0.0, dtype=torch.float32)  # in log sigma

    def __call__(self, x0: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        if not sigma_next > 0:
            return x0
        x0_previous, self.x0_previous = self.x0_previous, x0
        step_previous, self.step = self.step, (sigma / sigma_next).log()
        if x0_previous is None:
            return x0
        return x0 + expand_like(self.step / (2 * step_previous), x0) * (x0 - x0_previous)


def ancestral(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Sample each step from DDPM's posterior between two noise levels: first order, stochastic. NFE: steps.

    Args:
        denoiser: function of x and sigma, (batch,).
        x: signals with noise of ``sigmas[0]``, (batch, *event).
        sigmas: noise levels, (steps + 1,).
        generator: source of the noise.
        callback: called with (step, x) after each step.

    Returns:
        Signals, (batch, *event).

    Reference:
        Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239, eq. 6 and 7.
    """
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x = ancestral_step(denoiser(x, _batched(sigma, x)), x, sigma, sigma_next, generator)
        _report(callback, i, x)
    return x


def ancestral_step(x0: Tensor, x: Tensor, sigma: Tensor, sigma_next: Tensor, generator: Generator | None) -> Tensor:
    """Sample x at a lower noise level, given x at a higher one and the clean signal.

    Args:
        x0: clean signals, (batch, *event).
        x: signals with noise of ``sigma``, (batch, *event).
        sigma: noise level of x, ().
        sigma_next: noise level of the result, ().
        generator: source of the noise.

    Returns:
        Signals with noise of ``sigma_next``, (batch, *event).
    """
    return posterior_step(x0, x, sigma, sigma_next, noise_like(x, generator)) if sigma_next > 0 else x0


def posterior_step(x0: Tensor, x: Tensor, sigma: Tensor, sigma_next: Tensor, noise: Tensor) -> Tensor:
    """Return x at a lower noise level, given x at a higher one, the clean signal and the noise that is drawn anew.

    With standard normal noise it samples q(x_next | x, x0).

    Args:
        x0: clean signals, (batch, *event).
        x: signals with noise of ``sigma``, (batch, *event).
        sigma: noise level of x, () or (batch,).
        sigma_next: noise level of the result, () or (batch,).
        noise: noise, (batch, *event); its factor is 0 where ``sigma_next`` is.

    Returns:
        Signals with noise of ``sigma_next``, (batch, *event).

    Reference:
        Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239, eq. 6 and 7.
    """
    kept_fraction = (sigma_next / sigma).square()  # of the noise; the remaining variance is drawn anew
    std = sigma_next * (1 - kept_fraction).clamp_min(0).sqrt()
    return x0 + expand_like(kept_fraction, x) * (x - x0) + expand_like(std, x) * noise


def ddim_step(x0: Tensor, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Move x along the line to the clean signal until the noise level is ``sigma_next``.

    Args:
        x0: clean signals, (batch, *event).
        x: signals with noise of ``sigma``, (batch, *event).
        sigma: noise level of x, () or (batch,).
        sigma_next: noise level of the result, () or (batch,).

    Returns:
        Signals with noise of ``sigma_next``, (batch, *event).
    """
    return x0 + expand_like(sigma_next / sigma, x) * (x - x0)


def ddim_target(x_next: Tensor, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Return the clean signals for which `ddim_step` leads from x to x_next.

    Args:
        x_next: signals with noise of ``sigma_next``, (batch, *event).
        x: signals with noise of ``sigma``, (batch, *event).
        sigma: noise level of x, () or (batch,).
        sigma_next: noise level of x_next, below ``sigma``, () or (batch,).

    Returns:
        Clean signals, (batch, *event).

    Reference:
        Multistep Consistency Models, 2024, arXiv:2403.06807, algorithm 1 (invDDIM).
    """
    ratio = expand_like(sigma_next / sigma, x)
    return (x_next - ratio * x) / (1 - ratio)


def heun_step(denoiser: Denoise, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Take a step of Heun's method; steps to 0, where the slope is undefined, are Euler's.

    Args:
        denoiser: function of x and sigma, (batch,).
        x: signals with noise of ``sigma``, (batch, *event).
        sigma: noise level of x, () or (batch,).
        sigma_next: noise level of the result, () or (batch,).

    Returns:
        Signals with noise of ``sigma_next``, (batch, *event).
    """

    def slope(x: Tensor, sigma: Tensor) -> Tensor:
        return convert(denoiser(x, _batched(sigma, x)), x, exploding(sigma), "x0", "velocity")

    step, slope_start = expand_like(sigma_next - sigma, x), slope(x, sigma)
    x_euler = x + step * slope_start
    if not (sigma_next > 0).any():
        return x_euler
    x_heun = x + step * (slope_start + slope(x_euler, sigma_next.clamp_min(1e-8))) / 2
    return torch.where(expand_like(sigma_next, x) > 0, x_heun, x_euler)


def ode(
    velocity: Velocity,
    x: Tensor,
    times: Tensor,
    *,
    order: int = 2,
    callback: Callback | None = None,
) -> Tensor:
    """Integrate a velocity in either direction, by Euler's method or the midpoint rule. NFE: order * steps.

    Args:
        velocity: function of x and t, (batch,).
        x: initial values, (batch, *event).
        times: time points, (steps + 1,).
        order: 1 for Euler, 2 for the midpoint rule.
        callback: called with (step, x) after each step.

    Returns:
        Values at ``times[-1]``, (batch, *event).
    """
    for i, (t, t_next) in enumerate(pairwise(times)):
        step = t_next - t
        slope = velocity(x, _batched(t, x))
        if order == 2:
            slope = velocity(x + step / 2 * slope, _batched(t + step / 2, x))
        x = x + step * slope
        _report(callback, i, x)
    return x


def ode_log_prob(
    velocity: Velocity,
    x: Tensor,
    times: Tensor,
    *,
    probes: int | None = 1,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Integrate a velocity by the midpoint rule, together with its divergence, for the change of density.

    With z the end point, log p(x) is log p(z) plus the second result.

    Args:
        velocity: function of x and t, (batch,).
        x: initial values, (batch, *event).
        times: time points, (steps + 1,).
        probes: number of random probes of Hutchinson's estimator of the divergence. None computes it exactly, at the
            cost of one gradient for each entry.
        generator: source of the probes.

    Returns:
        The end points, (batch, *event), and the integral of the divergence in nats, (batch,).

    Reference:
        FFJORD, 2018, arXiv:1810.01367, eq. 4 and 7; Score-Based Generative Modeling through Stochastic
        Differential Equations, 2020, arXiv:2011.13456, appendix D.2.
    """
    delta_log_prob = x.new_zeros(len(x))
    if probes is None:
        directions = torch.eye(x[0].numel(), dtype=x.dtype).reshape(-1, 1, *x.shape[1:]).expand(-1, *x.shape)
    else:  # Rademacher: the variance of the estimate is least
        directions = torch.randint(2, (probes, *x.shape), generator=generator).to(x.dtype) * 2 - 1
    directions = directions.to(x.device)

    def slope_and_divergence(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            slope = velocity(x, _batched(t, x))
            terms = []
            for direction in directions:
                (product,) = torch.autograd.grad((slope * direction).sum(), x, retain_graph=True)
                terms.append((product * direction).flatten(1).sum(dim=1))
        stacked = torch.stack(terms)
        return slope.detach(), (stacked.sum(dim=0) if probes is None else stacked.mean(dim=0)).detach()

    for t, t_next in pairwise(times):
        step = t_next - t
        slope = velocity(x, _batched(t, x)).detach()
        slope, divergence = slope_and_divergence(x + step / 2 * slope, t + step / 2)
        x, delta_log_prob = x + step * slope, delta_log_prob + step * divergence
    return x, delta_log_prob


SOLVERS = {
    "euler": euler,
    "heun": heun,
    "dpmpp-2m": dpmpp_2m,
    "dpmpp-2m-sde": dpmpp_2m_sde,
    "ancestral": ancestral,
}
STOCHASTIC = frozenset({"dpmpp-2m-sde", "ancestral"})  # they draw noise: equal x lead to different signals
LINEAR_IN_SIGMA = frozenset({"heun"})  # accurate only where the ratios of successive levels are moderate


def standard_normal_log_prob(x: Tensor) -> Tensor:
    """Return log N(x; 0, I) in nats, (batch, *event) to (batch,)."""
    flat = x.flatten(1)
    return -0.5 * flat.square().sum(dim=1) - 0.5 * math.log(2 * math.pi) * flat.shape[1]


def _batched(value: Tensor, x: Tensor) -> Tensor:
    """Repeat a number for every example: (batch,)."""
    return value.to(x).expand(len(x))


def _report(callback: Callback | None, step: int, x: Tensor) -> None:
    if callback:
        callback(step, x)
