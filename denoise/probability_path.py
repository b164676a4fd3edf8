"""How signals turn into noise and back: levels, what networks predict of them, and every conversion between.

A path mixes a signal with white noise, ``x = alpha * x0 + sigma * eps``, from ``t = 0`` (the signal) to
``t = 1`` (noise). What a network predicts at a point of it (the noise, the signal, a velocity, the score) is
always the same knowledge: a pair (x0, eps), from which every other form follows. The algebra stands here alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

Form = Literal["x0", "eps", "v", "velocity", "score"]


@dataclass(frozen=True)
class Point:
    """A place on a path: how much signal and how much noise is in ``x``, and how fast that changes with t.

    Shape:
        all: (batch,), or any that broadcasts against it.
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor

    def mix(self, x0: Tensor, eps: Tensor) -> Tensor:
        """The noisy signal. Shape: x0, eps, returns (batch, *event)."""
        return like(self.alpha, x0) * x0 + like(self.sigma, x0) * eps


def linear(t: Tensor) -> Point:
    """Straight lines from signal to noise: alpha = 1 - t, sigma = t.

    Reference:
        Flow Straight and Fast, 2022, arXiv:2209.03003; Flow Matching for Generative Modeling, 2022, arXiv:2210.02747.
    """
    return Point(1 - t, t, -torch.ones_like(t), torch.ones_like(t))


def cosine(t: Tensor) -> Point:
    """Variance preserving: alpha = cos(pi t / 2), sigma = sin(pi t / 2).

    Reference:
        Improved Denoising Diffusion Probabilistic Models, 2021, arXiv:2102.09672; Progressive Distillation for
        Fast Sampling of Diffusion Models, 2022, arXiv:2202.00512 (the angle).
    """
    angle = math.pi / 2 * t
    return Point(angle.cos(), angle.sin(), -math.pi / 2 * angle.sin(), math.pi / 2 * angle.cos())


def exploding(sigma: Tensor) -> Point:
    """Variance exploding, with sigma itself as the time: alpha = 1.

    Reference:
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364.
    """
    return Point(torch.ones_like(sigma), sigma, torch.zeros_like(sigma), torch.ones_like(sigma))


def convert(value: Tensor, x: Tensor, at: Point, have: Form, want: Form) -> Tensor:
    """Turn one form of a prediction at ``x`` into another.

    ``v`` is ``alpha * eps - sigma * x0``, ``velocity`` is dx/dt, ``score`` the gradient of the log-density of x.
    Forms that divide by alpha or sigma have no answer where it is 0.

    Shape:
        value, x, returns: (batch, *event).
    """
    if have == want:
        return value
    x0, eps = _pair(value, x, at, have)
    alpha, sigma, d_alpha, d_sigma = (like(p, x) for p in (at.alpha, at.sigma, at.d_alpha, at.d_sigma))
    if want == "x0":
        return x0
    if want == "eps":
        return eps
    if want == "v":
        return alpha * eps - sigma * x0
    if want == "velocity":
        return d_alpha * x0 + d_sigma * eps
    return -eps / sigma


def _pair(value: Tensor, x: Tensor, at: Point, have: Form) -> tuple[Tensor, Tensor]:
    """The signal and the noise that a prediction speaks of."""
    alpha, sigma, d_alpha, d_sigma = (like(p, x) for p in (at.alpha, at.sigma, at.d_alpha, at.d_sigma))
    if have == "x0":
        return value, (x - alpha * value) / sigma
    if have in ("eps", "score"):
        eps = value if have == "eps" else -sigma * value
        return (x - sigma * eps) / alpha, eps
    # two equations, x and the value, for x0 and eps
    a, b = (-sigma, alpha) if have == "v" else (d_alpha, d_sigma)
    determinant = alpha * b - sigma * a
    return (b * x - sigma * value) / determinant, (alpha * value - a * x) / determinant


class Preconditioning(NamedTuple):
    """``D(x, sigma) = skip * x + out * F(into * x, noise)``: F then sees and gives signals of unit variance."""

    skip: Tensor
    out: Tensor
    into: Tensor
    noise: Tensor


def precondition(sigma: Tensor, sigma_data: float | Tensor) -> Preconditioning:
    """The factors for a network that hears signals of standard deviation ``sigma_data`` under noise of ``sigma``.

    Shape:
        sigma, sigma_data: any that go together; of the factors, ``noise`` is as sigma.

    Reference:
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364, table 1.
    """
    total = sigma.square() + sigma_data**2
    return Preconditioning(
        sigma_data**2 / total, sigma * sigma_data / total.sqrt(), 1 / total.sqrt(), sigma.clamp_min(1e-20).log() / 4
    )


def karras_sigmas(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Noise levels for ``n`` steps, decreasing and ending at 0, dense where signals take shape.

    Shape:
        returns: (n + 1,).
    Reference:
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364, eq. 5.

    >>> [round(float(s), 3) for s in karras_sigmas(3, 0.002, 80.0)]
    [80.0, 2.515, 0.002, 0.0]
    """
    ramp = torch.linspace(0, 1, n) if n > 1 else torch.zeros(1)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1)])


def like(p: Tensor, x: Tensor) -> Tensor:
    """Let one number per example act on all of its entries. Shape: p (batch,) or (), returns (batch, 1, ...)."""
    return p.to(x).reshape(-1, *[1] * (x.ndim - 1)) if p.ndim else p.to(x)


def noise_like(x: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal noise, drawn on the CPU so that a seed means the same on all devices. Shape: as x."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
