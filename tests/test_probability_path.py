"""Conversions between forms of a prediction, preconditioning and noise levels."""

import math
from collections.abc import Callable
from itertools import permutations
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoise.probability_path import (
    Form,
    convert,
    cosine,
    cosine_betas,
    expand_like,
    exploding,
    karras_sigmas,
    linear,
    linear_betas,
    noise_ratios,
    precondition,
    preserving,
)

PATHS = {"linear": linear, "cosine": cosine, "exploding": exploding, "preserving": preserving}


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


@given(ratio=st.floats(1e-4, 1e4))
def test_the_preserving_path_keeps_the_variance(ratio: float) -> None:
    point = preserving(torch.tensor(ratio, dtype=torch.float64))
    assert float(point.alpha**2 + point.sigma**2) == pytest.approx(1)
    assert float(point.sigma / point.alpha) == pytest.approx(ratio)


def test_the_linear_schedule_is_that_of_the_paper() -> None:
    betas = linear_betas(1000)
    assert float(betas[0]) == pytest.approx(1e-4)
    assert float(betas[-1]) == pytest.approx(0.02)
    assert betas.diff().diff().abs().max() < 1e-12
    few, many = (float((1 - linear_betas(n)).log().sum()) for n in (100, 1000))  # log of the signal's power at the end
    assert few == pytest.approx(many, rel=0.1)


@pytest.mark.parametrize("timesteps", [4, 10, 20])
def test_few_linear_timesteps_are_some_of_the_thousand(timesteps: int) -> None:
    power, powers = 1.0, []
    for t in range(1, 1001):
        power *= 1 - (1e-4 + (0.02 - 1e-4) * (t - 1) / 999)
        if t % (1000 // timesteps) == 0:
            powers.append(power)
    ratios = noise_ratios(linear_betas(timesteps))
    assert ratios.tolist() == pytest.approx([((1 - power) / power) ** 0.5 for power in powers])
    assert float(ratios[-1]) == pytest.approx(157.4, abs=0.1)


def test_the_cosine_schedule_follows_a_squared_cosine() -> None:
    betas = cosine_betas(1000)
    power = 1 / (1 + noise_ratios(betas) ** 2)
    angles = [(t / 1000 + 0.008) / 1.008 * math.pi / 2 for t in range(1001)]
    for t in (1, 100, 500, 900, 999):
        assert float(power[t - 1]) == pytest.approx(math.cos(angles[t]) ** 2 / math.cos(angles[0]) ** 2, rel=1e-9)
    assert float(betas[-1]) == 0.999


@pytest.mark.parametrize("schedule", [linear_betas, cosine_betas])
def test_noise_ratios_are_those_of_adding_noise_step_by_step(schedule: Callable[[int], torch.Tensor]) -> None:
    betas = schedule(50)
    alpha, variance = 1.0, 0.0
    for beta, ratio in zip(betas.tolist(), noise_ratios(betas).tolist(), strict=True):
        alpha, variance = alpha * (1 - beta) ** 0.5, (1 - beta) * variance + beta
        assert variance + alpha**2 == pytest.approx(1)
        assert ratio == pytest.approx(variance**0.5 / alpha, rel=1e-6)
