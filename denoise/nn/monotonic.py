"""Monotonic functions of one variable for couplings and autoregressive flows, beside those of zuko.

Each takes the raw outputs of a network. Where these are zero, splines are the identity, or nearly so; the mixture of
logistic distributions has a slope of 1 far from the centre and is flatter there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.nn import functional as F

BOUND = 5.0  # splines are the identity beyond it, as those of zuko
MIN_SLOPE = MIN_FRACTION = 1e-3  # of a spline, and the least width of a bin
BISECTIONS = 30  # down to the precision of float32


class Monotonic(Transform, ABC):
    """A monotonically increasing function of each entry; subclasses define it with its slope, and its inverse."""

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = 1

    @abstractmethod
    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values and the logarithms of the slopes at ``x``."""

    def _call(self, x: Tensor) -> Tensor:
        return self.evaluate(x)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the logarithms of the slopes at ``x``."""
        return self.evaluate(x)[1]

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values and the logarithms of the slopes, as transforms of zuko do."""
        return self.evaluate(x)


class Spline(Monotonic):
    """Piecewise polynomials that map [-`BOUND`, `BOUND`] to itself; the identity beyond.

    Args:
        horizontal: knots, (..., bins + 1), from 0 to 1.
        vertical: values at the knots, of the same shape, from 0 to 1.
        slopes: slopes at the knots, of the same shape.
    """

    def __init__(self, horizontal: Tensor, vertical: Tensor, slopes: Tensor) -> None:
        super().__init__()
        self._knots = torch.stack(torch.broadcast_tensors(horizontal, vertical, slopes))

    @abstractmethod
    def polynomial(self, left: Tensor, right: Tensor) -> tuple[Tensor, ...]:
        """Return the coefficients of a bin, of the first to the highest power of t, its relative position.

        Args:
            left: position, value and slope at its left end, (3, ...).
            right: those at its right end.

        Returns:
            Coefficients of the value above that of the left end.
        """

    @abstractmethod
    def solve(self, coefficients: tuple[Tensor, ...], rise: Tensor) -> Tensor:
        """Return the relative position in a bin where its polynomial has risen by ``rise``."""

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values and the logarithms of the slopes at ``x``."""
        unit = 0.5 + x / (2 * BOUND)
        is_inside, left, right = self._bin(0, unit)
        width = right[0] - left[0]
        t = ((unit - left[0]) / width).where(is_inside, torch.zeros_like(unit))
        value, slope = _horner(self.polynomial(left, right), t)
        y = BOUND * (2 * (left[1] + value) - 1)
        return torch.where(is_inside, y, x), torch.where(is_inside, (slope / width).log(), torch.zeros_like(x))

    def _inverse(self, y: Tensor) -> Tensor:
        unit = 0.5 + y / (2 * BOUND)
        is_inside, left, right = self._bin(1, unit)
        rise = (unit - left[1]).where(is_inside, torch.zeros_like(unit))
        t = self.solve(self.polynomial(left, right), rise)
        return torch.where(is_inside, BOUND * (2 * (left[0] + t * (right[0] - left[0])) - 1), y)

    def _bin(self, axis: int, unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return which numbers are within the bound, and the ends of their bins by positions (0) or values (1)."""
        batch = self._knots.shape[1:-1]
        shape = torch.broadcast_shapes(unit.shape, batch)
        knots = self._knots.view(3, *[1] * (len(shape) - len(batch)), *batch, -1).expand(3, *shape, -1)
        k = (knots[axis, ..., 1:-1] < unit[..., None]).sum(dim=-1)
        left, right = (knots.gather(-1, (k + i).expand(3, *shape)[..., None])[..., 0] for i in (0, 1))
        return (unit > 0) & (unit < 1), left, right


class QuadraticSpline(Spline):
    """Piecewise quadratic: the integral of a piecewise linear density.

    Args:
        widths: raw widths of the bins, (..., bins).
        densities: raw densities at the knots, (..., bins + 1).

    Reference:
        Neural Importance Sampling, 2018, arXiv:1808.03856, section 3.2.
    """

    def __init__(self, widths: Tensor, densities: Tensor) -> None:
        width, density = _fractions(widths), F.softplus(densities) + MIN_SLOPE
        area = 0.5 * (density[..., 1:] + density[..., :-1]) * width
        total = area.sum(dim=-1, keepdim=True)
        super().__init__(_knots(width), _knots(area / total), density / total)

    def polynomial(self, left: Tensor, right: Tensor) -> tuple[Tensor, ...]:
        """Return the linear and the quadratic coefficient."""
        width = right[0] - left[0]
        return width * left[2], 0.5 * width * (right[2] - left[2])

    def solve(self, coefficients: tuple[Tensor, ...], rise: Tensor) -> Tensor:
        """Solve the quadratic equation by the form without cancellation."""
        b, a = coefficients
        return 2 * rise / (b + (b.square() + 4 * a * rise).clamp_min(0).sqrt())


class CubicSpline(Spline):
    """Piecewise cubic, with slopes at the inner knots that keep it monotonic.

    Args:
        widths: raw widths of the bins, (..., bins).
        heights: raw heights of the bins, (..., bins).
        ends: raw slopes at both ends, (..., 2).

    Reference:
        Cubic-Spline Flows, 2019, arXiv:1906.02145. The cubic equation is solved by bisection and a step of Newton's
        method, as its closed form is inexact in float32.
    """

    def __init__(self, widths: Tensor, heights: Tensor, ends: Tensor) -> None:
        width = _fractions(widths)
        height = _fractions(heights)
        secant = height / width
        before, after = secant[..., :-1], secant[..., 1:]
        parabola = before * width[..., 1:] + after * width[..., :-1]
        parabola = parabola / (width[..., 1:] + width[..., :-1])
        inner = 2 * torch.minimum(torch.minimum(before, after), 0.5 * parabola)  # Steffen 1990, for positive secants
        end = 3 * torch.sigmoid(ends - math.log(2)) * secant[..., [0, -1]]
        slopes = torch.cat([end[..., :1], inner, end[..., 1:]], dim=-1)
        horizontal = _knots(width)
        vertical = (1 - MIN_SLOPE) * _knots(height) + MIN_SLOPE * horizontal
        super().__init__(horizontal, vertical, (1 - MIN_SLOPE) * slopes + MIN_SLOPE)

    def polynomial(self, left: Tensor, right: Tensor) -> tuple[Tensor, ...]:
        """Return the coefficients of the cubic with the given values and slopes at both ends."""
        (width, height, _), d0, d1 = right - left, left[2], right[2]
        return width * d0, 3 * height - width * (2 * d0 + d1), width * (d0 + d1) - 2 * height

    def solve(self, coefficients: tuple[Tensor, ...], rise: Tensor) -> Tensor:
        """Solve the cubic equation."""
        return bisect(lambda t: _horner(coefficients, t), rise, torch.zeros_like(rise), torch.ones_like(rise))


class MixtureLogistic(Monotonic):
    """The logit of the distribution function of a mixture of logistics, then an affine function.

    Args:
        shift: shift of the result, (...,).
        log_scale: raw logarithm of its scale, (...,).
        logits: of the weights of the components, (..., components).
        means: raw means of the components, (..., components), counted from an even grid, on which they start.
        log_scales: logarithms of their scales, (..., components).

    Reference:
        Flow++, 2019, arXiv:1902.00275, section 3.2.
    """

    def __init__(self, shift: Tensor, log_scale: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor) -> None:
        super().__init__()
        self._shift, self._log_scale = shift, 3 * torch.tanh(log_scale / 3)
        self._log_weights = logits.log_softmax(dim=-1)
        grid = torch.linspace(-1, 1, means.shape[-1], device=means.device, dtype=means.dtype)
        self._means, self._log_scales = means + grid, log_scales.clamp(-6, 6)

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values and the logarithms of the slopes at ``x``."""
        logit, log_slope = self._logit(x)
        return self._log_scale.exp() * logit + self._shift, log_slope + self._log_scale

    def _logit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u = (x[..., None] - self._means) * (-self._log_scales).exp()
        below, above = self._log_weights + F.logsigmoid(u), self._log_weights + F.logsigmoid(-u)
        log_cdf, log_survival = below.logsumexp(dim=-1), above.logsumexp(dim=-1)  # both exact in their own tail
        log_density = (below + F.logsigmoid(-u) - self._log_scales).logsumexp(dim=-1)
        return log_cdf - log_survival, log_density - log_cdf - log_survival

    def _inverse(self, y: Tensor) -> Tensor:
        logit = (y - self._shift) * (-self._log_scale).exp()
        ends = self._means + self._log_scales.exp() * logit[..., None]  # where each component alone has this logit

        def value_and_slope(x: Tensor) -> tuple[Tensor, Tensor]:
            value, log_slope = self._logit(x)
            return value, log_slope.exp()

        return bisect(value_and_slope, logit, ends.amin(dim=-1), ends.amax(dim=-1))


def bisect(function: Callable[[Tensor], tuple[Tensor, Tensor]], y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Invert an increasing function by bisection and a step of Newton's method, through which gradients flow.

    Args:
        function: returns values and slopes at positions.
        y: values, any shape.
        low: lower bounds of the positions, of the same shape.
        high: upper bounds.

    Returns:
        Positions, of the same shape.
    """
    with torch.no_grad():
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            is_below = function(middle)[0] < y
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        x = 0.5 * (low + high)
        width = (high - low).clamp_min(torch.finfo(x.dtype).eps * x.abs().clamp_min(1))
    value, slope = function(x)
    step = (y - value) / slope.detach().clamp_min(torch.finfo(x.dtype).tiny)
    return x + step.clamp(-width, width)


UNIVARIATES: dict[str, tuple[Any, Callable[[int], list[tuple[int, ...]]]]] = {
    "quadratic": (QuadraticSpline, lambda n: [(n,), (n + 1,)]),
    "cubic": (CubicSpline, lambda n: [(n,), (n,), (2,)]),
    "mixture-logistic": (MixtureLogistic, lambda n: [(), (), (n,), (n,), (n,)]),
}
"""Functions by name, with the shapes of their arguments for a number of bins or components."""


def _fractions(raw: Tensor) -> Tensor:
    """Return positive numbers of sum 1 along the last axis, none of which is tiny."""
    n = raw.shape[-1]
    return MIN_FRACTION + (1 - MIN_FRACTION * n) * raw.softmax(dim=-1)


def _knots(steps: Tensor) -> Tensor:
    """Return the cumulative sums from 0 to exactly 1."""
    inner = steps.cumsum(dim=-1)[..., :-1]
    return torch.cat([torch.zeros_like(steps[..., :1]), inner, torch.ones_like(steps[..., :1])], dim=-1)


def _horner(coefficients: tuple[Tensor, ...], t: Tensor) -> tuple[Tensor, Tensor]:
    """Return a polynomial without constant term, and its derivative, at ``t``."""
    value, slope = torch.zeros_like(t), torch.zeros_like(t)
    for power, coefficient in reversed(list(enumerate(coefficients, 1))):
        value = (value + coefficient) * t
        slope = slope * t + power * coefficient
    return value, slope
