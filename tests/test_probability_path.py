"""Conversions between forms of a prediction, preconditioning and noise levels."""

from itertools import permutations
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoise.probability_path import Form, convert, cosine, expand_like, exploding, karras_sigmas, linear, precondition

PATHS = {"linear": linear, "cosine": cosine, "exploding": exploding}


def make_pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(4, 2, 3, generator=generator, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("source", "target"), [*permutations(get_args(Form), 2)])
def test_conversions_are_invertible(path: str, source: Form, target: Form) -> None:
    x0, eps = make_pair()
    point = PATHS[path](torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64))
    x = point.mix(x0, eps)
    value = convert(x0, x, point, "x0", source)
    converted = convert(value, x, point, source, target)
    torch.testing.assert_close(convert(converted, x, point, target, source), value, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(convert(converted, x, point, target, "x0"), x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(convert(converted, x, point, target, "eps"), eps, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("path", PATHS)
def test_the_velocity_is_the_derivative_of_the_mix(path: str) -> None:
    x0, eps = make_pair()
    t = torch.tensor([0.2, 0.4, 0.5, 0.9], dtype=torch.float64)
    point, left, right = PATHS[path](t), PATHS[path](t - 1e-6), PATHS[path](t + 1e-6)
    expected = (right.mix(x0, eps) - left.mix(x0, eps)) / 2e-6
    torch.testing.assert_close(convert(x0, point.mix(x0, eps), point, "x0", "velocity"), expected, rtol=1e-6, atol=1e-6)


def test_the_score_is_the_gradient_of_the_density() -> None:
    """Of Gaussian signals with standard deviation 0.5, whose noisy density and optimal denoiser have closed forms."""
    point = exploding(torch.tensor([0.3, 2.0], dtype=torch.float64))
    x = make_pair()[0][:2].requires_grad_()
    total = 0.25 + point.sigma.square()
    log_density = (-x.square() / (2 * expand_like(total, x))).sum()
    (expected,) = torch.autograd.grad(log_density, x)
    x0 = 0.25 / expand_like(total, x) * x
    torch.testing.assert_close(convert(x0, x, point, "x0", "score"), expected)


@given(sigma=st.floats(1e-3, 100.0), data=st.floats(0.05, 5.0))
def test_inputs_and_targets_of_the_network_have_unit_variance(sigma: float, data: float) -> None:
    c = precondition(torch.tensor(sigma, dtype=torch.float64), data)
    assert float(c.c_in**2 * (data**2 + sigma**2)) == pytest.approx(1)
    # target: x0 - c_skip x = (1 - c_skip) x0 - c_skip sigma eps
    variance = (1 - c.c_skip) ** 2 * data**2 + (c.c_skip * sigma) ** 2
    assert float(variance / c.c_out**2) == pytest.approx(1)


@given(n=st.integers(1, 50), rho=st.floats(1, 10))
def test_sigmas_decrease_from_the_maximum_to_zero(n: int, rho: float) -> None:
    sigmas = karras_sigmas(n, 0.01, 20.0, rho)
    assert sigmas.shape == (n + 1,)
    assert float(sigmas[0]) == pytest.approx(20.0, rel=1e-4)
    assert float(sigmas[-1]) == 0
    assert (sigmas.diff() < 0).all()
    if n > 1:
        assert float(sigmas[-2]) == pytest.approx(0.01, rel=1e-3)
