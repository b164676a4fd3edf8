"""Paths between signals and noise: noise levels, prediction targets and the conversions between them.

A path mixes a signal with white noise, ``x = alpha * x0 + sigma * eps``, from ``t = 0`` (the signal) to ``t = 1``
(noise). A network may predict the noise, the signal, a velocity or the score at a point of the path. Each of these
determines the pair (x0, eps), from which every other form follows. This algebra is written here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

Form = Literal["x0", "eps", "v", "velocity", "score"]


@dataclass(frozen=True)
class PathPoint:
    """A point on a path: the factors of signal and noise, and their derivatives with respect to t.

    Args:
        alpha: factor of the signal, (batch,).
        sigma: factor of the noise, (batch,).
        d_alpha: derivative of alpha, (batch,).
        d_sigma: derivative of sigma, (batch,).
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor

    def mix(self, x0: Tensor, eps: Tensor) -> Tensor:
        """Return the noisy signal ``alpha * x0 + sigma * eps``; all have shape (batch, *event)."""
        return expand_like(self.alpha, x0) * x0 + expand_like(self.sigma, x0) * eps


def linear(t: Tensor) -> PathPoint:
    """Return a point of the straight path from signal to noise: alpha = 1 - t, sigma = t.

    Args:
        t: time, (batch,), 0 to 1.

    Reference:
        Flow Straight and Fast, 2022, arXiv:2209.03003; Flow Matching for Generative Modeling, 2022, arXiv:2210.02747.
    """
    return PathPoint(1 - t, t, -torch.ones_like(t), torch.ones_like(t))


def cosine(t: Tensor) -> PathPoint:
    """Return a point of the variance-preserving path: alpha = cos(pi t / 2), sigma = sin(pi t / 2).

    Args:
        t: time, (batch,), 0 to 1.

    Reference:
        Improved Denoising Diffusion Probabilistic Models, 2021, arXiv:2102.09672; Progressive Distillation for
        Fast Sampling of Diffusion Models, 2022, arXiv:2202.00512 (the angle).
    """
    angle = math.pi / 2 * t
    return PathPoint(angle.cos(), angle.sin(), -math.pi / 2 * angle.sin(), math.pi / 2 * angle.cos())


def exploding(sigma: Tensor) -> PathPoint:
    """Return a point of the variance-exploding path, with sigma itself as the time: alpha = 1.

    Args:
        sigma: noise level in signal units, (batch,).

    Reference:
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364.
    """
    return PathPoint(torch.ones_like(sigma), sigma, torch.zeros_like(sigma), torch.ones_like(sigma))


def preserving(ratio: Tensor) -> PathPoint:
    """Return a point of the variance-preserving path, with the ratio sigma / alpha as the time.

    Args:
        ratio: noise level relative to the signals, (batch,).

    Reference:
        Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239, eq. 4; Denoising Diffusion Implicit Models,
        2020, arXiv:2010.02502, eq. 14 (the ratio).
    """
    alpha = (1 + ratio.square()).rsqrt()
    return PathPoint(alpha, alpha * ratio, -ratio * alpha**3, alpha**3)


def linear_betas(timesteps: int) -> Tensor:
    """Return the variances that DDPM adds in each step: linear, 1e-4 to 0.02 for 1000 timesteps.

    Other numbers of timesteps take some of these noise levels, or levels in between: the last one is always the same.

    Args:
        timesteps: number of timesteps.

    Returns:
        Variances, (timesteps,), float64.

    Reference:
        Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239, section 4; Improved Denoising Diffusion
        Probabilistic Models, 2021, arXiv:2102.09672, eq. 19 (some of the timesteps).
    """
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    log_powers = torch.cat([betas.new_zeros(1), (-betas).log1p().cumsum(dim=0)])  # of the signal after 0 to 1000 steps
    position = torch.linspace(0, 1000, timesteps + 1, dtype=torch.float64)
    below = position.long().clamp_max(999)
    chosen = torch.lerp(log_powers[below], log_powers[below + 1], position - below)
    return -chosen.diff().expm1()


def cosine_betas(timesteps: int, offset: float = 0.008) -> Tensor:
    """Return the variances of a step for which the signal decreases as a squared cosine.

    Args:
        timesteps: number of timesteps.
        offset: keeps the first variances from vanishing.

    Returns:
        Variances, (timesteps,), float64.

    Reference:
        Improved Denoising Diffusion Probabilistic Models, 2021, arXiv:2102.09672, eq. 17.
    """
    t = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    power = ((t + offset) / (1 + offset) * math.pi / 2).cos().square()
    return (1 - power[1:] / power[:-1]).clamp_max(0.999)


def noise_ratios(betas: Tensor) -> Tensor:
    """Return sigma / alpha of each timestep, increasing.

    Args:
        betas: variances that each step adds to signals of unit variance, (timesteps,).

    Returns:
        Ratios, (timesteps,).

    Reference:
        Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239, eq. 4.
    """
    signal_power = (1 - betas).cumprod(dim=0)  # alpha-bar of the paper, alpha^2 here
    return ((1 - signal_power) / signal_power).sqrt()


def convert(value: Tensor, x: Tensor, point: PathPoint, source: Form, target: Form) -> Tensor:
    """Convert a prediction at ``x`` from one form to another.

    ``v`` is ``alpha * eps - sigma * x0``, ``velocity`` is dx/dt, ``score`` the gradient of the log-density of x.
    Forms that divide by alpha or sigma are undefined where it is 0.

    Args:
        value: the prediction, (batch, *event).
        x: the noisy signal, (batch, *event).
        point: where on the path x is.
        source: form of ``value``.
        target: form of the result.

    Returns:
        The prediction in the form ``target``, (batch, *event).
    """
    if source == target:
        return value
    x0, eps = _signal_and_noise(value, x, point, source)
    alpha, sigma, d_alpha, d_sigma = _expanded(point, x)
    if target == "x0":
        return x0
    if target == "eps":
        return eps
    if target == "v":
        return alpha * eps - sigma * x0
    if target == "velocity":
        return d_alpha * x0 + d_sigma * eps
    return -eps / sigma


def _signal_and_noise(value: Tensor, x: Tensor, point: PathPoint, source: Form) -> tuple[Tensor, Tensor]:
    """Return the pair (x0, eps) that a prediction determines."""
    alpha, sigma, d_alpha, d_sigma = _expanded(point, x)
    if source == "x0":
        return value, (x - alpha * value) / sigma
    if source in ("eps", "score"):
        eps = value if source == "eps" else -sigma * value
        return (x - sigma * eps) / alpha, eps
    # x and the value are two linear equations for x0 and eps
    a, b = (-sigma, alpha) if source == "v" else (d_alpha, d_sigma)
    determinant = alpha * b - sigma * a
    return (b * x - sigma * value) / determinant, (alpha * value - a * x) / determinant


def _expanded(point: PathPoint, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    alpha, sigma, d_alpha, d_sigma = (
        expand_like(p, x) for p in (point.alpha, point.sigma, point.d_alpha, point.d_sigma)
    )
    return alpha, sigma, d_alpha, d_sigma


class Preconditioning(NamedTuple):
    """Factors of ``D(x, sigma) = c_skip * x + c_out * F(c_in * x, c_noise)``.

    Inputs and targets of the network F then have unit variance.
    """

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def precondition(sigma: Tensor, sigma_data: float | Tensor) -> Preconditioning:
    """Return the preconditioning of a denoiser.

    Args:
        sigma: standard deviation of the noise in signal units, any shape.
        sigma_data: standard deviation of the signals; it broadcasts against sigma.

    Returns:
        Factors of the broadcast shape; ``c_noise`` has the shape of sigma.

    Reference:
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364, table 1.
    """
    total = sigma.square() + sigma_data**2
    return Preconditioning(
        c_skip=sigma_data**2 / total,
        c_out=sigma * sigma_data / total.sqrt(),
        c_in=1 / total.sqrt(),
        c_noise=sigma.clamp_min(1e-20).log() / 4,
    )


def karras_sigmas(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Return the noise levels of ``n`` steps, decreasing and ending at 0, denser at low noise.

    Args:
        n: number of steps.
        sigma_min: last level above 0.
        sigma_max: first level.
        rho: curvature; 1 is linear.

    Returns:
        Levels, (n + 1,).

    Reference:
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364, eq. 5.

    >>> [round(float(s), 3) for s in karras_sigmas(3, 0.002, 80.0)]
    [80.0, 2.515, 0.002, 0.0]
    """
    ramp = torch.linspace(0, 1, n, dtype=torch.float32) if n > 1 else torch.zeros(1, dtype=torch.float32)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float32)])


def expand_like(p: Tensor, x: Tensor) -> Tensor:
    """Append axes to one number per example, so that it broadcasts against signals.

    Args:
        p: numbers, (batch,) or ().
        x: signals, (batch, *event).

    Returns:
        The numbers with dtype and device of x, (batch, 1, ...) or ().
    """
    return p.to(x).reshape(-1, *[1] * (x.ndim - 1)) if p.ndim else p.to(x)


def noise_like(x: Tensor, generator: Generator | None) -> Tensor:
    """Return standard normal noise of the shape of x, drawn on the CPU so that seeds agree across devices."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device="cpu").to(x.device)


def standard_normal(shape: Sequence[int], generator: Generator | None) -> Tensor:
    """Return standard normal noise in float32 on the CPU, so that seeds agree whatever the defaults of torch are."""
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def standard_uniform(shape: Sequence[int], generator: Generator | None) -> Tensor:
    """Return uniform noise from 0 to 1, as `standard_normal`."""
    return torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")
