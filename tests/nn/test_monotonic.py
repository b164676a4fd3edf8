"""Monotonic functions: inverses, slopes against autograd, the identity at zero, known values."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from denoise.nn.monotonic import BOUND, UNIVARIATES, CubicSpline, MixtureLogistic, QuadraticSpline

BINS = 6


def draw(name: str, scale: float, seed: int = 0, n: int = 300, dtype: torch.dtype = torch.float64) -> Any:
    univariate, shapes = UNIVARIATES[name]
    generator = torch.Generator().manual_seed(seed)
    return univariate(*(scale * torch.randn(n, *shape, generator=generator, dtype=dtype) for shape in shapes(BINS)))


@pytest.mark.parametrize("name", UNIVARIATES)
@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.1, 2), seed=st.integers(0, 1 << 30), spread=st.floats(0.1, 8))
def test_laws(name: str, scale: float, seed: int, spread: float) -> None:
    function = draw(name, scale, seed)
    x = (spread * torch.randn(300, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).requires_grad_()
    y, log_slope = function.call_and_ladj(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope.log(), log_slope)
    torch.testing.assert_close(function.inv(y), x, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(function.log_abs_det_jacobian(x, y), log_slope)
    above, _ = function.call_and_ladj(x + 0.01)
    assert (above > y).all()


@pytest.mark.parametrize("name", ["quadratic", "cubic"])
def test_splines_are_the_identity_for_zeros_and_beyond_the_bound(name: str) -> None:
    x = torch.linspace(-9, 9, 300)
    torch.testing.assert_close(draw(name, 0.0, dtype=torch.float32)(x), x)
    beyond = x.where(x.abs() > BOUND, 6.0)
    function = draw(name, 2.0, dtype=torch.float32)
    assert torch.equal(function(beyond), beyond)
    assert torch.equal(function.inv(beyond), beyond)
    ends = torch.tensor([-BOUND, BOUND])[:, None]
    torch.testing.assert_close(function(ends * (1 - 1e-6)), ends.expand(2, 300), atol=0.01, rtol=0)


def test_splines_are_continuous_with_their_slope_at_the_knots() -> None:
    for name in ("quadratic", "cubic"):
        function = draw(name, 1.0, n=1)
        x = torch.linspace(-BOUND + 0.01, BOUND - 0.01, 200_001, dtype=torch.float64)
        y, log_slope = function.call_and_ladj(x)
        step = x[1] - x[0]
        assert y.diff().max() < 1.01 * step * log_slope.exp().max()
        assert log_slope.exp().diff().abs().max() < 0.02


def test_a_quadratic_spline_integrates_its_density() -> None:
    widths, densities = torch.zeros(2), torch.tensor([0.0, 1.0, 2.0])
    v = torch.nn.functional.softplus(densities) + 1e-3
    total = 0.25 * (v[0] + 2 * v[1] + v[2])
    function = QuadraticSpline(widths, densities)
    middle = 0.25 * (v[0] + v[1]) / total
    torch.testing.assert_close(function(torch.tensor(0.0)), BOUND * (2 * middle - 1))
    torch.testing.assert_close(function.call_and_ladj(torch.tensor(0.0))[1], (v[1] / total).log())


def test_a_cubic_spline_goes_through_its_knots() -> None:
    raw = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    function = CubicSpline(torch.zeros(3, dtype=torch.float64), raw, torch.zeros(2, dtype=torch.float64))
    fractions = 1e-3 + (1 - 3e-3) * raw.softmax(0)
    knots = torch.tensor([-1 / 3, 1 / 3], dtype=torch.float64)
    heights = (1 - 1e-3) * fractions.cumsum(0)[:2] + 1e-3 * torch.tensor([1 / 3, 2 / 3], dtype=torch.float64)
    torch.testing.assert_close(function(BOUND * knots), BOUND * (2 * heights - 1))


def test_one_logistic_is_affine_in_its_logit() -> None:
    def parameter(value: float) -> Tensor:
        return torch.tensor([value], dtype=torch.float64)

    function = MixtureLogistic(parameter(0.5)[0], parameter(0.0)[0], parameter(1.0), parameter(2.0), parameter(0.7))
    x = torch.linspace(-40, 40, 100, dtype=torch.float64)
    mean = 2.0 - 1.0  # the grid of one component is its lower end
    torch.testing.assert_close(function(x), (x - mean) * math.exp(-0.7) + 0.5)
    assert torch.isfinite(function.call_and_ladj(1000 * x)[1]).all()
