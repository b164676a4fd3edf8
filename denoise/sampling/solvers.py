"""From noise to signals: plain functions over a denoiser ``D(x, sigma)`` or a velocity; they know of no model.

``sigmas`` decrease and end at 0; ``callback`` hears (step, x) after each. NFE is the number of network calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Generator, Tensor

from denoise.probability_path import like, noise_like

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
    """First order, deterministic: DDIM. NFE: steps.

    Shape:
        x, returns: (batch, *event), at ``sigmas[0]`` before and at 0 after; sigmas: (steps + 1,).
    Reference:
        Denoising Diffusion Implicit Models, 2020, arXiv:2010.02502.
    """
    for i, (sigma, after) in enumerate(_steps(sigmas)):
        x = _towards(denoiser(x, _all(sigma, x)), x, sigma, after)
        _tell(callback, i, x)
    return x


def heun(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Second order, deterministic. NFE: 2 * steps - 1.

    Reference:
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364, algorithm 1.
    """
    for i, (sigma, after) in enumerate(_steps(sigmas)):
        slope = (x - denoiser(x, _all(sigma, x))) / sigma
        ahead = x + (after - sigma) * slope
        if after > 0:
            second = (ahead - denoiser(ahead, _all(after, x))) / after
            ahead = x + (after - sigma) * (slope + second) / 2
        x = ahead
        _tell(callback, i, x)
    return x


def dpmpp_2m(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++, second order by the step before, deterministic. NFE: steps.

    Reference:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, 2022, arXiv:2211.01095,
        algorithm 2 (data prediction, on the exploding path: lambda is -log sigma).
    """
    ahead = _Ahead()
    for i, (sigma, after) in enumerate(_steps(sigmas)):
        x = _towards(ahead(denoiser(x, _all(sigma, x)), sigma, after), x, sigma, after)
        _tell(callback, i, x)
    return x


def dpmpp_2m_sde(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """SDE-DPM-Solver++, second order by the step before, stochastic. NFE: steps.

    From a noisy signal it draws one of the signals that it may have been; `ancestral` takes many more steps until
    these differ enough from each other.

    Reference:
        DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models, 2022, arXiv:2211.01095,
        SDE-DPM-Solver++(2M).
    """
    ahead = _Ahead()
    for i, (sigma, after) in enumerate(_steps(sigmas)):
        x = ancestral_step(ahead(denoiser(x, _all(sigma, x)), sigma, after), x, sigma, after, generator)
        _tell(callback, i, x)
    return x


class _Ahead:
    """The signals that a denoiser answers, each drawn out to the middle of its step by the one before."""

    def __init__(self) -> None:
        self.last: Tensor | None = None
        self.step = torch.tensor(0.0)

    def __call__(self, x0: Tensor, sigma: Tensor, after: Tensor) -> Tensor:
        if not after > 0:
            return x0
        last, self.last = self.last, x0
        before, self.step = self.step, (sigma / after).log()
        return x0 if last is None else x0 + like(self.step / (2 * before), x0) * (x0 - last)


def ancestral(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """First order, stochastic: each step draws from what DDPM's posterior is between two levels. NFE: steps.

    Reference:
        Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239, eq. 6 and 7.
    """
    for i, (sigma, after) in enumerate(_steps(sigmas)):
        x = ancestral_step(denoiser(x, _all(sigma, x)), x, sigma, after, generator)
        _tell(callback, i, x)
    return x


def ancestral_step(x0: Tensor, x: Tensor, sigma: Tensor, after: Tensor, generator: Generator | None) -> Tensor:
    """Draw x at the level ``after``, given x at ``sigma`` and the signal x0. Shape: x0, x, returns (batch, *event)."""
    kept = (after / sigma).square()  # of what is above x0; the rest of the variance is drawn anew
    x = x0 + kept * (x - x0)
    return x + after * (1 - kept).clamp_min(0).sqrt() * noise_like(x, generator) if after > 0 else x


def ode(
    velocity: Velocity,
    x: Tensor,
    times: Tensor,
    *,
    order: int = 2,
    callback: Callback | None = None,
) -> Tensor:
    """Follow a velocity through the given times, in either direction: Euler (order 1) or midpoint (2).

    NFE: order * steps.

    Shape:
        x, returns: (batch, *event); times: (steps + 1,).
    """
    for i, (t, after) in enumerate(_steps(times)):
        step = after - t
        slope = velocity(x, _all(t, x))
        if order == 2:
            slope = velocity(x + step / 2 * slope, _all(t + step / 2, x))
        x = x + step * slope
        _tell(callback, i, x)
    return x


def ode_log_prob(
    velocity: Velocity,
    x: Tensor,
    times: Tensor,
    *,
    probes: int | None = 1,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Follow a velocity by the midpoint rule, and with it how the density along the way is squeezed.

    With z where x ends, log p(x) is log p(z) plus the second result. The divergence is estimated by so many
    random ``probes``, or computed (None) at the cost of one gradient for each entry.

    Shape:
        x: (batch, *event); times: (steps + 1,); returns (batch, *event) and (batch,), nats.
    Reference:
        FFJORD, 2018, arXiv:1810.01367, eq. 4 and 7; Score-Based Generative Modeling through Stochastic
        Differential Equations, 2020, arXiv:2011.13456, appendix D.2.
    """
    gained = x.new_zeros(len(x))
    if probes is None:
        directions = torch.eye(x[0].numel(), dtype=x.dtype).reshape(-1, 1, *x.shape[1:]).expand(-1, *x.shape)
    else:  # signs: the variance of the estimate is least
        directions = torch.randint(2, (probes, *x.shape), generator=generator).to(x.dtype) * 2 - 1
    directions = directions.to(x.device)

    def slope_and_divergence(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            slope = velocity(x, _all(t, x))
            sums = []
            for direction in directions:
                (turned,) = torch.autograd.grad((slope * direction).sum(), x, retain_graph=True)
                sums.append((turned * direction).flatten(1).sum(dim=1))
        total = torch.stack(sums)
        return slope.detach(), (total.sum(dim=0) if probes is None else total.mean(dim=0)).detach()

    for t, after in _steps(times):
        step = after - t
        slope = velocity(x, _all(t, x)).detach()
        slope, divergence = slope_and_divergence(x + step / 2 * slope, t + step / 2)
        x, gained = x + step * slope, gained + step * divergence
    return x, gained


SOLVERS = {
    "euler": euler,
    "heun": heun,
    "dpmpp-2m": dpmpp_2m,
    "dpmpp-2m-sde": dpmpp_2m_sde,
    "ancestral": ancestral,
}


def standard_normal(x: Tensor) -> Tensor:
    """log N(x; 0, I) in nats. Shape: x (batch, *event), returns (batch,)."""
    flat = x.flatten(1)
    return -0.5 * flat.square().sum(dim=1) - 0.5 * math.log(2 * math.pi) * flat.shape[1]


def _steps(levels: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [*pairwise(levels)]


def _all(level: Tensor, x: Tensor) -> Tensor:
    """The same level for every example. Shape: (batch,)."""
    return level.to(x).expand(len(x))


def _towards(x0: Tensor, x: Tensor, sigma: Tensor, after: Tensor) -> Tensor:
    """Along the line from x to x0 until the noise is ``after``."""
    return x0 + like(after / sigma, x) * (x - x0)


def _tell(callback: Callback | None, step: int, x: Tensor) -> None:
    if callback:
        callback(step, x)
