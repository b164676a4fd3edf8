"""Every form of a prediction is the same knowledge, and the levels are what they are said to be."""

from itertools import permutations
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoise.probability_path import Form, convert, cosine, expand_like, exploding, karras_sigmas, linear, precondition

PATHS = {"linear": linear, "cosine": cosine, "exploding": exploding}


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(4, 2, 3, generator=generator, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("have", "want"), [*permutations(get_args(Form), 2)])
def test_there_and_back(path: str, have: Form, want: Form) -> None:
    x0, eps = drawn()
    at = PATHS[path](torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64))
    x = at.mix(x0, eps)
    value = convert(x0, x, at, "x0", have)
    there = convert(value, x, at, have, want)
    torch.testing.assert_close(convert(there, x, at, want, have), value, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(convert(there, x, at, want, "x0"), x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(convert(there, x, at, want, "eps"), eps, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("path", PATHS)
def test_the_velocity_is_the_derivative_of_the_mix(path: str) -> None:
    x0, eps = drawn()
    t = torch.tensor([0.2, 0.4, 0.5, 0.9], dtype=torch.float64)
    at, before, after = PATHS[path](t), PATHS[path](t - 1e-6), PATHS[path](t + 1e-6)
    expected = (after.mix(x0, eps) - before.mix(x0, eps)) / 2e-6
    torch.testing.assert_close(convert(x0, at.mix(x0, eps), at, "x0", "velocity"), expected, rtol=1e-6, atol=1e-6)


def test_the_score_is_the_gradient_of_the_density() -> None:
    """Of Gaussian signals of deviation 0.5, whose noisy density and best denoiser are known."""
    at = exploding(torch.tensor([0.3, 2.0], dtype=torch.float64))
    x = drawn()[0][:2].requires_grad_()
    total = 0.25 + at.sigma.square()
    log_density = (-x.square() / (2 * expand_like(total, x))).sum()
    (expected,) = torch.autograd.grad(log_density, x)
    x0 = 0.25 / expand_like(total, x) * x
    torch.testing.assert_close(convert(x0, x, at, "x0", "score"), expected)


@given(sigma=st.floats(1e-3, 100.0), data=st.floats(0.05, 5.0))
def test_the_network_hears_and_gives_unit_variance(sigma: float, data: float) -> None:
    c = precondition(torch.tensor(sigma, dtype=torch.float64), data)
    assert float(c.c_in**2 * (data**2 + sigma**2)) == pytest.approx(1)
    # what is left to give: x0 - skip * x = (1 - skip) x0 - skip sigma eps
    left = (1 - c.c_skip) ** 2 * data**2 + (c.c_skip * sigma) ** 2
    assert float(left / c.c_out**2) == pytest.approx(1)


@given(n=st.integers(1, 50), rho=st.floats(1, 10))
def test_sigmas_fall_from_the_largest_to_nothing(n: int, rho: float) -> None:
    sigmas = karras_sigmas(n, 0.01, 20.0, rho)
    assert sigmas.shape == (n + 1,)
    assert float(sigmas[0]) == pytest.approx(20.0, rel=1e-4)
    assert float(sigmas[-1]) == 0
    assert (sigmas.diff() < 0).all()
    if n > 1:
        assert float(sigmas[-2]) == pytest.approx(0.01, rel=1e-3)
